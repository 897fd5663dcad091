"""Draw the unknown variables of rows from a mixture of Gaussians, given the known ones.

Among the variables of a component, known ones first, the Cholesky factor of its covariance is
``[[L, 0], [B, C]]``. With ``w = L^-1 (known - mean)`` the unknown ones are normal with mean
``mean + B w`` and covariance ``C C^T``; the component is drawn by its posterior probability.
"""

from __future__ import annotations

import numpy as np

from ...seeding import RowNoise
from .conditioning import CHUNK, FLOOR, Full, log_sum_exp, softmax
from .expectation_maximisation import GaussianMixture, gap_patterns


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
        component = (np.cumsum(weights, axis=1)[:, :-1] <= uniform[rows, None]).sum(axis=1)
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


def _product(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return rows @ matrix in products of one shape: a row does not depend on the others."""
    result, padded = np.empty((len(rows), matrix.shape[1])), np.zeros((CHUNK, rows.shape[1]))
    for low in range(0, len(rows), CHUNK):
        part = rows[low : low + CHUNK]
        padded[: len(part)] = part
        result[low : low + len(part)] = (padded @ matrix)[: len(part)]
    return result
