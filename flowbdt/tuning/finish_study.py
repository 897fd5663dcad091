"""The end of a study: the last few judged anew, one chosen, fitted to all events, and kept."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .. import atomic_files, seeding
from ..errors import RunError
from ..evaluation.score_events import COSTS, OPTIONS, generate_like, score_objectives
from ..generation.trained_flow import Flow
from ..model import fit_run
from ..tables.event_table import EventTable
from ..training import run_directory
from ..training.numbered_jobs import name_of
from ..training.plan import Inputs
from ..training.run_directory import RunDirectory
from . import choose_winner, study_events
from .trial import TRIALS, configuration, model, read_setup, read_state
from .trial_table import finished, write_trials

SECOND = "auc_mlp"
"""The second judge, whom the last few have to please too."""


@dataclass(frozen=True)
class Tuned:
    """A finished study.

    Parameters
    ----------
    run : the winner, fitted to all events: a run as `flowbdt fit` makes it
    winner : number of its trial; 0 is the start
    front : trials that no other one beats in all objectives
    trials : one dict per trial: number, state, parameters, scores, costs
    finals : number -> scores on the events that played no part in the search
    cpu_seconds : spent on trials and finalists
    """

    run: RunDirectory
    winner: int
    front: list[int]
    trials: list[dict[str, Any]]
    finals: dict[int, dict[str, Any]]
    cpu_seconds: float


def finish(study: RunDirectory, executor: Any) -> Tuned:
    """Judge the last few on events of their own, choose, and fit the winner to all events.

    Raises RunError if no trial came to an end.
    """
    setup = read_setup(study)
    reports = {n: r for n, r in finished(study).items() if r["state"] == "complete"}
    if not reports:
        raise RunError(f"{study.path}: no trial came to an end; see {study.file('trials.csv')}")
    objectives = setup["objectives"]
    second = functools.partial(_second_opinion, study, setup)
    chosen = choose_winner.finalists(reports, objectives, None if SECOND in objectives else second)
    finals = {n: _judged(study, setup, n) for n in chosen}
    won = choose_winner.winner(finals, reports, objectives)
    rows = write_trials(study, setup)
    run = _refit(study, setup, won, executor)
    spent = sum(float(row.get("cpu_seconds", 0.0)) for row in rows)
    looks = (read_state(study, f"finals/{p.name}") for p in study.file("finals").glob("*.json"))
    spent += sum(float(look["cpu_seconds"]) for look in looks)
    best = choose_winner.front({n: r["values"] for n, r in reports.items()})
    outcome = {
        "format": 1, "winner": won, "front": best, "finals": finals, "objectives": objectives,
        "cpu_seconds": spent, "params": rows[won]["params"], "shares": setup["shares"],
        "folds": setup.get("folds"),
    }  # fmt: skip
    atomic_files.write_json(study.file("outcome.json"), outcome)
    for name in ("study.json", "trials.json", "trials.csv", "outcome.json"):
        run.file("tuning").mkdir(exist_ok=True)
        atomic_files.write_bytes(run.file(f"tuning/{name}"), study.read(name))
    return Tuned(run, won, best, rows, finals, spent)


def _judged(study: RunDirectory, setup: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the scores of a finalist on the guard events, and what the second judge says."""
    names = [name for name in setup["objectives"] if name not in COSTS]

    def scores() -> dict[str, Any]:
        guard, made = _events(study, setup, number, "guard")
        found = score_objectives(guard, made, names, setup["seed"], 1)
        second = None if SECOND in names else _asked(setup, guard, made)
        return {
            "scores": {name: score.to_json() for name, score in found.items()},
            "second": second,
        }

    final = _once(study, f"finals/{name_of(number)}-guard.json", number, scores)
    if final["second"] is None:
        return final
    on_selection = _second_opinion(study, setup, number)
    value, error = choose_winner.together(on_selection, final["second"])
    return {**final, "second": {**final["second"], "value": value, "error": error}}


def _second_opinion(study: RunDirectory, setup: dict[str, Any], number: int) -> dict[str, Any]:
    """Return what the second judge says of a trial, on the events of the selection."""
    return _once(
        study,
        f"finals/{name_of(number)}-selection.json",
        number,
        lambda: _asked(setup, *_events(study, setup, number, "selection")),
    )


def _asked(setup: dict[str, Any], real: EventTable, made: EventTable) -> dict[str, Any]:
    """Return the score of the second judge, whom the search never asked."""
    options = {**OPTIONS, "classifier": {"n_model_seeds": 1, "n_split_seeds": 2}}
    found = score_objectives(real, made.take(slice(0, real.n)), [SECOND], setup["seed"], 1, options)
    return found[SECOND].to_json()


def _events(
    study: RunDirectory, setup: dict[str, Any], number: int, part: str
) -> tuple[EventTable, EventTable]:
    """Return the real events of a part, and what the model of a trial makes to go with them.

    With folds the model is that of the first one, and its selection the events of that fold.
    """
    table = study_events.read_table(study, setup)
    known = study_events.parts_of(setup, table)
    real = table.take(known.guard if part == "guard" else known.held(0))
    seed = seeding.derive(setup["seed"], f"tune-{part}")
    return real, generate_like(Flow(model(study, number), 1), real, seed).table


def _once(
    study: RunDirectory, name: str, number: int, make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return what was found about the model of a trial: made and written once, then read."""
    sha256 = (TRIALS.report(study, number) or {})["model_sha256"]
    known = read_state(study, name)
    if known and known["model_sha256"] == sha256:
        return known
    start = time.process_time()
    content = {"format": run_directory.FORMAT, "model_sha256": sha256, **make()}
    content["cpu_seconds"] = time.process_time() - start
    study.file("finals").mkdir(exist_ok=True)
    atomic_files.write_json(study.file(name), content)
    return content


def _refit(study: RunDirectory, setup: dict[str, Any], number: int, executor: Any) -> RunDirectory:
    """Fit the settings of a trial to all events; a folder of another winner is moved aside."""
    task = TRIALS.task(study, number) or {}
    table = study_events.read_table(study, setup)
    config = configuration(setup, task["params"], table.n)
    config = replace(config, executor=executor)
    folder = study.file("best")
    mark = read_state(study, "best.json")
    if folder.exists() and mark and mark["trial"] != number:
        count = len(list(study.path.glob("best-of-earlier-*")))
        folder.rename(study.file(f"best-of-earlier-{count + 1}"))
    atomic_files.write_json(
        study.file("best.json"), {"format": run_directory.FORMAT, "trial": number}
    )
    return fit_run(Inputs(table, config, setup["seed"]), folder, resume=True)
