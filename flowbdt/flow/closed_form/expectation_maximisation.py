"""Fit a mixture of Gaussians by expectation and maximisation, with event weights and gaps.

Variables may be missing (NaN): their part of the sums is taken in expectation, which is exact.
All sums run over events in the order of the table, so equal input gives equal bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ... import seeding
from ...seeding import split_mask
from .conditioning import Covariances, density_problem, log_sum_exp

NEGLIGIBLE = 1e-10
"""An event that belongs to a component with less than this probability is left out of its sums."""

FEWEST = 1.0
"""A component that holds fewer events than this is dropped."""


TOLERANCE = 1e-5
"""The fit stops when the mean log-likelihood per variable changes by less."""


@dataclass(frozen=True)
class MixtureSettings:
    """Kind of the covariance matrices, their rank if it is low, and ``shrinkage``: events of a
    shared matrix that are mixed into each component's, of ``shared`` (p, p), None for the pooled
    one."""

    kind: type[Covariances]
    rank: int
    shrinkage: float
    shared: np.ndarray | None = None


Patterns = tuple[tuple[np.ndarray | slice, np.ndarray], ...]
"""Row numbers (or a slice for all) and what is observed in them (p,), bool."""


@dataclass(frozen=True)
class StandardisedRows:
    """Standardised rows y (n, p), NaN where missing, and their weight (n,)."""

    y: np.ndarray
    weight: np.ndarray

    @cached_property
    def patterns(self) -> Patterns:
        """Rows of equal gaps."""
        return gap_patterns(np.isnan(self.y))

    def take(self, rows: np.ndarray) -> StandardisedRows:
        """Return some of the rows."""
        return StandardisedRows(self.y[rows], self.weight[rows])


def gap_patterns(missing: np.ndarray) -> Patterns:
    """Return (row numbers, observed columns) for each pattern among ``missing`` (n, p), bool."""
    if not missing.any():
        return ((slice(None), np.ones(missing.shape[1], dtype=bool)),)
    kinds, group = np.unique(missing, axis=0, return_inverse=True)
    group = group.reshape(-1)
    return tuple((np.flatnonzero(group == k), ~kind) for k, kind in enumerate(kinds))


@dataclass(frozen=True)
class GaussianMixture:
    """Parameters of K normal components of p variables: log weights (K,), means (K, p)."""

    log_weights: np.ndarray
    means: np.ndarray
    covariances: Covariances

    @property
    def n_components(self) -> int:
        """Number of components."""
        return len(self.log_weights)

    def moved(self, shift: np.ndarray, scale: np.ndarray) -> GaussianMixture:
        """Return the mixture of ``shift + scale y``."""
        return GaussianMixture(
            self.log_weights, shift + scale * self.means, self.covariances.scaled(scale)
        )

    def log_joint(self, y: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Return log(weight k) + log p_k of the observed variables of y (n, p), as (n, K)."""
        kernel = self.covariances.kernel(self.log_weights, self.means, density_problem(observed))
        return kernel.log_joint(y[:, observed])

    def log_density(self, rows: StandardisedRows, used: np.ndarray | None = None) -> np.ndarray:
        """Return log p (n,) of the observed variables, or of those of them among ``used``."""
        result = np.zeros(len(rows.y))
        for numbers, observed in rows.patterns:
            known = observed if used is None else observed & used
            if known.any():
                result[numbers] = log_sum_exp(self.log_joint(rows.y[numbers], known))
        return result


def expectation(mixture: GaussianMixture, rows: StandardisedRows) -> tuple[np.ndarray, float]:
    """Return responsibilities times event weight (K, n), and the mean log-likelihood."""
    weighted = np.empty((mixture.n_components, len(rows.y)))
    total = 0.0
    for numbers, observed in rows.patterns:
        log_joint = mixture.log_joint(rows.y[numbers], observed)
        log_density = log_sum_exp(log_joint)
        weight = rows.weight[numbers]
        weighted[:, numbers] = (np.exp(log_joint - log_density[:, None]) * weight[:, None]).T
        total += float(weight @ log_density)
    return weighted, total / float(rows.weight.sum())


def maximisation(
    weighted: np.ndarray,
    rows: StandardisedRows,
    settings: MixtureSettings,
    previous: GaussianMixture | None,
) -> GaussianMixture:
    """Return the mixture that fits best to responsibilities times event weight (K, n)."""
    kept = weighted.sum(axis=1) >= FEWEST
    kept[np.argmax(weighted.sum(axis=1))] = True
    weighted = weighted[kept]
    before = None
    if previous is not None:
        before = previous.covariances.take(kept)
        previous = GaussianMixture(previous.log_weights[kept], previous.means[kept], before)
    counts, means, scatter = _moments(weighted, rows, previous)
    scatter = shrunk(scatter, counts, settings.shrinkage, settings.shared)
    covariances = settings.kind.estimate(scatter, settings.rank, before)
    return GaussianMixture(np.log(counts / counts.sum()), means, covariances)


