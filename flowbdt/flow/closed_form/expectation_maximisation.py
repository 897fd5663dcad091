"""Fit a mixture of Gaussians by expectation and maximisation, with event weights and gaps.

Variables may be missing (NaN): their part of the sums is taken in expectation, which is exact.
All sums run over events in the order of the table, block by block, whichever thread made those of a
block: so equal input gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ... import seeding
from ...seeding import split_mask
from .conditioning import FLOOR, Covariances, Full, density_problem, log_sum_exp

ROWS = 1024
WIDE = 48
WIDE_ROWS = 4096
"""Rows of a block, whose numbers stay in the cache, and variables above which products of all pairs
would cost more than sums over the few components that are near an event, in larger blocks."""

NEGLIGIBLE = 1e-10
"""An event that belongs to a component with less than this probability is then left out."""

FEWEST = 1.0
"""A component that holds fewer events than this is dropped."""


TOLERANCE = 5e-5
STRIDE = 1.8
"""The fit stops when the mean log-likelihood per variable changes by less in one iteration. On
jets, MAGIC and Z to ee that of held-out rows is then what it was after 100 plain iterations, in 30
to 60."""


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
    """Standardised rows y (n, p), NaN where missing, their weight (n,), and threads to work on."""

    y: np.ndarray
    weight: np.ndarray
    n_threads: int = 1

    @cached_property
    def patterns(self) -> Patterns:
        """Rows of equal gaps."""
        return gap_patterns(np.isnan(self.y))

    def take(self, rows: np.ndarray) -> StandardisedRows:
        """Return some of the rows."""
        return replace(self, y=self.y[rows], weight=self.weight[rows])


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
    """Return the sums that `maximisation` needs, and the mean log-likelihood.

    The sums are, for each component, those over events of weight times responsibility times
    ``(y, 1) (y, 1)^T``, (K, p + 1, p + 1), unknown variables in expectation.
    """
    p = rows.y.shape[1]
    sums, total = np.zeros((mixture.n_components, p + 1, p + 1)), 0.0
    for numbers, observed in rows.patterns:
        known = rows.y[numbers][:, observed], rows.weight[numbers]
        wide = not isinstance(mixture.covariances, Full) or observed.sum() > WIDE
        block, size = (_block_near, WIDE_ROWS) if wide else (_block_of_products, ROWS)
        blocks = _Blocks(*known, size, rows.n_threads)
        part, likelihood = blocks.sums(block(mixture, observed))
        sums += part if observed.all() else _with_gaps(part, mixture, observed)
        total += likelihood
    return sums, total / float(rows.weight.sum())


Block = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]
"""Sums (K, ...) and log-likelihood of rows (n, o) without gaps and of weights (n,)."""


@dataclass(frozen=True)
class _Blocks:
    """Rows (n, o) without gaps and their weights (n,), ``size`` rows at a time."""

    y: np.ndarray
    weight: np.ndarray
    size: int
    n_threads: int

    def sums(self, of_block: Block) -> tuple[np.ndarray, float]:
        """Return what a block gives, added up in the order of the rows."""
        result, total = None, 0.0
        for part, likelihood in self._each(of_block):
            result = part if result is None else np.add(result, part, out=result)
            total += likelihood
        assert result is not None
        return result, total

    def _each(self, of_block: Block) -> Iterator[tuple[np.ndarray, float]]:
        parts = [slice(low, low + self.size) for low in range(0, len(self.y), self.size)]
        at_once = min(self.n_threads, len(parts))
        if at_once == 1:
            yield from (of_block(self.y[rows], self.weight[rows]) for rows in parts)
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(at_once) as pool:  # numpy lets other threads work meanwhile
            yield from pool.map(lambda rows: of_block(self.y[rows], self.weight[rows]), parts)


def _block_of_products(mixture: GaussianMixture, observed: np.ndarray) -> Block:
    """Return the function that makes the sums of a block of rows by two matrix products.

    Log densities are linear in the products of two of the variables (y, 1), and so are the sums.
    """
    k, size = mixture.n_components, int(observed.sum()) + 1
    form = _quadratic_forms(mixture, observed)
    upper = np.triu_indices(size)
    factor = np.where(upper[0] == upper[1], 1.0, 2.0) * form[:, upper[0], upper[1]]

    def of_block(y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
        part = np.vstack([y.T, np.ones(len(y))])
        block, end = np.empty((len(upper[0]), ROWS))[:, : len(y)], 0
        for i in range(size):
            np.multiply(part[i], part[i:], out=block[end : end + size - i])
            end += size - i
        share = factor @ block
        largest = share.max(axis=0)
        share -= largest
        np.exp(share, out=share)
        density = share.sum(axis=0)
        total = float((weight * (np.log(density) + largest)).sum())
        share *= weight / density
        sums, full = share @ block.T, np.empty((k, size, size))
        full[:, upper[0], upper[1]] = full[:, upper[1], upper[0]] = sums
        return full, total

    return of_block


def _quadratic_forms(mixture: GaussianMixture, observed: np.ndarray) -> np.ndarray:
    """Return Q (K, o + 1, o + 1): log(weight k) + log p_k(y) is ``(y, 1)^T Q_k (y, 1)``."""
    mean = mixture.means[:, observed]
    root = np.linalg.cholesky(mixture.covariances.dense()[:, observed][:, :, observed])
    whiten = np.linalg.inv(root)
    precision = whiten.swapaxes(1, 2) @ whiten
    form = np.empty((len(mean), mean.shape[1] + 1, mean.shape[1] + 1))
    form[:, :-1, :-1] = -0.5 * precision
    form[:, :-1, -1] = form[:, -1, :-1] = 0.5 * np.einsum("kij,kj->ki", precision, mean)
    form[:, -1, -1] = mixture.log_weights - 0.5 * mean.shape[1] * np.log(2 * np.pi)
    form[:, -1, -1] -= 0.5 * (np.einsum("kij,kj->ki", whiten, mean) ** 2).sum(axis=1)
    form[:, -1, -1] -= np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    return form


def _block_near(mixture: GaussianMixture, observed: np.ndarray) -> Block:
    """Return the same for many variables, where few components share an event."""
    kernel = mixture.covariances.kernel(
        mixture.log_weights, mixture.means, density_problem(observed)
    )

    def of_block(y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
        log_joint = kernel.log_joint(y)
        log_density = log_sum_exp(log_joint)
        shares = (np.exp(log_joint - log_density[:, None]) * weight[:, None]).T
        part = np.hstack([y, np.ones((len(y), 1))])
        sums = np.empty((len(shares), part.shape[1], part.shape[1]))
        for k, share in enumerate(shares):
            near = np.flatnonzero(share > NEGLIGIBLE)
            sums[k] = (part[near].T * share[near]) @ part[near]
        return sums, float((weight * log_density).sum())

    return of_block


def _with_gaps(sums: np.ndarray, mixture: GaussianMixture, observed: np.ndarray) -> np.ndarray:
    """Return sums (K, p + 1, p + 1) from those of the ``observed`` variables (p,), bool.

    Given these, the others are normal with a mean that is linear in them and a fixed covariance.
    """
    p, known, missing = len(observed), np.append(observed, True), ~observed
    result = np.zeros((len(sums), p + 1, p + 1))
    dense = mixture.covariances.dense()
    for k, (mean, cov) in enumerate(zip(mixture.means, dense, strict=True)):
        across = cov[np.ix_(observed, missing)]
        gain = np.linalg.solve(cov[np.ix_(observed, observed)], across)
        filled = np.zeros((p + 1, len(sums[k])))
        filled[known] = np.eye(len(sums[k]))
        filled[:-1][missing] = np.vstack([gain, mean[missing] - mean[observed] @ gain]).T
        result[k] = filled @ sums[k] @ filled.T
        left = cov[np.ix_(missing, missing)] - across.T @ gain
        result[k][np.ix_(~known, ~known)] += sums[k][-1, -1] * left
    return result


def maximisation(
    sums: np.ndarray, settings: MixtureSettings, previous: GaussianMixture | None
) -> GaussianMixture:
    """Return the mixture that fits best to the sums (K, p + 1, p + 1) of `expectation`."""
    kept = sums[:, -1, -1] >= FEWEST
    kept[np.argmax(sums[:, -1, -1])] = True
    counts, sums = sums[kept, -1, -1], sums[kept] / sums[kept, -1:, -1:]
    means = sums[:, -1, :-1]
    scatter = sums[:, :-1, :-1] - means[:, :, None] * means[:, None, :]
    scatter = shrunk(scatter, counts, settings.shrinkage, settings.shared)
    before = None if previous is None else previous.covariances.take(kept)
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


def iterate(
    mixture: GaussianMixture, rows: StandardisedRows, settings: MixtureSettings, n: int
) -> tuple[GaussianMixture, float]:
    """Return the mixture after at most ``n`` iterations, and its log-likelihood before the last.

    Iterations go `STRIDE` times as far as plain ones, while that leads to a higher likelihood.

    Source: Peters, Walker 1978, SIAM J. Appl. Math. 35, 362, theorem 3.1 (any stride below 2
    converges near the maximum).
    """
    last, before = -np.inf, None
    for _ in range(n):
        sums, likelihood = expectation(mixture, rows)
        if before is not None and likelihood > last:
            sums = _further(before, sums)
        mixture = maximisation(sums, settings, mixture)
        if abs(likelihood - last) < TOLERANCE * rows.y.shape[1]:
            break
        last, before = likelihood, sums if len(sums) == mixture.n_components else None
    return mixture, likelihood


def _further(before: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Return sums `STRIDE` times as far from those before, if they are sums of a mixture."""
    further = before + STRIDE * (sums - before)
    if (further[:, -1, -1] < FEWEST).any():
        return sums
    try:  # of the products (y, 1) (y, 1)^T: definite if the covariances are
        np.linalg.cholesky(further + FLOOR * np.eye(further.shape[-1]))
    except np.linalg.LinAlgError:
        return sums
    return further


