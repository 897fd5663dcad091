"""Means over the seeds, differences from OmniFold, and whether what was asked for is reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.unfolding.samples import CONTINUOUS, FIVE, OBSERVABLES

ORDER = (
    *("detector level", "simulation", "noise, told", "noise, told, no rejection"),
    *("noise, told, iterated", "diffusion, told", "diffusion, told, iterated"),
    *("detector", "detector, told", "transport", "noise"),
    *("Bayes in bins", "OmniFold, published stop", "OmniFold, all trees", "true prior"),
)
"""How methods follow one another in the tables."""
RIVALS = ("OmniFold, published stop", "OmniFold, all trees")
ABOVE_FLOOR, NEAR_LEVEL, ENOUGH = 0.05, 0.03, 3
"""Separation x100 allowed above the floor; distance allowed from the claimed coverage; number of
the five observables that must be better by two standard errors."""

Runs = Mapping[str, Mapping[str, Mapping[str, Any]]]


def gathered(runs: Runs) -> dict[str, list[Mapping[str, Any]]]:
    """Return method -> its results, one for each seed."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for key in sorted(runs):
        for method, result in runs[key].items():
            found.setdefault(method, []).append(result)
    return found


def summary(runs: Runs) -> dict[str, Any]:
    """Return floors, scores of every method, and verdicts: plain data for JSON."""
    methods = gathered(runs)
    floor = methods.pop("floor")[0]
    methods.pop("truth", None)
    result: dict[str, Any] = {"floor": floor, "methods": {}, "verdicts": {}}
    for name in sorted(methods, key=ORDER.index):
        found = methods[name]
        entry: dict[str, Any] = {"seeds": len(found)}
        for where in ("closure", "cross"):
            if where in found[0]:
                entry[where] = _scores(found, where)
        if "cross" in entry:
            entry["cross"]["against"] = {
                rival: against(found, methods[rival])
                for rival in RIVALS
                if rival in methods and rival != name
            }
        if "coverage" in found[0]:
            entry["coverage"] = _coverage(found)
        for extra in ("atoms", "acceptance"):
            if extra in found[0]:
                entry[extra] = found[0][extra]
        result["methods"][name] = entry
        result["verdicts"][name] = verdict(entry, floor)
    return result


def _scores(found: list[Mapping[str, Any]], where: str) -> dict[str, list[float]]:
    scores = {}
    for name in ("separation", "w1"):
        values = np.array([one[where][name] for one in found])
        scores[name] = values.mean(axis=0).tolist()
        scores[f"{name}_seeds"] = _error(values).tolist()
    replicas = np.mean([one[where]["replicas"] for one in found], axis=0)
    scores["w1_bootstrap"] = replicas.std(axis=0, ddof=1).tolist()
    return scores


def _error(values: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean over seeds; 0 for one seed."""
    if len(values) < 2:
        return np.zeros(values.shape[1:])
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))


def against(
    found: list[Mapping[str, Any]], rival: list[Mapping[str, Any]]
) -> dict[str, list[float]]:
    """Return the mean difference of the distances to those of a rival (6,), and its error.

    The error adds the bootstrap over events, replica by replica, and the scatter of the seeds.
    """
    ours, theirs = (np.array([one["cross"]["w1"] for one in results]) for results in (found, rival))
    replicas = [
        np.mean([one["cross"]["replicas"] for one in results], axis=0) for results in (found, rival)
    ]
    bootstrap = (replicas[0] - replicas[1]).std(axis=0, ddof=1)
    error = np.sqrt(bootstrap**2 + _error(ours) ** 2 + _error(theirs) ** 2)
    difference = ours.mean(axis=0) - theirs.mean(axis=0)
    return {"difference": difference.tolist(), "error": error.tolist()}


def _coverage(found: list[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    levels = found[0]["coverage"]
    values = {level: np.array([one["coverage"][level] for one in found]) for level in levels}
    return {
        level: {"share": v.mean(axis=0).tolist(), "seeds": _error(v).tolist()}
        for level, v in values.items()
    }


def verdict(entry: Mapping[str, Any], floor: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a method reaches of what was asked for."""
    found: dict[str, Any] = {}
    if "closure" in entry:
        above = np.array(entry["closure"]["separation"]) - floor["closure"]["separation"][0]
        found["closure_above_floor"] = float(above.max())
        found["closes"] = bool(above.max() <= ABOVE_FLOOR)
    five = [OBSERVABLES.index(name) for name in FIVE]
    for rival, pair in entry.get("cross", {}).get("against", {}).items():
        better = np.array(pair["difference"]) + 2 * np.array(pair["error"]) < 0
        found[f"better than {rival}"] = [OBSERVABLES[i] for i in five if better[i]]
        found[f"enough against {rival}"] = bool(better[five].sum() >= ENOUGH)
    if "coverage" in entry:
        at = [OBSERVABLES.index(name) for name in CONTINUOUS]
        off = np.abs(np.array(entry["coverage"]["0.68"]["share"]) - 0.68)[at]
        found["coverage_off"] = float(off.max())
        found["covers"] = bool(off.max() <= NEAR_LEVEL)
    return found


def tables(figures: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Return title -> lines of a table."""
    return {
        "Closure, separation x100": _lines(figures, "closure", "separation", 1.0),
        "Closure, W1 x1000 / truth width": _lines(figures, "closure", "w1", 1e3),
        "Cross-generator, W1 x1000 / truth width": _lines(figures, "cross", "w1", 1e3),
        "Cross-generator, separation x100": _lines(figures, "cross", "separation", 1.0),
        "Coverage": _coverage_lines(figures),
    }


def _lines(figures: Mapping[str, Any], where: str, name: str, scale: float) -> list[dict[str, str]]:
    digits = 3 if scale == 1.0 else 1
    value, error = figures["floor"][where][name]
    lines = [_line("floor: truth against truth", value, error, scale, digits)]
    for method, entry in figures["methods"].items():
        if where in entry:
            found = entry[where]
            seeds = np.array(found[f"{name}_seeds"])
            spread = np.hypot(seeds, found["w1_bootstrap"]) if name == "w1" else seeds
            lines.append(_line(method, found[name], spread, scale, digits))
    return lines


def _line(method: str, values: Any, errors: Any, scale: float, digits: int) -> dict[str, str]:
    cells = {"method": method}
    for name, value, error in zip(OBSERVABLES, values, errors, strict=True):
        cells[name] = f"{scale * value:.{digits}f} ± {scale * error:.{digits}f}"
    return cells


def _coverage_lines(figures: Mapping[str, Any]) -> list[dict[str, str]]:
    lines = []
    for method, entry in figures["methods"].items():
        for level, found in entry.get("coverage", {}).items():
            title = f"{method}, {level}"
            lines.append(_line(title, found["share"], found["seeds"], 1.0, 3))
    return lines
