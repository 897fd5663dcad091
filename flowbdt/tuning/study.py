"""A study on disk: settings, table, and the shares of its events that trials learn from.

::

    study.json             base settings, search space, objectives, names of the table
    table/*.npy            all events
    trials/, finals/, ...  see `flowbdt.tuning.trial` and `flowbdt.tuning.finish_study`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from .. import atomic_files, seeding
from ..config import RunConfig
from ..errors import ConfigError, FormatError, RunError
from ..evaluation.score_events import check_objectives
from ..registry import spec_name
from ..seeding import row_uniform
from ..tables.event_table import EventTable
from ..training import run_directory
from ..training.plan import check_config
from ..training.run_directory import RunDirectory
from ..typed_settings import (
    AtLeastOne,
    AtLeastZero,
    NotNegative,
    Positive,
    Stored,
    check_stored,
    check_value,
    field_types,
)
from . import search_space

SHARES = {"fit": 0.6, "select": 0.25, "guard": 0.15}
"""Events that trials learn from, that they are compared on, and that are kept for the finalists.
With folds the first two are one."""

FEWEST_ROWS = 200
"""Events of a table that can be searched for."""

FEWEST_IN_FOLD = 40
"""Events of a fold, which are all that one judgement has."""

OBJECTIVES = ("auc_gb", "train_s")
MOST_COST = 2.0
"""A trial that would train for so many times the start's CPU seconds is given up."""


class StoredTable(Stored):
    """Names of the table of a study."""

    names: list[str]
    units: list[str]
    dtypes: list[str]
    cond_names: list[str]
    categories: dict[str, list[str]]
    originals: dict[str, str] | None = None


class StoredStudy(Stored):
    """``study.json``."""

    format: AtLeastOne
    base: dict[str, Any]
    seed: AtLeastZero
    objectives: Annotated[list[str], Meta(min_length=1)]
    space: dict[str, dict[str, Any]]
    max_cost: Positive
    shares: dict[str, NotNegative]
    folds: AtLeastOne | None
    n_fit: AtLeastOne
    table: StoredTable


@dataclass(frozen=True)
class EventShares:
    """The share of each of ``n`` rows of a table, a function of row number and seed alone.

    ``folds`` of equal size are each held out once; None holds one share out. Raises ConfigError if
    there are too few rows, or ``folds`` is no whole number from 2 with events for each.
    """

    n: int
    seed: int
    folds: Annotated[int, Meta(ge=2)] | None = None

    def __post_init__(self) -> None:
        if self.n < FEWEST_ROWS:
            raise ConfigError(f"a search needs {FEWEST_ROWS} events to judge by, got {self.n}")
        folds = check_value(self.folds, field_types(EventShares)["folds"], "folds")
        most = int((~self.guard).sum()) // FEWEST_IN_FOLD
        if folds is not None and folds > most:
            raise ConfigError(
                f"{self.folds} folds of {self.n} events are too small to judge by"
                f" ({FEWEST_IN_FOLD} events each are needed); take {most} folds or fewer"
            )

    @property
    def rounds(self) -> int:
        """Number of times that a trial is trained and judged."""
        return self.folds or 1

    @property
    def guard(self) -> np.ndarray:
        """Mask (n,) of the rows that no trial uses."""
        return self._shares() == "guard"

    def held(self, fold: int = 0) -> np.ndarray:
        """Return the mask (n,) of the rows that a trial is judged on; ``fold`` from 0."""
        return self._shares() == "select" if self.folds is None else self.fold_of_row() == fold

    def fit(self, fold: int = 0) -> np.ndarray:
        """Return the mask (n,) of the rows that a trial learns from: neither held out nor guard."""
        return ~self.guard & ~self.held(fold)

    def _shares(self) -> np.ndarray:
        """Return the name of each row's share, (n,), by a keyed hash of its number."""
        uniform = row_uniform(self.n, seeding.derive(self.seed, "tune-split"))
        edges = np.cumsum(list(SHARES.values()))[:-1]
        return np.array(list(SHARES))[np.searchsorted(edges, uniform, side="right")]

    def fold_of_row(self) -> np.ndarray:
        """Return the fold of each row, (n,) int, -1 for the guard.

        Rows in the order of a keyed hash are dealt out like cards: sizes differ by one at most,
        which a hash of single rows would not give small tables.
        """
        dealt = np.flatnonzero(~self.guard)
        keyed = row_uniform(self.n, seeding.derive(self.seed, "tune-folds"))[dealt]
        result = np.full(self.n, -1)
        result[dealt[np.argsort(keyed, kind="stable")]] = np.arange(len(dealt)) % self.rounds
        return result


@dataclass(frozen=True)
class StudyOptions:
    """Options of a study, see `flowbdt.tuning.tune`; None is the default, or that of the study."""

    base: RunConfig | None = None
    objectives: Sequence[str] | None = None
    search: Mapping[str, Any] | None = None
    max_cost: float | None = None
    folds: int | None = None


