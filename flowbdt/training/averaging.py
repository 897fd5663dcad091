"""Targets averaged over several events that a point may be on its way to.

A target that comes from a single event is mostly noise: many events could have led to the point
x_t. Averaging over the event itself and a random batch of others, weighted by how likely each led
to x_t, has (for many candidates) the same expectation and far less variance, so that trees reach
the same error with fewer repetitions and overfit later.
"""

from __future__ import annotations

import numpy as np

ROWS = 512
"""Rows at a time, so that the table of weights stays in the cache."""


def mean_end_point(
    x_t: np.ndarray,
    x1: np.ndarray,
    others: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray] | None,
    scales: tuple[float, float],
) -> np.ndarray:
    """Return the mean of x1 given x_t over each row's own event and all ``others``.

    Parameters
    ----------
    x_t, x1 : ndarray (n, m), points and the events they were made from, no unit
    others : ndarray (k, m), events drawn from the same table
    weights : event weights of x1 (n,) and others (k,), or None
    scales : a and b of ``x_t = a x1 + b x0`` with standard normal x0; b > 0

    Returns
    -------
    ndarray (n, m), float32

    Notes
    -----
    Cost: n k m multiplications and n k exponentials.

    References
    ----------
    Xu, Tong, Jaakkola, "Stable Target Field for Reduced Variance Score Estimation in Diffusion
    Models", arXiv 2302.00670, eq. 6, for a general affine path.
    """
    a, b = scales
    own, rest = (None, None) if weights is None else (np.log(w) for w in weights)
    result = np.empty(x1.shape, dtype=np.float32)
    others = np.asarray(others, dtype=np.float32)
    for low in range(0, len(x_t), ROWS):
        part = slice(low, low + ROWS)
        scores = _scores(x_t[part], x1[part], others, a) / np.float32(-2 * b * b)
        if own is not None and rest is not None:
            scores[:, 0] += own[part]
            scores[:, 1:] += rest
        scores -= scores.max(axis=1, keepdims=True)
        share = np.exp(scores, out=scores)
        share /= share.sum(axis=1, keepdims=True)
        result[part] = share[:, :1] * x1[part] + share[:, 1:] @ others
    return result


def _scores(x_t: np.ndarray, x1: np.ndarray, others: np.ndarray, a: float) -> np.ndarray:
    """Return |x_t - a x|^2 up to |x_t|^2 for the own event (column 0) and all others."""
    x_t, x1, scale = x_t.astype(np.float32), x1.astype(np.float32), np.float32(a)
    scores = np.empty((len(x_t), len(others) + 1), dtype=np.float32)
    scores[:, 0] = scale * np.einsum("nm,nm->n", x1, scale * x1 - 2 * x_t)
    scores[:, 1:] = (-2 * scale) * (x_t @ others.T)
    scores[:, 1:] += scale**2 * np.einsum("km,km->k", others, others)
    return scores
