"""The begin of a study: what is asked for, checked and written down; or held against what is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .. import atomic_files, seeding
from ..config import RunConfig
from ..errors import ConfigError, RunError
from ..evaluation.score_events import check_objectives
from ..registry import spec_name
from ..tables.event_table import EventTable
from ..training import run_directory
from ..training.plan import check_config
from ..training.run_directory import RunDirectory
from . import search_space, study_events
from .trial import read_setup

OBJECTIVES = ("auc_gb", "train_s")
MOST_COST = 2.0
"""A trial that would train for so many times the start's CPU seconds is given up."""


@dataclass(frozen=True)
class Wishes:
    """What is asked of a study, see `flowbdt.tuning.tune`; None is the default, or what it has."""

    base: RunConfig | None = None
    objectives: Sequence[str] | None = None
    search: Mapping[str, Any] | None = None
    max_cost: float | None = None
    folds: int | None = None


def begin(study: RunDirectory, table: EventTable, wishes: Wishes) -> None:
    """Write what a study is: ``study.json`` and its table.

    Raises
    ------
    RunError
        If there is a study already.
    ConfigError
        If a wish cannot be met; nothing is written then.
    """
    if study.file("study.json").exists():
        raise RunError(
            f"{study.path} holds a study already; add --resume to continue it, or choose"
            " another folder"
        )
    base = wishes.base or RunConfig()
    if spec_name(base.coupling) == "given":
        raise ConfigError("tune generates from noise; coupling='given' starts from given events")
    seed = seeding.resolve(base.random_state)
    known = study_events.Parts(table.n, seed, wishes.folds)
    check_config(base)
    n_fit = int(known.fit().sum())
    content = {
        "format": run_directory.FORMAT,
        "base": asdict(replace(base, random_state=seed)),
        "seed": seed,
        "objectives": check_objectives(wishes.objectives or OBJECTIVES),
        "space": _space(base, n_fit, table.names, table.cond_names, wishes.search or {}),
        "max_cost": MOST_COST if wishes.max_cost is None else wishes.max_cost,
        "shares": study_events.SHARES,
        "folds": wishes.folds,
        "n_fit": n_fit,
    }
    study.path.mkdir(parents=True, exist_ok=True)
    study.file("references").mkdir(exist_ok=True)
    described = study_events.write_table(study, table)
    study.write_json("study.json", {**content, "table": described})


def check_same(study: RunDirectory, table: EventTable | None, wishes: Wishes) -> None:
    """Raise RunError if a table or a wish that is given is not that of the study."""
    setup = read_setup(study)
    if table is not None and not _same(table, study_events.read_table(study, setup)):
        raise RunError(f"{study.path} is a study of another table; choose another folder")
    asked = _asked(setup, wishes)
    others = [
        name for name, (value, known) in asked.items() if atomic_files.to_plain(value) != known
    ]
    if others:
        raise RunError(
            f"{study.path} is a study with other {', '.join(others)}; leave that out to continue"
            " it as it was begun, or choose another folder"
        )


def _same(table: EventTable, known: EventTable) -> bool:
    """Whether two tables have the same columns, events, conditions and weights."""
    names = [(one.names, one.cond_names, one.categories) for one in (table, known)]
    if names[0] != names[1]:
        return False
    pairs = [(getattr(table, name), getattr(known, name)) for name in ("x", "cond", "weight")]
    return all(
        mine is other if mine is None or other is None else np.array_equal(mine, other, True)
        for mine, other in pairs
    )


def _asked(setup: Mapping[str, Any], wishes: Wishes) -> dict[str, tuple[Any, Any]]:
    """Return what is asked for and what the study has, by name, of the wishes that are given."""
    asked: dict[str, tuple[Any, Any]] = {}
    base = RunConfig.from_mapping(setup["base"])
    if wishes.base is not None:
        asked["settings"] = (_compared(wishes.base, setup), _compared(base, setup))
    if wishes.objectives is not None:
        asked["objectives"] = (
            check_objectives(wishes.objectives),
            setup["objectives"],
        )
    if wishes.search is not None:
        known = setup["table"]
        sizes = (setup["n_fit"], known["names"], known["cond_names"])
        asked["limits of the search"] = (_space(base, *sizes, wishes.search), setup["space"])
    if wishes.max_cost is not None:
        asked["max_cost"] = (wishes.max_cost, setup["max_cost"])
    if wishes.folds is not None:
        asked["folds"] = (wishes.folds, setup.get("folds"))
    return asked


def _compared(base: RunConfig, setup: Mapping[str, Any]) -> Any:
    """Return settings without the executor, which may change; no seed is the study's seed."""
    seed = setup["seed"] if base.random_state is None else base.random_state
    return atomic_files.to_plain({**asdict(base), "executor": None, "random_state": seed})


def _space(
    base: RunConfig, n_fit: int, names: Sequence[str], cond_names: Sequence[str],
    search: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    known = search_space.model_space(base, n_fit, len(names), len(cond_names))
    return {name: p.to_json() for name, p in search_space.narrowed(known, search).items()}
