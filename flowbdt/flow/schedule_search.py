"""Search for the grid or restart interval that suits a field, a solver and a budget.

`optimise_grid` needs no metric: it follows points along a fine reference solution and makes the
errors of the single steps small. For trees their closed-form velocity
(`flowbdt.flow.fields.ClosedFormField`) stands in for the field: it is known before any training.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import seeding
from ..errors import ConfigError
from .fields import VelocityField
from .parametrisations import Convention
from .schedules import SCHEDULES, boundaries_of
from .solvers import SOLVERS, Evaluator, Solver, evaluations, integrate
from .solvers.restart import Restart
from .time_grid import MIN_STEP

FINE_STEPS = 200
"""Steps of the reference, of fourth order: its errors are far below those of any small grid."""


@dataclass(frozen=True)
class Reference:
    """Points followed along a field with fine steps; between them cubic in time.

    times (k,), points and velocities (k, n, m), float64.
    """

    times: np.ndarray
    points: np.ndarray
    velocities: np.ndarray

    @classmethod
    def of(cls, velocity: VelocityField, x0: np.ndarray, n_steps: int = FINE_STEPS) -> Reference:
        """Follow x0 (n, m) from t = 0 to t = 1 in steps that are finer at both ends."""
        times = SCHEDULES.build({"name": "warped", "start": 1.5, "end": 1.5})(n_steps)
        rk4, x = SOLVERS.build("rk4"), np.asarray(x0, dtype=np.float64)
        points = [x]
        for pair in itertools.pairwise(times):
            x = integrate(rk4, velocity, x, pair).x
            points.append(x)
        slopes = [velocity(float(t), p) for t, p in zip(times, points, strict=True)]
        return cls(times, np.stack(points), np.stack(slopes))

    def at(self, t: float) -> np.ndarray:
        """Return the points (n, m) at time t, by Hermite's cubic."""
        i = int(np.clip(np.searchsorted(self.times, t) - 1, 0, len(self.times) - 2))
        h = self.times[i + 1] - self.times[i]
        s = (t - self.times[i]) / h
        x0, x1 = self.points[i], self.points[i + 1]
        v0, v1 = h * self.velocities[i], h * self.velocities[i + 1]
        rise = s**2 * (3.0 - 2.0 * s)
        near, far = s * (1.0 - s) ** 2, s**2 * (s - 1.0)
        return np.asarray((1.0 - rise) * x0 + rise * x1 + near * v0 + far * v1)


def local_errors(
    solver: Solver, velocity: VelocityField, reference: Reference, boundaries: Any
) -> np.ndarray:
    """Return the error (n_steps,) of each step alone, root mean square over points and columns.

    Every step begins on the reference, and multistep methods take their history from it: the error
    is what this step adds, not what it inherits.
    """
    times = [float(t) for t in boundaries]
    evaluator, state, errors = Evaluator(velocity), solver.start(times), []
    for t0, t1 in itertools.pairwise(times):
        x, state = solver.step(evaluator, t0, t1, reference.at(t0), state, None)
        errors.append(float(np.sqrt(np.mean((x - reference.at(t1)) ** 2))))
    return np.asarray(errors)


def end_error(
    solver: Solver, velocity: VelocityField, reference: Reference, boundaries: Any
) -> float:
    """Return the error of the last points, root mean square, after all steps together."""
    x = integrate(solver, velocity, reference.points[0], boundaries).x
    return float(np.sqrt(np.mean((x - reference.points[-1]) ** 2)))


@dataclass(frozen=True)
class GridSearch:
    """The best boundaries of a search, their error, and that of the start.

    ``tried``: number of boundaries (lists) that were evaluated.
    """

    boundaries: np.ndarray
    error: float
    start_error: float
    tried: int
    settings: dict[str, Any] = field(default_factory=dict)


def steps_within(
    solver: Solver, budget: int, convention: Convention | None = None, spacing: Any = "uniform"
) -> int:
    """Return the largest number of steps that costs at most ``budget`` evaluations.

    Raises ConfigError if one step costs more.
    """
    best = 0
    for n_steps in range(1, budget + 1):
        grid = boundaries_of(SCHEDULES.build(spacing), n_steps, convention)
        try:
            cost = len(evaluations(solver, grid, convention))
        except ConfigError:  # a restart interval may not fit into few steps
            continue
        if cost > budget:
            break
        best = n_steps
    if not best:
        raise ConfigError(f"{type(solver).__name__} cannot do with {budget} evaluations")
    return best


