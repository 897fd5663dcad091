"""The trials of a study as they stand on disk, and as tables."""

from __future__ import annotations

import csv
import io
from typing import Any

from .. import atomic_files
from ..evaluation.score_events import COSTS
from ..training.collect import last_line
from ..training.run_directory import RunDirectory
from .trial import TRIALS


def numbers(study: RunDirectory) -> list[int]:
    """Return the numbers of all trials that were planned."""
    return sorted(
        int(path.stem) for path in study.path.glob("trials/*.json") if path.stem.isdigit()
    )


def finished(study: RunDirectory) -> dict[int, dict[str, Any]]:
    """Return the reports of all trials that came to an end, given up or not."""
    reports = {number: TRIALS.report(study, number) for number in numbers(study)}
    return {number: report for number, report in reports.items() if report is not None}


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
        found = [row["scores"].get(name, {}) for name in scores]
        writer.writerow([
            *(row.get(n, row["params"].get(n, "")) for n in names),
            *(score.get("value", "") for score in found),
            *(score.get("error", "") for score in found),
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
    task, report = TRIALS.task(study, number) or {}, TRIALS.report(study, number)
    row: dict[str, Any] = {
        "number": number,
        "params": task.get("params", {}),
        "scores": {},
        "costs": {},
    }
    if report is not None:
        kept = ("state", "reason", "folds", "scores", "costs", "losses", "cpu_seconds",
                "acceptance", "n_evaluations", "trees")  # fmt: skip
        return {**row, **{name: report[name] for name in kept if name in report}}
    log = study.file(TRIALS.log(number))
    return {**row, "state": "failed" if log.exists() else "not done", "reason": last_line(log)}
