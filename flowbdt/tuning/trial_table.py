"""The trials of a study: their numbers, reports, and the table of all of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from .. import atomic_files
from ..evaluation.metrics.base import uncertain
from ..evaluation.score_events import COSTS
from ..training.collect import last_line
from ..training.run_directory import RunDirectory
from .trial import TRIALS, numbers

KEPT = (
    "state", "reason", "folds", "scores", "costs", "losses", "cpu_seconds", "acceptance",
    "n_evaluations", "trees",
)  # fmt: skip
"""Of a report, in the table."""


def finished(study: RunDirectory) -> dict[int, dict[str, Any]]:
    """Return the reports of all trials that came to an end, given up or not."""
    reports = {number: TRIALS.report(study, number) for number in numbers(study)}
    return {number: report for number, report in reports.items() if report is not None}


def has_failed(study: RunDirectory, number: int) -> bool:
    """Return whether a trial without a report has the log of a failure."""
    return study.file(TRIALS.log(number)).exists()


def trial_text(report: Mapping[str, Any]) -> str:
    """Return one line about a trial that ended."""
    if "error" in report:
        return f"trial {report['trial']} failed: {report['error']}"
    if report["state"] == "pruned":
        return f"trial {report['trial']} given up: {report['reason']}"
    return f"trial {report['trial']}: {result_text(report)}"


def result_text(report: Mapping[str, Any]) -> str:
    """Return the scores and costs of a complete trial, in one line."""
    costs = report["costs"]
    return (
        f"{scores_text(report['scores'])}, training {costs['train_s']:.3g} CPU s,"
        f" {costs['us_per_event']:.3g} us per event"
    )


def scores_text(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Return scores with their errors, in one line."""
    return ", ".join(f"{n} {uncertain(s['value'], s['error'])}" for n, s in scores.items())


def write_trials(study: RunDirectory, setup: dict[str, Any]) -> list[dict[str, Any]]:
    """Write the table of all trials, as JSON and as CSV, and return its rows."""
    rows = [_row(study, number) for number in numbers(study)]
    atomic_files.write_json(study.file("trials.json"), {"format": 1, "trials": rows})
    names = ["number", "state", "reason", "cpu_seconds", *setup["space"]]
    scores = [name for name in setup["objectives"] if name not in COSTS]
    errors = [f"{name}_error" for name in scores]
    folds = range(setup.get("folds") or 0)
    single = [f"{name}_fold{fold}" for name in scores for fold in folds]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *scores, *errors, *COSTS, *single])
    for row in rows:
        known = [row["scores"].get(name, {}) for name in scores]
        writer.writerow([
            *(row.get(n, row["params"].get(n, "")) for n in names),
            *(score.get("value", "") for score in known),
            *(score.get("error", "") for score in known),
            *(row["costs"].get(name, "") for name in COSTS),
            *(_on_fold(row, name, fold) for name in scores for fold in folds),
        ])  # fmt: skip
    atomic_files.write_bytes(study.file("trials.csv"), text.getvalue().encode())
    return rows


def _on_fold(row: dict[str, Any], name: str, fold: int) -> Any:
    """Return a score on one fold; "" if the trial was not judged on it."""
    known = row.get("folds", [])
    return known[fold]["scores"][name]["value"] if fold < len(known) else ""


def _row(study: RunDirectory, number: int) -> dict[str, Any]:
    params, report = TRIALS.task(study, number)["params"], TRIALS.report(study, number)
    row = {"number": number, "params": params, "scores": {}, "costs": {}}
    if report is not None:
        return {**row, **{name: report[name] for name in KEPT if name in report}}
    state = "failed" if has_failed(study, number) else "not done"
    return {**row, "state": state, "reason": last_line(study.file(TRIALS.log(number)))}
