"""Metrics of the CaloChallenge, with its thresholds, features and binnings.

Arrays in, `Result` out, as in `flowbdt.evaluation.metrics`. Showers are
`flowbdt.physics.Showers`, or a
`ShowerFile` where they do not fit in memory.
"""

from __future__ import annotations

from .evaluate_showers import (
    Histogram,
    Protocol,
    ShowerEvaluation,
    evaluate_showers,
    memorisation_inputs,
    shower_histograms,
    shower_scores,
)
from .features import Features, high_level_features
from .histograms import binning, official_separation, separations, separations_by_energy
from .neighbours import expected_coverage, neighbour_inputs, neighbour_scores
from .posterior import log_posteriors
from .shower_judges import (
    correlation_matrix,
    fast_auc,
    fpd,
    high_level_inputs,
    kpd,
    largest_correlation_error,
    low_level_inputs,
)

__all__ = [
    "Features",
    "Histogram",
    "Protocol",
    "ShowerEvaluation",
    "binning",
    "correlation_matrix",
    "evaluate_showers",
    "expected_coverage",
    "fast_auc",
    "fpd",
    "high_level_features",
    "high_level_inputs",
    "kpd",
    "largest_correlation_error",
    "log_posteriors",
    "low_level_inputs",
    "memorisation_inputs",
    "neighbour_inputs",
    "neighbour_scores",
    "official_separation",
    "separations",
    "separations_by_energy",
    "shower_histograms",
    "shower_scores",
]
