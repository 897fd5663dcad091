"""What an executor does: one kind of numbered job. Training steps is one.

Others are the blocks of a sample (`flowbdt.generation.sample_jobs`) and the trials of a study
(`flowbdt.tuning`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from ..run_directory import RunDirectory

SPARE_MEMORY = 1.25
"""A job gets this much more memory than the cost model says: being held costs more than memory."""


DISK_MIB = 100
"""Room for a model, logs and temporary files."""


@dataclass(frozen=True)
class Needs:
    """What one job asks of a machine: MiB of memory and of disk."""

    memory_mib: int
    disk_mib: int


class Work(ABC):
    """One kind of numbered job of a run. Instances are small: they travel to other processes.

    Attributes
    ----------
    noun : what one job is called; also the key of its number in reports
    digest_key : where its report states the hash of its result
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
        """Return what must be copied to run a job elsewhere; ``name`` is its four-digit number."""

    @abstractmethod
    def result(self, name: str) -> tuple[str, str]:
        """Return the names of the result and of the report of a job within the run."""

    @abstractmethod
    def report(self, run: RunDirectory, number: int) -> dict[str, Any] | None:
        """Return the report of a finished job, None if it is not done."""

    @abstractmethod
    def needs(self, run: RunDirectory) -> Needs:
        """Return what a job asks of a machine."""

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
