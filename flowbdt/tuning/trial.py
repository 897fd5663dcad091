"""One trial of a study, as a job of its own: fit, race, generate, judge; with folds for each.

::

    references/*.npz       closed form that losses are divided by, per choice of coordinates
    trials/0007.json       task: parameters of a trial, and limits beyond which it is given up
    scratch/0007/          runs of its folds while they are fitted, and results of those that are
                           done; a killed trial goes on there
    trials/0007.flowbdt    its model, that of the first fold, then
    trials/0007.report.json  scores, costs, losses, with the task's digest and the model's hash
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from typing import Any, ClassVar

from .. import atomic_files
from ..config import RunConfig
from ..errors import FormatError
from ..evaluation.metrics import Result
from ..evaluation.score_events import COSTS, generate_like, score_objectives
from ..generation.learn_rejection import learn_rejection
from ..generation.trained_flow import Flow
from ..seeding import derive
from ..tables.event_table import EventTable
from ..training import expected_cost, run_directory
from ..training.collect import collect_steps
from ..training.expected_cost import PROCESS_MIB
from ..training.numbered_jobs import DISK_MIB, SPARE_MEMORY, JobKind, Needs, folder_mib, name_of
from ..training.plan import Inputs, make_plan
from ..training.run_directory import Archive, RunDirectory
from ..training.task_files import worker_description
from ..typed_settings import AtLeastOne, AtLeastZero, Stored, check_stored
from . import search_space, stop_early
from .stop_early import Limits, Race, race
from .study import read_setup, shares_of, study_table


class StoredLimits(Stored):
    """What a trial is compared with."""

    curve: list[Any]
    margin: float
    cpu_s: float | None
    folds: list[dict[str, Any]]


class StoredTrial(Stored):
    """Task of a trial."""

    format: AtLeastOne
    trial: AtLeastZero
    params: dict[str, Any]
    reference: str | None
    limits: StoredLimits
    digest: str


MODEL = "model.flowbdt"
"""Of the first fold, in the scratch folder of its trial."""


class Trials(JobKind):
    """The trials of a study; the folder of the study takes the place of a run's."""

    noun: ClassVar[str] = "trial"
    digest_key: ClassVar[str] = "model_sha256"

    def do(self, folder: str, number: int, n_threads: int) -> dict[str, Any]:
        return do_trial(RunDirectory(folder), number, n_threads)

    def command(self, number: str) -> list[str]:
        return ["trial", ".", number]

    def inputs(self, run: RunDirectory, name: str) -> list[str]:
        return ["study.json", "table", "references", f"trials/{name}.json"]

    def result(self, name: str) -> tuple[str, str]:
        return f"trials/{name}.flowbdt", f"trials/{name}.report.json"

    def logs(self, name: str) -> str:
        return f"trials/{name}"

    def task(self, run: RunDirectory, number: int) -> dict[str, Any]:
        """Return the task of a trial. Raises FormatError if it is missing or damaged."""
        name = f"trials/{name_of(number)}.json"
        content = run.read_json(name)
        check_stored(content, StoredTrial, str(run.file(name)))
        if content["digest"] != atomic_files.digest(_without_digest(content)):
            raise FormatError(f"{run.file(name)} is not what its digest says; copy the study again")
        return content

    def report(self, run: RunDirectory, number: int) -> dict[str, Any] | None:
        # not held against the model, which may have been cleared away
        return _result_of(self.task(run, number), run, self.result(name_of(number))[1])

    def needs(self, run: RunDirectory) -> Needs:
        # of the largest trial that is not done
        setup, table = read_setup(run), folder_mib(run, "table")
        rows, columns = setup["n_fit"], len(setup["table"]["names"])
        most = PROCESS_MIB
        for number in numbers(run):
            if self.report(run, number) is None:
                config = trial_config(setup, self.task(run, number)["params"], rows)
                settled = config.resolved(rows, columns)
                n = rows * settled.noise["n_repeats"]
                size = expected_cost.estimate(settled.booster, n, 3 * columns, columns, n // 5)
                most = max(most, size.memory_mib)
        memory = SPARE_MEMORY * (most + 20 * table) + 200
        return Needs(round(memory), round(DISK_MIB + 20 * table + 200))


def _without_digest(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != "digest"}


TRIALS = Trials()


def numbers(study: RunDirectory) -> list[int]:
    """Return the numbers of all trials that were planned."""
    return sorted(
        int(path.stem) for path in study.path.glob("trials/*.json") if path.stem.isdigit()
    )


def _result_of(task: dict[str, Any], folder: RunDirectory, name: str) -> dict[str, Any] | None:
    """Return the content of a JSON file; None if it is missing, damaged or of another task."""
    try:
        content: dict[str, Any] = folder.read_json(name)
        return content if content["task_digest"] == task["digest"] else None
    except (FormatError, KeyError):
        return None


def trial_config(setup: dict[str, Any], params: dict[str, Any], n_rows: int) -> RunConfig:
    """Return the configuration of a trial, or of its refit to another number of events.

    A number of Gaussians that the search chose grows with the events, as one chosen by held-out
    likelihood does: else a refit to all events would gain less from them than the start.
    """
    base = RunConfig.from_mapping(setup["base"])
    columns = len(setup["table"]["names"])
    known = search_space.from_json(setup["space"])
    chosen = search_space.config_of(params, known, base, n_rows, columns)
    form = chosen.preconditioner
    if params.get("closed_form", "").startswith(search_space.MIXTURE_OF) and isinstance(form, dict):
        count = max(1, round(form["n_components"] * n_rows / setup["n_fit"]))
        chosen = replace(chosen, preconditioner={**form, "n_components": count})
    return replace(chosen, executor="serial")


def do_trial(study: RunDirectory, number: int, n_threads: int) -> dict[str, Any]:
    """Fit and judge one trial and return its report, which is written last.

    With folds the trial is fitted and judged on one after the other, and given up as soon as its
    steps, of the first fold, or its scores so far are clearly worse than those of the start.
    Raises ConfigError if the study has no such trial, FormatError if files do not belong together.
    """
    setup, task = read_setup(study), TRIALS.task(study, number)
    trial = _Trial(study, setup, task, study_table(study, setup), n_threads)
    start = [Result(**score) for score in task["limits"].get("folds", [])]
    done: list[dict[str, Any]] = []
    stopped = None
    for fold in range(trial.shares.rounds):
        done.append(trial.fold(fold))
        stopped = done[-1].get("stopped")
        if stopped is None and fold + 1 < trial.shares.rounds:
            scores = [_score(one, setup["objectives"][0]) for one in done]
            stopped = stop_early.clearly_worse(scores, start)
        if stopped is not None:
            break
    return _write(study, number, task, _summed_up(setup, done, stopped), trial.folder)


class _Trial:
    """A trial in progress."""

    def __init__(
        self, study: RunDirectory, setup: dict[str, Any], task: dict[str, Any],
        table: EventTable, n_threads: int,
    ) -> None:  # fmt: skip
        self.study, self.setup, self.task = study, setup, task
        self.table, self.shares = table, shares_of(setup, table)
        self.n_threads = n_threads
        self.folder = RunDirectory(study.file(f"scratch/{name_of(task['trial'])}"))

    def fold(self, fold: int) -> dict[str, Any]:
        """Return the result of a fold: read if it is done, else made and written."""
        name = f"{fold}.json"
        known = _result_of(self.task, self.folder, name)
        if known is not None:
            return known
        cpu, start = time.process_time(), time.perf_counter()
        # each fold has a seed of its own: the scatter between them includes that of all draws
        seed = self.setup["seed"] if fold == 0 else derive(self.setup["seed"], "tune-fold", fold)
        run = RunDirectory(self.folder.file(f"run-{fold}"))
        planning_s = self._plan(run, fold, seed)
        held = self.table.take(self.shares.held(fold))
        limits, reference = Limits(), None
        if fold == 0:  # only its steps can end the trial
            known = self.task["limits"]
            limits = Limits(known["curve"], known["margin"], known["cpu_s"])
            reference = self.task["reference"]
        closed_form = reference and self.study.read(reference)
        raced = race(
            run, held, closed_form, limits,
            seed=seed, n_threads=self.n_threads, planning_s=planning_s,
        )  # fmt: skip
        result: dict[str, Any] = {"stopped": raced.stopped}
        if raced.stopped is None:
            content, judged = _judged(run, self.setup, held, raced, seed, self.n_threads)
            result |= judged
            if fold == 0:
                atomic_files.write_bytes(self.folder.file(MODEL), content)
        result |= {
            "task_digest": self.task["digest"],
            "losses": sorted(raced.losses.items()),
            "fitted_s": raced.cpu_s,
            "cpu_seconds": max(time.process_time() - cpu, raced.cpu_s),
            "seconds": time.perf_counter() - start,
        }
        self.folder.write_json(name, result)
        shutil.rmtree(run.path, ignore_errors=True)
        return result

    def _plan(self, run: RunDirectory, fold: int, seed: int) -> float:
        """Plan the run of a fold, unless that was done; return the CPU seconds it took."""
        clock = self.folder.file(f"plan-{fold}.json")
        if run.is_planned() and clock.exists():
            return float(atomic_files.read_json(clock)["planning_s"])
        start = time.process_time()
        table = self.table.take(self.shares.fit(fold))
        config = trial_config(self.setup, self.task["params"], table.n)
        make_plan(Inputs(table, config, seed), run, resume=True)
        planning_s = time.process_time() - start
        atomic_files.write_json(clock, {"planning_s": planning_s})
        return planning_s


def _score(result: dict[str, Any], name: str) -> Result:
    return Result(**result["scores"][name])


def _judged(
    run: RunDirectory, setup: dict[str, Any], held: EventTable, raced: Race, seed: int,
    n_threads: int,
) -> tuple[bytes, dict[str, Any]]:  # fmt: skip
    """Close the run of a fold and judge its events; return its model, scores and costs."""
    collect_steps(run)
    learn_rejection(run, n_threads)
    manifest = run.read_json("manifest.json")
    train_s = raced.cpu_s
    if run_directory.REJECTION in manifest["files"]:
        train_s += run.read_json(run_directory.REJECTION_REPORT)["cpu_seconds"]
    flow = Flow(run, n_threads)
    start = time.process_time()
    made = generate_like(flow, held, derive(seed, "tune-events"))
    names = [name for name in setup["objectives"] if name not in COSTS]
    scores = score_objectives(held, made.table, names, seed, n_threads)
    result = {
        "scores": {name: score.to_json() for name, score in scores.items()},
        "costs": {"train_s": train_s, "us_per_event": made.us_per_event},
        "acceptance": flow.acceptance,
        "n_evaluations": flow.n_evaluations,
        "trees": sum(step["trees"] for step in manifest["steps"]),
        "judging_s": time.process_time() - start,
    }
    return run_directory.archive_bytes(run, manifest), result


def _summed_up(
    setup: dict[str, Any], done: list[dict[str, Any]], stopped: str | None
) -> dict[str, Any]:
    """Return the result of a trial: scores and costs of one model, times of all of them."""
    spent = {
        name: sum(one[name] for one in done) for name in ("fitted_s", "cpu_seconds", "seconds")
    }
    result = {"losses": done[0]["losses"], **spent}
    if setup.get("folds") is not None:
        judged = [one for one in done if "scores" in one]
        result["folds"] = [{k: one[k] for k in ("scores", "costs")} for one in judged]
    if stopped is not None:
        return {**result, "state": "pruned", "reason": stopped}
    costs = {name: sum(one["costs"][name] for one in done) / len(done) for name in COSTS}
    names = [name for name in setup["objectives"] if name not in COSTS]
    scores = {name: stop_early.over_folds([_score(one, name) for one in done]) for name in names}
    known = {**costs, **{name: score.value for name, score in scores.items()}}
    kept = ("acceptance", "n_evaluations", "trees")
    return {
        **result,
        **{name: done[0][name] for name in kept},
        "state": "complete",
        "scores": {name: score.to_json() for name, score in scores.items()},
        "costs": costs,
        "values": [known[name] for name in setup["objectives"]],
        "judging_s": sum(one["judging_s"] for one in done),
    }


def _write(
    study: RunDirectory, number: int, task: dict[str, Any], result: dict[str, Any],
    scratch: RunDirectory,
) -> dict[str, Any]:  # fmt: skip
    """Write model, then report; remove the scratch folder."""
    content = scratch.read(MODEL) if result["state"] == "complete" else b""
    model, described = TRIALS.result(name_of(number))
    study.file("trials").mkdir(exist_ok=True)
    atomic_files.write_bytes(study.file(model), content)
    report = {
        "format": run_directory.FORMAT,
        "trial": number,
        "task_digest": task["digest"],
        "model_sha256": atomic_files.digest_bytes(content),
        **result,
        "worker": worker_description(),
    }
    study.write_json(described, report)
    shutil.rmtree(scratch.path, ignore_errors=True)
    return report


def trial_model(study: RunDirectory, number: int) -> Archive:
    """Return the model of a complete trial. Raises FormatError if it is missing or damaged."""
    name, _ = TRIALS.result(name_of(number))
    report, content = TRIALS.report(study, number), study.read(name)
    if report is None or atomic_files.digest_bytes(content) != report["model_sha256"]:
        raise FormatError(
            f"{study.file(name)} is damaged or of another trial; delete its report, then resume"
        )
    return Archive(name, content)
