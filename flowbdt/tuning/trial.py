"""One trial of a study, as a job of its own: fit, race, generate, judge.

::

    study.json             what is searched, how trials are judged, the parts of the table
    table/*.npy            all events that were handed in
    references/*.npz       closed form that losses are divided by, per choice of coordinates
    trials/0007.json       parameters of a trial, and when to give it up
    scratch/0007/          its run while it is fitted; a killed trial goes on there
    trials/0007.flowbdt    its model, then
    trials/0007.report.json  scores, costs, losses, with the task's digest and the model's hash
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from .. import cost, files, store
from ..config import RunConfig
from ..cost import PROCESS_MIB
from ..errors import ConfigError, FormatError
from ..execution.work import DISK_MIB, SPARE_MEMORY, Needs, Work, folder_mib, name_of
from ..generation import Flow
from ..rejection import learn_rejection
from ..seeding import derive
from ..store import Archive, RunDirectory
from ..training.collect import collect
from ..training.plan import Inputs, make_plan
from . import judge, space
from .race import Limits, Race, race


@dataclass(frozen=True)
class Trials(Work):
    """The trials of a study; the folder of the study takes the place of a run's."""

    noun: ClassVar[str] = "trial"
    digest_key: ClassVar[str] = "model_sha256"

    def do(self, folder: str, number: int, n_threads: int) -> dict[str, Any]:
        """Do one trial."""
        return run_trial(RunDirectory(folder), number, n_threads)

    def command(self, number: str) -> list[str]:
        """Return ``trial . NUMBER``."""
        return ["trial", ".", number]

    def inputs(self, run: RunDirectory, name: str) -> list[str]:
        """Return the study, its table, the closed forms to compare with, and the task."""
        return ["study.json", "table", "references", f"trials/{name}.json"]

    def result(self, name: str) -> tuple[str, str]:
        """Return the names of model and report."""
        return f"trials/{name}.flowbdt", f"trials/{name}.report.json"

    def logs(self, name: str) -> str:
        """Return the name of a trial's logs within the study, without ending."""
        return f"trials/{name}"

    def task(self, run: RunDirectory, number: int) -> dict[str, Any] | None:
        """Return the task of a trial; None if there is none."""
        try:
            content: dict[str, Any] = run.read_json(f"trials/{name_of(number)}.json")
        except FormatError:
            return None
        return content

    def report(self, run: RunDirectory, number: int) -> dict[str, Any] | None:
        """Return the report if it belongs to the task; its model may have been cleared away."""
        task = self.task(run, number)
        _, described = self.result(name_of(number))
        try:
            report: dict[str, Any] = run.read_json(described)
            same = task is not None and report["task_digest"] == task["digest"]
        except (FormatError, KeyError):
            return None
        return report if same else None

    def needs(self, run: RunDirectory) -> Needs:
        """Return what the largest of the trials that are not done may take."""
        setup, table = read_setup(run), folder_mib(run, "table")
        rows, columns = setup["n_fit"], len(setup["table"]["names"])
        most = PROCESS_MIB
        for path in run.path.glob("trials/[0-9]*[0-9].json"):
            if self.report(run, int(path.stem)) is None:
                config = configuration(setup, run.read_json(f"trials/{path.name}")["params"], rows)
                settled = config.resolved(rows, columns)
                n = rows * (settled.n_repeats or 1)
                size = cost.estimate(settled.booster, n, 3 * columns, columns, n // 5)
                most = max(most, size.memory_mib)
        memory = SPARE_MEMORY * (most + 20 * table) + 200
        return Needs(round(memory), round(DISK_MIB + 20 * table + 200))


TRIALS = Trials()


def read_state(study: RunDirectory, name: str) -> dict[str, Any]:
    """Return a JSON file of a study; an empty dict if there is none.

    Raises FormatError if it is damaged, or of a format that this release does not know.
    """
    if not study.file(name).exists():
        return {}
    content: dict[str, Any] = study.read_json(name)
    store.check_format(content, str(study.file(name)))
    return content


def read_setup(study: RunDirectory) -> dict[str, Any]:
    """Return ``study.json``. Raises ConfigError if the folder holds no study of models."""
    content = read_state(study, "study.json")
    if not content:
        raise ConfigError(
            f"{study.path} holds no study; start one with: flowbdt tune TABLE -o STUDY"
        )
    return content


def configuration(setup: dict[str, Any], params: dict[str, Any], n_rows: int) -> RunConfig:
    """Return the configuration of a trial, or of its refit to another number of events."""
    base = RunConfig.from_mapping(setup["base"])
    columns = len(setup["table"]["names"])
    known = space.from_json(setup["space"])
    return replace(space.settings(params, known, base, n_rows, columns), executor="serial")


def run_trial(study: RunDirectory, number: int, n_threads: int) -> dict[str, Any]:
    """Fit and judge one trial and return its report, which is written last.

    Raises
    ------
    ConfigError, FormatError
        If the study has no such trial, or files do not belong together.
    """
    setup, task = read_setup(study), TRIALS.task(study, number)
    if task is None:
        raise ConfigError(f"{study.path} has no trial {number}")
    start, cpu = time.perf_counter(), time.process_time()
    held = judge.read_part(study, setup, "select")
    run = RunDirectory(study.file(f"scratch/{name_of(number)}"))
    planning_s = _plan(study, setup, task, run)
    closed_form = task["reference"] and study.read(task["reference"])
    raced = race(
        run, held, closed_form, Limits.from_json(task["limits"]),
        seed=setup["seed"], n_threads=n_threads, planning_s=planning_s,
    )  # fmt: skip
    if raced.stopped:
        content, result = b"", {"state": "pruned", "reason": raced.stopped}
    else:
        content, result = _finish(run, setup, held, raced, n_threads)
    return _write(study, number, task, content, {
        **result,
        "losses": sorted(raced.losses.items()),
        "fitted_s": raced.cpu_s,
        "cpu_seconds": max(time.process_time() - cpu, raced.cpu_s),
        "seconds": time.perf_counter() - start,
    })  # fmt: skip


def _plan(
    study: RunDirectory, setup: dict[str, Any], task: dict[str, Any], run: RunDirectory
) -> float:
    """Plan the run of a trial, unless that was done; return the CPU seconds it took."""
    clock = study.file(f"scratch/{run.path.name}.json")
    if run.is_planned() and clock.exists():
        return float(files.read_json(clock)["planning_s"])
    start = time.process_time()
    table = judge.read_part(study, setup, "fit")
    config = configuration(setup, task["params"], table.n)
    make_plan(Inputs(table, config, setup["seed"]), run, resume=True)
    planning_s = time.process_time() - start
    files.write_json(clock, {"planning_s": planning_s})
    return planning_s


def _finish(
    run: RunDirectory, setup: dict[str, Any], held: Any, raced: Race, n_threads: int
) -> tuple[bytes, dict[str, Any]]:
    """Close the run of a trial and judge its events; return its model and what was found."""
    manifest = collect(run)
    learn_rejection(run, n_threads)
    manifest = run.read_json("manifest.json")
    train_s = raced.cpu_s
    if store.REJECTION in manifest["files"]:
        train_s += run.read_json(store.REJECTION_REPORT)["cpu_seconds"]
    flow = Flow(run, n_threads)
    start = time.process_time()
    made = judge.generated(flow, held, derive(setup["seed"], "tune-events"))
    names = [name for name in setup["objectives"] if name not in judge.COSTS]
    found = judge.scores(held, made.table, names, setup["seed"], n_threads)
    costs = {"train_s": train_s, "us_per_event": made.us_per_event}
    result = {
        "state": "complete",
        "scores": {name: score.to_json() for name, score in found.items()},
        "costs": costs,
        "values": [
            found[name].value if name in found else costs[name] for name in setup["objectives"]
        ],
        "acceptance": flow.acceptance,
        "n_evaluations": flow.n_evaluations,
        "trees": sum(step["trees"] for step in manifest["steps"]),
        "judging_s": time.process_time() - start,
    }
    return store.archive_bytes(run, manifest), result


def _write(
    study: RunDirectory, number: int, task: dict[str, Any], content: bytes, found: dict[str, Any]
) -> dict[str, Any]:
    """Write model, then report; remove the scratch folder."""
    name = name_of(number)
    model, described = TRIALS.result(name)
    study.file("trials").mkdir(exist_ok=True)
    files.write_bytes(study.file(model), content)
    report = {
        "format": store.FORMAT,
        "trial": number,
        "task_digest": task["digest"],
        "model_sha256": files.digest_bytes(content),
        **found,
        "worker": {"host": platform.node(), "pid": os.getpid(), "finished": time.time()},
    }
    study.write_json(described, report)
    shutil.rmtree(study.file(f"scratch/{name}"), ignore_errors=True)
    study.file(f"scratch/{name}.json").unlink(missing_ok=True)
    return report


def model(study: RunDirectory, number: int) -> Archive:
    """Return the model of a complete trial. Raises FormatError if it is missing or damaged."""
    name, _ = TRIALS.result(name_of(number))
    report, content = TRIALS.report(study, number), study.read(name)
    if report is None or files.digest_bytes(content) != report["model_sha256"]:
        raise FormatError(
            f"{study.file(name)} is damaged or of another trial; delete its report, then resume"
        )
    return Archive(name, content)
