"""Fréchet and kernel distances between two samples of features."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from ...errors import DataWarning
from .base import Result, prepare, same_width

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

    Parameters
    ----------
    real, generated : ndarray (n, d), (m, d), features
    min_samples, max_samples, n_batches, n_points : published values by default; 50,000 events of
        each sample are recommended, with fewer the floor is higher
    seed : int

    Returns
    -------
    Result with the error of the fitted intercept

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
            batches.append(_frechet(_moments(first), _moments(second)))
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
    real, _ = prepare(real, None, 2, "real")
    generated, _ = prepare(generated, None, 2, "generated")
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


@dataclass(frozen=True)
class _Moments:
    mean: np.ndarray
    cov: np.ndarray


def _moments(x: np.ndarray) -> _Moments:
    return _Moments(x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False)))


def _frechet(first: _Moments, second: _Moments) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    The trace of the root is that of the symmetric (C1^(1/2) C2 C1^(1/2))^(1/2), so that two
    symmetric eigenvalue problems do, whatever the rank.
    """
    values, axes = np.linalg.eigh(first.cov)
    root = axes * np.sqrt(np.clip(values, 0.0, None)) @ axes.T
    inner = np.linalg.eigvalsh(root @ second.cov @ root)
    shift = first.mean - second.mean
    overlap = np.sqrt(np.clip(inner, 0.0, None)).sum()
    return float(shift @ shift + np.trace(first.cov) + np.trace(second.cov) - 2.0 * overlap)


def _kernel_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        k = a @ b.T / a.shape[1] + 1.0
        k *= k
        return k * k

    def within(a: np.ndarray) -> float:
        k = kernel(a, a)
        return float((k.sum() - np.trace(k)) / (len(a) * (len(a) - 1)))

    return within(x) + within(y) - 2.0 * float(kernel(x, y).mean())
