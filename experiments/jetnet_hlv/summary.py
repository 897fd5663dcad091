"""Means over the seeds with errors, the tables, and what the bars say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from experiments import common
from experiments.jetnet_hlv import settings
from flowbdt.evaluation.metrics import uncertain
from flowbdt.physics.jets.jetnet_files import HLV_COLUMNS

Entry = list[float]
"""[value, error, floor, error of the floor]"""
Scores = dict[str, dict[str, dict[str, Any]]]

COSTS = ("train_cpu_s", "us_per_event", "evaluations", "acceptance")


def summaries(runs: dict[str, dict[str, Any]]) -> Scores:
    """Return data set -> model or solver -> scores, means over the seeds."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for key, run in runs.items():
        data, name, _ = key.split(" | ")
        groups.setdefault(data, {}).setdefault(name, []).append(run)
    return {d: {n: _summary(runs) for n, runs in found.items()} for d, found in groups.items()}


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    first = runs[0]
    columns = {
        metric: {c: mean([run["columns"][metric][c] for run in runs]) for c in found}
        for metric, found in first["columns"].items()
    }
    relations = {
        name: {key: float(np.mean([r["relations"][name][key] for r in runs])) for key in found}
        for name, found in first["relations"].items()
    }
    return {
        "seeds": len(runs),
        "whole": {m: mean([run["whole"][m] for run in runs]) for m in first["whole"]},
        "columns": columns,
        "relations": relations,
        **{cost: float(np.mean([run[cost] for run in runs])) for cost in COSTS if cost in first},
    }


def mean(entries: list[Entry]) -> Entry:
    """Return the mean over the seeds.

    Its error is the larger of two: the standard error of the mean, which knows how much training
    and generation vary, and the mean error of one comparison, which knows how well the test events
    fix the truth, and does not shrink with seeds because they share these events.
    """
    values = np.array(entries, dtype=float)
    error = float(values[:, 1].mean())
    if len(values) > 1:
        error = max(error, float(values[:, 0].std(ddof=1) / math.sqrt(len(values))))
    return [float(values[:, 0].mean()), error, *(float(v) for v in values[:, 2:].mean(axis=0))]


def better(new: Entry, old: Entry) -> float:
    """Return by how many combined standard errors ``new`` lies below ``old``."""
    return (old[0] - new[0]) / math.hypot(new[1], old[1])


def page(scores: Scores) -> str:
    """Return all tables in Markdown."""
    jets = scores["jets"]
    parts = [
        ("Bars", bars(scores)),
        ("Models", models(scores)),
        ("Separation power x100", observables(jets, "separation")),
        ("Wasserstein-1 in units of the column's width, x100", observables(jets, "wasserstein")),
        ("Exact relations", relations(jets)),
        ("Solvers", solvers(jets)),
        ("Separation power x100 of every solver", by_solver(jets, "separation")),
        ("Wasserstein-1 x100 of every solver", by_solver(jets, "wasserstein")),
    ]
    return "\n\n".join(f"## {title}\n\n{common.markdown(rows)}" for title, rows in parts if rows)


def bars(scores: Scores) -> list[dict[str, str]]:
    """Return what the default model had to reach, and what it did."""
    jets, rows = scores["jets"], []
    ours, reference = jets.get(settings.DEFAULT), jets.get(settings.REFERENCE_NAME)
    if ours is None:
        return []
    value, error, floor, _ = ours["whole"]["separation"]
    ratio = uncertain(value / floor, error / floor)
    limit = settings.BARS["separation over floor"]
    rows.append(_bar(f"mean separation / floor <= {limit}", ratio, value / floor <= limit))
    if reference is not None:
        pairs = {c: (e, reference["columns"]["separation"][c]) for c, e in _separations(ours)}
        far = {c: better(*pair) for c, pair in pairs.items()}
        worst = min(far, key=lambda c: far[c])
        text = f"{sum(d >= 2 for d in far.values())} of {len(far)}; least {worst}, {far[worst]:.0f}"
        rows.append(_bar("better than the reference by 2 errors", text, far[worst] >= 2))
    for data, bar in (("jets", "AUC"), ("r04", "AUC of r04")):
        found = scores.get(data, {}).get(settings.DEFAULT, {"whole": {}})["whole"]
        for judge in ("auc_gb", "auc_mlp"):
            if judge in found:
                good = found[judge][0] <= settings.BARS[bar]
                text = uncertain(*found[judge][:2])
                rows.append(_bar(f"{data}: {judge} <= {settings.BARS[bar]}", text, good))
    return rows


def _separations(scores: dict[str, Any]) -> list[tuple[str, Entry]]:
    return list(scores["columns"]["separation"].items())


def _bar(what: str, text: str, good: bool) -> dict[str, str]:
    return {"bar": what, "measured": text, "reached": "yes" if good else "no"}


