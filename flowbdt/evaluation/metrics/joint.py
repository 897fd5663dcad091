"""Distances between joint distributions: correlations, Fréchet and kernel distance, relations."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...errors import DataWarning, InputError
from ...seeding import stream
from ...tables import checks
from .base import METRICS, Metric, Result, checked_events, norm_error, same_width

if TYPE_CHECKING:
    from ...tables.formulas.relations import Relation

# ---- correlations


def correlation_matrix(x: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Return the weighted Pearson correlation matrix (d, d) of events (n, d).

    A constant column correlates with nothing: 0 off the diagonal.
    """
    x, weight = checked_events(x, weight, 2, "the", signed=True)
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

    The error is that of `metrics.base.norm_error`, from replicas with Poisson weights on the events
    of both samples; ``settings["pair"]`` has the numbers of the two columns that differ most.
    """
    samples = [("real", real, weight_real), ("generated", generated, weight_generated)]
    result, difference = _norm_of_difference(
        samples, lambda d: float(np.abs(d).max()), n_bootstrap, seed
    )
    pair = [int(i) for i in np.unravel_index(np.argmax(np.abs(difference)), difference.shape)]
    return replace(result, name="correlation_max", settings={"pair": pair, **result.settings})


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

    The square root of the sum of squares over all (ordered) pairs of columns; error as for
    `largest_correlation_error`.
    """
    samples = [("real", real, weight_real), ("generated", generated, weight_generated)]
    return _norm_of_difference(samples, lambda d: float(np.linalg.norm(d)), n_bootstrap, seed)[0]


def _norm_of_difference(
    samples: list[tuple[str, np.ndarray, np.ndarray | None]],
    norm: Callable[[np.ndarray], float],
    n_bootstrap: int,
    seed: int,
) -> tuple[Result, np.ndarray]:
    """Return the norm of the difference of correlations with its error, and the difference."""
    checked = [checked_events(x, weight, 2, name, signed=True) for name, x, weight in samples]
    same_width(checked[0][0], checked[1][0])
    columns = [(_standardised(x, weight), weight) for x, weight in checked]
    difference = _difference(columns)
    rng = stream(seed, "metric-correlation")
    replicas = [
        _difference([(z, w * rng.poisson(1.0, len(w))) for z, w in columns])
        for _ in range(n_bootstrap)
    ]
    error = norm_error(difference, np.array(replicas) - difference, norm)
    settings = {"n_bootstrap": n_bootstrap, "seed": seed}
    n = min(len(weight) for _, weight in columns)
    return Result("correlation_distance", norm(difference), error, n, settings=settings), difference


