"""Runge-Kutta methods with fixed steps, on the velocity."""

from __future__ import annotations

from typing import Any, ClassVar

from .base import SOLVERS, Ask, Solver, time_at


def weighted_sum(weights: Any, values: Any) -> Any:
    """Return the sum of weight * value, leaving out zero weights.

    Added up in place, in an array of its own: fresh arrays would cost more than the arithmetic.
    """
    total = None
    for weight, value in zip(weights, values, strict=True):
        if weight == 0:
            continue
        term = float(weight) * value
        if total is None:
            total = term
        else:
            total += term
    return total


def moved(x: Any, h: float, slope: Any) -> Any:
    """Return ``x + h slope``, using up ``slope``, which nobody else may hold."""
    slope *= h
    slope += x
    return slope


class RungeKutta(Solver):
    """Explicit Runge-Kutta method from its table: ``offsets``, ``rows``, ``weights``.

    Stage i is asked at ``offsets[i]`` at the point reached with ``rows[i - 1]`` from the stages
    before it; the step is the sum of all stages with ``weights``.
    """

    rows: ClassVar[tuple[tuple[float, ...], ...]]
    weights: ClassVar[tuple[float, ...]]

    def step(
        self, field: Ask, t0: float, t1: float, x: Any, state: Any, rng: Any
    ) -> tuple[Any, Any]:
        """Do one step; ``len(offsets)`` evaluations, no state."""
        h = t1 - t0
        slopes = [field(time_at(t0, t1, self.offsets[0]), x)]
        for offset, row in zip(self.offsets[1:], self.rows, strict=True):
            slopes.append(field(time_at(t0, t1, offset), moved(x, h, weighted_sum(row, slopes))))
        return moved(x, h, weighted_sum(self.weights, slopes)), state


@SOLVERS.register("euler")
class Euler(RungeKutta):
    """Straight on with the velocity at the start. Order 1, one evaluation per step."""

    order = 1
    offsets = (0.0,)
    rows = ()
    weights = (1.0,)


@SOLVERS.register("ddim")
class DDIM(Solver):
    """The point that denoised point and noise of the start give at the end.

    Order 1, one evaluation per step, ``x(t1) = alpha1 D + sigma1 e``. On the straight path this
    is Euler's step, on curved ones it is not: for a single event it follows the curve exactly.

    References
    ----------
    Song, Meng, Ermon 2021, arXiv 2010.02502, equation 12 with sigma = 0.
    """

    order = 1
    offsets = (0.0,)
    needs_parts = True

    def step(
        self, field: Ask, t0: float, t1: float, x: Any, state: Any, rng: Any
    ) -> tuple[Any, Any]:
        """Do one step."""
        denoised, noise = field.parts(t0, x)
        return field.convention.point(denoised, noise, t1), state


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
