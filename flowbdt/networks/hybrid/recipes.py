"""Hybrids as lists of legs: handover, Restart by trees, warm start."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...flow.fields import VelocityField
from ...flow.parametrisations import Convention, FlowMatching
from ...flow.schedules import SCHEDULES, boundaries_of
from ...flow.solvers.restart import AUTO_RANGE
from .relay import Leg

FINE = 1024
"""Steps of the schedule that stretches of it are read off."""


def stretch(spacing: Any, n_steps: int, start: float, stop: float) -> np.ndarray:
    """Return boundaries (n_steps + 1,) from ``start`` to ``stop``, spaced as a schedule is there.

    Parameters
    ----------
    spacing : name of a schedule, or a mapping with its parameters
    n_steps : steps of the stretch
    start, stop : times, start < stop
    """
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
    """Return two legs: one field above a noise level, another one below.

    Parameters
    ----------
    first, second : fields
    at : time where they meet, in (0, 1)
    names, solvers, n_steps : of both legs
    spacing : the schedule whose stretches the boundaries are
    """
    if not 0.0 < at < 1.0:
        raise ConfigError(f"the handover must be at a time between 0 and 1, got {at!r}")
    ways = (stretch(spacing, n_steps[0], 0.0, at), stretch(spacing, n_steps[1], at, 1.0))
    fields = (first, second)
    return [Leg(names[i], fields[i], solvers[i], ways[i]) for i in (0, 1)]


@dataclass(frozen=True)
class Restarted:
    """One line of the table of `restart_by_trees`: ``k`` climbs and descents of ``steps`` steps."""

    sigma_min: float = AUTO_RANGE[0]
    sigma_max: float = AUTO_RANGE[1]
    k: int = 1
    steps: int = 3

    def times(self, spacing: Any = "uniform", convention: Convention | None = None) -> np.ndarray:
        """Return the boundaries of the way down; without a convention on the straight line."""
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
    """Return legs of Restart in which trees do every way down after a climb.

    The network goes through every noise level once; it is as expensive as without restarts.

    Parameters
    ----------
    network : field that knows all times
    trees : interval -> field that knows the times which ``tree_solver`` asks there (`train_trees`)
    solver, n_steps : of the network, in all; each stretch gets a share, at least one step
    tree_solver : of the trees
    spacing : the schedule whose stretches all boundaries are

    References
    ----------
    Xu et al. 2023, arXiv 2306.14878, section 3.1, for Restart itself.
    """
    lines = sorted(trees, key=lambda line: -line.sigma_min)
    ways = [line.times(spacing, network.convention) for line in lines]
    ends = [0.0, *(float(way[-1]) for way in ways), 1.0]
    legs: list[Leg] = []
    shares = shared_steps(ends, n_steps, spacing)
    for i, (start, stop) in enumerate(itertools.pairwise(ends)):
        legs.append(Leg("network", network, solver, stretch(spacing, shares[i], start, stop)))
        if i < len(lines):
            legs += [Leg("trees", trees[lines[i]], tree_solver, ways[i])] * lines[i].k
    return legs


def shared_steps(ends: Sequence[float], n_steps: int, spacing: Any = "uniform") -> list[int]:
    """Return how many of ``n_steps`` steps of a schedule go to each stretch, at least one.

    Raises ConfigError if there are fewer steps than stretches.
    """
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
    """Return legs: trees all the way, noise up to time ``at``, a network from there."""
    return [trees, Leg("network", network, solver, stretch(spacing, n_steps, at, 1.0))]
