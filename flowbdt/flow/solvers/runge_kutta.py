"""Runge-Kutta methods with fixed steps, on the velocity."""

from __future__ import annotations

from typing import Any, ClassVar

from .base import SOLVERS, Evaluator, Solver, Stepped, time_at


def weighted_sum(weights: Any, values: Any) -> Any:
    """Return the sum of weight * value, leaving out zero weights.

    Added in place: new arrays would cost more than the arithmetic.
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


def advanced(x: Any, h: float, slope: Any) -> Any:
    """Return ``x + h slope``, computed in place in the array ``slope``."""
    slope *= h
    slope += x
    return slope


class RungeKutta(Solver):
    """Explicit Runge-Kutta method from its table: ``offsets``, ``rows``, ``weights``.

    Stage i evaluates the field at ``offsets[i]``, at the point reached with ``rows[i - 1]`` from
    the stages before it; the step is the sum of all stages with ``weights``.
    """

    rows: ClassVar[tuple[tuple[float, ...], ...]]
    weights: ClassVar[tuple[float, ...]]

    def step(self, field: Evaluator, t0: float, t1: float, x: Any, state: Any, rng: Any) -> Stepped:
        h = t1 - t0
        slopes = [field(time_at(t0, t1, self.offsets[0]), x)]
        for offset, row in zip(self.offsets[1:], self.rows, strict=True):
            slopes.append(field(time_at(t0, t1, offset), advanced(x, h, weighted_sum(row, slopes))))
        return advanced(x, h, weighted_sum(self.weights, slopes)), state


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
