"""What is measured of a sample: official separations, classifiers of both levels."""

from __future__ import annotations

import numpy as np

from flowbdt.datasets.calochallenge import Showers
from flowbdt.metrics import calo
from flowbdt.metrics.base import Result
from flowbdt.metrics.classifier import MakeClassifier, make_mlp
from flowbdt.regressors.xgb import make_classifier

JUDGES: dict[str, MakeClassifier] = {"mlp": make_mlp, "gb": make_classifier}


def separations(real: Showers, new: Showers) -> dict[str, float]:
    """Return every separation power, their mean, and what chance alone would make of it."""
    results = calo.separations(real, new, n_bootstrap=2)
    values = {str(r.column): float(r.value) for r in results}
    return {
        **values,
        "separation_etot": values["etot_einc"],
        "separation_mean": float(np.mean(list(values.values()))),
    }


def aucs(real: Showers, new: Showers, repeats: int) -> dict[str, float]:
    """Return the AUC of both judges at both levels; ``auc_high`` and ``auc_low`` are the larger."""
    figures: dict[str, float] = {}
    high = [calo.high_level_inputs(calo.high_level_features(part)) for part in (real, new)]
    inputs = {"high": high, "low": [calo.low_level_inputs(part) for part in (real, new)]}
    for level, columns in inputs.items():
        found: dict[str, Result] = {
            name: calo.fast_auc(
                columns[0], columns[1], level, judge, n_model_seeds=1, n_split_seeds=repeats
            )
            for name, judge in JUDGES.items()
        }
        for name, result in found.items():
            figures[f"auc_{level}_{name}"] = float(result.value)
            figures[f"auc_{level}_{name}_error"] = float(result.error)
        figures[f"auc_{level}"] = max(float(result.value) for result in found.values())
    return figures


def judged(real: Showers, new: Showers, repeats: int) -> dict[str, float]:
    """Return all figures of a sample."""
    return {**separations(real, new), **aucs(real, new, repeats)}
