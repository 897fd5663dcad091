"""Kinds of numbered jobs that executors do; the first of them trains the steps of a run.

Others are the blocks of a sample (`flowbdt.generation.sample_jobs`) and the trials of a study
(`flowbdt.tuning`).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .run_directory import RunDirectory

SPARE_MEMORY = 1.25
"""A job gets this much more memory than the cost model says: being held costs more than memory."""

DISK_MIB = 100
"""Room for a model, logs and temporary files."""

LEAST_S = 15.0
"""Seconds that a batch job lasts at least: one takes seconds to start, whatever it does."""

Batch = tuple[int, ...]
"""Numbers that one batch job does one after the other."""


@dataclass(frozen=True)
class Needs:
    """MiB of memory and of disk that one job needs."""

    memory_mib: int
    disk_mib: int


class JobKind(ABC):
    """One kind of numbered job of a run. Instances are small: they travel to other processes.

    Reports have the number under the ``noun``, and the hash of the result under ``digest_key``.
    """

    noun: ClassVar[str]
    digest_key: ClassVar[str]
    folder: ClassVar[str | None] = None
    """Folder of the results within the run, if a batch job may do several of this kind."""

    @abstractmethod
    def do(self, folder: str, number: int, n_threads: int) -> dict[str, Any]:
        """Do one job in the run directory ``folder`` and return its report; may raise."""

    @abstractmethod
    def command(self, numbers: str) -> list[str]:
        """Return the arguments of ``flowbdt`` that do jobs in the current folder; as 3 or 3+4."""

    @abstractmethod
    def inputs(self, run: RunDirectory, name: str) -> list[str]:
        """Return the files to copy for a job elsewhere; ``name`` is its four-digit number."""

    @abstractmethod
    def result(self, name: str) -> tuple[str, str]:
        """Return the names of the result and of the report of a job within the run."""

    @abstractmethod
    def report(self, run: RunDirectory, number: int) -> dict[str, Any] | None:
        """Return the report of a finished job, None if it is not done."""

    @abstractmethod
    def needs(self, run: RunDirectory) -> Needs:
        """Return memory and disk of a job."""

    def seconds(self, run: RunDirectory) -> float:
        """Return the seconds that one job lasts on one core; by default enough by itself."""
        return LEAST_S

    def batches(
        self,
        run: RunDirectory,
        numbers: Sequence[int],
        per_job: int | None,
        n_threads: int = 1,
        n_workers: int = 1,
    ) -> list[Batch]:
        """Return the numbers that each batch job does, in order, as many for each as can be.

        At most ``per_job``; for None as many as last `LEAST_S`, or fewer if some of ``n_workers``
        had nothing to do otherwise.
        """
        if self.folder is None or not numbers:
            return [(number,) for number in numbers]
        if per_job is None:
            each = math.ceil(LEAST_S * n_threads / max(self.seconds(run), 1e-9))
            n_jobs = min(max(len(numbers) // each, n_workers), len(numbers))
        else:
            n_jobs = math.ceil(len(numbers) / per_job)
        edges = [len(numbers) * i // n_jobs for i in range(n_jobs + 1)]
        return [tuple(numbers[low:high]) for low, high in itertools.pairwise(edges)]

    def logs(self, name: str) -> str:
        """Return the name of a job's logs within the run, without ending."""
        return f"logs/{name}"

    def log(self, number: int) -> str:
        """Return the name of the log of a job's failure within the run."""
        return f"{self.logs(name_of(number))}.log"

    def receive(self, run: RunDirectory, number: int) -> dict[str, Any] | None:
        """Return the report of a finished job; first take over what a batch system brought."""
        run.receive(*self.result(name_of(number)), self.digest_key)
        return self.report(run, number)


def name_of(number: int) -> str:
    """Return the four digits (or more) that files of a job are named after."""
    return f"{number:04d}"


def last_line(log: Path) -> str:
    """Return the last line of a log, without the program's name; '' if there is none."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1].removeprefix("flowbdt: error: ") if lines else ""


def folder_mib(run: RunDirectory, name: str) -> float:
    """Return the size of the files in a folder of the run, in MiB."""
    return sum(path.stat().st_size for path in run.file(name).glob("*")) / 2**20


class StepJobs(JobKind):
    """Training the steps of a run."""

    noun = "step"
    digest_key = "model_sha256"
    folder = "steps"

    def do(self, folder: str, number: int, n_threads: int) -> dict[str, Any]:
        from .train_step import run_task  # XGBoost, which options and help do without

        return run_task(folder, number, n_threads)

    def command(self, numbers: str) -> list[str]:
        return ["step", ".", numbers]

    def inputs(self, run: RunDirectory, name: str) -> list[str]:
        return [f"tasks/{name}.json", "table", "transform.json", "preconditioner.npz"]

    def result(self, name: str) -> tuple[str, str]:
        return f"steps/{name}.ubj", f"steps/{name}.report.json"

    def report(self, run: RunDirectory, number: int) -> dict[str, Any] | None:
        return run.report(number)

    def seconds(self, run: RunDirectory) -> float:
        from .expected_cost import step_seconds

        done = [r["cpu_seconds"] for r in map(run.report, range(run.n_steps())) if r]
        return sum(done) / len(done) if done else step_seconds(run.plan())[0]

    def needs(self, run: RunDirectory) -> Needs:
        from .expected_cost import step_cost  # the flow, too

        plan, tables = run.plan(), folder_mib(run, "table")
        memory = SPARE_MEMORY * (step_cost(plan).memory_mib + tables)
        reports = filter(None, map(run.report, range(run.n_steps())))
        used = [1.1 * report["peak_mib"] for report in reports]  # it may be more than the model's
        return Needs(round(max([memory, *used])), round(DISK_MIB + 1.5 * tables))


STEPS = StepJobs()
