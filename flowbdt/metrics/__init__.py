"""Metrics: arrays in, `Result` out; no files, no plots. `METRICS` names those of `evaluate`."""

from __future__ import annotations

from .base import METRICS, Metric, Result, uncertain
from .classifier import MlpJudge, classifier_auc, learning_curve, make_mlp
from .consistency import relation_deviation
from .joint import correlation_distance, correlation_matrix, largest_correlation_error
from .marginal import quantile_edges, separation_power, wasserstein
from .memorisation import memorisation

__all__ = [
    "METRICS",
    "Metric",
    "MlpJudge",
    "Result",
    "classifier_auc",
    "correlation_distance",
    "correlation_matrix",
    "largest_correlation_error",
    "learning_curve",
    "make_mlp",
    "memorisation",
    "quantile_edges",
    "relation_deviation",
    "separation_power",
    "uncertain",
    "wasserstein",
]
