"""Distances between the distributions of one column: separation power and Wasserstein-1."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from ...seeding import stream
from .base import (
    METRICS,
    Metric,
    Result,
    auc_error,
    checked_events,
    effective_size,
    norm_error,
)


def quantile_edges(
    values: np.ndarray, n_bins: int = 50, weight: np.ndarray | None = None
) -> np.ndarray:
    """Return bin edges (b + 1,) that cut ``values`` into equal weights; the outer ones infinite.

    Repeated values can make quantiles coincide; such bins are merged, so b <= n_bins.
    """
    values, weight = checked_events(values, weight, 1, "reference", signed=True)
    if n_bins < 1:
        raise InputError(f"n_bins must be at least 1, got {n_bins}")
    order = np.argsort(values, kind="stable")
    total = np.cumsum(np.abs(weight[order]))
    wanted = np.arange(1, n_bins) / n_bins * total[-1]
    inner = np.unique(values[order][np.searchsorted(total, wanted, side="left")])
    return np.concatenate([[-np.inf], inner, [np.inf]])


def separation_power(
    real: np.ndarray,
    generated: np.ndarray,
    *,
    weight_real: np.ndarray | None = None,
    weight_generated: np.ndarray | None = None,
    n_bins: int = 50,
    edges: np.ndarray | None = None,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> Result:
    """Return the separation power times 100 of one column.

    ``50 sum_b (p_b - q_b)^2 / (p_b + q_b)`` with p_b, q_b the shares of real and generated
    events in bin b: 0 for equal histograms, 100 for disjoint ones. Two samples of N events of
    the same distribution give ``100 (B - 1) / (2 N)`` on average, B bins.

    Parameters
    ----------
    n_bins : bins by quantiles of the real events, outer bins open
    edges : ndarray (b + 1,), increasing, instead of quantiles; events outside are counted in
        the outermost bins

    Returns
    -------
    Result with the error from replicas of both histograms: Poisson numbers of effective events.
    The replicas are drawn with the difference p - q shrunk until their mean is the measured value.
    Drawn around p and q as they are, noise would be counted twice, and near the floor the error
    would come out too large by the square root of 3.

    References
    ----------
    Definition: A. Hoecker et al., TMVA users guide, physics/0703039, section 8.1.3, in bins.
    Error: derived here.
    """
    real, weight_real = checked_events(real, weight_real, 1, "real", signed=True)
    generated, weight_generated = checked_events(
        generated, weight_generated, 1, "generated", signed=True
    )
    bins = quantile_edges(real, n_bins, weight_real) if edges is None else _checked(edges)
    p, q = binned_shares(real, weight_real, bins), binned_shares(generated, weight_generated, bins)
    sizes = effective_size(weight_real), effective_size(weight_generated)
    value = separation_of_shares(p, q)
    expected = float(separation_floor(p, q, sizes))
    settings = {
        "bins": len(bins) - 1,
        "binning": "quantiles of the real events" if edges is None else "given edges",
        "expected_floor": expected,
        "n_bootstrap": n_bootstrap,
        "seed": seed,
    }
    error = separation_error(p, q, sizes, expected, n_bootstrap, seed)
    n = min(len(real), len(generated))
    return Result("separation", value, error, n, unit="x100", settings=settings)


def _checked(edges: np.ndarray) -> np.ndarray:
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise InputError("edges must be a one-dimensional, increasing array of at least two")
    return edges


def binned_shares(values: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the share of events in each bin (b,); those outside count in the outermost."""
    index = np.searchsorted(edges[1:-1], values, side="right")
    return np.bincount(index, weights=weight, minlength=len(edges) - 1) / weight.sum()


def separation_of_shares(p: np.ndarray, q: np.ndarray) -> Any:
    """Return the separation x100 of shares (..., b); bins empty in both add nothing."""
    total = p + q
    terms = np.divide((p - q) ** 2, total, out=np.zeros_like(total), where=total > 0)
    return 50.0 * terms.sum(axis=-1)


