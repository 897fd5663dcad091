"""`tune`: the best generator for a table within a budget, and the evidence for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import atomic_files
from ..config import RunConfig
from ..errors import IncompleteRun
from ..tables.event_table import EventTable
from ..training import run_directory
from ..training.executors import EXECUTORS, Executor
from ..training.numbered_jobs import name_of
from ..training.run_directory import RunDirectory
from . import choose_winner, search_space
from .finish_study import Tuned, finish
from .optuna_proposals import Proposals, check_installed
from .start_study import Wishes, begin, check_same
from .trial import TRIALS, model, read_setup, read_state
from .trial_table import finished, numbers, write_trials

TRIALS_BY_DEFAULT = 40
UNTIL = "until.json"
"""File of a study: the trials or CPU seconds that were asked for last."""
MOST_TRIALS = 10_000
MARGIN = 0.02
"""A trial whose held-out loss is so much above the start's is given up (see `race`)."""

OnTrial = Callable[[dict[str, Any]], None]


def tune(
    table: Any,
    output: str | Path,
    *,
    base: RunConfig | None = None,
    budget_s: float | None = None,
    n_trials: int | None = None,
    objectives: Sequence[str] | None = None,
    search: Mapping[str, Any] | None = None,
    max_cost: float | None = None,
    folds: int | None = None,
    parallel: int | None = None,
    executor: Any = None,
    resume: bool = False,
    on_trial: OnTrial | None = None,
) -> Tuned:
    """Search settings for a table, and fit the best ones to all of it.

    Every trial learns from 60% of the events and is judged on another 25%; the rest decides
    between the last few. With folds every trial is fitted and judged so many times, and its score
    is the mean. Test events must not be in the table.

    Parameters
    ----------
    table : EventTable, DataFrame or array; None continues a study
    output : folder of the study; the winner is the run ``best`` in it
    base : settings to start from, by default those of `flowbdt fit`
    budget_s : CPU seconds for trials, their judgement and the last fit, about; or
    n_trials : trials; without either those given before, or 40
    objectives : of `flowbdt.evaluation.score_events.SCORES` and `COSTS`, by default auc_gb and
    train_s; the
        first score decides
    search : parameter -> values to choose from, [low, high], or one value that is not to change;
        of `flowbdt.tuning.search_space.model_space`
    max_cost : CPU seconds of training that a trial may take, in those of the start; by default 2
    folds : cut the events of learning and judging into so many equal parts, each of which is
        judged on once by a model that learned from the others; None holds out one share
    parallel : trials that are proposed together; by default as many as the executor does at once
    executor : what does the trials, and the steps of the last fit; by default that of ``base``
    resume : whether to continue the study in the folder, with what it was begun with
    on_trial : called with the report of each trial

    Raises
    ------
    ConfigError, InputError
        Before any long work.
    RunError
        If the folder holds a study of another table, or with other settings, objectives, limits,
        max_cost or folds than are given here; or if no trial came to an end.
    MissingExtra
        If Optuna is not installed.
    """
    check_installed()
    study = RunDirectory(output)
    events = None if table is None else EventTable.of(table)
    wishes = Wishes(base, objectives, search, max_cost, folds)
    if events is None or (resume and study.file("study.json").exists()):
        check_same(study, events, wishes)
    else:
        begin(study, events, wishes)
    setup = read_setup(study)
    chosen = executor or setup["base"]["executor"]
    runs = EXECUTORS.build(chosen)
    limit, budget_s = _until(study, n_trials, budget_s)
    with contextlib.closing(Search(study, setup, runs, on_trial)) as searching:
        searching.go_on(limit, budget_s, parallel or at_once(runs))
    return finish(study, chosen)


def _until(
    study: RunDirectory, n_trials: int | None, budget_s: float | None
) -> tuple[int, float | None]:
    """Return trials and CPU seconds to go to: what is given, else what was given last time."""
    if n_trials is None and budget_s is None:
        known = read_state(study, UNTIL)
        n_trials, budget_s = known.get("n_trials"), known.get("budget_s")
    study.write_json(
        UNTIL, {"format": run_directory.FORMAT, "n_trials": n_trials, "budget_s": budget_s}
    )
    return n_trials or (TRIALS_BY_DEFAULT if budget_s is None else MOST_TRIALS), budget_s


def at_once(executor: Executor) -> int:
    """Return how many trials an executor does at once, about."""
    return max(1, int(getattr(executor, "n_jobs", 1)))


