"""`tune`: the best generator for a table within a budget, and the evidence for it.

Task files and reports of trials are the only record of a search. From them the proposals of
Optuna follow, so a study that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import atomic_files
from ..config import RunConfig
from ..errors import IncompleteRun
from ..tables.event_table import EventTable
from ..training import run_directory
from ..training.executors import EXECUTORS, Executor
from ..training.executors.base import refuse_recorded, split_recorded
from ..training.numbered_jobs import name_of
from ..training.run_directory import RunDirectory
from . import search_space
from .finish_study import FINALISTS, Tuned, finish
from .proposals import PastTrial, check_installed, propose
from .study import StudyOptions, begin, check_same, read_setup, read_state, write_state
from .trial import TRIALS, numbers, trial_model
from .trial_table import finished, has_failed, write_trials

TRIALS_BY_DEFAULT = 40
UNTIL = "until.json"
"""File of a study: the trials or CPU seconds of the last call."""
MOST_TRIALS = 10_000
MARGIN = 0.02
"""A trial whose held-out loss is so much above the start's is given up (see `stop_early`)."""

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
    between the finalists. With folds every trial is fitted and judged so many times, and its score
    is the mean. Test events must not be in the table.

    Parameters
    ----------
    table : EventTable, DataFrame or array; None continues a study
    output : folder of the study; the winner is the run ``best`` in it
    base : settings to start from, by default those of `flowbdt fit`
    budget_s : CPU seconds for trials, their judgement and the last fit, about; or
    n_trials : trials; without either those of the last call, or 40
    objectives : of `flowbdt.evaluation.score_events.SCORES` and `COSTS`, by default auc_gb and
        train_s; the first score decides
    search : parameter -> values to choose from, [low, high], or one value that is not to change;
        of `flowbdt.tuning.search_space.model_space`
    max_cost : CPU seconds of training that a trial may take, in those of the start; by default 2
    folds : cut the events of learning and judging into so many folds, each of which is judged on
        once by a model that learned from the others; None holds out one share
    parallel : trials that are proposed together; by default as many as the executor does at once
    executor : for the trials, and the steps of the last fit; by default that of ``base``
    resume : whether to continue the study in the folder, with the options it was begun with
    on_trial : called with the report of each trial

    Raises
    ------
    ConfigError, InputError
        Before any long work.
    RunError
        If another process uses the folder, or it holds a study of another table, or with other
        settings, objectives, limits, max_cost or folds; or if no trial came to an end.
    MissingExtra
        If Optuna is not installed.
    """
    check_installed()
    study = RunDirectory(output)
    events = None if table is None else EventTable.of(table)
    options = StudyOptions(base, objectives, search, max_cost, folds)
    with atomic_files.locked(study.path):
        if events is None or (resume and study.file("study.json").exists()):
            check_same(study, events, options)
        else:
            begin(study, events, options)
        setup = read_setup(study)
        chosen = executor or (None if base is None else base.executor)
        if chosen is None:  # nothing but numbers from a study, which may be somebody else's
            chosen, left_out = split_recorded(setup["base"]["executor"])
            refuse_recorded(left_out, chosen, study.path)
        runs = EXECUTORS.build(chosen)
        limit, budget_s = _until(study, n_trials, budget_s)
        at_once = max(1, int(getattr(runs, "n_jobs", 1)))
        SettingsSearch(study, setup, runs, on_trial).go_on(limit, budget_s, parallel or at_once)
        return finish(study, chosen)


def _until(
    study: RunDirectory, n_trials: int | None, budget_s: float | None
) -> tuple[int, float | None]:
    """Return trials and CPU seconds to go to: those of this call, else of the last one."""
    if n_trials is None and budget_s is None:
        known = read_state(study, UNTIL)
        n_trials, budget_s = known.get("n_trials"), known.get("budget_s")
    write_state(study, UNTIL, {"n_trials": n_trials, "budget_s": budget_s})
    return n_trials or (TRIALS_BY_DEFAULT if budget_s is None else MOST_TRIALS), budget_s


class SettingsSearch:
    """Proposes trials and has them done, until the budget is spent."""

    def __init__(
        self, study: RunDirectory, setup: dict[str, Any], executor: Executor,
        on_trial: OnTrial | None = None,
    ) -> None:  # fmt: skip
        self.study, self.setup, self.executor = study, setup, executor
        self.on_trial = on_trial
        self.space = search_space.from_json(setup["space"])
        self.first = search_space.first_tries(self.space)

    def go_on(self, n_trials: int, budget_s: float | None, parallel: int) -> None:
        """Do trials: first those that were begun, then new ones in batches of ``parallel``.

        A batch is proposed from the results of all before it, so that proposals depend neither on
        which of its trials ends first, nor on an interruption: a batch that was begun is not filled
        up beyond where it would have ended. The start comes first and alone: others are compared
        with it.
        """
        batch = self._begun()
        while True:
            while not (batch and (len(numbers(self.study)) - 1) % parallel == 0) and self._room(
                n_trials, budget_s, len(batch)
            ):
                batch.append(self._propose())
            if not batch:
                return
            self._do(batch)
            batch = []

    def _begun(self) -> list[int]:
        """Return the trials that neither ended nor failed; the start is tried again if it failed.

        Results that a batch system brought are received first.
        """
        return [
            number
            for number in numbers(self.study)
            if TRIALS.receive(self.study, number) is None
            and (number == 0 or not has_failed(self.study, number))
        ]

    def _room(self, n_trials: int, budget_s: float | None, waiting: int) -> bool:
        """Return whether another trial, and the end of the study, fit into the budget."""
        if len(numbers(self.study)) >= n_trials:
            return False
        if budget_s is None or not (reports := finished(self.study)):
            return True
        spent = [float(r["cpu_seconds"]) for r in reports.values()]
        start = reports.get(0, {}).get("cpu_seconds", max(spent)) / (self.setup.get("folds") or 1)
        after = 1.5 * start + FINALISTS * start  # the last fit, the last judgement
        return sum(spent) + (waiting + 1) * sum(spent) / len(spent) + after <= budget_s

    def _propose(self) -> int:
        """Write the task of a new trial: parameters, and limits by the trials that ended."""
        number = max(numbers(self.study), default=-1) + 1
        reports = finished(self.study)
        params = propose(
            self.space,
            [PastTrial(self._params(i), report.get("values")) for i, report in reports.items()],
            number,
            seed=self.setup["seed"],
            first=self.first,
            n_objectives=len(self.setup["objectives"]),
        )
        content = {
            "format": run_directory.FORMAT,
            "trial": number,
            "params": params,
            **self._limits(params, reports),
        }
        self.study.file("trials").mkdir(exist_ok=True)
        task = {**content, "digest": atomic_files.digest(content)}
        self.study.write_json(f"trials/{name_of(number)}.json", task)
        return number

    def _params(self, number: int) -> dict[str, Any]:
        params: dict[str, Any] = TRIALS.task(self.study, number)["params"]
        return params

    def _limits(
        self, params: dict[str, Any], reports: Mapping[int, dict[str, Any]]
    ) -> dict[str, Any]:
        """Return what a trial is compared with: costs and scores of the start, a curve of losses.

        The curve, and the closed form that losses are divided by, are those of the first complete
        trial in the same coordinates, as losses in others cannot be compared.
        """
        complete = {n: report for n, report in reports.items() if report["state"] == "complete"}
        coordinates = params.get("coordinates")
        like = (n for n in complete if self._params(n).get("coordinates") == coordinates)
        first, start = next(like, None), complete.get(0)
        limits: dict[str, Any] = {"curve": [], "margin": MARGIN, "cpu_s": None, "folds": []}
        if start is not None:
            limits["cpu_s"] = self.setup["max_cost"] * start["costs"]["train_s"]
            decides = self.setup["objectives"][0]
            limits["folds"] = [fold["scores"][decides] for fold in start.get("folds", [])]
        if first is None:
            return {"reference": None, "limits": limits}
        name = self.study.file(f"references/{name_of(first)}.npz")
        if not name.exists():
            content = trial_model(self.study, first).read("preconditioner.npz")
            atomic_files.write_bytes(name, content)
        limits["curve"] = complete[first]["losses"]
        return {"reference": f"references/{name.name}", "limits": limits}

    def _do(self, batch: list[int]) -> None:
        """Have trials done."""
        failures = {}
        for report in self.executor.run(self.study, batch, TRIALS):
            if "error" in report:
                failures[report["trial"]] = report["error"]
            if self.on_trial is not None:
                self.on_trial(report)
        write_trials(self.study, self.setup)
        if 0 in failures:
            raise IncompleteRun(
                f"{self.study.path}: the first trial, which has the settings to start from, failed:"
                f" {failures[0]} (log: {self.study.file(TRIALS.log(0))})",
                failures[0],
            )
