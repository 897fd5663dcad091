"""Solvers of ordinary differential equations with fixed steps."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .base import SOLVERS, Solver, Velocity, time_at


def _weighted(weights: Any, slopes: list[Any]) -> Any:
    """Return the sum of weight * slope, leaving out zero weights."""
    terms = [float(w) * slope for w, slope in zip(weights, slopes, strict=True) if w != 0]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


class RungeKutta(Solver):
    """Explicit Runge-Kutta method from its table: ``offsets``, ``rows``, ``weights``.

    Stage i is asked at ``offsets[i]`` at the point reached with ``rows[i - 1]`` from the stages
    before it; the step is the sum of all stages with ``weights``.
    """

    rows: ClassVar[tuple[tuple[float, ...], ...]]
    weights: ClassVar[tuple[float, ...]]

    def step(
        self,
        field: Velocity,
        t0: float,
        t1: float,
        x: Any,
        state: Any,
        rng: np.random.Generator | None,
    ) -> tuple[Any, Any]:
        """Do one step; ``len(offsets)`` evaluations, no state."""
        h = t1 - t0
        slopes = [field(time_at(t0, t1, self.offsets[0]), x)]
        for offset, row in zip(self.offsets[1:], self.rows, strict=True):
            slopes.append(field(time_at(t0, t1, offset), x + h * _weighted(row, slopes)))
        return x + h * _weighted(self.weights, slopes), state


@SOLVERS.register("euler")
class Euler(RungeKutta):
    """Straight on with the velocity at the start. Order 1, one evaluation per step."""

    order = 1
    offsets = (0.0,)
    rows = ()
    weights = (1.0,)


@SOLVERS.register("heun")
class Heun(RungeKutta):
    """Trapezoid rule. Order 2, two evaluations per step, both on the grid."""

    order = 2
    offsets = (0.0, 1.0)
    rows = ((1.0,),)
    weights = (0.5, 0.5)


@SOLVERS.register("midpoint")
class Midpoint(RungeKutta):
    """Velocity at half the step. Order 2, two evaluations per step, one between the boundaries."""

    order = 2
    offsets = (0.0, 0.5)
    rows = ((0.5,),)
    weights = (0.0, 1.0)


@SOLVERS.register("rk4")
class RK4(RungeKutta):
    """The classical method of Runge and Kutta. Order 4, four evaluations per step."""

    order = 4
    offsets = (0.0, 0.5, 0.5, 1.0)
    rows = ((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))
    weights = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


@SOLVERS.register("dormand_prince")
class DormandPrince(RungeKutta):
    """Fifth-order weights of the pair 5(4), fixed step. Order 5, six evaluations per step.

    The seventh stage of the pair serves only its error estimate and is left out.

    References
    ----------
    Dormand, Prince 1980, J. Comp. Appl. Math. 6, 19, table 2.
    """

    order = 5
    offsets = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0)
    rows = (
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    )
    weights = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)


def adams_bashforth_weights(times: list[float], t1: float) -> np.ndarray:
    """Return w (k,) so that ``sum(w_j f(times[j]))`` is the mean of f from times[0] to t1.

    Exact for polynomials of degree below k, whatever the spacing. ``times[0]`` is the start of
    the step, the others lie before it.
    """
    t0, h = times[0], t1 - times[0]
    positions = np.array([(t - t0) / h for t in times])
    powers = np.arange(len(times))
    return np.linalg.solve(positions[None, :] ** powers[:, None], 1.0 / (powers + 1.0))


class AdamsBashforth(Solver):
    """Extrapolate the velocities of the last ``order`` boundaries; steps may be unequal.

    One evaluation per step, always on the grid: well suited to step models. The state is the
    history of (time, velocity), newest first.

    References
    ----------
    Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, section III.5 (variable
    steps).
    """

    offsets = (0.0,)

    def start(self) -> Any:
        """Return an empty history."""
        return ()

    def step(
        self,
        field: Velocity,
        t0: float,
        t1: float,
        x: Any,
        state: Any,
        rng: np.random.Generator | None,
    ) -> tuple[Any, Any]:
        """Do one step; until the history is full, with the lower order that it allows."""
        slope = field(t0, x)
        history = ((t0, slope), *state)[: self.order]
        if len(history) == 1 and self.first_offsets is not None:
            ahead = field(t1, x + (t1 - t0) * slope)
            return x + 0.5 * (t1 - t0) * (slope + ahead), history
        weights = adams_bashforth_weights([t for t, _ in history], t1)
        return x + (t1 - t0) * _weighted(weights, [v for _, v in history]), history


@SOLVERS.register("adams_bashforth_2")
class AdamsBashforth2(AdamsBashforth):
    """Two-step Adams-Bashforth. Order 2, one evaluation per step; the first step is Euler's."""

    order = 2


@SOLVERS.register("adams_bashforth_3")
class AdamsBashforth3(AdamsBashforth):
    """Three-step Adams-Bashforth. Order 3, one evaluation per step and one more in the first.

    The first step is Heun's and the second Adams-Bashforth 2: both err by step^3 once, which keeps
    order 3 for the whole, and both ask at boundaries only.
    """

    order = 3
    first_offsets = (0.0, 1.0)
