"""Draw the unknown variables of rows from a mixture of Gaussians, given the known ones.

Among the variables of a component, known ones first, the Cholesky factor of its covariance is
``[[L, 0], [B, C]]``. With ``w = L^-1 (known - mean)`` the unknown ones are normal with mean
``mean + B w`` and covariance ``C C^T``; the component is drawn by its posterior probability.
"""

from __future__ import annotations

import numpy as np

from ...seeding import BLOCK, RowNoise, derive, drawn, row_uniform
from ...tables.checks import relative_or_ones
from .conditioning import CHUNK, FLOOR, Full, log_sum_exp, softmax
from .expectation_maximisation import GaussianMixture, gap_patterns
from .mixture import MixturePreconditioner, standard

ROUNDS = 3
"""Mixtures that `fill_gaps` fits, one after the other, to rows that the one before filled."""

FEWER_ROWS = 5_000
"""Rows that they are fitted to at most; they only fill."""

ITERATIONS = 100
TOLERANCE = 1e-3
"""Of one Gaussian: the most iterations, and the change of mean and covariance, in units of the
standard deviations, that ends them."""


def fill_gaps(
    known: np.ndarray,
    others: np.ndarray,
    weight: np.ndarray | None,
    used: np.ndarray,
    seed: int,
    rounds: int = ROUNDS,
) -> np.ndarray:
    """Return rows ``known`` (n, m) with draws given what is known in place of NaN.

    ``others`` (n, q) are further variables of the same rows, NaN where unknown. Rows ``used`` (n,),
    bool, with event weights (n,), are learned from. A Gaussian is fitted to them as they are, which
    brings mean and correlations right, and fills them; then, for the shapes, mixtures by stochastic
    expectation maximisation: each of ``rounds`` is fitted to the filled rows and fills them again.

    Source: Celeux, Diebolt 1985, "The SEM algorithm", Computational Statistics Quarterly 2, 73.
    """
    missing = np.isnan(known)
    filled, gappy = known.copy(), np.flatnonzero(missing.any(axis=1))
    chosen = np.flatnonzero(used if weight is None else used & (weight > 0))
    if len(chosen) > FEWER_ROWS:
        chosen = chosen[np.argsort(row_uniform(len(chosen), derive(seed, "fill-rows")))]
        chosen = np.sort(chosen[:FEWER_ROWS])
    rows, share = np.hstack([known, others]), None if weight is None else weight[chosen]
    mixture, wanted = one_gaussian(rows[chosen], share), 0
    for number in range(rounds + 1):
        now = gappy if number == rounds else np.intersect1d(gappy, chosen)
        key = derive(seed, "fill", number)
        if len(now):
            new = draw_unknown(mixture, rows[now], RowNoise(key, "fill", now))
            filled[now] = np.where(missing[now], new[:, : known.shape[1]], known[now])
        if number < rounds:
            fitted = MixturePreconditioner(n_components=wanted or "auto").fit(
                filled[chosen], cond=others[chosen], weight=share, seed=key
            )
            mixture = fitted.mixture
            wanted = mixture.n_components  # sought once, at first
    return filled


def one_gaussian(y: np.ndarray, weight: np.ndarray | None) -> GaussianMixture:
    """Return the Gaussian that describes rows (n, p) best, of which entries are unknown (NaN).

    By expectation maximisation as in `expectation_maximisation`, for all patterns of gaps at once:
    there may be as many as rows. The covariance is drawn to its diagonal by two rows.
    """
    share = relative_or_ones(weight, len(y)) / len(y)
    shift, scale = standard(y, share)
    y = (y - shift) / scale
    unknown = np.isnan(y)
    kinds, group = np.unique(unknown, axis=0, return_inverse=True)
    group, off = group.reshape(-1), kinds[:, :, None] | kinds[:, None, :]
    both = kinds[:, :, None] & kinds[:, None, :]
    per_kind = np.bincount(group, share, len(kinds))
    kept = len(y) / (len(y) + 2.0)
    p = y.shape[1]
    mean, cov = np.zeros(p), np.eye(p)
    for _ in range(ITERATIONS):
        # the identity in place of what is unknown: matrices of one size
        inverse = np.linalg.inv(np.where(off, np.eye(p), cov))
        gain = np.where(kinds[:, :, None] & ~kinds[:, None, :], cov, 0.0) @ inverse
        left = np.where(both, cov - gain @ cov, 0.0)
        away = np.where(unknown, 0.0, y - mean)
        expected = np.empty_like(away)
        for low in range(0, len(y), BLOCK):
            rows = slice(low, low + BLOCK)
            expected[rows] = (gain[group[rows]] @ away[rows, :, None])[:, :, 0]
        full = np.where(unknown, mean + expected, y)
        before, mean = (mean, cov), share @ full
        centred = full - mean
        cov = (centred * share[:, None]).T @ centred + np.tensordot(per_kind, left, axes=1)
        cov = kept * cov + (1.0 - kept) * np.diag(np.diag(cov)) + FLOOR * np.eye(p)
        if max(np.abs(mean - before[0]).max(), np.abs(cov - before[1]).max()) < TOLERANCE:
            break
    result = GaussianMixture(np.zeros(1), mean[None], Full(cov[None]))
    return result.moved(shift, scale)


