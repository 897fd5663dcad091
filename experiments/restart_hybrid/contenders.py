"""What is compared: network alone, trees alone, and every hybrid, as relays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowbdt.flow.fields import VelocityField
from flowbdt.networks.hybrid import (
    Corrector,
    Leg,
    Relay,
    Restarted,
    restart_by_trees,
    stretch,
    warm_start,
)

EDM_GRID = {"name": "edm", "sigma_min": 0.02, "sigma_max": 80.0, "rho": 7.0}
AB3 = "adams_bashforth_3"
INTERVAL = Restarted(0.1, 0.6, k=1, steps=4)
"""The restart interval, descended by trees of its own in four steps."""


@dataclass(frozen=True)
class Fields:
    """What the contenders are made of.

    ``trees`` know the boundaries of ``grid``, asked by Adams-Bashforth 3; ``again`` the times of
    `INTERVAL`, asked by Adams-Bashforth 2. The last two are None where no contender needs them.
    """

    network: VelocityField
    trees: VelocityField
    grid: np.ndarray
    again: Any
    corrector: Corrector | None


RESTARTS = {f"UniPC {n}, restart by trees x{k}": (n, k) for n in (4, 6, 8, 10) for k in (1, 3)}
"""Name -> evaluations of the network and number of restarts, by trees of the interval."""


def asked(names: Iterable[str], texts: Sequence[str]) -> bool:
    """Return whether one of the names has one of the texts."""
    return any(text in name for name in names for text in texts)


def corrected(n_few: int) -> str:
    """Return the name of few steps that trees correct."""
    return f"UniPC {n_few}, corrected by trees"


def alone(field: VelocityField, solver: Any, n_steps: int, spacing: Any = "uniform") -> Relay:
    """Return the network alone."""
    return Relay([Leg("network", field, solver, stretch(spacing, n_steps, 0.0, 1.0))])


def networks(fields: Fields) -> dict[str, Relay]:
    """Return name -> network alone; the number behind a comma is that of its evaluations."""
    net, relays = fields.network, {}
    for n in (50, 65, 200):
        relays[f"DDPM, {n}"] = alone(net, "ddpm", n)
    for n in (5, 9, 18):
        relays[f"EDM (Heun), {2 * n - 1}"] = alone(net, "edm", n, EDM_GRID)
    for n in (4, 6, 8, 10, 20, 40):
        relays[f"DPM++ 2M, {n}"] = alone(net, "dpm_solver_pp_2m", n)
    for n in (4, 6, 8, 10, 20):
        relays[f"UniPC, {n}"] = alone(net, "unipc", n)
    for n in (6, 8, 16):
        restart = {"name": "restart", "base": "heun"}
        relays[f"Restart (Heun), {n} steps"] = alone(net, restart, n)
    restart = {"name": "restart", "base": "dpm_solver_pp_2m"}
    for n in (6, 10, 31):
        relays[f"Restart (DPM++ 2M), {n} steps"] = alone(net, restart, n)
    relays["Heun, 400"] = alone(net, "heun", 200)
    return relays


def handovers(fields: Fields) -> dict[str, Relay]:
    """Return trees above a level and the network below, and the reverse."""
    net, grid, relays = fields.network, fields.grid, {}
    last = len(grid) - 1
    for i in sorted({last // 4, last // 2, 3 * last // 4} - {0, last}):
        t = float(grid[i])
        above = Leg("trees", fields.trees, AB3, grid[: i + 1])
        below = Leg("trees", fields.trees, AB3, grid[i:])
        for n in (2, 3, 4, 6, 8):
            low, high = stretch("uniform", n, t, 1.0), stretch("uniform", n, 0.0, t)
            relays[f"trees to t = {t:g}, UniPC {n}"] = Relay(
                [above, Leg("network", net, "unipc", low)]
            )
            relays[f"UniPC {n} to t = {t:g}, trees"] = Relay(
                [Leg("network", net, "unipc", high), below]
            )
    return relays


def restarts(fields: Fields) -> dict[str, Relay]:
    """Return Restart whose ways down are trees'."""
    relays, solvers = {}, {"solver": "unipc", "tree_solver": "adams_bashforth_2"}
    for name, (n, k) in RESTARTS.items() if fields.again is not None else ():
        line = Restarted(INTERVAL.sigma_min, INTERVAL.sigma_max, k, INTERVAL.steps)
        legs = restart_by_trees(fields.network, {line: fields.again}, n_steps=n, **solvers)
        relays[name] = Relay(legs)
    early = _early(fields.grid)
    for n in (4, 6):
        legs = restart_by_trees(fields.network, {early: fields.trees}, n_steps=n, **solvers)
        relays[f"UniPC {n}, early restart by trees x{early.k}"] = Relay(legs)
    return relays


def _early(grid: np.ndarray) -> Restarted:
    """Return an interval on the trees' own equal steps, t = 0.25 to 0.5: there they are good."""
    low, high = len(grid) // 4, len(grid) // 2
    ratios = (1.0 - grid) / np.maximum(grid, 1e-9)
    return Restarted(float(ratios[high]), float(ratios[low]), 1, high - low)


def warm_starts(fields: Fields) -> dict[str, Relay]:
    """Return trees to the end, noise, and a few steps of the network."""
    trees = Leg("trees", fields.trees, AB3, fields.grid)
    return {
        f"trees, noise to t = {at:g}, UniPC {n}": Relay(
            warm_start(trees, fields.network, at, solver="unipc", n_steps=n)
        )
        for at, n in ((0.3, 4), (0.5, 2), (0.5, 4), (0.7, 2), (0.7, 4), (0.85, 2))
    }


def contenders(fields: Fields, n_few: int) -> dict[str, Relay]:
    """Return name -> relay, all families."""
    relays = networks(fields)
    relays["trees alone"] = Relay([Leg("trees", fields.trees, AB3, fields.grid)])
    relays |= handovers(fields) | restarts(fields) | warm_starts(fields)
    if fields.corrector is not None:
        few = alone(fields.network, "unipc", n_few)
        relays[corrected(n_few)] = Relay(few.legs, fields.corrector)
    return relays


SMOKE = (
    "DDPM, 50",
    "UniPC, 4",
    "trees alone",
    "UniPC 4, restart by trees x1",
    "trees, noise to t = 0.5, UniPC 2",
    "UniPC 4, corrected by trees",
)