def shrunk(
    scatter: np.ndarray, counts: np.ndarray, shrinkage: float, shared: np.ndarray | None = None
) -> np.ndarray:
    """Mix into each matrix (K, p, p) a few events of the pooled one, and into that its diagonal.

    ``shared`` (p, p) replaces the pooled matrix.

    A component with few events, fewer than variables even, borrows its shape from the others.

    Source: Friedman 1989, J. Am. Stat. Assoc. 84, 165, equations 16 to 18 (the form; weights
    derived here).
    """
    if shared is None:
        total = counts.sum()
        pooled = np.tensordot(counts / total, scatter, axes=1)
        kept = total / (total + shrinkage)
        shared = kept * pooled + (1.0 - kept) * np.diag(np.diag(pooled))
    share = (counts / (counts + shrinkage))[:, None, None]
    return share * scatter + (1.0 - share) * shared


def _moments(
    weighted: np.ndarray, rows: StandardisedRows, previous: GaussianMixture | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sum of weights (K,), means (K, p) and central mean products (K, p, p)."""
    p = rows.y.shape[1]
    dense = np.broadcast_to(np.eye(p), (len(weighted), p, p))
    reference = np.zeros((len(weighted), p))
    if previous is not None:
        reference = previous.means
        if np.isnan(rows.y).any():  # only gaps need the matrices
            dense = previous.covariances.dense()
    counts, sums = np.zeros(len(weighted)), np.zeros_like(reference)
    products = np.zeros(dense.shape)
    for numbers, observed in rows.patterns:
        y = rows.y[numbers]
        for k, share in enumerate(weighted[:, numbers]):
            near = np.flatnonzero(share > NEGLIGIBLE)
            if len(near):
                part = share[near]
                away, spread = _filled(y[near], observed, reference[k], dense[k])
                counts[k] += part.sum()
                sums[k] += part @ away
                products[k] += (away.T * part) @ away + part.sum() * spread
    counts = np.maximum(counts, 1e-300)
    shift = sums / counts[:, None]
    scatter = products / counts[:, None, None] - shift[:, :, None] * shift[:, None, :]
    return counts, reference + shift, scatter


def _filled(
    y: np.ndarray, observed: np.ndarray, mean: np.ndarray, cov: np.ndarray
) -> tuple[np.ndarray, np.ndarray | float]:
    """Return y - mean with gaps filled by their expectation, and the covariance of what filled."""
    away = y - mean
    if observed.all():
        return away, 0.0
    gain = np.linalg.solve(cov[np.ix_(observed, observed)], cov[np.ix_(observed, ~observed)])
    away[:, ~observed] = away[:, observed] @ gain
    spread = np.zeros_like(cov)
    spread[np.ix_(~observed, ~observed)] = (
        cov[np.ix_(~observed, ~observed)] - cov[np.ix_(~observed, observed)] @ gain
    )
    return away, spread


def iterate(
    mixture: GaussianMixture, rows: StandardisedRows, settings: MixtureSettings, n: int
) -> tuple[GaussianMixture, float]:
    """Return the mixture after at most ``n`` iterations, and its log-likelihood before the last."""
    last = -np.inf
    for _ in range(n):
        weighted, likelihood = expectation(mixture, rows)
        mixture = maximisation(weighted, rows, settings, mixture)
        if abs(likelihood - last) < TOLERANCE * rows.y.shape[1]:
            break
        last = likelihood
    return mixture, likelihood


def start(
    rows: StandardisedRows, n_components: int, settings: MixtureSettings, rng: np.random.Generator
) -> GaussianMixture:
    """Return a first mixture from k-means with spread-out seeds.

    Source: Arthur, Vassilvitskii 2007, "k-means++: the advantages of careful seeding", section 2.2.
    """
    y = np.where(np.isnan(rows.y), 0.0, rows.y)  # standardised: 0 is the mean
    centres = _spread_seeds(y, rows.weight, n_components, rng)
    for _ in range(10):
        member = _nearest(y, centres) * rows.weight
        count = member.sum(axis=1)
        centres = (member @ y)[count > 0] / count[count > 0, None]
    member = _nearest(y, centres) * rows.weight
    return maximisation(member, StandardisedRows(y, rows.weight), settings, None)


def _spread_seeds(
    y: np.ndarray, weight: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Return up to n rows, each drawn with the square of its distance from those before."""
    chosen = [int(rng.choice(len(y), p=weight / weight.sum()))]
    nearest = np.full(len(y), np.inf)
    for _ in range(n - 1):
        nearest = np.minimum(nearest, ((y - y[chosen[-1]]) ** 2).sum(axis=1))
        mass = nearest * weight
        if not mass.sum() > 0:
            break  # fewer distinct rows than components
        chosen.append(int(rng.choice(len(y), p=mass / mass.sum())))
    return y[chosen]


def _nearest(y: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return which rows are nearest to which centre, (K, n), bool."""
    distances = (centres**2).sum(axis=1) - 2.0 * (y @ centres.T)  # up to a constant per row
    return np.arange(len(centres))[:, None] == np.argmin(distances, axis=1)


GRID = (1, 2, 5, 10, 20, 40, 80, 160)
"""Numbers of components that the search tries, from small to large."""

N_STARTS = 3
START_ROWS = 6_000
START_ITERATIONS = 10
"""Several starts are compared after a few iterations on some of the rows: cheap, and enough."""

SEARCH_ROWS = 20_000
SEARCH_ITERATIONS = 25
HELD_OUT = 0.2
FEWEST_HELD_OUT = 20
"""The search uses fewer rows and iterations than the fit, and a fifth of the rows to compare."""


ENOUGH = 40
ROWS_FOR_EACH = 100
"""Up to `ENOUGH` Gaussians are taken while there are so many rows for each, although fewer may be
likelier: what too narrow ones make too frequent, the rejection takes away, but it cannot make what
too wide ones lack. 40 for 10 on Z to ee, 40 for 20 on Z+jets (18 columns of generator and
detector): .014 and .008 of the boosted judge, .011 and .007 of the network."""


def fit_mixture(
    rows: StandardisedRows, n_components: int, settings: MixtureSettings, seed: int, max_iter: int
) -> GaussianMixture:
    """Return the likeliest of a few short fits to some of the rows, iterated on all rows."""
    few = rows.take(_some(len(rows.y), max(START_ROWS, 50 * n_components), seed, "mixture-start"))
    starts = []
    for number in range(1 if n_components == 1 else N_STARTS):
        rng = seeding.stream(seed, "mixture-start", n_components, number)
        first = start(few, n_components, settings, rng)
        starts.append(iterate(first, few, settings, START_ITERATIONS))
    return iterate(max(starts, key=lambda pair: pair[1])[0], rows, settings, max_iter)[0]


def search_components(
    rows: StandardisedRows,
    settings: MixtureSettings,
    seed: int,
    max_iter: int,
    conditional: np.ndarray,
) -> tuple[GaussianMixture, dict[int, float]]:
    """Return the mixture with the best number of components, and the likelihood of each number.

    The best number is the likeliest one; if that is neither one nor as large as `ENOUGH` and
    `ROWS_FOR_EACH` allow, what they allow.

    Compared is the mean log-likelihood of held-out rows at their conditions (the variables
    ``conditional``, (p,), bool), which is what generation needs. The search stops when it falls.
    """
    rows_used = _some(len(rows.y), SEARCH_ROWS, seed, "mixture-search")
    held = split_mask(len(rows_used), HELD_OUT, seeding.derive(seed, "mixture-held-out"))
    likelihoods: dict[int, float] = {}
    if held.sum() < FEWEST_HELD_OUT:
        return fit_mixture(rows, 1, settings, seed, max_iter), likelihoods
    train, test = rows.take(rows_used[~held]), rows.take(rows_used[held])
    for n in GRID:
        if n > 1 and n * (rows.y.shape[1] + 2) > len(train.y):
            break
        mixture = fit_mixture(train, n, settings, seed, SEARCH_ITERATIONS)
        density = mixture.log_density(test)
        if conditional.any():
            density = density - mixture.log_density(test, conditional)
        likelihoods[n] = float(np.average(density, weights=test.weight))
        if n > 1 and likelihoods[n] < max(list(likelihoods.values())[:-1]):
            break
        best = mixture
    n_rows, p = rows.y.shape
    least = min(ENOUGH, n_rows // ROWS_FOR_EACH, n_rows // (2 * (p + 2)))
    if 1 < best.n_components < least:
        return fit_mixture(rows, least, settings, seed, max_iter), likelihoods
    return iterate(best, rows, settings, max_iter)[0], likelihoods


def _some(n: int, at_most: int, seed: int, purpose: str) -> np.ndarray:
    """Return row numbers, rising: all, or a keyed choice of ``at_most``."""
    if n <= at_most:
        return np.arange(n)
    return np.sort(seeding.stream(seed, purpose).permutation(n)[:at_most])