def separation_floor(p: np.ndarray, q: np.ndarray, sizes: Sequence[float]) -> Any:
    """Return the separation x100 (...) that noise alone gives, from the effective sizes."""
    filled = np.count_nonzero(p + q, axis=-1)
    return 25.0 * (filled - 1) * (1.0 / sizes[0] + 1.0 / sizes[1])


def noise_free_share(p: np.ndarray, q: np.ndarray, expected: Any) -> Any:
    """Return the factor (...) by which p - q is too large, as noise alone gives ``expected``."""
    value = separation_of_shares(p, q)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(value > 0, np.sqrt(np.clip(1.0 - expected / value, 0.0, 1.0)), 0.0)


def separation_error(
    p: np.ndarray,
    q: np.ndarray,
    sizes: tuple[float, float],
    expected: float,
    n_bootstrap: int,
    seed: int,
) -> float:
    middle, half = (p + q) / 2, noise_free_share(p, q, expected) * (p - q) / 2
    rng = stream(seed, "metric-separation")
    replicas = []
    for share, size in ((middle + half, sizes[0]), (middle - half, sizes[1])):
        counts = rng.poisson(
            np.clip(share, 0.0, None) * size, size=(n_bootstrap, len(share))
        ).astype(np.float64)
        replicas.append(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0))
    return float(np.std(separation_of_shares(*replicas), ddof=1))


def wasserstein(
    real: np.ndarray,
    generated: np.ndarray,
    *,
    weight_real: np.ndarray | None = None,
    weight_generated: np.ndarray | None = None,
    raw: bool = False,
    n_bootstrap: int = 50,
    seed: int = 0,
) -> Result:
    """Return the Wasserstein-1 distance of one column, exact for weighted samples.

    The integral of ``|F(x) - G(x)|`` over x, F and G the empirical distribution functions: the
    mean distance by which events must be moved. A shift by s gives |s|.

    In the unit of the column with ``raw``, else in standard deviations of the real events, or for
    a column of constant truth in units of 1; ``settings`` has both (``raw``, ``standardised``).
    The error is that of `metrics.base.norm_error`, from Poisson weights on all events.
    """
    real, weight_real = checked_events(real, weight_real, 1, "real", signed=True)
    generated, weight_generated = checked_events(
        generated, weight_generated, 1, "generated", signed=True
    )
    scale = spread(real, weight_real) or 1.0
    values = np.concatenate([real, generated])
    order = np.argsort(values, kind="stable")
    gaps = np.diff(values[order])
    sign = np.concatenate([weight_real / weight_real.sum(), -weight_generated])
    sign[len(real) :] /= weight_generated.sum()
    sign = sign[order]
    distance = float(np.abs(np.cumsum(sign)[:-1]) @ gaps)
    error = _wasserstein_error(sign, order < len(real), gaps, n_bootstrap, seed)
    settings = {"n_bootstrap": n_bootstrap, "seed": seed, "real_std": scale}
    settings |= {"raw": distance, "standardised": distance / scale}
    unit = 1.0 if raw else scale
    n = min(len(real), len(generated))
    units = "" if raw else "std"
    return Result("wasserstein", distance / unit, error / unit, n, unit=units, settings=settings)


MOST_KEPT = 20_000_000
"""Weights of replicas, a byte each, that are kept for the next column."""


def spread(values: np.ndarray, weight: np.ndarray) -> float:
    """Return the weighted standard deviation (maximum likelihood, no n - 1)."""
    mean = np.average(values, weights=weight)
    return float(np.sqrt(max(0.0, np.average((values - mean) ** 2, weights=weight))))


