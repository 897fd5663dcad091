"""Quantiles as functions of the incident energy: any energy, seen in training or not.

The distribution of a column narrows and moves with the energy, by orders of magnitude. Here each
column becomes a standard normal number at every energy. Between the energies where quantiles were
learned, medians, logarithms of the width and quantiles in units of the width are interpolated in
the logarithm of the energy, so that a distribution in between has a width in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np

INNER = np.linspace(-2.6, 2.6, 41)
"""Standard normal numbers whose quantiles are those of the training values."""

REACH = 4.0
"""Beyond these levels quantiles go on in straight lines, up to this many deviations."""

LEVELS = np.concatenate([[-REACH], INNER, [REACH]])

MOST_NODES = 20
FEWEST = 10

BLOCK = 4096
"""Showers whose curves are in memory together."""


class EnergyMarginals:
    """Distribution of each column at any incident energy, as a map to standard normal numbers.

    A value of minus or plus infinity is an end: it has a probability of its own, a function of
    the energy.
    """

    def fit(self, energies: np.ndarray, values: np.ndarray) -> Self:
        """Learn from incident energies (n,) and values (n, m), infinite at the ends."""
        log = np.log(energies)
        self._nodes, groups = _nodes(log)
        shape = (len(self._nodes), values.shape[1])
        self._ends = np.zeros((*shape, 2))
        self._quantiles = np.zeros((*shape, 2 + len(LEVELS)))
        for column in range(values.shape[1]):
            everywhere = values[np.isfinite(values[:, column]), column]
            for node, rows in enumerate(groups):
                found = values[rows, column]
                low, high = (found == -np.inf), (found == np.inf)
                self._ends[node, column] = low.mean(), high.mean()
                inner = found[~low & ~high]
                if len(inner) < FEWEST:
                    inner = everywhere
                self._quantiles[node, column] = _described(inner)
        return self

    def forward(
        self, energies: np.ndarray, values: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Return standard normal numbers (n, m); ends are spread over their interval by ``rng``."""
        from scipy.special import ndtr

        chance = rng.random(values.shape)
        result = np.empty(values.shape)
        for column in range(values.shape[1]):
            ends, curve = self._at(energies, column)
            x = values[:, column]
            inner = np.isfinite(x)
            z = np.zeros(len(x))
            z[inner] = _placed(curve[inner], x[inner])
            low, high = ends.T
            rank = low + (1 - low - high) * ndtr(z)
            rank = np.where(x == -np.inf, low * chance[:, column], rank)
            rank = np.where(x == np.inf, 1 - high * chance[:, column], rank)
            result[:, column] = _normal(rank)
        return result

    def inverse(self, energies: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return values (n, m) from standard normal numbers."""
        rows = [slice(first, first + BLOCK) for first in range(0, len(z), BLOCK)]
        blocks = [self._inverse(energies[part], z[part]) for part in rows]
        return np.concatenate(blocks) if blocks else np.empty(z.shape)

    def _inverse(self, energies: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return the values of a block, all columns at once: there is little to do for each."""
        from scipy.special import ndtr

        ends, curve = self._at(energies)
        low, high = ends[..., 0], ends[..., 1]
        rank = ndtr(z)
        inner = (rank - low) / np.maximum(1 - low - high, 1e-12)
        x = _read(curve, _normal(inner))
        x[rank < low] = -np.inf
        x[(high > 0) & (rank >= 1 - high)] = np.inf
        return x

    def _at(
        self, energies: np.ndarray, columns: int | slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities of the ends (n, m, 2) and quantiles (n, m, levels), m columns."""
        at = np.interp(np.log(energies), self._nodes, np.arange(len(self._nodes)))
        low = np.minimum(at.astype(np.int64), max(len(self._nodes) - 2, 0))
        high = np.minimum(low + 1, len(self._nodes) - 1)
        learned = self._ends[:, columns], self._quantiles[:, columns]
        part = (at - low).reshape(-1, *[1] * (learned[0].ndim - 1))
        ends, curve = ((1 - part) * table[low] + part * table[high] for table in learned)
        return ends, curve[..., :1] + np.exp(curve[..., 1:2]) * curve[..., 2:]

    @property
    def energy_range(self) -> tuple[float, float]:
        """Lowest and highest energy of a node; beyond them nothing changes any more."""
        return float(np.exp(self._nodes[0])), float(np.exp(self._nodes[-1]))

    @property
    def n_parameters(self) -> int:
        """Numbers that were learned."""
        return int(self._nodes.size + self._ends.size + self._quantiles.size)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return what was learned by name."""
        return {"nodes": self._nodes, "ends": self._ends, "quantiles": self._quantiles}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Restore what `to_arrays` returned."""
        restored = cls()
        restored._nodes, restored._ends = arrays["nodes"], arrays["ends"]
        restored._quantiles = arrays["quantiles"]
        return restored


def _nodes(log: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return log energies, rising, and the rows from which each node learns."""
    different = np.unique(log)
    if len(different) <= 2 * MOST_NODES:
        return different, [np.flatnonzero(log == value) for value in different]
    order = np.argsort(log, kind="stable")
    groups = np.array_split(order, min(MOST_NODES, max(len(log) // 50, 1)))
    nodes = np.array([log[rows].mean() for rows in groups])
    nodes[0], nodes[-1] = log.min(), log.max()  # what was trained on is within the range
    return nodes, groups


def _described(values: np.ndarray) -> np.ndarray:
    """Return median, log width, and quantiles in units of the width beyond the median."""
    from scipy.special import ndtr

    if not len(values):
        return np.zeros(2 + len(LEVELS))
    ranks = (np.arange(len(values)) + 0.5) / len(values)
    quantiles = np.interp(ndtr(INNER), ranks, np.sort(values))
    middle = quantiles[len(INNER) // 2]
    width = max(quantiles[-9] - quantiles[8], 1e-9 * max(abs(middle), 1.0))
    beyond = (REACH - INNER[-1]) / (INNER[3] - INNER[0])
    low = quantiles[0] - beyond * (quantiles[3] - quantiles[0])
    high = quantiles[-1] + beyond * (quantiles[-1] - quantiles[-4])
    curve = np.concatenate([[low], quantiles, [high]])
    return np.concatenate([[middle, np.log(width)], (curve - middle) / width])


def _read(curve: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the quantile at z (...) of each curve (..., levels), z within the levels."""
    low = np.minimum(np.searchsorted(LEVELS, z, side="right") - 1, len(LEVELS) - 2)
    below = np.take_along_axis(curve, low[..., None], axis=-1)[..., 0]
    above = np.take_along_axis(curve, low[..., None] + 1, axis=-1)[..., 0]
    part = (z - LEVELS[low]) / (LEVELS[low + 1] - LEVELS[low])
    return np.asarray((1 - part) * below + part * above)


def _placed(curve: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return z at which each row's quantile is x: the inverse of `_read`."""
    low = np.clip((curve <= x[:, None]).sum(axis=1) - 1, 0, len(LEVELS) - 2)
    rows = np.arange(len(x))
    below, above = curve[rows, low], curve[rows, low + 1]
    part = np.clip((x - below) / np.maximum(above - below, 1e-300), 0, 1)
    return np.asarray((1 - part) * LEVELS[low] + part * LEVELS[low + 1])


def _normal(rank: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri

    within = np.minimum(np.maximum(rank, 1e-12), 1 - 1e-12)
    return np.minimum(np.maximum(ndtri(within), -REACH), REACH)
