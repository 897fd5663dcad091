"""The contract of a solver, and `integrate`, the one loop over steps.

To add a solver: derive from `Solver`, say ``order`` and ``offsets`` (where in a step it asks the
field), write ``step``, register it. Training times, the check before the start and the cost come
from a dry run, so nothing else has to be told.
"""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import seeding
from ..errors import ConfigError
from ..registry import Registry

if TYPE_CHECKING:
    from ..fields import VelocityField

SOLVERS: Registry[Solver] = Registry("solver")

TOLERANCE = 1e-9
"""Two times closer than this are the same time."""

Velocity = Callable[[float, Any], Any]


class Solver(ABC):
    """One step of dx/dt = v(t, x), with operators only: numpy arrays and torch tensors both work.

    Attributes
    ----------
    order : int, the error of the result falls as the step to this power
    offsets : where in a step the field is asked, 0 = start, 1 = end, one entry per evaluation
    first_offsets : the same for the first step if that differs, else None
    stochastic : True if the solver draws from rng
    """

    order: ClassVar[int]
    offsets: ClassVar[tuple[float, ...]]
    first_offsets: ClassVar[tuple[float, ...] | None] = None
    stochastic: ClassVar[bool] = False

    def start(self) -> Any:
        """Return the state before the first step (what a solver keeps between steps)."""
        return None

    @abstractmethod
    def step(
        self,
        field: Velocity,
        t0: float,
        t1: float,
        x: Any,
        state: Any,
        rng: np.random.Generator | None,
    ) -> tuple[Any, Any]:
        """Return x at t1 (never changed in place) and the new state."""

    def n_evaluations(self, n_steps: int) -> int:
        """Return how often the field is asked in ``n_steps`` steps."""
        first = self.offsets if self.first_offsets is None else self.first_offsets
        return len(first) + (n_steps - 1) * len(self.offsets)


@dataclass(frozen=True, eq=False)
class Solution:
    """The end of an integration and its story.

    Parameters
    ----------
    x : array or tensor (n, m), the points at the last boundary
    n_evaluations : int, calls of the field, each for all n rows
    times : ndarray (n_evaluations,), the times asked, in that order
    seconds : float, wall time
    nonfinite_fraction : float, share of rows with NaN or infinity
    """

    x: Any
    n_evaluations: int
    times: np.ndarray
    seconds: float
    nonfinite_fraction: float


def time_at(t0: float, t1: float, offset: float) -> float:
    """Return t0 + offset (t1 - t0), exactly t0 and t1 at the ends."""
    return t1 if offset == 1.0 else t0 + offset * (t1 - t0)


def check_boundaries(boundaries: Any) -> list[float]:
    """Return step boundaries as floats; refuse fewer than two, or not strictly monotonic ones."""
    values = np.asarray(boundaries, dtype=np.float64)
    steps = np.diff(values)
    if (
        values.ndim != 1
        or len(values) < 2
        or not np.isfinite(values).all()
        or not ((steps > TOLERANCE).all() or (steps < -TOLERANCE).all())
    ):
        raise ConfigError(
            "boundaries must be at least two finite times, all rising or all falling, got"
            f" {np.array2string(values, threshold=8)}"
        )
    return [float(value) for value in values]


def _march(
    solver: Solver, ask: Velocity, x: Any, boundaries: list[float], rng: np.random.Generator | None
) -> Any:
    state = solver.start()
    for t0, t1 in itertools.pairwise(boundaries):
        x, state = solver.step(ask, t0, t1, x, state, rng)
    return x


def asked_times(solver: Solver, boundaries: Any) -> np.ndarray:
    """Return all times (T,) at which ``solver`` asks the field, sorted, each once.

    Found by a dry run on one row of zeros, so they are by construction the times that
    `integrate` will ask.
    """
    asked: list[float] = []

    def record(t: float, x: Any) -> Any:
        asked.append(t)
        return 0.0 * x

    rng = seeding.stream(0, "dry-run")
    _march(solver, record, np.zeros((1, 1)), check_boundaries(boundaries), rng)
    times = np.unique(np.asarray(asked, dtype=np.float64))
    return times[np.concatenate([[True], np.diff(times) > TOLERANCE])]


def integrate(
    solver: Solver,
    field: VelocityField,
    x0: Any,
    boundaries: Any,
    cond: Any = None,
    rng: np.random.Generator | None = None,
) -> Solution:
    """Move x0 along the field from the first to the last boundary.

    Parameters
    ----------
    solver : Solver
    field : VelocityField
    x0 : ndarray (n, m), computed in float64; or a torch tensor, in its own type and device
    boundaries : (n_steps + 1,), rising (noise to data) or falling (data to noise)
    cond : ndarray (n, c) or None, handed to the field unchanged
    rng : needed by stochastic solvers only

    Returns
    -------
    Solution

    Raises
    ------
    GridError
        Before any step, if the solver would ask the field for a time it does not know.
    ConfigError
        If the boundaries are not monotonic or a stochastic solver has no rng.

    Notes
    -----
    Floating-point overflow is not warned about; it is counted in ``nonfinite_fraction``.
    """
    steps = check_boundaries(boundaries)
    if solver.stochastic and rng is None:
        raise ConfigError(f"{type(solver).__name__} adds noise: hand in rng, a numpy Generator")
    if field.times is not None:
        field.require(asked_times(solver, steps))
    asked: list[float] = []

    def ask(t: float, x: Any) -> Any:
        asked.append(t)
        return field(t, x, cond)

    x = np.asarray(x0, dtype=np.float64) if isinstance(x0, np.ndarray) else x0
    began = time.perf_counter()
    with np.errstate(over="ignore", invalid="ignore"):
        x = _march(solver, ask, x, steps, rng)
    seconds = time.perf_counter() - began
    return Solution(x, len(asked), np.asarray(asked), seconds, _nonfinite_fraction(x))


def _nonfinite_fraction(x: Any) -> float:
    if len(x) == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        # x - x is 0 only for finite numbers, in numpy and torch alike
        bad = ((x - x) != 0).reshape(len(x), -1).any(1)
    return float(bad.sum()) / len(x)
