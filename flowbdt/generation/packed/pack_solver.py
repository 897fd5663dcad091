"""A solver as plain numbers: every point it asks at, and its result, as sums of velocities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...flow.fields import VelocityField
from ...flow.parametrisations import Convention
from ...flow.solvers import Solver, evaluations, integrate

LEAST = 1e-14
"""A weight that is smaller than this, relative to the largest, is a rounding error."""


@dataclass(frozen=True, eq=False)
class Program:
    """What a solver with fixed steps does to any field.

    Point e (and last the result) is ``scale[e]`` times the one before, beginning with x0, plus the
    velocities in the slots ``term[terms[e]:terms[e + 1]]`` times the same part of ``weight``. The
    velocity found there is kept in ``slot[e]``.

    Parameters
    ----------
    times : ndarray (E,), when the field is asked
    scale : ndarray (E + 1,)
    terms : ndarray (E + 2,), int64
    term : ndarray (terms[-1],), int64
    weight : ndarray (terms[-1],)
    slot : ndarray (E,), int64
    """

    times: np.ndarray
    scale: np.ndarray
    terms: np.ndarray
    term: np.ndarray
    weight: np.ndarray
    slot: np.ndarray

    @property
    def n_slots(self) -> int:
        """Number of velocities that have to be kept at a time."""
        return int(self.slot.max()) + 1


class _Symbols(VelocityField):
    """A field whose every answer is a new unit vector; it keeps the points it was asked at."""

    def __init__(self, n: int, convention: Convention | None) -> None:
        self.n, self.convention = n, convention
        self.points: list[np.ndarray] = []

    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return the next unit vector (1, n + 1)."""
        self.points.append(np.array(x[0]))
        answer = np.zeros((1, self.n + 1))
        answer[0, len(self.points)] = 1.0
        return answer


def program(solver: Solver, boundaries: np.ndarray, convention: Convention | None) -> Program:
    """Return what ``solver`` does between the boundaries, by a run on symbols.

    Solvers only add up points and velocities, so coefficients can take the place of numbers: x0 is
    the first unit vector, the velocity of evaluation e the one after the e-th.

    Raises
    ------
    ConfigError
        If the solver draws random numbers.
    """
    if solver.stochastic:
        raise ConfigError(f"{type(solver).__name__} draws random numbers on its way")
    times = evaluations(solver, boundaries, convention)
    symbols = _Symbols(len(times), convention)
    start = np.zeros((1, len(times) + 1))
    start[0, 0] = 1.0
    end = integrate(solver, symbols, start, boundaries).x
    return _sparse(np.asarray(times), np.vstack([start, *(p[None] for p in symbols.points), end]))


def _sparse(times: np.ndarray, points: np.ndarray) -> Program:
    """Return the program of ``points`` (E + 2, E + 1), the first being x0."""
    before, after = points[:-1], points[1:]
    has = np.abs(before[:, 0]) > LEAST
    scale = np.where(has, after[:, 0] / np.where(has, before[:, 0], 1.0), 1.0)
    change = after[:, 1:] - scale[:, None] * before[:, 1:]
    size = np.maximum(np.abs(after), np.abs(scale[:, None] * before)).max(axis=1)
    change[np.abs(change) <= LEAST * size[:, None]] = 0.0
    rows, evaluation = np.nonzero(change)
    slot = _slots(len(times), rows, evaluation)
    return Program(
        times=times,
        scale=scale,
        terms=np.searchsorted(rows, np.arange(len(points))).astype(np.int64),
        term=slot[evaluation],
        weight=change[rows, evaluation],
        slot=slot,
    )


def _slots(n: int, rows: np.ndarray, evaluation: np.ndarray) -> np.ndarray:
    """Return a slot for each evaluation, free again after its last use."""
    last = np.arange(n)
    np.maximum.at(last, evaluation, rows)
    slot, busy = np.zeros(n, dtype=np.int64), dict[int, int]()
    for e in range(n):
        # the velocity is written after the point of row e was made
        busy = {place: until for place, until in busy.items() if until > e}
        slot[e] = next(place for place in range(n) if place not in busy)
        busy[int(slot[e])] = int(last[e])
    return slot
