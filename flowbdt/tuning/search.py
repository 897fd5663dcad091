"""`tune`: the best generator for a table within a budget, and the evidence for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .. import files, seeding, store
from ..config import RunConfig
from ..errors import ConfigError, IncompleteRun, RunError
from ..execution import EXECUTORS, Executor
from ..execution.work import name_of
from ..registry import spec_name
from ..store import RunDirectory
from ..table import EventTable
from ..training.plan import check_config
from . import choose, judge, space
from .finish import Tuned, finish
from .proposals import Proposals, check_installed
from .records import finished, numbers, write_trials
from .trial import TRIALS, model, read_setup, read_state

OBJECTIVES = ("auc_gb", "train_s")
TRIALS_BY_DEFAULT = 40
MOST_TRIALS = 10_000
MOST_COST = 2.0
"""A trial that would train for so many times the start's CPU seconds is given up."""
MARGIN = 0.02
"""So is one whose held-out loss is so much above the start's (see `race`)."""
FEWEST_ROWS = 200

OnTrial = Callable[[dict[str, Any]], None]


def tune(
    table: Any,
    output: str | Path,
    *,
    base: RunConfig | None = None,
    budget_s: float | None = None,
    n_trials: int | None = None,
    objectives: Sequence[str] = OBJECTIVES,
    search: Mapping[str, Any] | None = None,
    max_cost: float = MOST_COST,
    parallel: int | None = None,
    executor: Any = None,
    resume: bool = False,
    on_trial: OnTrial | None = None,
) -> Tuned:
    """Search settings for a table, and fit the best ones to all of it.

    Every trial learns from 60% of the events and is judged on another 25%; the rest decides
    between the last few. Test events must not be in the table.

    Parameters
    ----------
    table : EventTable, DataFrame or array; None continues a study
    output : folder of the study; the winner is the run ``best`` in it
    base : settings to start from
    budget_s : CPU seconds for trials, their judgement and the last fit, about; or
    n_trials : trials; without either 40
    objectives : of `flowbdt.tuning.judge.SCORES` and `COSTS`; the first score decides
    search : parameter -> values to choose from, [low, high], or one value that is not to change;
        of `flowbdt.tuning.space.model_space`
    max_cost : CPU seconds of training that a trial may take, in those of the start
    parallel : trials that are proposed together; by default as many as the executor does at once
    executor : what does the trials, and the steps of the last fit; by default that of ``base``
    resume : whether to continue the study in the folder
    on_trial : called with the report of each trial

    Raises
    ------
    ConfigError, InputError
        Before any long work.
    RunError
        If the folder holds another study, or no trial came to an end.
    MissingExtra
        If Optuna is not installed.
    """
    check_installed()
    study = RunDirectory(output)
    if table is None:
        resume = True
    else:
        _begin(study, table, base or RunConfig(), objectives, search or {}, max_cost, resume)
    setup = read_setup(study)
    chosen = executor or setup["base"]["executor"]
    runs = EXECUTORS.build(chosen)
    limit = n_trials or (TRIALS_BY_DEFAULT if budget_s is None else MOST_TRIALS)
    with contextlib.closing(Search(study, setup, runs, on_trial)) as searching:
        searching.go_on(limit, budget_s, parallel or at_once(runs))
    return finish(study, chosen)


def at_once(executor: Executor) -> int:
    """Return how many trials an executor does at once, about."""
    return max(1, int(getattr(executor, "n_jobs", 1)))


def _begin(
    study: RunDirectory, data: Any, base: RunConfig, objectives: Sequence[str],
    search: Mapping[str, Any], max_cost: float, resume: bool,
) -> None:  # fmt: skip
    """Write what a study is, or hold it against the one that is there."""
    table = EventTable.of(data)
    if table.n < FEWEST_ROWS:
        raise ConfigError(f"a search needs {FEWEST_ROWS} events to judge by, got {table.n}")
    if spec_name(base.coupling) == "given":
        raise ConfigError("tune generates from noise; coupling='given' starts from given events")
    check_config(base)
    seed = seeding.resolve(base.random_state)
    known = study.file("study.json")
    if known.exists():
        if not resume:
            raise RunError(
                f"{study.path} holds a study already; add --resume to continue it, or choose"
                " another folder"
            )
        _same_table(read_setup(study), table, study)
        return
    n_fit = int(judge.in_part(table.n, seed, "fit").sum())
    sizes = (n_fit, len(table.names), len(table.cond_names))
    chosen = space.narrowed(space.model_space(base, *sizes), search)
    ordered = judge.check_objectives(objectives)
    study.path.mkdir(parents=True, exist_ok=True)
    study.file("references").mkdir(exist_ok=True)
    files.write_json(known, {
        "format": store.FORMAT,
        "base": asdict(replace(base, random_state=seed)),
        "seed": seed,
        "objectives": ordered,
        "space": {name: parameter.to_json() for name, parameter in chosen.items()},
        "max_cost": max_cost,
        "shares": judge.SHARES,
        "n_fit": n_fit,
        "table": judge.write_table(study, table),
        "events": files.digest_array(table.x),
    })  # fmt: skip


