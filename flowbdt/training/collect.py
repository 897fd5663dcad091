"""Run the missing steps of a plan and close the run, or say what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from .. import files, store
from ..errors import IncompleteRun
from ..store import RunDirectory

STORY = ("step", "time", "trees", "train_rmse", "valid_rmse", "valid_rmse_without_trees")
"""What the manifest keeps of each step's report: equal runs have equal manifests."""

OnReport = Callable[[dict[str, Any]], None]


class Runs(Protocol):
    """What `train` needs of an executor: reports for the steps it is given."""

    def run(self, run: RunDirectory, steps: Sequence[int]) -> Iterator[dict[str, Any]]: ...


def missing_steps(run: RunDirectory) -> list[int]:
    """Return the steps without a valid report, in order."""
    n_steps = len(run.read_json("plan.json")["grid"]["times"])
    return [step for step in range(n_steps) if run.report(step) is None]


def train(run: RunDirectory, executor: Runs, on_report: OnReport | None = None) -> dict[str, Any]:
    """Train every missing step with an executor, then collect.

    A failed step does not stop the others. ``on_report`` is called after each step, for progress.

    Raises
    ------
    IncompleteRun
        If steps are missing at the end; see `collect`.
    """
    files.remove_leftovers(run.path)
    failures: dict[int, str] = {}
    for report in executor.run(run, missing_steps(run)):
        if "error" in report:
            failures[report["step"]] = report["error"]
        if on_report is not None:
            on_report(report)
    return collect(run, failures)


def collect(run: RunDirectory, failures: dict[int, str] | None = None) -> dict[str, Any]:
    """Write and return the manifest of a complete run.

    Raises
    ------
    IncompleteRun
        Names the missing steps, the reason of the first failure, the logs, and how to go on.
    """
    plan = run.read_json("plan.json")
    store.check_format(plan, "plan.json")
    reports = {step: run.report(step) for step in range(len(plan["grid"]["times"]))}
    if not all(reports.values()):
        raise _incomplete(run, reports, failures or {})
    done = [report for report in reports.values() if report]
    manifest = {
        "format": store.FORMAT,
        "status": "complete",
        "digest": plan["digest"],
        "files": {name: files.digest_file(run.file(name)) for name in store.DESCRIBING},
        "models": {store.model_name(r["step"]): r["model_sha256"] for r in done},
        "steps": [{k: r[k] for k in STORY} for r in done],
    }
    run.write_json("manifest.json", manifest)
    return manifest


def _incomplete(
    run: RunDirectory, reports: dict[int, dict[str, Any] | None], failures: dict[int, str]
) -> IncompleteRun:
    missing = [step for step, report in reports.items() if report is None]
    steps = ", ".join(str(step) for step in missing)
    text = f"{run.path}: {len(missing)} of {len(reports)} steps are missing: {steps}."
    reason = "unknown"
    if failures:
        step = min(failures)
        reason = f"step {step}: {failures[step]}"
        log = run.file(store.log_name(step))
        text += f" Step {step} failed: {failures[step]} (log: {log})."
    text += f" Finished steps are kept; go on with: flowbdt fit -o {run.path} --resume"
    return IncompleteRun(text, reason)
