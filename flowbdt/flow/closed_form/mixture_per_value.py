"""A mixture of Gaussians for each value of a discrete column, joined into one.

Where values are classes of few rows in places of their own, as in small tables with a label, one
mixture of all rows smears them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ... import seeding
from .conditioning import Full, log_sum_exp
from .expectation_maximisation import (
    GaussianMixture,
    MixtureSettings,
    StandardisedRows,
    iterate,
    start,
)

N_FOLDS = 5
LARGEST = 16
ROWS_PER_COMPONENT = 4
LARGEST_SHRINKAGE = 100.0
SHRINKAGES = (1.0, 3.0, 30.0, LARGEST_SHRINKAGE)
USUAL = 10.0
"""Up to so many Gaussians for a value, one for at least so many of its rows; events of the shape
that all values share that are mixed into each. Those with the largest density of held-out rows are
taken, `USUAL` ones while the number is sought."""

ITERATIONS = 40
DIAGONAL = 0.1
SMALLEST = 1e-4
"""Share of the diagonal in the shape that all values share, and what is added to it."""

FAR = -40.0
"""Smallest logarithm of a probability."""


@dataclass(frozen=True)
class Complexity:
    """Gaussians for a value, at most, and events of the shared shape in each."""

    n_components: int
    shrinkage: float


@dataclass(frozen=True, eq=False)
class JoinedMixture:
    """A mixture, and to which value each of its components belongs, ``tags`` (K,)."""

    mixture: GaussianMixture
    tags: np.ndarray

    @classmethod
    def fit(
        cls, y: np.ndarray, codes: np.ndarray, n_values: int, chosen: Complexity, seed: int
    ) -> JoinedMixture:
        """Fit standardised rows y (n, p), with codes (n,) of their values.

        Covariances are ``(N S + nu C) / (N + nu)`` with N, S number and scatter of a component's
        rows, C the covariance within values, scaled to the volume of a component.

        Source: Friedman 1989, J. Am. Stat. Assoc. 84, 165 (the form; weights derived here).
        """
        p, within = y.shape[1], _within(y, codes, n_values)
        parts, tags = [], []
        for value in range(n_values):
            rows = y[codes == value]
            if not len(rows):  # held out, all of them
                part = GaussianMixture(np.zeros(1), y.mean(axis=0)[None], Full(np.eye(p)[None]))
            else:
                k = max(1, min(chosen.n_components, len(rows) // ROWS_PER_COMPONENT))
                shared = within * k ** (-2 / p)
                settings = MixtureSettings(Full, 0, chosen.shrinkage, shared)
                own = StandardisedRows(rows, np.ones(len(rows)))
                part = start(own, k, settings, seeding.stream(seed, "value", value, k))
                if part.n_components > 1:
                    part = iterate(part, own, settings, ITERATIONS)[0]
            share = max(len(rows), 0.5) / len(y)
            parts.append((part.log_weights + np.log(share), part.means, part.covariances.dense()))
            tags += [value] * part.n_components
        log_weights, means, matrices = (np.concatenate(each) for each in zip(*parts, strict=True))
        log_weights = log_weights - log_sum_exp(log_weights[None])[0]
        return cls(GaussianMixture(log_weights, means, Full(matrices)), np.array(tags))

    def log_joint(self, y: np.ndarray) -> np.ndarray:
        """Return the log density of points y (n, p) together with each value, (n, V)."""
        log_joint = self.mixture.log_joint(y, np.ones(y.shape[1], dtype=bool))
        values = range(int(self.tags.max()) + 1)
        return np.stack([log_sum_exp(log_joint[:, self.tags == v]) for v in values], axis=1)

    def log_probabilities(self, y: np.ndarray) -> np.ndarray:
        """Return the log probabilities of the values at points y (n, p), (n, V), float32."""
        log_joint = self.log_joint(y)
        log_shares = np.maximum(log_joint - log_sum_exp(log_joint)[:, None], FAR)
        return np.asarray(log_shares, dtype=np.float32)


N_DRAWS = 4_000
MOST_KNOTS = 200
FEWEST_BENT = 8
"""Draws from the mixture of a value, quantiles of each column of it at most, and rows of a value
from which on it has any."""


@dataclass(frozen=True, eq=False)
class Margins:
    """Quantiles of each column among the rows of a value: of its mixture, and of the real rows.

    What the mixture draws is bent to the latter, column by column: skewed columns and edges are
    right in each value. The values of the quantiles (n,) rise; the quantiles are (n, m).
    """

    values: np.ndarray
    drawn: np.ndarray
    real: np.ndarray

    @classmethod
    def fit(
        cls, drawn: Callable[[int], np.ndarray], real: np.ndarray, codes: np.ndarray, n_values: int
    ) -> Margins:
        """Fit to rows (n, m) with codes (n,); ``drawn`` returns rows of a value, by its mixture."""
        parts = []
        for value in range(n_values):
            rows = real[codes == value]
            if len(rows) >= FEWEST_BENT:
                n = min(len(rows), MOST_KNOTS)
                parts.append(
                    (
                        np.full(n, value),
                        *(np.quantile(each, _levels(n), axis=0) for each in (drawn(value), rows)),
                    )
                )
        none = np.zeros(0, dtype=np.int64), *[np.zeros((0, real.shape[1]))] * 2
        return cls(*map(np.concatenate, zip(none, *parts, strict=True)))

    def bent(self, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return rows (n, m) of values with codes (n,), bent."""
        rows = rows.copy()
        for value in np.unique(self.values):
            mine, knots = codes == value, self.values == value
            for j in range(rows.shape[1]):
                rows[mine, j] = np.interp(rows[mine, j], self.drawn[knots, j], self.real[knots, j])
        return rows