def start(
    rows: StandardisedRows, n_components: int, settings: MixtureSettings, rng: np.random.Generator
) -> GaussianMixture:
    """Return a first mixture from k-means with spread-out seeds.

    Source: Arthur, Vassilvitskii 2007, "k-means++: the advantages of careful seeding", section 2.2.
    """
    y = np.where(np.isnan(rows.y), 0.0, rows.y)  # standardised: 0 is the mean
    centres = _spread_seeds(y, rows.weight, n_components, rng)
    with_one = np.hstack([y, np.ones((len(y), 1))])
    for _ in range(10):
        nearest = _nearest(y, centres)
        sums = ((np.arange(len(centres))[:, None] == nearest) * rows.weight) @ with_one
        centres = sums[sums[:, -1] > 0, :-1] / sums[sums[:, -1] > 0, -1:]
    nearest = _nearest(y, centres)
    parts = [nearest == k for k in range(len(centres))]
    sums = np.stack([(with_one[k].T * rows.weight[k]) @ with_one[k] for k in parts])
    return maximisation(sums, settings, None)


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
    """Return to which centre each row is nearest, (n,)."""
    distances = (centres**2).sum(axis=1) - 2.0 * (y @ centres.T)  # up to a constant per row
    return np.argmin(distances, axis=1)


