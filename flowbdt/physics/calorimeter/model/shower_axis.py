"""A shower that is off the axis: one direction that all its rings have in common.

The rings of a shower lean to the same side more often than chance would have it. We describe the
leaning of ring r, the mean of exp(i alpha) over its energy, as ``loading_r a + noise_r`` with one
complex standard normal number a per shower: factor analysis with a single factor, where loadings
and noise depend on the incident energy. For training showers a is drawn from its distribution
given the rings, so that together they are distributed as the model says; new showers draw it from
the normal distribution.

References
----------
Rubin, Thayer, Psychometrika 47 (1982) 69 (the EM algorithm for factor analysis); missing rings are
left out of the sums.
"""

from __future__ import annotations

import numpy as np

ITERATIONS = 30
MOST_WINDOWS = 20
"""Energies are grouped into as many windows, unless there are hardly more different energies."""


def windows(energies: np.ndarray) -> np.ndarray:
    """Return the window of each energy, (n,) int: one per different energy if these are few."""
    different, number = np.unique(energies, return_inverse=True)
    if len(different) <= 2 * MOST_WINDOWS:
        return np.asarray(number)
    edges = np.quantile(energies, np.linspace(0, 1, MOST_WINDOWS + 1)[1:-1])
    return np.searchsorted(edges, energies, side="right")


def leaning(sectors: np.ndarray) -> np.ndarray:
    """Return the mean of exp(i alpha) of each ring, (n, rings) complex; NaN for empty ones.

    Parameters
    ----------
    sectors : ndarray (n, sectors, rings), energies; sectors between -pi and pi
    """
    n = sectors.shape[1]
    direction = np.exp(1j * np.pi * (2 * np.arange(n) + 1 - n) / n)
    total = sectors.sum(axis=1)
    moment = np.einsum("nar,a->nr", sectors, direction)
    return np.where(total > 0, moment / np.where(total > 0, total, 1.0), np.nan)


def draw_axes(leanings: np.ndarray, energies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an axis a for each training shower, (n,) complex, with mean |a|^2 = 1.

    Parameters
    ----------
    leanings : ndarray (n, r) complex, NaN where a ring is empty
    energies : ndarray (n,), incident
    """
    result = np.zeros(len(energies), dtype=np.complex128)
    noise = standard_complex(rng.standard_normal((len(energies), 2)))
    window = windows(energies)
    for number in np.unique(window):
        rows = np.flatnonzero(window == number)
        mean, precision = _fit(leanings[rows])
        result[rows] = mean + noise[rows] / np.sqrt(precision)
    return result


def standard_complex(normal: np.ndarray) -> np.ndarray:
    """Return complex normal numbers (n,) of mean square 1 from real ones (n, 2)."""
    return np.asarray((normal[:, 0] + 1j * normal[:, 1]) / np.sqrt(2))


def _fit(leanings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and precision of every shower's axis after some EM iterations."""
    seen = ~np.isnan(leanings)
    d = np.where(seen, leanings, 0.0)
    count = np.maximum(seen.sum(axis=0), 1)
    power = (np.abs(d) ** 2).sum(axis=0) / count
    loading = 0.3 * np.sqrt(power)
    noise = np.maximum(power - loading**2, 1e-6)
    for _ in range(ITERATIONS):
        precision = 1 + seen @ (loading**2 / noise)
        mean = (d @ (loading / noise)) / precision
        second = np.abs(mean) ** 2 + 1 / precision
        product = (d * np.conj(mean)[:, None]).real.sum(axis=0)
        weight = np.maximum(seen.T @ second, 1e-9)
        loading = product / weight
        rest = power * count - 2 * loading * product + loading**2 * weight
        noise = np.maximum(rest / count, 1e-6)
    return mean, precision
