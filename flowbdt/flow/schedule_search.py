"""Search for the grid or restart interval that suits a field, a solver and a budget.

`optimise_grid` needs no metric: it follows points along a fine reference solution and makes the
errors of the single steps small. For trees their closed-form velocity
(`flowbdt.flow.fields.ClosedFormField`) stands in for the field: it is known before any training.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
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

Reference = Callable[[float], np.ndarray]
"""The points (n, m) at a time, followed along a field with fine steps."""


def follow(velocity: VelocityField, x0: np.ndarray) -> Reference:
    """Follow x0 (n, m) from t = 0 to t = 1 in fine steps, finer at both ends; cubic in between."""
    from scipy.interpolate import CubicHermiteSpline

    times = SCHEDULES.build({"name": "warped", "start": 1.5, "end": 1.5})(FINE_STEPS)
    rk4, points = SOLVERS.build("rk4"), [np.asarray(x0, dtype=np.float64)]
    for pair in itertools.pairwise(times):
        points.append(integrate(rk4, velocity, points[-1], pair).x)
    slopes = [velocity(float(t), x) for t, x in zip(times, points, strict=True)]
    reference: Reference = CubicHermiteSpline(times, np.stack(points), np.stack(slopes))
    return reference


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
        x, state = solver.step(evaluator, t0, t1, reference(t0), state, None)
        errors.append(float(np.sqrt(np.mean((x - reference(t1)) ** 2))))
    return np.asarray(errors)


def end_error(
    solver: Solver, velocity: VelocityField, reference: Reference, boundaries: Any
) -> float:
    """Return the error of the last points, root mean square, after all steps together."""
    x = integrate(solver, velocity, reference(0.0), boundaries).x
    return float(np.sqrt(np.mean((x - reference(1.0)) ** 2)))


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


@dataclass
class GridSearch:
    """The best boundaries so far, their error after all steps, and that of the start."""

    measure: Callable[[np.ndarray], float]
    boundaries: np.ndarray

    def __post_init__(self) -> None:
        self.error = self.start_error = self.measure(self.boundaries)

    def offer(self, grid: np.ndarray) -> bool:
        """Try boundaries; keep them, and return True, if they are better."""
        error = self.measure(grid) if (np.diff(grid) > MIN_STEP).all() else np.inf
        if not error < self.error:
            return False
        self.boundaries, self.error = grid, error
        return True

    def move_towards_neighbours(self, share: float) -> bool:
        """Move each inner boundary towards one neighbour where that helps; True if one moved."""
        moved = False
        for i, side in itertools.product(range(1, len(self.boundaries) - 1), (-1, 1)):
            grid = self.boundaries.copy()
            grid[i] += share * (grid[i + side] - grid[i])
            moved = self.offer(grid) or moved
        return moved


def optimise_grid(
    velocity: VelocityField,
    solver: Solver,
    n_steps: int,
    x0: np.ndarray,
    *,
    start: Any = "uniform",
    sweeps: int = 12,
) -> GridSearch:
    """Return boundaries (n_steps + 1,) from 0 to 1 with a small `end_error`.

    First the steps are made to err equally much per unit of time, which is optimal for many small
    steps (de Boor 1974); then each boundary is moved as long as that helps.

    Raises ConfigError if the solver is stochastic or adaptive.

    Parameters
    ----------
    velocity : field that knows all times
    solver : deterministic, with fixed steps
    n_steps : int; see `steps_within` for a budget of evaluations
    x0 : ndarray (n, m), starting points; a few hundred are enough
    start : schedule to start from
    sweeps : at most so many rounds over all boundaries
    """
    if solver.stochastic or solver.adaptive or isinstance(solver, Restart):
        raise ConfigError(
            "the error against a reference needs a deterministic solver with fixed steps"
        )
    reference = follow(velocity, x0)
    search = GridSearch(
        lambda grid: end_error(solver, velocity, reference, grid),
        np.asarray(SCHEDULES.build(start)(n_steps)),
    )
    for _ in range(6):
        errors = local_errors(solver, velocity, reference, search.boundaries)
        if not search.offer(_equalised(search.boundaries, errors, solver.order)):
            break
    share = 0.3
    for _ in range(sweeps):
        share *= 1.0 if search.move_towards_neighbours(share) else 0.5
        if share < 0.01:
            break
    return search


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


def search_restart_interval(
    velocity: VelocityField,
    base: Solver,
    boundaries: Any,
    x0: np.ndarray,
    *,
    k: int = 1,
    seed: int = 0,
) -> tuple[list[Any] | None, list[tuple[float, float, float]]]:
    """Return the restart interval that brings events closest to a fine reference, None for none.

    And (sigma_min, sigma_max, distance) of everything tried; the first line, with zeros, is the
    solver without restart.

    Tries every pair of inner ``boundaries`` of the main grid, with ``k`` restarts and the same
    added noise. Closeness is the mean over columns of the Wasserstein distance between the points
    at t = 1 and the reference there; the starting points x0 (n, m) should be a few thousand, as the
    choice is no better than this distance is known. The field must know all times and have a
    normal, independent source.
    """
    wanted = np.sort(follow(velocity, x0)(1.0), axis=0)
    convention = velocity.require_convention()
    times = [float(t) for t in boundaries]

    def distance(solver: Solver) -> float:
        rng = seeding.stream(seed, "restart-search")
        x = integrate(solver, velocity, x0, times, rng=rng).x
        return float(np.abs(np.sort(x, axis=0) - wanted).mean())

    tried = [(0.0, 0.0, distance(base))]
    for high, low in itertools.combinations([convention.ratio(t) for t in times[1:-1]], 2):
        tried.append((low, high, distance(Restart(base, [[low, high, k]]))))
    low, high, _ = min(tried, key=lambda line: line[2])
    return [low, high, k] if high else None, tried
