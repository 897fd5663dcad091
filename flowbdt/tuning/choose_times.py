"""Which of many trained times to keep: the best subset for a number of steps, found exactly.

Points are followed once through all trained times. What a step from one of them to another would
add as an error is then known for every pair, and the cheapest chain of a given number of steps is
a shortest path (dynamic programming).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..flow.fields import VelocityField
from ..flow.parametrisations import Convention


@dataclass(frozen=True)
class Trail:
    """Points followed through trained times to 1.

    times (k,), the last one is 1; points and velocities (k, n, m). The velocity at 1, where there
    is no model, is that of the time before.
    """

    times: np.ndarray
    points: np.ndarray
    velocities: np.ndarray

    @classmethod
    def of(
        cls, field: VelocityField, times: np.ndarray, x0: np.ndarray, cond: np.ndarray | None = None
    ) -> Trail:
        """Follow x0 (n, m) from the first trained time to 1 (Adams-Bashforth 2)."""
        grid = np.append(np.asarray(times, dtype=np.float64), 1.0)
        if len(grid) < 3:
            raise ConfigError(f"a choice of times needs some to choose from, got {len(grid) - 1}")
        x = np.asarray(x0, dtype=np.float64)
        points: list[Any] = [x]
        slopes: list[Any] = []
        for i, (t, after) in enumerate(itertools.pairwise(grid)):
            v = field(float(t), x, cond)
            slope = (v - slopes[-1]) / (t - grid[i - 1]) if slopes else 0.0
            x = x + (after - t) * (v + 0.5 * (after - t) * slope)
            points.append(x)
            slopes.append(v)
        return cls(grid, np.stack(points), np.stack([*slopes, slopes[-1]]))


def second_order(trail: Trail) -> Callable[[int, int], np.ndarray]:
    """Return the squared error of an Adams-Bashforth 2 step for the two times it goes by.

    The result takes the last two times i <= j and gives the error (k,) of a step from j to each
    time; i == j is the first step, which is Euler's.
    """
    t, x, v = trail.times, trail.points, trail.velocities

    def errors(i: int, j: int) -> np.ndarray:
        h = (t - t[j])[:, None, None]
        slope = v[j] if i == j else v[j] + 0.5 * h * (v[j] - v[i]) / (t[j] - t[i])
        return np.asarray(((x[j] + h * slope - x) ** 2).mean(axis=(1, 2)))

    return errors


def divergence(trail: Trail, convention: Convention) -> Callable[[int, int], np.ndarray]:
    """Return the bound on the Kullback-Leibler divergence that a first-order step adds.

    ``sum_k ||D_k - D_j||^2 d(snr_k) / 2`` over the times k of a step from j, with D = E[x1 | x_t]
    and snr the squared ratio of signal to noise. Takes and gives what `second_order` does.

    References
    ----------
    Sabour, Fidler, Kreis, "Align Your Steps", arXiv 2404.14957, section 3: the bound for a process
    with noise. Written here as a sum over trained times, along paths without noise.
    """
    t = trail.times[:-1]
    rows = zip(trail.velocities, trail.points, t, strict=False)
    ends = np.stack([convention.denoised_from(v, x, float(u)) for v, x, u in rows])
    signal = np.array([convention.ratio(float(u)) for u in t]) ** -2.0
    weight = 0.5 * np.diff(signal, append=2 * signal[-1] - signal[-2])

    def errors(i: int, j: int) -> np.ndarray:
        apart = ((ends - ends[j]) ** 2).mean(axis=(1, 2)) * weight
        return np.asarray(np.concatenate([[0.0], np.cumsum(apart)]) - apart[:j].sum())

    return errors


def best_times(trail: Trail, n_steps: int, errors: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """Return the boundaries (n_steps + 1,), trained times and 1, with the smallest sum of errors.

    Notes
    -----
    Exact. k times: k^2 / 2 tables of errors, k^3 n_steps / 6 additions.

    Raises
    ------
    ConfigError
        If there are fewer times than steps.
    """
    k = len(trail.times)
    if n_steps >= k:
        raise ConfigError(f"{n_steps} steps need {n_steps} trained times, there are {k - 1}")
    table = {(i, j): errors(i, j) for i in range(k - 1) for j in range(i, k - 1)}
    # value[j, i]: smallest sum of a chain that ends in a step from i to j
    value = np.full((k, k), np.inf)
    value[1:, 0] = table[0, 0][1:]
    back = []
    for _ in range(n_steps - 1):
        new, come = np.full((k, k), np.inf), np.zeros((k, k), dtype=int)
        for j in range(1, k - 1):
            sums = np.array([value[j, i] + table[i, j] for i in range(j)])
            best = sums.argmin(axis=0)
            new[j + 1 :, j] = sums[best, np.arange(k)][j + 1 :]
            come[j + 1 :, j] = best[j + 1 :]
        value = new
        back.append(come)
    return trail.times[_chain(value, back)]


def _chain(value: np.ndarray, back: list[np.ndarray]) -> list[int]:
    """Return the positions of the best chain to the last time, from the first."""
    last = len(value) - 1
    chain = [last, int(value[last].argmin())]
    for come in reversed(back):
        chain.append(int(come[chain[-2], chain[-1]]))
    return chain[::-1]


def sum_of_errors(chain: Sequence[int], errors: Callable[[int, int], np.ndarray]) -> float:
    """Return what `best_times` makes small, for the positions of a chain."""
    before = [chain[0], *chain[:-2]]
    return float(
        sum(errors(i, j)[k] for i, j, k in zip(before, chain[:-1], chain[1:], strict=True))
    )
