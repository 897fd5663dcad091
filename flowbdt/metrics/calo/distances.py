"""Fréchet and kernel physics distance of the high-level features, with the official settings."""

from __future__ import annotations

from typing import Any

from ..base import Result
from ..jets import frechet_distance, kernel_distance
from .features import Features
from .judges import high_level_inputs

LEAST_DRAWN = 10_000
"""Events of the smallest draws of FPD, and of every draw of KPD, in the official evaluation."""


def fpd(reference: Features, generated: Features, **options: Any) -> Result:
    """Return FPD of showers, not times 1000 as in the published tables.

    That of `frechet_distance` for the inputs of the high-level classifier (log10 E_inc included),
    with draws of 10,000 to 50,000 showers.

    Parameters
    ----------
    reference, generated : Features
    options : of `flowbdt.metrics.jets.frechet_distance`

    Notes
    -----
    Showers are drawn with replacement: the same few again and again where there are fewer than
    50,000, so that the value does not go to zero for a perfect generator. Compare with the floor
    of the same numbers only.

    References
    ----------
    CaloChallenge/homepage, code/evaluate.py (features and settings); arXiv:2211.10295, section III.
    """
    inputs = high_level_inputs(reference), high_level_inputs(generated)
    return frechet_distance(*inputs, **{"min_samples": LEAST_DRAWN, **options})


def kpd(reference: Features, generated: Features, **options: Any) -> Result:
    """Return KPD of showers, not times 1000; it may be negative.

    That of `kernel_distance` for the inputs of the high-level classifier, in 10 draws of 10,000
    showers with replacement; takes 2.5 GB for a moment. Parameters, notes and references as `fpd`.
    """
    inputs = high_level_inputs(reference), high_level_inputs(generated)
    return kernel_distance(*inputs, **{"batch_size": LEAST_DRAWN, **options})
