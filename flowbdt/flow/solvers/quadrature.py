"""Exact weights for integrals of an interpolated function: what multistep methods are made of.

A function known at some nodes is replaced by the polynomial through them; its integral against a
kernel is then a weighted sum of the known values. All nodes are given relative to the interval,
which is [0, 1] here, so the weights never depend on its length or place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np


def polynomial_weights(nodes: Sequence[float], moments: Sequence[float]) -> np.ndarray:
    """Return w (k,) with ``sum_j w_j f(nodes_j) = integral of f kernel`` for degrees below k.

    Parameters
    ----------
    nodes : k distinct positions, 0 = start of the interval, 1 = its end
    moments : k integrals of u^0, u^1, ... against the kernel
    """
    positions, powers = np.asarray(nodes, dtype=np.float64), np.arange(len(nodes))
    return np.linalg.solve(positions[None, :] ** powers[:, None], np.asarray(moments))


def plain_moments(count: int) -> list[float]:
    """Return the integrals of u^k over [0, 1], ``1 / (k + 1)``."""
    return [1.0 / (k + 1.0) for k in range(count)]


def decaying_moments(h: float, count: int) -> list[float]:
    """Return ``h integral_0^1 exp(-h (1 - u)) u^k du`` for k below count.

    The kernel of data prediction: the newest values weigh most. For h -> infinity all are 1.
    Downward recursion loses no digits for small h, upward none for large.
    """
    if h > 1.0:
        moments = [-math.expm1(-h)]
        for k in range(1, count):
            moments.append(1.0 - k / h * moments[-1])
        return moments
    return [h * _series(h, k) for k in range(count)]


def growing_moments(h: float, count: int) -> list[float]:
    """Return ``h integral_0^1 exp(h (1 - u)) u^k du`` for k below count.

    The kernel of noise prediction.
    """
    if h > 1.0:
        moments = [math.expm1(h)]
        for k in range(1, count):
            moments.append(k / h * moments[-1] - 1.0)
        return moments
    return [h * _series(-h, k) for k in range(count)]


def _series(h: float, k: int) -> float:
    """Return integral_0^1 exp(-h (1 - u)) u^k du = k! sum_j (-h)^j / (j + k + 1)! for |h| <= 1."""
    term, total = 1.0 / (k + 1.0), 0.0
    for j in range(1, 25):
        total += term
        term *= -h / (k + 1.0 + j)
    return total + term


@cache
def _gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return 0.5 * (nodes + 1.0), 0.5 * weights


def numeric_moments(kernel: Callable[[float], float], count: int, nodes: int = 24) -> list[float]:
    """Return integrals of ``kernel(u) u^k`` over [0, 1], by Gauss's rule."""
    positions, weights = _gauss(nodes)
    values = weights * np.array([kernel(float(u)) for u in positions])
    return [float(values @ positions**k) for k in range(count)]