def draw_unknown(
    mixture: GaussianMixture, y: np.ndarray, noise: RowNoise, tilt: np.ndarray | None = None
) -> np.ndarray:
    """Return rows y (n, p) with their unknown entries, NaN, drawn given the known ones.

    The draws are exact, and those of a row do not depend on the other rows. ``noise`` is of these
    rows, and may be used more than once. ``tilt`` (n, K) is added to the log weights of the
    components; `log_tilt` tells by how much that favours a row.
    """
    result, missing = y.copy(), np.isnan(y)
    uniform, normal = noise.random(), noise.standard_normal(y.shape)
    covariances = mixture.covariances.dense()
    for numbers, observed in gap_patterns(missing):
        if observed.all():
            continue
        rows = np.arange(len(y))[numbers]
        log_joint = mixture.log_joint(y[rows], observed)
        weights = softmax(log_joint if tilt is None else log_joint + tilt[rows])
        component = drawn(weights, uniform[rows])
        order = np.concatenate([np.flatnonzero(observed), np.flatnonzero(~observed)])
        n_known = int(observed.sum())
        for k in np.unique(component):
            mine, mean = rows[component == k], mixture.means[k]
            root = np.linalg.cholesky(covariances[k][np.ix_(order, order)])
            known = np.linalg.inv(root[:n_known, :n_known]).T
            sources = np.hstack([y[mine][:, observed] - mean[observed], normal[mine][:, ~observed]])
            maps = np.vstack([known @ root[n_known:, :n_known].T, root[n_known:, n_known:].T])
            result[np.ix_(mine, ~observed)] = mean[~observed] + _product(sources, maps)
    return result


def log_tilt(mixture: GaussianMixture, y: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """Return the log of the mean of ``exp(tilt)``, (n, K), over the components of rows (n, p).

    Components count by their probability given what is known of the row, NaN being unknown.
    """
    result = np.empty(len(y))
    for numbers, observed in gap_patterns(np.isnan(y)):
        log_joint = mixture.log_joint(y[numbers], observed)
        result[numbers] = log_sum_exp(log_joint + tilt[numbers]) - log_sum_exp(log_joint)
    return result


def mapped(mixture: GaussianMixture, matrix: np.ndarray, shift: np.ndarray) -> GaussianMixture:
    """Return the mixture of ``shift + matrix y``; ``matrix`` is (q, p)."""
    covariances = matrix @ mixture.covariances.dense() @ matrix.T
    return GaussianMixture(mixture.log_weights, mixture.means @ matrix.T + shift, Full(covariances))


def of_columns(
    mixture: GaussianMixture,
    mean: np.ndarray,
    scale: np.ndarray,
    axes: np.ndarray,
    spread: np.ndarray,
) -> GaussianMixture:
    """Return the mixture of (columns, conditions) from that of (axes, conditions).

    ``mean``, ``scale`` (m,), ``axes`` (m, k) and ``spread`` (k,) are those of the joint transform
    that led from m latent columns to k axes. Directions that it dropped get a variance of `FLOOR`.
    """
    m, n_axes = axes.shape
    n_cond = mixture.means.shape[1] - n_axes
    matrix, shift = np.eye(m + n_cond, n_axes + n_cond, n_axes - m), np.zeros(m + n_cond)
    matrix[:m, :n_axes], matrix[:m, n_axes:] = scale[:, None] * axes * spread, 0.0
    shift[:m] = mean
    result = mapped(mixture, matrix, shift)
    dropped = np.zeros((m + n_cond, m + n_cond))
    if n_axes < m:
        dropped[:m, :m] = FLOOR * np.outer(scale, scale) * (np.eye(m) - axes @ axes.T)
    covariances = Full(result.covariances.dense() + dropped)
    return GaussianMixture(result.log_weights, result.means, covariances)


def with_wide(mixture: GaussianMixture, share: float) -> GaussianMixture:
    """Return a mixture with one component more: the Gaussian of its mean and covariance."""
    weights, matrices = np.exp(mixture.log_weights), mixture.covariances.dense()
    mean = weights @ mixture.means
    away = mixture.means - mean
    wide = np.tensordot(weights, matrices, axes=1) + (away * weights[:, None]).T @ away
    return GaussianMixture(
        np.append(mixture.log_weights + np.log1p(-share), np.log(share)),
        np.vstack([mixture.means, mean]),
        Full(np.concatenate([matrices, wide[None]])),
    )


def _product(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return rows @ matrix in products of one shape: a row does not depend on the others."""
    result, padded = np.empty((len(rows), matrix.shape[1])), np.zeros((CHUNK, rows.shape[1]))
    for low in range(0, len(rows), CHUNK):
        part = rows[low : low + CHUNK]
        padded[: len(part)] = part
        result[low : low + len(part)] = (padded @ matrix)[: len(part)]
    return result
