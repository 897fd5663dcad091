"""Inputs of the official classifiers, a fast judge for the CPU, FPD and KPD of showers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ....errors import InputError
from ....evaluation.metrics.base import Result
from ....evaluation.metrics.classifier import MakeClassifier, classifier_auc, make_mlp
from ....evaluation.metrics.joint import frechet_distance, kernel_distance
from ..shower_files import Showers
from .features import Features

LEVELS = ("low", "high")


def high_level_inputs(features: Features) -> np.ndarray:
    """Return the inputs of the official high-level classifier: (n, 30) photons, (n, 46) pions.

    In order: log10 E_inc; log10(E_layer + 1e-8); eta, phi, their widths, each over 100 mm;
    log10(E_tot + 1e-8); sparsity; r and its width over 100 mm. Energies in MeV. FPD and KPD use
    the same columns.
    """
    return np.column_stack(
        [
            np.log10(features.e_inc),
            np.log10(features.e_layer + 1e-8),
            features.eta / 100,
            features.phi / 100,
            features.width_eta / 100,
            features.width_phi / 100,
            np.log10(features.e_tot + 1e-8),
            features.sparsity,
            features.r / 100,
            features.width_r / 100,
        ]
    )


def low_level_inputs(showers: Showers, threshold: float | None = None) -> np.ndarray:
    """Return log10 E_inc and voxels over E_inc, (n, 1 + voxels), cut at ``threshold`` [MeV]."""
    voxels = showers.above(threshold).voxels / showers.energies[:, None]
    return np.column_stack([np.log10(showers.energies), voxels])


def fast_auc(
    reference: np.ndarray,
    generated: np.ndarray,
    level: str,
    make_classifier: MakeClassifier = make_mlp,
    **options: Any,
) -> Result:
    """Return the AUC of a judge that needs a CPU for minutes; NOT the official network.

    The inputs are the official ones, of ``level`` "low" or "high"; the judge is a small
    standardised perceptron, or whatever ``make_classifier`` gives. Low-level voxels go in as
    ``log10(1 + E / (1e-6 E_inc))``, because a small judge does not find the soft voxels otherwise.
    ``options`` are those of `classifier_auc`. Raises InputError if the level is unknown or the
    samples cannot be compared.
    """
    if level not in LEVELS:
        raise InputError(f"the level must be 'low' or 'high', got {level!r}")
    if level == "low":
        reference, generated = logarithmic_inputs(reference), logarithmic_inputs(generated)
    name = f"auc_{level}_fast"
    result = classifier_auc(reference, generated, make_classifier, name=name, **options)
    return replace(result, settings=result.settings | {"judge": "fast, not the official network"})


def logarithmic_inputs(inputs: np.ndarray) -> np.ndarray:
    """Return low-level inputs with log10(1 + E / (1e-6 E_inc)) in place of the voxels."""
    return np.column_stack([inputs[:, :1], np.log10(1 + 1e6 * inputs[:, 1:])])


EMPTY = 0.1
"""MeV that stand for an empty voxel, so that it has a logarithm."""


def neighbour_inputs(showers: Showers, threshold: float | None = None) -> np.ndarray:
    """Return log10 of the voxels (n, voxels), those below ``threshold`` [MeV] as 0.1 MeV."""
    voxels = showers.above(threshold).voxels
    return np.log10(np.where(voxels > 0, voxels, EMPTY), dtype=np.float64)


LEAST_DRAWN = 10_000
"""Events of the smallest draws of FPD, and of every draw of KPD, in the official evaluation."""


def shower_fpd(reference: Features, generated: Features, **options: Any) -> Result:
    """Return FPD of showers, not times 1000 as in the published tables.

    That of `frechet_distance` for the inputs of the high-level classifier (log10 E_inc included),
    with draws of 10,000 to 50,000 showers. They are drawn with replacement: the same few again and
    again where there are fewer than 50,000, so that the value does not go to zero for a perfect
    generator. Compare with the floor of the same numbers only.

    CaloChallenge/homepage, code/evaluate.py (features and settings); arXiv:2211.10295, section III.
    """
    inputs = high_level_inputs(reference), high_level_inputs(generated)
    return frechet_distance(*inputs, **{"min_samples": LEAST_DRAWN, **options})


def shower_kpd(reference: Features, generated: Features, **options: Any) -> Result:
    """Return KPD of showers, not times 1000; it may be negative.

    That of `kernel_distance` for the inputs of the high-level classifier, in 10 draws of 10,000
    showers with replacement; takes 2.5 GB for a moment. See `shower_fpd` for the rest.
    """
    inputs = high_level_inputs(reference), high_level_inputs(generated)
    return kernel_distance(*inputs, **{"batch_size": LEAST_DRAWN, **options})
