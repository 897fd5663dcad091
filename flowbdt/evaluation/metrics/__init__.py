"""Metrics: arrays in, `Result` out; no files, no plots. `METRICS` names those of `evaluate`.

Common parameters: ``real`` (n,) or (n, d) and ``generated`` (m,) or (m, d) in any unit;
``weight_real`` (n,) and ``weight_generated`` (m,), of either sign where the `Metric` says so, or
None; ``n_bootstrap`` replicas for the error; ``seed`` of everything random. InputError if shapes do
not fit, a value is not finite, weights have no positive sum, or are negative where they must not.
"""

from __future__ import annotations

from .base import METRICS, Metric, Result, uncertain
from .classifier import MlpJudge, classifier_auc, make_mlp
from .joint import (
    correlation_distance,
    correlation_matrix,
    largest_correlation_error,
    relation_deviation,
)
from .marginal import (
    binned_shares,
    quantile_edges,
    separation_of_shares,
    separation_power,
    wasserstein,
)
from .neighbours import memorisation

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
    "make_mlp",
    "memorisation",
    "quantile_edges",
    "relation_deviation",
    "separation_of_shares",
    "separation_power",
    "uncertain",
    "wasserstein",
]
