"""Training jobs of a run: one per time step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import cost_model, run_directory
from .executors.work import DISK_MIB, SPARE_MEMORY, Needs, Work, folder_mib
from .run_directory import RunDirectory
from .train_step import run_task, valid_repeats


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
        plan = run.plan()
        tables = folder_mib(run, "table")
        memory = SPARE_MEMORY * (step_cost(plan).memory_mib + tables)
        return Needs(round(max(memory, *_used(run, plan))), round(DISK_MIB + 1.5 * tables))


STEPS = Steps()


def step_cost(plan: Mapping[str, Any]) -> cost_model.Cost:
    """Return what one step of a plan will take at most."""
    settings = plan["fingerprint"]["settings"]
    noise = settings["noise"]
    return cost_model.estimate(
        settings["booster"],
        plan["n_train"] * noise["n_repeats"],
        _n_inputs(plan),
        plan["n_latent"],
        plan["n_valid"] * valid_repeats(noise),
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


def _used(run: RunDirectory, plan: Mapping[str, Any]) -> list[float]:
    """Return the peak memory of each finished step, with some to spare."""
    names = (run_directory.report_name(step) for step in range(len(plan["grid"]["times"])))
    found = (run.read_json(name)["peak_mib"] for name in names if run.file(name).exists())
    return [1.1 * peak for peak in found] or [0.0]
