"""Metrics of the CaloChallenge, with its thresholds, features and binnings.

Arrays in, `Result` out, as in `flowbdt.metrics`. Showers are `flowbdt.datasets.Showers`, or a
`ShowerFile` where they do not fit in memory.
"""

from __future__ import annotations

from .features import Features, high_level_features
from .histograms import binning, official_separation, separations, separations_by_energy
from .judges import (
    correlation_matrix,
    fast_auc,
    high_level_inputs,
    largest_correlation_error,
    low_level_inputs,
)

__all__ = [
    "Features",
    "binning",
    "correlation_matrix",
    "fast_auc",
    "high_level_features",
    "high_level_inputs",
    "largest_correlation_error",
    "low_level_inputs",
    "official_separation",
    "separations",
    "separations_by_energy",
]
