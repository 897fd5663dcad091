"""Kinds of numbered jobs that executors do; the first of them trains the steps of a run.

Others are the blocks of a sample (`flowbdt.generation.sample_jobs`) and the trials of a study
(`flowbdt.tuning`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from .run_directory import RunDirectory

SPARE_MEMORY = 1.25
"""A job gets this much more memory than the cost model says: being held costs more than memory."""

DISK_MIB = 100
"""Room for a model, logs and temporary files."""


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

    @abstractmethod
    def do(self, folder: str, number: int, n_threads: int) -> dict[str, Any]:
        """Do one job in the run directory ``folder`` and return its report; may raise."""

    @abstractmethod
    def command(self, number: str) -> list[str]:
        """Return the arguments of ``flowbdt`` that do the job in the current folder."""

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


def folder_mib(run: RunDirectory, name: str) -> float:
    """Return the size of the files in a folder of the run, in MiB."""
    return sum(path.stat().st_size for path in run.file(name).glob("*")) / 2**20


class StepJobs(JobKind):
    """Training the steps of a run."""

    noun = "step"
    digest_key = "model_sha256"

    def do(self, folder: str, number: int, n_threads: int) -> dict[str, Any]:
        from .train_step import run_task  # XGBoost, which options and help do without

        return run_task(folder, number, n_threads)

    def command(self, number: str) -> list[str]:
        return ["step", ".", number]

    def inputs(self, run: RunDirectory, name: str) -> list[str]:
        return [f"tasks/{name}.json", "table", "transform.json", "preconditioner.npz"]

    def result(self, name: str) -> tuple[str, str]:
        return f"steps/{name}.ubj", f"steps/{name}.report.json"

    def report(self, run: RunDirectory, number: int) -> dict[str, Any] | None:
        return run.report(number)

    def needs(self, run: RunDirectory) -> Needs:
        from .expected_cost import step_cost  # the flow, too

        plan, tables = run.plan(), folder_mib(run, "table")
        memory = SPARE_MEMORY * (step_cost(plan).memory_mib + tables)
        reports = filter(None, map(run.report, range(run.n_steps())))
        used = [1.1 * report["peak_mib"] for report in reports]  # it may be more than the model's
        return Needs(round(max([memory, *used])), round(DISK_MIB + 1.5 * tables))


STEPS = StepJobs()
