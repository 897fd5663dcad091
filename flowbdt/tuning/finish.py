"""The end of a study: the last few judged anew, one chosen, fitted to all events, and kept."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from .. import files, seeding, store
from ..errors import RunError
from ..execution.work import name_of
from ..generation import Flow
from ..model import fit_run
from ..store import RunDirectory
from ..table import EventTable
from ..training.plan import Inputs
from . import choose, judge, parts
from .records import finished, write_trials
from .trial import TRIALS, configuration, model, read_setup, read_state

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
    finals = {n: _judged(study, setup, n) for n in choose.finalists(reports, objectives)}
    won = choose.winner(finals, reports, objectives)
    rows = write_trials(study, setup)
    run = _refit(study, setup, won, executor)
    spent = sum(float(row.get("cpu_seconds", 0.0)) for row in rows)
    spent += sum(float(final["cpu_seconds"]) for final in finals.values())
    best = choose.front({n: r["values"] for n, r in reports.items()})
    outcome = {
        "format": 1, "winner": won, "front": best, "finals": finals, "objectives": objectives,
        "cpu_seconds": spent, "params": rows[won]["params"], "shares": setup["shares"],
        "folds": setup.get("folds"),
    }  # fmt: skip
    files.write_json(study.file("outcome.json"), outcome)
    for name in ("study.json", "trials.json", "trials.csv", "outcome.json"):
        run.file("tuning").mkdir(exist_ok=True)
        files.write_bytes(run.file(f"tuning/{name}"), study.read(name))
    return Tuned(run, won, best, rows, finals, spent)


def _judged(study: RunDirectory, setup: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the scores of a finalist on the guard events; found once, then read.

    With folds its model is that of the first one, and the second judge sees the events which that
    one has not learned from: those of the first fold and of the guard.
    """
    name = f"finals/{name_of(number)}.json"
    report = TRIALS.report(study, number) or {}
    known = read_state(study, name)
    if known and known["model_sha256"] == report["model_sha256"]:
        return known
    start = time.process_time()
    flow, seed = Flow(model(study, number), 1), setup["seed"]
    table = parts.read_table(study, setup)
    known_parts = parts.parts_of(setup, table)
    guard = table.take(known_parts.guard)
    real = EventTable.concatenate([guard, table.take(known_parts.held(0))])
    made = judge.generated(flow, real, seeding.derive(seed, "tune-guard")).table
    names = [name for name in setup["objectives"] if name not in judge.COSTS]
    on_guard = made.take(slice(0, judge.PER_REAL * guard.n))
    scores = judge.scores(guard, on_guard, names, seed, 1)
    content = {
        "format": store.FORMAT,
        "model_sha256": report["model_sha256"],
        "scores": {name: score.to_json() for name, score in scores.items()},
        "second": _second_opinion(real, made, names, seed),
        "cpu_seconds": time.process_time() - start,
    }
    study.file("finals").mkdir(exist_ok=True)
    files.write_json(study.file(name), content)
    return content


def _second_opinion(
    real: EventTable, made: EventTable, names: list[str], seed: int
) -> dict[str, Any] | None:
    """Return the score of a judge that the search never asked; None if it has asked that one.

    What was chosen was not chosen by this judge, so it may see the events of the selection too.
    """
    if SECOND in names:
        return None
    options = {**judge.OPTIONS, "classifier": {"n_model_seeds": 1, "n_split_seeds": 2}}
    found = judge.scores(real, made.take(slice(0, real.n)), [SECOND], seed, 1, options)
    return found[SECOND].to_json()


def _refit(study: RunDirectory, setup: dict[str, Any], number: int, executor: Any) -> RunDirectory:
    """Fit the settings of a trial to all events; a folder of another winner is moved aside."""
    task = TRIALS.task(study, number) or {}
    table = parts.read_table(study, setup)
    config = configuration(setup, task["params"], table.n)
    config = replace(config, executor=executor)
    folder = study.file("best")
    mark = read_state(study, "best.json")
    if folder.exists() and mark and mark["trial"] != number:
        count = len(list(study.path.glob("best-of-earlier-*")))
        folder.rename(study.file(f"best-of-earlier-{count + 1}"))
    files.write_json(study.file("best.json"), {"format": store.FORMAT, "trial": number})
    return fit_run(Inputs(table, config, setup["seed"]), folder, resume=True)