def _levels(n: int) -> np.ndarray:
    return (np.arange(n) + 0.5) / n


def _within(y: np.ndarray, codes: np.ndarray, n_values: int) -> np.ndarray:
    """Return the covariance within values (p, p), drawn a little to its diagonal."""
    counts = np.bincount(codes, minlength=n_values)
    sums = np.zeros((n_values, y.shape[1]))
    np.add.at(sums, codes, y)
    away = y - (sums / np.maximum(counts, 1)[:, None])[codes]
    within = away.T @ away / len(y)
    diagonal = np.diag(np.diag(within))
    return np.asarray(within + DIAGONAL * (diagonal - within) + SMALLEST * np.eye(len(within)))


def folds_of(codes: np.ndarray, seed: int) -> np.ndarray:
    """Return the fold of each row (n,): rows of every value spread over all."""
    fold = np.empty(len(codes), dtype=np.int64)
    order = np.lexsort((seeding.row_uniform(len(codes), seeding.derive(seed, "folds")), codes))
    fold[order] = np.arange(len(codes)) % N_FOLDS
    return fold


def held_out(
    y: np.ndarray, codes: np.ndarray, n_values: int, chosen: Complexity, seed: int
) -> np.ndarray:
    """Return the log density (n,) of rows and their values, by mixtures of the other folds."""
    fold, result = folds_of(codes, seed), np.zeros(len(y))
    for k in range(N_FOLDS):
        held = fold == k
        if held.any():
            fitted = JoinedMixture.fit(y[~held], codes[~held], n_values, chosen, seed)
            result[held] = fitted.log_joint(y[held])[np.arange(held.sum()), codes[held]]
    return result


def search(y: np.ndarray, codes: np.ndarray, n_values: int, seed: int) -> Complexity:
    """Return the complexity with the largest density of held-out rows."""

    def tried(n: int, shrinkage: float) -> tuple[float, Complexity]:
        chosen = Complexity(n, shrinkage)
        return float(held_out(y, codes, n_values, chosen, seed).mean()), chosen

    best = tried(1, USUAL)
    n, largest = 2, int(np.bincount(codes).max()) // ROWS_PER_COMPONENT
    while n <= min(LARGEST, largest):
        other = tried(n, USUAL if n < 8 else SHRINKAGES[1])
        if other[0] <= best[0]:
            break
        best, n = other, 2 * n
    for shrinkage in (*SHRINKAGES, USUAL):
        if shrinkage != best[1].shrinkage:
            other = tried(best[1].n_components, shrinkage)
            best = other if other[0] > best[0] else best
    return best[1]
