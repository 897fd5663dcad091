"""What is measured of a sample: official separations, distances, classifiers of both levels."""

from __future__ import annotations

from typing import Any

from flowbdt.evaluation.metrics.base import Result
from flowbdt.evaluation.metrics.classifier import MakeClassifier, make_mlp
from flowbdt.physics.calorimeter.scores.evaluate_showers import Protocol, shower_scores
from flowbdt.physics.calorimeter.shower_files import Showers
from flowbdt.trees.boosted_trees import make_classifier

NEIGHBOURS = 5_000
"""Showers of each sample whose neighbours are sought."""

FULL: dict[str, Any] = {"n_repeats": 1, "distances": {"kpd": {"batch_size": 5_000}}}
"""One split of each judge; KPD in draws of 5,000 showers, there are only 15,000."""

SMOKE: dict[str, Any] = {
    "n_repeats": 1,
    "n_bootstrap": 2,
    "distances": {
        "fpd": {"min_samples": 200, "max_samples": 400, "n_batches": 2},
        "kpd": {"batch_size": 100, "n_batches": 2},
    },
}

Figures = dict[str, Any]


def protocol(smoke: bool) -> Protocol:
    """Return how samples are judged."""
    judges: dict[str, MakeClassifier] = {"mlp": make_mlp, "gb": make_classifier}
    return Protocol(judges, most_neighbours=NEIGHBOURS, **(SMOKE if smoke else FULL))


def judged(real: Showers, new: Showers, smoke: bool) -> Figures:
    """Return all figures of a sample."""
    return figures(shower_scores(real.above(), new.above(), protocol(smoke)))


def figures(results: list[Result], floors: bool = False) -> Figures:
    """Return values and errors by name; ``auc_high`` and ``auc_low`` are those of the better judge.

    Parameters
    ----------
    floors : True: the floors in place of the values, of results that have one
    """
    found: Figures = {}
    for one in results:
        value, error = (one.floor, one.floor_error) if floors else (one.value, one.error)
        if value is None or (one.name == "memorisation" and floors):
            continue
        key = _key(one)
        found[key] = float(value)
        found[f"{key}_error"] = float(error or 0.0)
        if "expected_floor" in one.settings and floors:
            found[f"{key}_expected"] = float(one.settings["expected_floor"])
    found["separation_etot"] = found["etot_einc"]
    found["separation_etot_error"] = found["etot_einc_error"]
    for level in ("high", "low"):
        best = max((found[f"auc_{level}_{judge}"], judge) for judge in ("mlp", "gb"))[1]
        found[f"auc_{level}"] = found[f"auc_{level}_{best}"]
        found[f"auc_{level}_error"] = found[f"auc_{level}_{best}_error"]
    return found


def _key(one: Result) -> str:
    if one.name in ("separation", "separation_by_energy"):
        return str(one.column)
    if one.name.endswith("_fast"):
        return f"{one.name.removesuffix('_fast')}_{one.column}"
    return one.name
