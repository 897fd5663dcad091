"""Dormand and Prince's Runge-Kutta pair: with fixed steps, and with error control."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...errors import ConfigError
from ...typed_settings import Positive
from .base import SOLVERS, Evaluator, Solver, Stepped, time_at
from .runge_kutta import RungeKutta, advanced, weighted_sum

ERROR_WEIGHTS = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Fifth- minus fourth-order weights of the pair, for its seven stages."""

MOST_STEPS = 10_000


@SOLVERS.register("dormand_prince")
class DormandPrince(RungeKutta):
    """Fifth-order weights of the pair 5(4), fixed step. Order 5, six evaluations per step.

    The seventh stage of the pair serves only its error estimate and is left out.

    Source: Dormand, Prince 1980, J. Comp. Appl. Math. 6, 19, table 2.
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


@SOLVERS.register("dormand_prince_adaptive")
@dataclass(eq=False)
class DormandPrinceAdaptive(Solver):
    """The pair 5(4) with error control. Order 5, six evaluations per accepted or rejected step.

    Boundaries between the first and the last are ignored; the field must know every time between,
    so step models are refused. All points share their steps: the error is the root mean square
    over them, so a point depends on its company, within the tolerance.

    Source: Dormand, Prince 1980, J. Comp. Appl. Math. 6, 19, table 2; step control of Hairer,
    Norsett, Wanner, Solving Ordinary Differential Equations I, section II.4, equation 4.13.

    Parameters
    ----------
    rtol, atol : a step is accepted if its error is below ``atol + rtol |x|`` in the mean
    """

    order = 5
    offsets = DormandPrince.offsets
    adaptive = True

    rtol: Positive = 1e-5
    atol: Positive = 1e-6

    def step(self, field: Evaluator, t0: float, t1: float, x: Any, state: Any, rng: Any) -> Stepped:
        h, table = t1 - t0, DormandPrince
        slopes = [field(t0, x) if state is None else state]
        for offset, row in zip(table.offsets[1:], table.rows, strict=True):
            slopes.append(field(time_at(t0, t1, offset), advanced(x, h, weighted_sum(row, slopes))))
        return advanced(x, h, weighted_sum(table.weights, slopes)), slopes

    def march(
        self, field: Evaluator, x: Any, boundaries: list[float], rng: Any, state: Any = None
    ) -> tuple[Any, Any]:
        t, end, slope = boundaries[0], boundaries[-1], None
        h, smallest = 0.05 * (end - t), 1e-7 * abs(end - t)
        for _ in range(MOST_STEPS):
            t1 = end if abs(end - t) <= abs(h) * 1.0001 else t + h
            ahead, slopes = self.step(field, t, t1, x, slope, rng)
            slopes.append(field(t1, ahead))
            error = self._error(x, ahead, (t1 - t) * weighted_sum(ERROR_WEIGHTS, slopes))
            h = (t1 - t) * _factor(error)
            # points that are lost (not finite) must not hold up the others for ever
            if error <= 1.0 or abs(t1 - t) <= smallest or math.isnan(error):
                t, x, slope = t1, ahead, slopes[-1]
            else:
                slope = slopes[0]
            if t == end:
                return x, None
        raise ConfigError(
            f"no end after {MOST_STEPS} steps: the tolerance (rtol = {self.rtol:g}) is too small"
            " for this field"
        )

    def _error(self, x: Any, ahead: Any, difference: Any) -> float:
        if not len(x):
            return 0.0
        scale = self.atol + self.rtol * 0.5 * (abs(x) + abs(ahead))
        return math.sqrt(float(((difference / scale) ** 2).mean()))


def _factor(error: float) -> float:
    """Return by how much the next step may differ from this one."""
    if math.isnan(error):
        return 1.0
    return min(5.0, max(0.2, 0.9 * max(error, 1e-10) ** -0.2))