N_STARTS = 3
START_ROWS = 6_000
START_ITERATIONS = 10
"""Several starts are compared after a few iterations on some of the rows: cheap, and enough."""

MOST = 160
SEARCH_ROWS = 20_000
SEARCH_ITERATIONS = 25
HELD_OUT = 0.2
FEWEST_HELD_OUT = 20
"""The search tries so many components at most, and uses fewer rows and iterations than the fit, and
a fifth of the rows to compare."""


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
    `ROWS_FOR_EACH` allow, what they allow. So smaller ones are tried only if one is likelier.

    Compared is the mean log-likelihood of held-out rows at their conditions (the variables
    ``conditional``, (p,), bool), which is what generation needs. The search stops when it falls.
    """
    rows_used = _some(len(rows.y), SEARCH_ROWS, seed, "mixture-search")
    held = split_mask(len(rows_used), HELD_OUT, seeding.derive(seed, "mixture-held-out"))
    likelihoods: dict[int, float] = {}
    if held.sum() < FEWEST_HELD_OUT:
        return fit_mixture(rows, 1, settings, seed, max_iter), likelihoods
    train, test = rows.take(rows_used[~held]), rows.take(rows_used[held])
    n_rows, p = rows.y.shape
    most = min(MOST, len(train.y) // (p + 2))
    enough = min(max(min(ENOUGH, n_rows // ROWS_FOR_EACH, n_rows // (2 * (p + 2))), 2), most)

    def tried(n: int) -> GaussianMixture:
        mixture = fit_mixture(train, n, settings, seed, SEARCH_ITERATIONS)
        density = mixture.log_density(test)
        if conditional.any():
            density = density - mixture.log_density(test, conditional)
        likelihoods[n] = float(np.average(density, weights=test.weight))
        return mixture

    one, n = tried(1), enough
    if most < 2:
        return iterate(one, rows, settings, max_iter)[0], likelihoods
    best = tried(enough)
    while likelihoods[n] == max(likelihoods.values()) and 2 * n <= most:
        n *= 2
        other = tried(n)
        best = other if likelihoods[n] > likelihoods[n // 2] else best
    n = enough // 2
    while max(likelihoods, key=likelihoods.__getitem__) == 1 and n > 1:
        tried(n)
        n //= 2
    if max(likelihoods, key=likelihoods.__getitem__) == 1:
        best = one
    return iterate(best, rows, settings, max_iter)[0], likelihoods


def _some(n: int, at_most: int, seed: int, purpose: str) -> np.ndarray:
    """Return row numbers, rising: all, or a keyed choice of ``at_most``."""
    if n <= at_most:
        return np.arange(n)
    return np.sort(seeding.stream(seed, purpose).permutation(n)[:at_most])
