"""Restart: climb back in noise and come down again, over any solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...errors import ConfigError
from ...typed_settings import AtLeastOne, AtLeastZero, NotNegative, Positive, check_value
from ..parametrisations import Convention
from .base import SOLVERS, Evaluator, Solver, Stepped
from .sde import climbed

AUTO_RANGE = (0.1, 0.6)
"""Noise ratios between which 'auto' restarts: for data of width 1, where single events begin to
separate and where errors of the steps before are largest compared with what noise can wash out.
Twice the [0.06, 0.30] that the authors found best for data of width 1/2."""


class RestartInterval(NamedTuple):
    """One line of the table: restart ``k`` times between two noise ratios.

    ``steps`` None: with the boundaries of the main grid that lie between; else that many steps
    of equal size in the log of the noise ratio.
    """

    sigma_min: Positive
    sigma_max: Positive
    k: AtLeastZero
    steps: AtLeastOne | None = None


INTERVALS = "intervals of restart, 'auto' or a table of [sigma_min, sigma_max, k, (steps)],"


@SOLVERS.register("restart")
@dataclass(eq=False)
class Restart(Solver):
    """Any solver, interrupted to add noise and to go over an interval again.

    When the main grid arrives at the lower noise ratio of an interval, noise is added until the
    upper one and the steps down are done again, k times. Fresh noise contracts the errors made
    above, while the steps stay those of an ordinary differential equation. Both ends are moved to
    the nearest boundaries of the main grid, so that without ``steps`` there are no new evaluation
    times, and trees need no new models. A multistep base begins its history anew at each restart.

    Order and place of the evaluations are those of the base.

    Raises ConfigError if an interval is malformed, or falls between two boundaries.

    Source: Xu et al. 2023, arXiv 2306.14878, section 3.1 (Restart forward and backward process).

    Parameters
    ----------
    base : solver, its name, or a mapping with its parameters
    intervals : table, see `RestartInterval`; or 'auto': once between noise ratios `AUTO_RANGE`
    k : restarts of the interval that 'auto' chooses
    s_noise : factor of the noise that is added
    """

    needs_denoised = True

    base: Any = "heun"
    intervals: Any = "auto"
    k: AtLeastZero = 1
    s_noise: NotNegative = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        base = self.base
        self._base: Solver = base if isinstance(base, Solver) else SOLVERS.build(base)
        if isinstance(self._base, Restart) or self._base.adaptive:
            raise ConfigError(
                "the base of restart must be a solver with fixed steps, not a restart"
            )
        table = [[*AUTO_RANGE, self.k]] if self.intervals == "auto" else self.intervals
        self._table = check_value(table, list[RestartInterval], INTERVALS)
        if any(line.sigma_min >= line.sigma_max for line in self._table):
            raise ConfigError(f"{INTERVALS} must have 0 < sigma_min < sigma_max, got {table!r}")
        self.order, self.offsets = self._base.order, self._base.offsets
        self.lead_offsets = self._base.lead_offsets
        self.stochastic = self._base.stochastic or any(line.k for line in self._table)

    def parameters(self) -> dict[str, Any]:
        name = self.base if isinstance(self.base, str) else type(self._base).__name__
        if isinstance(self.base, dict):
            name = self.base["name"]
        base = {"name": name, **self._base.parameters()}
        return {**super().parameters(), "base": base, "intervals": self.intervals}

    def step(self, field: Evaluator, t0: float, t1: float, x: Any, state: Any, rng: Any) -> Stepped:
        return self._base.step(field, t0, t1, x, state, rng)

    def start(self, boundaries: list[float]) -> Any:
        return self._base.start(boundaries)

    def march(
        self, field: Evaluator, x: Any, boundaries: list[float], rng: Any, state: Any = None
    ) -> tuple[Any, Any]:
        base, done = self._base, 0
        state = base.start(boundaries) if state is None else state
        for low, high, line in self._places(field.convention, boundaries):
            x, state = base.march(field, x, boundaries[done : high + 1], rng, state)
            again = _again(field.convention, boundaries[low : high + 1], line)
            for _ in range(line.k):
                field.n_restarts += 1
                x = climbed(field.convention, x, again[-1], again[0], self.s_noise, rng)
                x, state = base.march(field, x, again, rng, base.start(boundaries))
            done = high
        return base.march(field, x, boundaries[done:], rng, state)

    def _places(
        self, convention: Convention, boundaries: list[float]
    ) -> list[tuple[int, int, RestartInterval]]:
        """Return (first, last boundary, line) of every interval that restarts, in time order."""
        ratios = np.array([convention.ratio(t) for t in boundaries])
        places = []
        for line in self._table:
            if not line.k:
                continue
            low, high = (_nearest(ratios, sigma) for sigma in (line.sigma_max, line.sigma_min))
            if line == self._table[0] and self.intervals == "auto" and low == high and low > 0:
                low -= 1
            if not low < high:
                raise ConfigError(
                    f"the restart interval [{line.sigma_min:g}, {line.sigma_max:g}] falls between"
                    " two boundaries of the grid: widen it, or take more steps"
                )
            places.append((low, high, line))
        return sorted(places, key=lambda place: place[1])


def _nearest(ratios: np.ndarray, sigma: float) -> int:
    """Return the boundary whose noise ratio is nearest in its logarithm."""
    usable = np.isfinite(ratios) & (ratios > 0)
    if not usable.any():
        raise ConfigError(
            "restart needs a boundary between pure noise and pure data: take at least two steps"
        )
    distance = np.full(len(ratios), np.inf)
    distance[usable] = np.abs(np.log(ratios[usable] / sigma))
    return int(np.argmin(distance))


def _again(convention: Convention, descent: list[float], line: RestartInterval) -> list[float]:
    """Return the boundaries of the second descent, same ends."""
    if line.steps is None:
        return descent
    high, low = convention.ratio(descent[0]), convention.ratio(descent[-1])
    inner = np.geomspace(high, low, line.steps + 1)[1:-1]
    return [descent[0], *(convention.clock(float(sigma)) for sigma in inner), descent[-1]]