def _wasserstein_error(
    sign: np.ndarray, is_real: np.ndarray, gaps: np.ndarray, n_bootstrap: int, seed: int
) -> float:
    """Return the error from Poisson weights on all events, at a few thousand points of x.

    ``sign`` has the shares of the sorted events, those of generated ones times -1.
    """
    points = np.unique(np.linspace(0, len(gaps), min(len(gaps), 4000) + 1).astype(int))
    steps, points = np.add.reduceat(gaps, points[:-1]), points[:-1]
    up = np.where(is_real, sign, 0.0)
    shares = np.column_stack([np.cumsum(up), np.cumsum(up - sign)])
    noise = []
    for count in _replicas(seed, n_bootstrap, len(sign)):
        drawn = np.cumsum(up * count), np.cumsum((up - sign) * count)
        replica = [total[points] / max(total[-1], 1e-300) for total in drawn]
        noise.append(replica[0] - replica[1] - (shares[points, 0] - shares[points, 1]))
    difference = shares[points, 0] - shares[points, 1]
    return norm_error(difference, np.array(noise), lambda d: float(np.abs(d) @ steps))


def _replicas(seed: int, n_bootstrap: int, n: int) -> Iterable[np.ndarray]:
    """Return the Poisson weights (n,) of each replica, which all columns of a table have."""
    if n_bootstrap * n <= MOST_KEPT:
        return _kept_replicas(seed, n_bootstrap, n)
    rng = stream(seed, "metric-wasserstein")
    return (rng.poisson(1.0, n) for _ in range(n_bootstrap))


@functools.lru_cache(maxsize=1)
def _kept_replicas(seed: int, n_bootstrap: int, n: int) -> np.ndarray:
    rng = stream(seed, "metric-wasserstein")
    drawn = np.empty((n_bootstrap, n), dtype=np.uint8)
    for row in drawn:
        row[:] = rng.poisson(1.0, n)
    return drawn


def profile(
    real: np.ndarray,
    generated: np.ndarray,
    cond_real: np.ndarray,
    cond_generated: np.ndarray,
    *,
    weight_real: np.ndarray | None = None,
    weight_generated: np.ndarray | None = None,
    n_bins: int = 4,
    n_bootstrap: int = 100,
    seed: int = 0,
) -> Result:
    """Return how far mean and width of a column are off in bins of a condition (n,).

    The root mean square over bins of the differences of mean and of width (half of the range from
    16 to 84%), in widths of the real events of the bin. Bins are quantiles of the real condition.
    ``settings`` has both numbers of each bin, and quantiles of 5, 50 and 95%; of a column of 0
    and 1 the mean is an efficiency. The error is that of `metrics.base.norm_error`, from Poisson
    weights on all events.
    """
    sides = [
        (*checked_events(x, w, 1, what), np.asarray(c, dtype=np.float64))
        for x, w, c, what in (
            (real, weight_real, cond_real, "real"),
            (generated, weight_generated, cond_generated, "generated"),
        )
    ]
    edges = quantile_edges(cond_real, n_bins, sides[0][1])
    places = [np.searchsorted(edges[1:-1], c, side="left") for *_, c in sides]
    known = [b for b in range(len(edges) - 1) if all((place == b).any() for place in places)]
    found, replicas = [], []
    for k, ((x, w, _), place) in enumerate(zip(sides, places, strict=True)):
        rng = stream(seed, "metric-profile", k)
        bins = [np.flatnonzero(place == b) for b in known]
        found.append(np.vstack([_mean_and_width(x[rows], w[None, rows]) for rows in bins]))
        counts = [rng.poisson(1.0, (n_bootstrap, len(rows))) * w[rows] for rows in bins]
        pairs = zip(bins, counts, strict=True)
        replicas.append(np.stack([_mean_and_width(x[rows], each) for rows, each in pairs], axis=1))
    truth, made = found
    scale = np.where(truth[:, 1:] > 0, truth[:, 1:], spread(*sides[0][:2]) or 1.0)
    difference = (made - truth) / scale
    noise = (replicas[1] - replicas[0]) / scale - difference
    numbers = {
        kind: {
            "mean": values[:, 0].tolist(),
            "width": values[:, 1].tolist(),
            "error": (each[:, :, 0].std(axis=0)).tolist(),
            "quantiles": [
                weighted_quantiles(x[place == b], w[None, place == b], (0.05, 0.5, 0.95))[
                    0
                ].tolist()
                for b in known
            ],
        }
        for kind, values, each, (x, w, _), place in zip(
            ("real", "generated"), found, replicas, sides, places, strict=True
        )
    }
    settings = {"edges": edges[1:-1].tolist(), **numbers, "n_bootstrap": n_bootstrap, "seed": seed}
    value, error = _root_mean_square(difference), norm_error(difference, noise, _root_mean_square)
    n = min(len(x) for x, *_ in sides)
    return Result("profiles", value, error, n, settings=settings)