def _same_table(setup: dict[str, Any], table: EventTable, study: RunDirectory) -> None:
    if files.digest_array(table.x) != setup["events"]:
        raise RunError(f"{study.path} is a study of another table; choose another folder")


class Search:
    """Asks for trials, has them done, and tells what they found, until the budget is spent."""

    def __init__(
        self, study: RunDirectory, setup: dict[str, Any], executor: Executor,
        on_trial: OnTrial | None = None,
    ) -> None:  # fmt: skip
        self.study, self.setup, self.executor = study, setup, executor
        self.on_trial = on_trial
        self.space = space.from_json(setup["space"])
        database = study.file("optuna.db")
        lost = not database.exists() and bool(numbers(study))
        self.proposals = Proposals(
            database, self.space, len(setup["objectives"]), seed=setup["seed"],
            first=() if lost else space.first_tries(self.space),
        )  # fmt: skip
        if lost:
            self._rebuild()

    def close(self) -> None:
        """Let go of the database."""
        self.proposals.close()

    def go_on(self, n_trials: int, budget_s: float | None, parallel: int) -> None:
        """Do trials: first those that were begun, then new ones in batches of ``parallel``.

        A batch is proposed from what all before it found, so that what is proposed does not depend
        on which of them ends first. The start comes first and alone: others are held against it.
        """
        batch = self._begun()
        while True:
            count = 1 if self.proposals.count() == 0 else parallel
            while len(batch) < count and self._room(n_trials, budget_s, len(batch)):
                batch.append(self._ask())
            if not batch:
                return
            self._do(batch)
            batch = []

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
        reports = finished(self.study)
        if budget_s is None or not reports:
            return True
        spent = [float(r["cpu_seconds"]) for r in reports.values()]
        start = reports.get(0, {}).get("cpu_seconds", max(spent))
        after = 1.5 * start + choose.FINALISTS * start  # the last fit, the last judgement
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
            "format": store.FORMAT,
            "trial": number,
            "params": params,
            "reference": None if known is None else known["file"],
            "limits": {
                "curve": [] if known is None else known["curve"],
                "margin": MARGIN,
                "cpu_s": None if cpu_s is None else self.setup["max_cost"] * cpu_s,
            },
        }
        self.study.file("trials").mkdir(exist_ok=True)
        task = {**content, "digest": files.digest(content)}
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
            if found is None:
                self.proposals.tell(number, None, failed=True)
            else:
                self._tell(found)
        write_trials(self.study, self.setup)
        if 0 in failures:
            raise IncompleteRun(
                f"{self.study.path}: the first trial, which has the settings to start from, failed:"
                f" {failures[0]} (log: {self.study.file(TRIALS.log(0))})",
                failures[0],
            )

    def _tell(self, report: dict[str, Any]) -> None:
        complete = report["state"] == "complete"
        self.proposals.tell(report["trial"], report["values"] if complete else None)
        if complete:
            self._remember(report)

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
            files.write_bytes(self.study.file(name), content)
            references[coordinates] = {"file": name, "curve": report["losses"]}
        if number == 0:
            references["start"] = {"train_s": report["costs"]["train_s"]}
        self.study.write_json("references/index.json", {**references, "format": store.FORMAT})

    def _rebuild(self) -> None:
        """Fill a new database from the JSON files of a study that lost its own."""
        for number in range(max(numbers(self.study)) + 1):
            report = TRIALS.report(self.study, number)
            if report is None:
                self.proposals.add(None, None, "failed")
                continue
            params = (TRIALS.task(self.study, number) or {})["params"]
            self.proposals.add(params, report.get("values"), report["state"])
