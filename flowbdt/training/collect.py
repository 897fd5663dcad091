"""Train the missing steps of a plan and close the run, or name those that fail."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import atomic_files
from ..errors import FormatError, IncompleteRun
from . import run_directory
from .numbered_jobs import last_line
from .plan import write_tasks
from .run_directory import RunDirectory
from .task_files import check_planned

if TYPE_CHECKING:
    from .executors.base import Executor

STORY = ("step", "time", "trees", "train_rmse", "valid_rmse", "valid_rmse_without_trees")
"""Entries of a step's report in the manifest: equal runs have equal manifests."""

CLASSIFIER_STORY = ("step", "column", "name", "trees", "log_loss", "log_loss_without_trees")
"""The same of the classifier of a column."""

REASONS = 3
"""Failed steps that a message describes in full."""


OnReport = Callable[[dict[str, Any]], None]


def train(
    run: RunDirectory, executor: Executor, on_report: OnReport | None = None
) -> dict[str, Any]:
    """Train every missing step with an executor, then collect.

    A failed step does not stop the others. ``on_report`` is called after each step, for progress.
    Raises IncompleteRun if steps are missing at the end; see `collect_steps`.
    """
    atomic_files.remove_leftovers(run.path)
    write_tasks(run, run.plan())
    failures: dict[int, str] = {}
    reports = executor.run(run, run.missing_steps())
    try:
        for report in reports:
            if "error" in report:
                failures[report["step"]] = report["error"]
            if on_report is not None:
                on_report(report)
    except BaseException:
        if isinstance(reports, Generator):
            reports.close()  # ends its workers; what they were writing is left behind
        atomic_files.remove_leftovers(run.path)
        raise
    return collect_steps(run, failures)


def collect_steps(run: RunDirectory, failures: dict[int, str] | None = None) -> dict[str, Any]:
    """Write and return the manifest of a complete run.

    Results that a batch system brought to ``incoming/`` are checked and taken over first. Raises
    IncompleteRun with the missing steps, why they failed, their logs, and how to go on; FormatError
    if a file is not the one that was planned.
    """
    atomic_files.remove_leftovers(run.path)
    plan = run.plan()
    check_planned(run, plan)
    write_tasks(run, plan)
    steps = range(run.n_steps())
    for step in steps:
        run.receive(run_directory.model_name(step), run_directory.report_name(step), "model_sha256")
    reports = {step: run.report(step) for step in steps}
    if not all(reports.values()):
        raise _incomplete(run, reports, failures or {})
    done = [report for report in reports.values() if report]
    manifest = {
        "format": run_directory.FORMAT,
        "status": "complete",
        "digest": plan["digest"],
        "files": {
            **plan["fingerprint"]["fitted"],
            "plan.json": atomic_files.digest_file(run.file("plan.json")),
        },
        "models": {run_directory.model_name(r["step"]): r["model_sha256"] for r in done},
        "steps": [{k: r[k] for k in STORY} for r in done if "time" in r],
    }
    classifiers = [{k: r[k] for k in CLASSIFIER_STORY} for r in done if "column" in r]
    if classifiers:
        manifest["classifiers"] = classifiers
    run.write_json("manifest.json", manifest)
    return manifest


def _incomplete(
    run: RunDirectory, reports: dict[int, dict[str, Any] | None], failures: dict[int, str]
) -> IncompleteRun:
    missing = [step for step, report in reports.items() if report is None]
    steps = ", ".join(map(str, missing))
    text = f"{run.path}: {len(missing)} of {len(reports)} steps are missing: {steps}."
    known = [(step, *found) for step in missing if (found := _reason(run, step, failures))]
    for step, why, log in known[:REASONS]:
        text += f" Step {step} failed: {why} (log: {log})."
    if len(known) > REASONS:
        text += f" {len(known) - REASONS} more failed; their logs are in {run.file('logs')}."
    folder = shlex.quote(str(run.whole))
    text += f" Finished steps are kept; go on with: flowbdt fit -o {folder} --resume"
    return IncompleteRun(text, f"step {known[0][0]}: {known[0][1]}" if known else "unknown")


def _reason(run: RunDirectory, step: int, failures: dict[int, str]) -> tuple[str, Path] | None:
    """Return why a step failed and the log that tells more; None if nothing is known.

    The reason is that of the executor, else that its report is damaged, else the last line of the
    step's newest log: this may be another process than the one that ran it.
    """
    log = run.file(run_directory.log_name(step))
    logs = [log for log in (log, log.with_suffix(".err")) if log.exists() and log.stat().st_size]
    newest = max(logs, key=lambda log: log.stat().st_mtime, default=log)
    if step in failures:
        return failures[step], newest
    try:
        run.checked_report(step)
    except FormatError as error:
        return str(error), newest
    return (last_line(newest), newest) if logs else None
