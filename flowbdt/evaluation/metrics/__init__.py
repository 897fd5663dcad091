"""Metrics: arrays in, `Result` out; no files, no plots. `METRICS` names those of `evaluate`."""

from __future__ import annotations

from .base import METRICS, Metric, Result, uncertain
from .classifier import MlpJudge, classifier_auc, learning_curve, make_mlp
from .joint import correlation_distance, correlation_matrix, largest_correlation_error
from .marginal import (
    binned_shares,
    quantile_edges,
    separation_of_shares,
    separation_power,
    wasserstein,
)
from .memorisation import memorisation
from .relations_hold import relation_deviation

__all__ = [
    "METRICS",
    "Metric",
    "MlpJudge",
    "Result",
    "binned_shares",
    "classifier_auc",
    "correlation_distance",
    "correlation_matrix",
    "largest_correlation_error",
    "learning_curve",
    "make_mlp",
    "memorisation",
    "quantile_edges",
    "relation_deviation",
    "separation_of_shares",
    "separation_power",
    "uncertain",
    "wasserstein",
]