class Search:
    """Asks for trials, has them done, and tells what they found, until the budget is spent."""

    def __init__(
        self, study: RunDirectory, setup: dict[str, Any], executor: Executor,
        on_trial: OnTrial | None = None,
    ) -> None:  # fmt: skip
        self.study, self.setup, self.executor = study, setup, executor
        self.on_trial = on_trial
        self.space = search_space.from_json(setup["space"])
        database = study.file("optuna.db")
        lost = not database.exists() and bool(numbers(study))
        self.proposals = Proposals(
            database, self.space, len(setup["objectives"]), seed=setup["seed"],
            first=() if lost else search_space.first_tries(self.space),
        )  # fmt: skip
        if lost:
            self._rebuild()

    def close(self) -> None:
        """Let go of the database."""
        self.proposals.close()

    def go_on(self, n_trials: int, budget_s: float | None, parallel: int) -> None:
        """Do trials: first those that were begun, then new ones in batches of ``parallel``.

        A batch is proposed from what all before it found, so that what is proposed does not depend
        on which of them ends first, nor on an interruption: a batch that was begun is not filled up
        beyond where it would have ended. The start comes first and alone: others are held against
        it.
        """
        batch = self._begun()
        while True:
            while not (batch and self._is_full(parallel)) and self._room(
                n_trials, budget_s, len(batch)
            ):
                batch.append(self._ask())
            if not batch:
                return
            self._do(batch)
            batch = []

    def _is_full(self, parallel: int) -> bool:
        """Whether the trials so far are the start and whole batches."""
        return (self.proposals.count() - 1) % parallel == 0

    def _begun(self) -> list[int]:
        """Tell of trials that ended unheard; return those that are to be done."""
        todo = []
        for number in self.proposals.running():
            report = TRIALS.receive(self.study, number)
            if report is not None:
                self._tell(report)
            elif TRIALS.task(self.study, number) is not None:
                todo.append(number)
            else:  # killed between the proposal and the task
                self._write_task(number, self.proposals.params(number))
                todo.append(number)
        return todo

    def _room(self, n_trials: int, budget_s: float | None, waiting: int) -> bool:
        """Whether another trial, and what comes after the search, fit into the budget."""
        if self.proposals.count() >= n_trials:
            return False
        reports = {} if budget_s is None else finished(self.study)
        if budget_s is None or not reports:
            return True
        spent = [float(r["cpu_seconds"]) for r in reports.values()]
        rounds = self.setup.get("folds") or 1
        start = reports.get(0, {}).get("cpu_seconds", max(spent)) / rounds
        after = 1.5 * start + choose_winner.FINALISTS * start  # the last fit, the last judgement
        return sum(spent) + (waiting + 1) * sum(spent) / len(spent) + after <= budget_s

    def _ask(self) -> int:
        number, params = self.proposals.ask()
        self._write_task(number, params)
        return number

    def _write_task(self, number: int, params: dict[str, Any]) -> None:
        """Write what a worker needs: parameters, and what to hold the trial against."""
        references = self._references()
        coordinates = params.get("coordinates", "as given")
        known = references.get(coordinates)
        start = references.get("start", {})
        cpu_s = start.get("train_s")
        content = {
            "format": run_directory.FORMAT,
            "trial": number,
            "params": params,
            "reference": None if known is None else known["file"],
            "limits": {
                "curve": [] if known is None else known["curve"],
                "margin": MARGIN,
                "cpu_s": None if cpu_s is None else self.setup["max_cost"] * cpu_s,
                "folds": start.get("folds", []),
            },
        }
        self.study.file("trials").mkdir(exist_ok=True)
        task = {**content, "digest": atomic_files.digest(content)}
        self.study.write_json(f"trials/{name_of(number)}.json", task)

    def _references(self) -> dict[str, Any]:
        return read_state(self.study, "references/index.json")

    def _do(self, batch: list[int]) -> None:
        """Have trials done and tell what they found, in the order of their numbers."""
        failures = {}
        for report in self.executor.run(self.study, batch, TRIALS):
            if "error" in report:
                failures[report["trial"]] = report["error"]
            if self.on_trial is not None:
                self.on_trial(report)
        for number in sorted(batch):
            found = TRIALS.report(self.study, number)
            if found is not None:
                self._tell(found)
            elif number != 0:  # the start is tried again: all others are held against it
                self.proposals.tell(number, None, failed=True)
        write_trials(self.study, self.setup)
        if 0 in failures:
            raise IncompleteRun(
                f"{self.study.path}: the first trial, which has the settings to start from, failed:"
                f" {failures[0]} (log: {self.study.file(TRIALS.log(0))})",
                failures[0],
            )

    def _tell(self, report: dict[str, Any]) -> None:
        complete = report["state"] == "complete"
        if complete:  # before it is told: a trial that is told is not looked at again
            self._remember(report)
        self.proposals.tell(report["trial"], report["values"] if complete else None)

    def _remember(self, report: dict[str, Any]) -> None:
        """Keep the closed form and the losses of the first trial in its coordinates."""
        number = report["trial"]
        coordinates = (TRIALS.task(self.study, number) or {})["params"].get(
            "coordinates", "as given"
        )
        references = self._references()
        if coordinates not in references:
            name = f"references/{number:04d}.npz"
            content = model(self.study, number).read("preconditioner.npz")
            atomic_files.write_bytes(self.study.file(name), content)
            references[coordinates] = {"file": name, "curve": report["losses"]}
        if number == 0:
            decides = self.setup["objectives"][0]
            references["start"] = {
                "train_s": report["costs"]["train_s"],
                "folds": [fold["scores"][decides] for fold in report.get("folds", [])],
            }
        self.study.write_json(
            "references/index.json", {**references, "format": run_directory.FORMAT}
        )

    def _rebuild(self) -> None:
        """Fill a new database from the JSON files of a study that lost its own."""
        for number in range(max(numbers(self.study)) + 1):
            report = TRIALS.report(self.study, number)
            if report is None:
                self.proposals.add(None, None, "failed")
                continue
            params = (TRIALS.task(self.study, number) or {})["params"]
            self.proposals.add(params, report.get("values"), report["state"])
