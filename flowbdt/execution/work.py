"""What an executor does: one kind of numbered job. Training steps is one.

Others are the parts of a sample (`flowbdt.parts`) and the trials of a study (`flowbdt.tuning`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import cost, store
from ..store import RunDirectory
from ..training.worker import VALID_REPEATS, run_task

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


class Steps(Work):
    """Training the steps of a run."""

    noun = "step"
    digest_key = "model_sha256"

    def do(self, folder: str, number: int, n_threads: int) -> dict[str, Any]:
        """Train one step."""
        return run_task(folder, number, n_threads)

    def command(self, number: str) -> list[str]:
        """Return ``step . NUMBER``."""
        return ["step", ".", number]

    def inputs(self, run: RunDirectory, name: str) -> list[str]:
        """Return the task, the tables, and what was fitted once for all steps."""
        return [f"tasks/{name}.json", "table", "transform.json", "preconditioner.npz"]

    def result(self, name: str) -> tuple[str, str]:
        """Return the names of model and report."""
        return f"steps/{name}.ubj", f"steps/{name}.report.json"

    def report(self, run: RunDirectory, number: int) -> dict[str, Any] | None:
        """Return the report if model and task belong to it."""
        return run.report(number)

    def needs(self, run: RunDirectory) -> Needs:
        """Return what the cost model says, or what a finished step has used if that is more."""
        plan = run.read_json("plan.json")
        tables = folder_mib(run, "table")
        memory = SPARE_MEMORY * (step_cost(plan).memory_mib + tables)
        return Needs(round(max(memory, *_used(run, plan))), round(DISK_MIB + 1.5 * tables))


STEPS = Steps()


def step_cost(plan: Mapping[str, Any]) -> cost.Cost:
    """Return what one step of a plan will take at most."""
    settings = plan["fingerprint"]["settings"]
    repeats = settings["n_repeats"]
    valid = VALID_REPEATS if settings["noise"] == "fresh" else min(repeats, VALID_REPEATS)
    return cost.estimate(
        settings["booster"],
        plan["n_train"] * repeats,
        _n_inputs(plan),
        plan["n_latent"],
        plan["n_valid"] * valid,
    )


def _n_inputs(plan: Mapping[str, Any]) -> int:
    """Return how many numbers trees see of a point, at most."""
    views = plan["fingerprint"]["settings"]["inputs"]
    points = sum(view in views for view in ("latent", "columns", "end_point"))
    conditions = len(plan["fingerprint"]["columns"]["conditions"])
    spec = plan["fingerprint"]["settings"]["preconditioner"]
    named = isinstance(spec, Mapping) and "components" in views
    components = int(spec.get("n_components", 0)) if named else 0
    return points * int(plan["n_latent"]) + conditions + components


def folder_mib(run: RunDirectory, name: str) -> float:
    """Return the size of the files in a folder of the run, in MiB."""
    return sum(path.stat().st_size for path in run.file(name).glob("*")) / 2**20


def _used(run: RunDirectory, plan: Mapping[str, Any]) -> list[float]:
    """Return the peak memory of each finished step, with some to spare."""
    names = (store.report_name(step) for step in range(len(plan["grid"]["times"])))
    found = (run.read_json(name)["peak_mib"] for name in names if run.file(name).exists())
    return [1.1 * peak for peak in found] or [0.0]