def _standardised(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Centre and scale: correlations do not change, cancellation in sums of squares goes away."""
    centred = x - np.average(x, axis=0, weights=weight)
    scale = np.sqrt(np.maximum(0.0, np.average(centred**2, axis=0, weights=weight)))
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


def _difference(samples: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return _correlation(*samples[1]) - _correlation(*samples[0])


METRICS.register("correlation_max")(
    Metric(
        largest_correlation_error,
        "table",
        0.0,
        "largest correlation error",
        {"n_bootstrap": 20},
        signed=True,
    )
)
METRICS.register("correlation_distance")(
    Metric(correlation_distance, "table", 0.0, "correlation distance", {"n_bootstrap": 20}, True)
)

# ---- Fréchet and kernel distance

FAR = 1e6
"""Multiples of the largest real value beyond which a scaled distance is one of rounding errors."""


def frechet_distance(
    real: np.ndarray,
    generated: np.ndarray,
    *,
    min_samples: int = 20_000,
    max_samples: int = 50_000,
    n_batches: int = 20,
    n_points: int = 10,
    seed: int = 42,
) -> Result:
    """Return FPD: the Fréchet distance of Gaussians of the same mean and covariance, for N -> inf.

    Each column is divided by its largest absolute value in the real sample. The distance is
    measured in batches drawn with replacement, at ``n_points`` sizes equally spaced in 1/N, and a
    line through the means is followed to 1/N = 0, intercept and slope not negative.

    All numbers are the published ones by default; 50,000 events of each sample are recommended,
    with fewer the floor is higher. The error is that of the fitted intercept.

    References
    ----------
    arXiv:2211.10295, section III.A; M. J. Chong, D. Forsyth, arXiv:1911.07023 (extrapolation).
    """
    from scipy.optimize import curve_fit

    real, generated = _scaled(real, generated)
    sizes = (1 / np.linspace(1.0 / min_samples, 1.0 / max_samples, n_points)).astype(int)
    rng = np.random.default_rng(seed)  # drawn from as jetnet does: the same numbers come out
    means = []
    for size in sizes:
        batches = []
        for _ in range(n_batches):
            first, second = (x[rng.choice(len(x), size=size)] for x in (real, generated))
            batches.append(_frechet(first, second))
        means.append(np.mean(batches))
    limits = ([0.0, 0.0], [np.inf, np.inf])
    line, covariance = curve_fit(lambda x, a, b: a + b * x, 1 / sizes, means, bounds=limits)
    settings = {"min_samples": min_samples, "max_samples": max_samples, "seed": seed}
    settings |= {"n_batches": n_batches, "n_points": n_points}
    error = float(np.sqrt(covariance[0, 0]))
    return Result("fpd", float(line[0]), error, smaller_size(real, generated), settings=settings)


def kernel_distance(
    real: np.ndarray,
    generated: np.ndarray,
    *,
    batch_size: int = 5_000,
    n_batches: int = 10,
    seed: int = 42,
) -> Result:
    """Return KPD: the squared maximum mean discrepancy with the kernel (x.y / d + 1)^4.

    Unbiased within batches drawn with replacement; the median over the batches, with half of the
    central 67.45% of their spread as error, as published (arXiv:2211.10295, section III.A). It may
    be negative. Columns are scaled as in `frechet_distance`.
    """
    real, generated = _scaled(real, generated)
    values = []
    for i in range(n_batches):
        rng = np.random.default_rng(seed + 1000 * i)  # as jetnet does
        first, second = (x[rng.choice(len(x), size=batch_size)] for x in (real, generated))
        values.append(_kernel_discrepancy(first, second))
    low, high = np.percentile(values, [16.275, 83.725])
    settings = {"batch_size": batch_size, "n_batches": n_batches, "seed": seed}
    n = smaller_size(real, generated)
    return Result("kpd", float(np.median(values)), float(high - low) / 2, n, settings=settings)


def smaller_size(real: np.ndarray, generated: np.ndarray) -> int:
    return min(len(real), len(generated))


def _scaled(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    real, _ = checked_events(real, None, 2, "real")
    generated, _ = checked_events(generated, None, 2, "generated")
    same_width(real, generated)
    largest = np.abs(real).max(axis=0)
    largest[largest == 0] = 1.0
    scaled = generated / largest
    beyond = int((np.abs(scaled).max(axis=0) > FAR).sum())
    if beyond:
        warnings.warn(
            f"{beyond} columns of the generated events reach {FAR:g} times the largest real value,"
            " by which these distances divide: they mean nothing here; leave such columns out",
            DataWarning,
            stacklevel=3,
        )
    return real / largest, scaled


def _frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    The trace of the root is that of the symmetric (C1^(1/2) C2 C1^(1/2))^(1/2), so that two
    symmetric eigenvalue problems do, whatever the rank.
    """
    first, second = (np.atleast_2d(np.cov(sample, rowvar=False)) for sample in (x, y))
    values, axes = np.linalg.eigh(first)
    root = axes * np.sqrt(np.clip(values, 0.0, None)) @ axes.T
    inner = np.linalg.eigvalsh(root @ second @ root)
    shift = x.mean(axis=0) - y.mean(axis=0)
    overlap = np.sqrt(np.clip(inner, 0.0, None)).sum()
    return float(shift @ shift + np.trace(first) + np.trace(second) - 2.0 * overlap)


KERNEL_ROWS = 128
"""Rows whose kernel is held at once: blocks that stay in the cache take a fraction of the time."""


def _kernel_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    def total(a: np.ndarray, b: np.ndarray) -> float:
        found = 0.0
        for low in range(0, len(a), KERNEL_ROWS):
            k = a[low : low + KERNEL_ROWS] @ b.T
            k /= a.shape[1]
            k += 1.0
            np.square(k, out=k)
            found += float(np.square(k, out=k).sum())
        return found

    def within(a: np.ndarray) -> float:
        diagonal = ((a**2).sum(axis=1) / a.shape[1] + 1.0) ** 4
        return (total(a, a) - float(diagonal.sum())) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2.0 * total(x, y) / (len(x) * len(y))


# ---- relations


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
        deviation = deviation[checks.weights(weight, len(stored), signed=True) != 0]
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
    Metric(relation_deviation, "relation", 0.0, "largest deviation from a relation", signed=True)
)