def optimise_grid(
    velocity: VelocityField,
    solver: Solver,
    n_steps: int,
    x0: np.ndarray,
    *,
    objective: str = "end",
    start: Any = "uniform",
    sweeps: int = 12,
) -> GridSearch:
    """Return boundaries (n_steps + 1,) from 0 to 1 with small errors against a fine reference.

    First the steps are made to err equally much per unit of time, which is optimal for many small
    steps (de Boor 1974); then each boundary is moved as long as that helps.

    Raises ConfigError if the solver is stochastic or adaptive, or the objective unknown.

    Parameters
    ----------
    velocity : field that knows all times
    solver : deterministic, with fixed steps
    n_steps : int; see `steps_within` for a budget of evaluations
    x0 : ndarray (n, m), starting points; a few hundred are enough
    objective : 'local', the sum of `local_errors`, or 'end', `end_error`, which costs the same and
        also knows which errors later steps wash out; the sum of local errors can fall while the
        error at the end rises
    start : schedule to start from
    sweeps : at most so many rounds over all boundaries
    """
    if solver.stochastic or solver.adaptive or isinstance(solver, Restart):
        raise ConfigError(
            "the error against a reference needs a deterministic solver with fixed steps"
        )
    if objective not in ("local", "end"):
        raise ConfigError(f"objective must be 'local' or 'end', got {objective!r}")
    reference = Reference.of(velocity, x0)

    def measure(grid: np.ndarray) -> float:
        if objective == "end":
            return end_error(solver, velocity, reference, grid)
        return float(local_errors(solver, velocity, reference, grid).sum())

    first = np.asarray(SCHEDULES.build(start)(n_steps))
    descent = _Descent(measure, first)
    for _ in range(6):
        errors = local_errors(solver, velocity, reference, descent.best)
        if not descent.offer(_equalised(descent.best, errors, solver.order)):
            break
    descent.move_boundaries(sweeps)
    return descent.result({"objective": objective, "start": start})


def _equalised(boundaries: np.ndarray, errors: np.ndarray, order: int) -> np.ndarray:
    """Return boundaries on which steps of this order would err equally per unit of time."""
    steps = np.diff(boundaries)
    # error of a step ~ c h^(order + 1): the wanted density of steps is c^(1 / order)
    density = (np.maximum(errors, 1e-300) / steps ** (order + 1)) ** (1.0 / order)
    density = np.maximum(density, 0.02 * density.max())
    reached = np.concatenate([[0.0], np.cumsum(density * steps)])
    wanted = np.linspace(0.0, reached[-1], len(boundaries))
    grid = np.interp(wanted, reached, boundaries)
    grid[0], grid[-1] = boundaries[0], boundaries[-1]
    return np.asarray(0.5 * (grid + boundaries))


class _Descent:
    """Keep the best boundaries and try others."""

    def __init__(self, measure: Callable[[np.ndarray], float], first: np.ndarray) -> None:
        self.measure, self.best = measure, first
        self.error = self.start_error = measure(first)
        self.tried = 1

    def offer(self, grid: np.ndarray) -> bool:
        """Try boundaries; keep them if they are better."""
        if not (np.diff(grid) > MIN_STEP).all():
            return False
        self.tried += 1
        error = self.measure(grid)
        if not error < self.error:
            return False
        self.best, self.error = grid, error
        return True

    def move_boundaries(self, sweeps: int) -> None:
        """Move each inner boundary towards either neighbour while that helps."""
        share = 0.3
        for _ in range(sweeps):
            moved = False
            for i in range(1, len(self.best) - 1):
                for side in (-1, 1):
                    grid = self.best.copy()
                    grid[i] += share * (grid[i + side] - grid[i])
                    if self.offer(grid):
                        moved = True
                        break
            share = share if moved else 0.5 * share
            if share < 0.01:
                return

    def result(self, settings: dict[str, Any]) -> GridSearch:
        return GridSearch(self.best, self.error, self.start_error, self.tried, settings)


@dataclass(frozen=True)
class IntervalChoice:
    """The best restart interval; None if not restarting is best.

    ``distances``: (sigma_min, sigma_max, distance) of everything tried; the first line, with
    zeros, is the solver without restart.
    """

    interval: list[Any] | None
    distances: list[tuple[float, float, float]]


def search_restart_interval(
    velocity: VelocityField,
    base: Solver,
    boundaries: Any,
    x0: np.ndarray,
    *,
    k: int = 1,
    seed: int = 0,
) -> IntervalChoice:
    """Return the restart interval that brings events closest to a fine reference.

    Tries every pair of inner boundaries. Closeness is the mean over columns of the Wasserstein
    distance between the points at t = 1 and the reference points there; x0 should be a few
    thousand rows, as the choice is no better than this distance is known.

    Parameters
    ----------
    velocity : field that knows all times and has a normal, independent source
    base : the solver to restart
    boundaries : (n_steps + 1,), of the main grid
    x0 : ndarray (n, m), starting points
    k : restarts
    seed : of the added noise, the same for every interval
    """
    reference = Reference.of(velocity, x0)
    convention = velocity.require_convention()
    times = [float(t) for t in boundaries]
    ratios = [convention.ratio(t) for t in times[1:-1]]

    def distance(solver: Solver) -> float:
        rng = seeding.stream(seed, "restart-search")
        return _distance(integrate(solver, velocity, x0, times, rng=rng).x, reference.points[-1])

    tried = [(0.0, 0.0, distance(base))]
    for high, low in itertools.combinations(ratios, 2):
        tried.append((low, high, distance(Restart(base, [[low, high, k]]))))
    low, high, _ = min(tried, key=lambda line: line[2])
    return IntervalChoice([low, high, k] if high else None, tried)


def _distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean over columns of the Wasserstein-1 distance of equally many points."""
    return float(np.abs(np.sort(x, axis=0) - np.sort(y, axis=0)).mean())
