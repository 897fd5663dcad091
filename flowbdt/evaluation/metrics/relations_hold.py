"""Deviation of generated events from relations that hold exactly for real ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ...tables import checks
from .base import METRICS, Metric, Result

if TYPE_CHECKING:
    from ...tables.relations import Relation


def relation_deviation(
    columns: Mapping[str, np.ndarray],
    relation: Relation,
    *,
    weight: np.ndarray | None = None,
) -> Result:
    """Return the largest relative deviation of a column from the relation that defines it.

    ``|stored - computed| / max(|stored|, |computed|)``, 0 where both are 0; between 0 and 2. A
    relation that cannot be computed for an event (division by zero) counts as 2.

    ``columns`` holds arrays (n,) of the target and the inputs of the relation, such as
    ``Relation.parse("tau21 = tau2 / tau1")``; events of weight zero are left out. The error is the
    exact bootstrap standard deviation of a maximum: a resampled table lacks its largest deviation
    with a probability of 1/e. ``settings["mean"]`` is the mean.
    """
    stored = np.asarray(columns[relation.target], dtype=np.float64)
    if stored.ndim != 1 or len(stored) == 0:
        raise InputError(f"column {relation.target!r} must have shape (n,), got {stored.shape}")
    with np.errstate(all="ignore"):
        computed = np.asarray(relation.evaluate(dict(columns)), dtype=np.float64)
    deviation = _deviation(stored, computed)
    if weight is not None:
        deviation = deviation[checks.weights(weight, len(stored)) > 0]
    value, error, n = float(deviation.max()), _error_of_maximum(deviation), len(deviation)
    settings = {"mean": float(deviation.mean())}
    return Result("relation", value, error, n, column=relation.target, settings=settings)


def _deviation(stored: np.ndarray, computed: np.ndarray) -> np.ndarray:
    known = np.isfinite(computed)
    safe = np.where(known, computed, 0.0)
    largest = np.maximum(np.abs(stored), np.abs(safe))
    ratio = np.abs(stored - safe) / np.where(largest > 0, largest, 1.0)
    return np.where(known, ratio, 2.0)


def _error_of_maximum(values: np.ndarray) -> float:
    """Return the bootstrap standard deviation of the maximum, summed over order statistics.

    In a resampled set the j-th largest of n values is the maximum with probability
    ``(1 - (j - 1)/n)^n - (1 - j/n)^n``; 40 terms leave out less than 1e-17.
    """
    n = len(values)
    top = np.sort(values)[::-1][:40]
    j = np.arange(len(top) + 1)
    share = -np.diff((1.0 - np.minimum(j / n, 1.0)) ** n)
    mean = np.average(top, weights=share)
    return float(np.sqrt(np.average((top - mean) ** 2, weights=share)))


METRICS.register("relation")(
    Metric(relation_deviation, "relation", 0.0, "largest deviation from a relation")
)