def _root_mean_square(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(difference**2)))


def _mean_and_width(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return mean and half the range from 16 to 84% (r, 2) of x (n,) with weights (r, n)."""
    mean = (weights @ x) / np.maximum(weights.sum(axis=1), 1e-300)
    low, high = weighted_quantiles(x, weights, (0.16, 0.84)).T
    return np.column_stack([mean, (high - low) / 2])


def weighted_quantiles(x: np.ndarray, weights: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Return quantiles (r, q) of x (n,) with weights (r, n)."""
    order = np.argsort(x, kind="stable")
    x, total = x[order], np.cumsum(weights[:, order], axis=1)
    whole = np.maximum(total[:, -1:], 1e-300)  # of signed weights: where a share is first met
    return np.column_stack([x[(total >= share * whole).argmax(axis=1)] for share in shares])


def tag_roc(
    real: np.ndarray,
    generated: np.ndarray,
    tag_real: np.ndarray,
    tag_generated: np.ndarray,
    *,
    weight_real: np.ndarray | None = None,
    weight_generated: np.ndarray | None = None,
    seed: int = 0,
) -> Result:
    """Return how far a column separates the two values of a tag otherwise than in real events.

    The absolute difference of the areas under the ROC curves, column (n,) against tag (n,), bool;
    ``settings`` has both. The error is that of DeLong. InputError if a sample has one value of the
    tag only.
    """
    from sklearn.metrics import roc_auc_score

    areas, errors = {}, []
    for what, x, weight, tag in (
        ("real", real, weight_real, tag_real),
        ("generated", generated, weight_generated, tag_generated),
    ):
        values, w = checked_events(x, weight, 1, what)
        yes = np.asarray(tag, dtype=bool)
        if not (w[yes].any() and w[~yes].any()):
            raise InputError(f"the {what} events have one value of the tag only")
        areas[what] = float(roc_auc_score(yes, values, sample_weight=w))
        errors.append(auc_error(values[yes], values[~yes], w[yes], w[~yes]))
    difference, n = abs(areas["generated"] - areas["real"]), min(len(real), len(generated))
    return Result("tags", difference, math.hypot(*errors), n, settings=areas)


METRICS.register("tags")(
    Metric(tag_roc, "tags", 0.0, "difference of the ROC area of a tag and a condition")
)
METRICS.register("profiles")(
    Metric(
        profile,
        "profiles",
        0.0,
        "mean and width in bins of a condition, in widths of real",
        {"n_bootstrap": 40},
    )
)
METRICS.register("separation")(
    Metric(separation_power, "column", 0.0, "separation power x100", {"n_bootstrap": 100}, True)
)
METRICS.register("pairs")(
    Metric(
        separation_power,
        "pairs",
        0.0,
        "separation power x100, joint counts",
        {"n_bootstrap": 100},
        signed=True,
    )
)
METRICS.register("wasserstein")(
    Metric(wasserstein, "column", 0.0, "Wasserstein-1", {"n_bootstrap": 20}, signed=True)
)
