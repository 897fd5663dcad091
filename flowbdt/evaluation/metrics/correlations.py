"""Differences between correlation matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...seeding import stream
from .base import METRICS, Metric, Result, norm_error, prepare, same_width


def correlation_matrix(x: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Return the weighted Pearson correlation matrix (d, d) of events (n, d).

    A constant column correlates with nothing: 0 off the diagonal.
    """
    x, weight = prepare(x, weight, 2, "the")
    return _correlation(_standardised(x, weight), weight)


def largest_correlation_error(
    real: np.ndarray,
    generated: np.ndarray,
    *,
    weight_real: np.ndarray | None = None,
    weight_generated: np.ndarray | None = None,
    n_bootstrap: int = 50,
    seed: int = 0,
) -> Result:
    """Return the largest absolute difference of Pearson correlations of two columns.

    Parameters
    ----------
    real, generated : ndarray (n, d), (m, d), raw columns in any units
    weight_real, weight_generated : ndarray (n,), (m,), non-negative, or None
    n_bootstrap : int, replicas (Poisson weights on the events of both samples) for the error

    Returns
    -------
    Result with the error of `metrics.base.norm_error`; ``settings["pair"]`` has the numbers of
    the two columns that differ most.
    """
    samples = _samples(real, generated, weight_real, weight_generated)
    difference = _difference(samples)
    pair = [int(i) for i in np.unravel_index(np.argmax(np.abs(difference)), difference.shape)]
    settings = {"pair": pair, "n_bootstrap": n_bootstrap, "seed": seed}
    return _result("correlation_max", _largest, samples, difference, settings)


def correlation_distance(
    real: np.ndarray,
    generated: np.ndarray,
    *,
    weight_real: np.ndarray | None = None,
    weight_generated: np.ndarray | None = None,
    n_bootstrap: int = 50,
    seed: int = 0,
) -> Result:
    """Return the Frobenius norm of the difference of the Pearson correlation matrices.

    The square root of the sum of squares over all (ordered) pairs of columns. Parameters as
    in `largest_correlation_error`.
    """
    samples = _samples(real, generated, weight_real, weight_generated)
    settings = {"n_bootstrap": n_bootstrap, "seed": seed}
    return _result("correlation_distance", _frobenius, samples, _difference(samples), settings)


Samples = list[tuple[np.ndarray, np.ndarray]]


def _samples(
    real: np.ndarray,
    generated: np.ndarray,
    weight_real: np.ndarray | None,
    weight_generated: np.ndarray | None,
) -> Samples:
    real, weight_real = prepare(real, weight_real, 2, "real")
    generated, weight_generated = prepare(generated, weight_generated, 2, "generated")
    same_width(real, generated)
    return [
        (_standardised(real, weight_real), weight_real),
        (_standardised(generated, weight_generated), weight_generated),
    ]


def _standardised(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Centre and scale: correlations do not change, cancellation in sums of squares goes away."""
    centred = x - np.average(x, axis=0, weights=weight)
    scale = np.sqrt(np.average(centred**2, axis=0, weights=weight))
    tiny = 1e-12 * np.abs(x).max(axis=0)  # rounding of a constant column is no spread
    return np.where(scale > tiny, centred / np.where(scale > tiny, scale, 1.0), 0.0)


def _correlation(z: np.ndarray, weight: np.ndarray) -> np.ndarray:
    share = weight / max(weight.sum(), 1e-300)
    mean = share @ z
    covariance = (z * share[:, None]).T @ z - np.outer(mean, mean)
    scale = np.sqrt(np.clip(np.diag(covariance), 0.0, None))
    scale = np.where(scale > 1e-9, scale, np.inf)
    matrix = covariance / np.outer(scale, scale)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def _difference(samples: Samples) -> np.ndarray:
    return _correlation(*samples[1]) - _correlation(*samples[0])


def _largest(difference: np.ndarray) -> float:
    return float(np.abs(difference).max())


def _frobenius(difference: np.ndarray) -> float:
    return float(np.linalg.norm(difference))


def _result(
    name: str,
    norm: Callable[[np.ndarray], float],
    samples: Samples,
    difference: np.ndarray,
    settings: dict[str, Any],
) -> Result:
    """Return a norm of the difference with its error from replicas."""
    rng = stream(settings["seed"], "metric-correlation")
    replicas = [
        _difference([(z, w * rng.poisson(1.0, len(w))) for z, w in samples])
        for _ in range(settings["n_bootstrap"])
    ]
    error = norm_error(difference, np.array(replicas) - difference, norm)
    n = min(len(weight) for _, weight in samples)
    return Result(name, norm(difference), error, n, settings=settings)


METRICS.register("correlation_max")(
    Metric(
        largest_correlation_error, "table", 0.0, "largest correlation error", {"n_bootstrap": 20}
    )
)
METRICS.register("correlation_distance")(
    Metric(correlation_distance, "table", 0.0, "correlation distance", {"n_bootstrap": 20})
)
