"""Metrics of the CaloChallenge, with its thresholds, features and binnings.

Arrays in, `Result` out, as in `flowbdt.evaluation.metrics`. Showers are `flowbdt.physics.Showers`,
or a `ShowerFile` where they do not fit in memory.
"""

from __future__ import annotations

from .evaluate_showers import (
    Protocol,
    ShowerEvaluation,
    evaluate_showers,
    memorisation_inputs,
    shower_histograms,
    shower_scores,
)
from .features import Features, high_level_features
from .histograms import (
    Histogram,
    binning,
    official_separation,
    separations,
    separations_by_energy,
)
from .neighbours import expected_coverage, neighbour_inputs, neighbour_scores
from .posterior import log_posteriors
from .shower_judges import (
    fast_auc,
    high_level_inputs,
    low_level_inputs,
    shower_fpd,
    shower_kpd,
)

__all__ = [
    "Features",
    "Histogram",
    "Protocol",
    "ShowerEvaluation",
    "binning",
    "evaluate_showers",
    "expected_coverage",
    "fast_auc",
    "high_level_features",
    "high_level_inputs",
    "log_posteriors",
    "low_level_inputs",
    "memorisation_inputs",
    "neighbour_inputs",
    "neighbour_scores",
    "official_separation",
    "separations",
    "separations_by_energy",
    "shower_fpd",
    "shower_histograms",
    "shower_kpd",
    "shower_scores",
]