def begin(study: RunDirectory, table: EventTable, options: StudyOptions) -> None:
    """Write ``study.json`` and the table of a new study.

    Raises RunError if there is a study already, ConfigError if an option is impossible; nothing is
    written then.
    """
    if study.file("study.json").exists():
        raise RunError(
            f"{study.path} holds a study already; add --resume to continue it, or choose"
            " another folder"
        )
    base = options.base or RunConfig()
    if spec_name(base.coupling) == "given":
        raise ConfigError("tune generates from noise; coupling='given' starts from source events")
    seed = seeding.resolve(base.random_state)
    n_fit = int(EventShares(table.n, seed, options.folds).fit().sum())
    check_config(base)
    content = {
        "format": run_directory.FORMAT,
        "base": asdict(replace(base, random_state=seed)),
        "seed": seed,
        "objectives": check_objectives(options.objectives or OBJECTIVES),
        "space": _space(base, n_fit, table.names, table.cond_names, options.search or {}),
        "max_cost": MOST_COST if options.max_cost is None else options.max_cost,
        "shares": SHARES,
        "folds": options.folds,
        "n_fit": n_fit,
    }
    for folder in ("references", "table"):
        atomic_files.make_folder(study.file(folder))
    for name in ("x", "cond", "weight"):
        study.write_array(name, getattr(table, name))
    names = ("names", "units", "dtypes", "cond_names", "categories", "originals")
    described = {name: getattr(table, name) for name in names}
    study.write_json("study.json", {**content, "table": described})


def check_same(study: RunDirectory, table: EventTable | None, options: StudyOptions) -> None:
    """Raise RunError if a table or an option differs from that of the study."""
    setup = read_setup(study)
    if table is not None and not _same(table, study_table(study, setup)):
        raise RunError(f"{study.path} is a study of another table; choose another folder")
    pairs = _compared(setup, options).items()
    others = [name for name, (new, known) in pairs if atomic_files.to_plain(new) != known]
    if others:
        raise RunError(
            f"{study.path} is a study with other {', '.join(others)}; leave that out to continue"
            " it as it was begun, or choose another folder"
        )


def _same(table: EventTable, known: EventTable) -> bool:
    """Return whether two tables have the same columns, events, conditions and weights."""
    names = [(one.names, one.cond_names, one.categories) for one in (table, known)]
    pairs = [(getattr(table, name), getattr(known, name)) for name in ("x", "cond", "weight")]
    return names[0] == names[1] and all(
        new is old if new is None or old is None else np.array_equal(new, old, True)
        for new, old in pairs
    )


def _compared(setup: Mapping[str, Any], options: StudyOptions) -> dict[str, tuple[Any, Any]]:
    """Return the options that are not None beside those of the study, by name."""
    result: dict[str, tuple[Any, Any]] = {
        name: (getattr(options, name), setup.get(name))
        for name in ("max_cost", "folds")
        if getattr(options, name) is not None
    }
    base = RunConfig.from_mapping(setup["base"])
    if options.base is not None:
        result["settings"] = (_plain(options.base, setup), _plain(base, setup))
    if options.objectives is not None:
        result["objectives"] = (check_objectives(options.objectives), setup["objectives"])
    if options.search is not None:
        sizes = (setup["n_fit"], setup["table"]["names"], setup["table"]["cond_names"])
        result["limits of the search"] = (_space(base, *sizes, options.search), setup["space"])
    return result


def _plain(base: RunConfig, setup: Mapping[str, Any]) -> Any:
    """Return settings without the executor, which may change; no seed is the study's seed."""
    seed = setup["seed"] if base.random_state is None else base.random_state
    return atomic_files.to_plain({**asdict(base), "executor": None, "random_state": seed})


def _space(
    base: RunConfig, n_fit: int, names: Sequence[str], cond_names: Sequence[str],
    search: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    known = search_space.model_space(base, n_fit, len(names), len(cond_names))
    return {name: asdict(p) for name, p in search_space.narrowed(known, search).items()}


def read_state(study: RunDirectory, name: str) -> dict[str, Any]:
    """Return a JSON file of a study; an empty dict if there is none.

    Raises FormatError if it is damaged, or of a format that this release does not know.
    """
    if not study.file(name).exists():
        return {}
    content: dict[str, Any] = study.read_json(name)
    run_directory.check_format(content, str(study.file(name)))
    return content


def write_state(study: RunDirectory, name: str, content: Mapping[str, Any]) -> None:
    """Write a JSON file of a study for `read_state`."""
    study.write_json(name, {**content, "format": run_directory.FORMAT})


def read_setup(study: RunDirectory) -> dict[str, Any]:
    """Return ``study.json``. Raises ConfigError if the folder holds no study of models."""
    content = read_state(study, "study.json")
    if not content:
        raise ConfigError(
            f"{study.path} holds no study; start one with: flowbdt tune TABLE -o STUDY"
        )
    check_stored(content, StoredStudy, str(study.file("study.json")))
    return content


def study_table(study: RunDirectory, setup: Mapping[str, Any]) -> EventTable:
    """Return the table of a study, all events. Raises FormatError if it is missing or damaged."""
    arrays = {name: study.array(name) for name in ("x", "cond", "weight")}
    if arrays["x"] is None:
        raise FormatError(f"{study.path / 'table/x.npy'} is missing: copy the whole study again")
    loaded: dict[str, Any] = {k: None if a is None else np.asarray(a) for k, a in arrays.items()}
    known: dict[str, Any] = dict(setup["table"])
    categories = {k: tuple(v) for k, v in known.pop("categories").items()}
    originals = known.pop("originals", None) or {}
    loaded |= {name: tuple(values) for name, values in known.items()}
    return EventTable(**loaded, categories=categories, originals=originals)


def shares_of(setup: Mapping[str, Any], table: EventTable) -> EventShares:
    """Return the shares of a study's table."""
    return EventShares(table.n, setup["seed"], setup.get("folds"))
