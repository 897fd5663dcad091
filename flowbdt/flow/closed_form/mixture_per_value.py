"""A mixture of Gaussians for each value of a discrete column, joined into one.

Where values are classes of few rows in places of their own, as in small tables with a label, one
mixture of all rows smears them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import compress

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
NUMBERS = (1, 2, 4, 8, 16, 64)
ROWS_PER_COMPONENT = 2
USUAL = 10.0
LARGEST_SHRINKAGE = 100.0
SHRINKAGES = (1.0, USUAL, LARGEST_SHRINKAGE)
"""Numbers of Gaussians for a value, one for at least so many of its rows; events of the shape that
all values share that are mixed into each. See `search`."""

DRAWS_PER_ROW = 3
MOST_DRAWS = 500
OTHER_VALUE = 1.0
TOLERANCE = 0.01
"""Draws for a row held out, and for all of a fold; the distance of another value, in ranges; the
share of a distance that is no difference."""

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

    def drawn(
        self, n: int, rng: np.random.Generator, value: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return points (n, p) and their values (n,), of all or of one value."""
        mine = np.flatnonzero(np.ones_like(self.tags) if value is None else self.tags == value)
        matrices = self.mixture.covariances.take(mine).dense()
        share = np.exp(self.mixture.log_weights[mine])
        k = rng.choice(len(mine), n, p=share / share.sum())
        noise = rng.standard_normal((n, matrices.shape[1]))
        spread = np.einsum("nij,nj->ni", np.linalg.cholesky(matrices)[k], noise)
        return self.mixture.means[mine][k] + spread, self.tags[mine][k]

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


def _without_folds(
    y: np.ndarray, codes: np.ndarray, n_values: int, chosen: Complexity, seed: int
) -> Iterator[tuple[np.ndarray, JoinedMixture]]:
    """Yield which rows (n,) are held out, fold by fold, and the mixtures of the others."""
    fold = folds_of(codes, seed)
    for held in (fold == k for k in range(N_FOLDS)):
        if held.any():
            yield held, JoinedMixture.fit(y[~held], codes[~held], n_values, chosen, seed)


def held_out(
    y: np.ndarray, codes: np.ndarray, n_values: int, chosen: Complexity, seed: int
) -> np.ndarray:
    """Return the log density (n,) of rows and their values, by mixtures of the other folds."""
    result = np.zeros(len(y))
    for held, fitted in _without_folds(y, codes, n_values, chosen, seed):
        result[held] = fitted.log_joint(y[held])[np.arange(held.sum()), codes[held]]
    return result


def transport(
    y: np.ndarray, codes: np.ndarray, n_values: int, chosen: Complexity, seed: int
) -> np.ndarray:
    """Return, fold by fold, how far mixtures of the other folds draw from its rows.

    That is the Wasserstein-1 distance in absolute differences of columns, in units of their ranges,
    where another value is `OTHER_VALUE` away; of `DRAWS_PER_ROW` draws for each row held out, with
    the same random numbers for each complexity.

    Source: Villani 2009, Optimal Transport, definition 6.1.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    width, result = np.ptp(y, axis=0), []
    y = y / np.where(width > 0, width, 1.0)
    for k, (held, fitted) in enumerate(_without_folds(y, codes, n_values, chosen, seed)):
        rows = np.flatnonzero(held)
        rows = np.repeat(rows, max(min(DRAWS_PER_ROW, MOST_DRAWS // len(rows)), 1))
        new, tags = fitted.drawn(len(rows), seeding.stream(seed, "transport", k))
        distance = cdist(y[rows], new, "cityblock")
        distance += OTHER_VALUE * (codes[rows, None] != tags)
        result.append(distance[linear_sum_assignment(distance)].mean())
    return np.array(result)


def search(y: np.ndarray, codes: np.ndarray, n_values: int, seed: int) -> Complexity:
    """Return the complexity whose draws are nearest to rows held out.

    Of those as near within the error of the difference or `TOLERANCE`, the one with the largest
    density of these rows. Density alone takes one Gaussian for a value in 30 columns with exact
    values, where eight draw far nearer to other rows.
    """
    largest = max(int(np.bincount(codes).max()) // ROWS_PER_COMPONENT, 1)
    numbers = [n for n in NUMBERS if n <= largest]
    tried = [Complexity(n, shrinkage) for n in numbers for shrinkage in SHRINKAGES]
    far = np.array([transport(y, codes, n_values, each, seed) for each in tried])
    away = far - far[far.mean(axis=1).argmin()]
    error = away.std(axis=1, ddof=1) / np.sqrt(away.shape[1])
    near = away.mean(axis=1) <= np.maximum(error, TOLERANCE * far.mean(axis=1).min())
    return max(
        compress(tried, near), key=lambda one: held_out(y, codes, n_values, one, seed).mean()
    )