def models(scores: Scores) -> list[dict[str, str]]:
    """Return one line per model and data set: whole-table scores and cost."""
    rows = []
    for data, found in scores.items():
        last: dict[str, Any] = {}
        for name in (n for n in found if n not in settings.ALL_SOLVERS):
            last = found[name]
            row = {"jets": data, "model": name, "seeds": str(last["seeds"])}
            row |= {_LABELS[m]: uncertain(*e[:2]) for m, e in last["whole"].items() if m in _LABELS}
            micros = last["us_per_event"]
            row |= {"training, CPU s": f"{last['train_cpu_s']:.0f}"}
            row |= {"us / event": f"{micros:.0f}", "us / feature": f"{micros / 12:.1f}"}
            rows.append(row | {"evaluations": f"{last['evaluations']:.0f}"})
        if last:
            floors = {_LABELS[m]: e for m, e in last["whole"].items() if m in _LABELS}
            rows.append(
                {"jets": data, "model": "floor"}
                | {label: uncertain(*e[2:]) for label, e in floors.items() if e[2] is not None}
            )
    return rows


_LABELS = {
    "auc_gb": "AUC, trees",
    "auc_mlp": "AUC, network",
    "separation": "separation x100",
    "wasserstein": "W1 / width",
    "correlation_max": "largest correlation error",
    "memorisation": "memorisation",
}


def observables(jets: dict[str, Any], metric: str) -> list[dict[str, str]]:
    """Return one line per observable: models of this run, floor, published columns."""
    names = [n for n in jets if n not in settings.ALL_SOLVERS]
    scale = 100 if metric == "wasserstein" else 1
    rows = []
    for column in HLV_COLUMNS:
        entries = {n: jets[n]["columns"][metric][column] for n in names}
        row = {"observable": column}
        row |= {n: uncertain(scale * e[0], scale * e[1]) for n, e in entries.items()}
        last = list(entries.values())[-1]
        row["floor"] = uncertain(scale * last[2], scale * last[3])
        if {settings.DEFAULT, settings.REFERENCE_NAME} <= set(names):
            ours, other = entries[settings.DEFAULT], entries[settings.REFERENCE_NAME]
            row["reference - balanced, errors"] = f"{better(ours, other):.0f}"
        rows.append(row | _published(column, metric))
    return rows


def _published(column: str, metric: str) -> dict[str, str]:
    if metric == "separation":
        value, floor = settings.RECOMPUTED[column]
        text = f"{settings.TALK[column][0]:g}"
        return {"published (talk)": text, "recomputed / floor": f"{value} / {floor}"}
    return {"published EMD x10 (talk)": f"{settings.TALK[column][1]:g}"}


def relations(jets: dict[str, Any]) -> list[dict[str, str]]:
    """Return how well tau21, tau32 and D2 agree with the columns they are made of."""
    rows = []
    for name in (n for n in jets if n not in settings.ALL_SOLVERS):
        for target, found in jets[name]["relations"].items():
            row = {"model": name, "relation of": target}
            row |= {f"{k} deviation": f"{found[k]:.2g}" for k in ("largest", "mean")}
            row["W1 of both sides"] = f"{found['w1']:.2g}"
            text = settings.PUBLISHED_CONSISTENCY.get(target, "")
            rows.append(row | {"published W1 of the reference": str(text)})
    return rows


def solvers(jets: dict[str, Any]) -> list[dict[str, str]]:
    """Return one line per solver: cost and whole-table scores."""
    rows = []
    for name in (n for n in settings.ALL_SOLVERS if n in jets):
        found = jets[name]
        row = {"solver": name, "evaluations": f"{found['evaluations']:.0f}"}
        row |= {_LABELS[m]: uncertain(*e[:2]) for m, e in found["whole"].items()}
        rows.append(row | {"us / event": f"{found['us_per_event']:.0f}"})
    if rows:
        floors = {_LABELS[m]: uncertain(*e[2:]) for m, e in found["whole"].items()}
        rows.append({"solver": "floor", **floors})
    return rows


def by_solver(jets: dict[str, Any], metric: str) -> list[dict[str, str]]:
    """Return one line per solver with all observables."""
    scale = 100 if metric == "wasserstein" else 1
    names = [n for n in settings.ALL_SOLVERS if n in jets]
    rows = []
    for name in names:
        found = jets[name]["columns"][metric]
        cells = {c: uncertain(scale * e[0], scale * e[1]) for c, e in found.items()}
        rows.append({"solver": name, **cells})
    if names:
        found = jets[names[-1]]["columns"][metric]
        floors = {c: uncertain(scale * e[2], scale * e[3]) for c, e in found.items()}
        rows.append({"solver": "floor", **floors})
    return rows
