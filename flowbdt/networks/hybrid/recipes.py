"""Hybrids as lists of legs: handover, Restart by trees, warm start; and the choice of the times.

`compare_fields` evaluates two fields on the same noisy events: trees can take the place of a
network at times at which they are as good.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import seeding
from ...errors import ConfigError
from ...flow.fields import VelocityField
from ...flow.parametrisations import Convention, FlowMatching
from ...flow.paths import PATHS
from ...flow.schedules import SCHEDULES, boundaries_of
from ...flow.solvers.restart import AUTO_RANGE
from .relay import Leg

FINE = 1024
"""Steps of the schedule of which stretches are taken."""


def stretch(spacing: Any, n_steps: int, start: float, stop: float) -> np.ndarray:
    """Return boundaries (n_steps + 1,) from ``start`` to ``stop``, spaced as in a schedule."""
    fine = boundaries_of(SCHEDULES.build(spacing), FINE)
    low, high = np.interp([start, stop], fine, np.arange(FINE + 1.0))
    inner = np.interp(np.linspace(low, high, n_steps + 1)[1:-1], np.arange(FINE + 1.0), fine)
    return np.array([start, *inner, stop])


def handover(
    first: VelocityField,
    second: VelocityField,
    at: float,
    *,
    names: tuple[str, str] = ("trees", "network"),
    solvers: tuple[Any, Any] = ("heun", "heun"),
    n_steps: tuple[int, int] = (4, 8),
    spacing: Any = "uniform",
) -> list[Leg]:
    """Return two legs: the first field above the noise level of time ``at``, the second below."""
    if not 0.0 < at < 1.0:
        raise ConfigError(f"the handover must be at a time between 0 and 1, got {at!r}")
    grids = (stretch(spacing, n_steps[0], 0.0, at), stretch(spacing, n_steps[1], at, 1.0))
    fields = (first, second)
    return [Leg(names[i], fields[i], solvers[i], grids[i]) for i in (0, 1)]


@dataclass(frozen=True)
class Restarted:
    """An interval of `restart_by_trees`: ``k`` climbs and descents of ``steps`` steps."""

    sigma_min: float = AUTO_RANGE[0]
    sigma_max: float = AUTO_RANGE[1]
    k: int = 1
    steps: int = 3

    def times(self, spacing: Any = "uniform", convention: Convention | None = None) -> np.ndarray:
        """Return the boundaries of a descent; without a convention on the straight line."""
        clock = (convention or FlowMatching()).clock
        return stretch(spacing, self.steps, clock(self.sigma_max), clock(self.sigma_min))


def restart_by_trees(
    network: VelocityField,
    trees: Mapping[Restarted, VelocityField],
    *,
    solver: Any = "heun",
    tree_solver: Any = "heun",
    n_steps: int = 8,
    spacing: Any = "uniform",
) -> list[Leg]:
    """Return legs of Restart in which trees do every descent after a climb.

    The network passes every noise level once, at the cost of sampling without restarts. It takes
    ``n_steps`` steps in all, at least one in each stretch. ``trees`` maps each interval to a field
    of the times that ``tree_solver`` evaluates there (`train_trees`).

    Xu et al. 2023, arXiv 2306.14878, section 3.1, for Restart itself.
    """
    lines = sorted(trees, key=lambda line: -line.sigma_min)
    descents = [line.times(spacing, network.convention) for line in lines]
    ends = [0.0, *(float(times[-1]) for times in descents), 1.0]
    legs: list[Leg] = []
    shares = shared_steps(ends, n_steps, spacing)
    for i, (start, stop) in enumerate(itertools.pairwise(ends)):
        legs.append(Leg("network", network, solver, stretch(spacing, shares[i], start, stop)))
        if i < len(lines):
            legs += [Leg("trees", trees[lines[i]], tree_solver, descents[i])] * lines[i].k
    return legs


def shared_steps(ends: Sequence[float], n_steps: int, spacing: Any = "uniform") -> list[int]:
    """Return the steps of each stretch, ``n_steps`` in all; ConfigError unless each gets one."""
    n = len(ends) - 1
    if n_steps < n:
        raise ConfigError(f"{n} stretches need at least {n} steps, got {n_steps}")
    fine = boundaries_of(SCHEDULES.build(spacing), FINE)
    wanted = np.diff(np.interp(ends, fine, np.linspace(0.0, n_steps, FINE + 1)))
    steps = np.maximum(np.floor(wanted), 1).astype(int)
    while steps.sum() < n_steps:
        steps[int(np.argmax(wanted - steps))] += 1
    while steps.sum() > n_steps:
        steps[int(np.argmin(np.where(steps > 1, wanted - steps, np.inf)))] -= 1
    return [int(s) for s in steps]


def warm_start(
    trees: Leg,
    network: VelocityField,
    at: float,
    *,
    solver: Any = "heun",
    n_steps: int = 4,
    spacing: Any = "uniform",
) -> list[Leg]:
    """Return legs: trees from noise to data, noise up to time ``at``, a network from there."""
    return [trees, Leg("network", network, solver, stretch(spacing, n_steps, at, 1.0))]


TOLERATED = 0.02
"""Tolerated excess as a fraction of the loss. On 12 observables of jets trees that were worse by
0.024 handed over to a network without loss of quality (experiments/restart_hybrid)."""


@dataclass(frozen=True)
class FieldComparison:
    """Excess of the first field's loss over the second's on real events, time by time."""

    times: np.ndarray  # (T,), rising
    ratios: np.ndarray  # (T,), noise ratios sigma / alpha
    losses: np.ndarray  # (T, 2), mean squared error of the velocity, per value
    difference: np.ndarray  # (T,), first minus second
    error: np.ndarray  # (T,), its standard error (events are paired)

    def as_good(self, tolerance: float = TOLERATED) -> np.ndarray:
        """Return where the first is worse by at most ``tolerance`` of the loss and two errors."""
        return np.asarray(self.difference <= tolerance * self.losses[:, 1] + 2.0 * self.error)

    def first_above(self, tolerance: float = TOLERATED) -> float:
        """Return the latest time up to which the first field is as good; 0 if nowhere."""
        count = _leading(self.as_good(tolerance))
        return float(self.times[count - 1]) if count else 0.0

    def first_below(self, tolerance: float = TOLERATED) -> float:
        """Return the earliest time from which on the first field is as good; 1 if nowhere."""
        count = _leading(self.as_good(tolerance)[::-1])
        return float(self.times[-count]) if count else 1.0


def _leading(good: np.ndarray) -> int:
    """Return how many are True before the first False."""
    return int(np.argmin(np.append(good, False)))


def compare_fields(
    first: VelocityField,
    second: VelocityField,
    z: np.ndarray,
    times: Any,
    *,
    cond: np.ndarray | None = None,
    path: Any = "linear",
    repeats: int = 1,
    seed: int = 0,
) -> FieldComparison:
    """Compare the velocities of two fields at rising ``times`` (T,) for the same noisy events.

    z (n, m) and cond (n, c) are latent events that neither was trained on, with ``repeats`` draws
    of noise each.
    """
    line, latent = PATHS.build(path), np.asarray(z, dtype=np.float64)
    grid = np.asarray(times, dtype=np.float64)
    convention = first.require_convention()
    errors = np.zeros((len(grid), 2, len(latent)))
    for i, t in enumerate(grid):
        for repeat in range(repeats):
            rng = seeding.stream(seed, "compare", i, repeat)
            x0 = rng.standard_normal(latent.shape)
            x_t = line.location(x0, latent, float(t))
            target = line.target(x0, latent, float(t), x_t)
            for j, field in enumerate((first, second)):
                residual = np.asarray(field(float(t), x_t, cond)) - target
                errors[i, j] += np.mean(residual**2, axis=1) / repeats
    pairs = errors[:, 0] - errors[:, 1]
    return FieldComparison(
        grid,
        np.array([convention.ratio(float(t)) for t in grid]),
        errors.mean(axis=2),
        pairs.mean(axis=1),
        pairs.std(axis=1, ddof=1) / np.sqrt(len(latent)),
    )


GRID = tuple(i / 16 for i in range(1, 16))
"""Times of the comparison if a field knows all."""


def choose_handover(
    trees: VelocityField,
    network: VelocityField,
    z: np.ndarray,
    *,
    below: bool = False,
    tolerance: float = TOLERATED,
    cond: np.ndarray | None = None,
    path: Any = "linear",
    seed: int = 0,
) -> float:
    """Return the time of handover between trees and a network with the fewest network evaluations.

    Trees go from noise to the handover, with ``below`` from there to the data. It is one of the
    trees' times inside (0, 1) at which they are as good on latent events z (n, m) that neither was
    trained on (`FieldComparison.as_good`); 0 (1, if ``below``) if they never are.
    """
    times = [t for t in (GRID if trees.times is None else trees.times) if 0.0 < t < 1.0]
    comparison = compare_fields(trees, network, z, times, cond=cond, path=path, seed=seed)
    return comparison.first_below(tolerance) if below else comparison.first_above(tolerance)


def choose_restart_interval(
    comparison: FieldComparison, tolerance: float = TOLERATED
) -> tuple[float, float] | None:
    """Return sigma_min and sigma_max of a restart interval for trees; None if there is none.

    The range of `AUTO_RANGE` in which the trees (the first field of the comparison) are as good,
    from its lowest such level upwards without a gap.
    """
    inside = (comparison.ratios >= 0.99 * AUTO_RANGE[0]) & (
        comparison.ratios <= 1.01 * AUTO_RANGE[1]
    )
    good = (comparison.as_good(tolerance) & inside)[::-1]  # times rise, so levels fall
    first = _leading(~good)
    levels = comparison.ratios[::-1][first : first + _leading(good[first:])]
    return (float(levels[0]), float(levels[-1])) if len(levels) > 1 else None
