"""Ways from noise to data through trained step models: solver, levels and their parameters.

Constraints hold by construction: levels are written as one level and a ratio above 1 to the next,
so that their order cannot be wrong, and the number of steps is what a budget of evaluations pays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..flow.parametrisations import Convention
from ..flow.schedule_search import steps_within
from ..flow.schedules import SCHEDULES, boundaries_of
from ..flow.solvers import SOLVERS, evaluations
from ..flow.time_grid import MIN_STEP
from .search_space import Choice, Space, Span

PLAIN = {
    "Adams-Bashforth 2": "adams_bashforth_2",
    "Adams-Bashforth 3": "adams_bashforth_3",
    "Heun": "heun",
}
"""Solvers that need the velocity only."""

WITH_PARTS = {
    "DEIS 2": {"name": "deis", "degree": 2},
    "DPM-Solver++ 2M": "dpm_solver_pp_2m",
    "UniPC": "unipc",
    "EDM with churn": "edm",
}
"""Those that need denoised points or noise."""

RESTARTED = "Adams-Bashforth 2, restarted"

DIGITS = 4
"""Of a boundary between step models: finer differences change no event."""


def way_space(convention: Convention | None, own: Any) -> Space:
    """Return what a search of samplers may choose from.

    Parameters
    ----------
    convention : scales of data and noise of the run's path; None if it has none
    own : the solver of the run
    """
    solvers: dict[str, Any] = {**PLAIN, **({} if convention is None else WITH_PARTS)}
    if convention is not None:
        solvers[RESTARTED] = "restart"
    label = next((name for name, value in solvers.items() if value == own), None)
    if label is None:
        label, solvers = "own", {"own": own, **solvers}
    grids = ["warped"] if convention is None else ["warped", "edm"]
    return {
        "solver": Choice(solvers, label),
        "grid": Choice({name: name for name in grids}, "warped"),
        "start": Span(0.5, 2.0, 1.0, log=True, whole=False),
        "end": Span(0.5, 2.0, 1.0, log=True, whole=False),
        "sigma_min": Span(0.005, 0.2, 0.05, log=True, whole=False),
        "sigma_ratio": Span(20.0, 2000.0, 200.0, log=True, whole=False),
        "rho": Span(1.0, 10.0, 3.0, whole=False),
        "churn": Span(0.0, 0.4, 0.1, whole=False),
        "restart_low": Span(0.03, 0.5, 0.1, log=True, whole=False),
        "restart_ratio": Span(1.5, 10.0, 4.0, log=True, whole=False),
    }


def build(
    params: Mapping[str, Any], known: Space, budget: int, convention: Convention | None
) -> dict[str, Any]:
    """Return the sampler that parameters stand for, as `flowbdt generate --sampler` takes it.

    Raises ConfigError if it cannot do with ``budget`` evaluations.
    """
    spacing = _spacing(params)
    label = params["solver"]
    solver: Any = known["solver"].value(label)
    if label == RESTARTED:
        low = float(params["restart_low"])
        interval = [low, low * float(params["restart_ratio"]), 1]
        solver = {"name": "restart", "base": "adams_bashforth_2", "intervals": [interval]}
    if label == "EDM with churn":
        steps = steps_within(SOLVERS.build("edm"), budget, convention, spacing)
        solver = {"name": "edm", "s_churn": float(params["churn"]) * steps}
    n_steps = steps_within(SOLVERS.build(solver), budget, convention, spacing)
    grid = boundaries_of(SCHEDULES.build(spacing), n_steps, convention)
    return {"solver": solver, "spacing": grid.tolist()}


def _spacing(params: Mapping[str, Any]) -> dict[str, Any]:
    if params["grid"] == "warped":
        return {"name": "warped", "start": float(params["start"]), "end": float(params["end"])}
    low = float(params["sigma_min"])
    return {
        "name": "edm",
        "sigma_min": low,
        "sigma_max": low * float(params["sigma_ratio"]),
        "rho": float(params["rho"]),
    }


def cost(way: Mapping[str, Any], convention: Convention | None) -> int:
    """Return the evaluations of the velocity that a way takes."""
    return len(evaluations(SOLVERS.build(way["solver"]), way["spacing"], convention))


def settled(
    way: Mapping[str, Any], trained: Sequence[float] | None, convention: Convention | None
) -> dict[str, Any] | None:
    """Return a way whose boundaries are trained times, or rounded ones between step models.

    Parameters
    ----------
    way : solver and list of boundaries
    trained : times with a step model, to stay at; None to ask between them

    Returns
    -------
    dict, ready for ``--sampler``; None if boundaries coincide, or another time would be asked
    """
    grid = np.asarray(way["spacing"], dtype=np.float64)
    if trained is None:
        inner = np.round(grid[1:-1], DIGITS)
        grid = np.concatenate([grid[:1], inner, grid[-1:]])
    else:
        known = np.unique(np.append(np.asarray(trained, dtype=np.float64), [0.0, 1.0]))
        grid = known[np.abs(known[:, None] - grid).argmin(axis=0)]
    if not (np.diff(grid) > MIN_STEP).all():
        return None
    found = {"solver": way["solver"], "spacing": grid.tolist(), "interpolate": trained is None}
    return found if trained is None or _asks_only(found, known, convention) else None


def _asks_only(
    way: Mapping[str, Any], known: np.ndarray, convention: Convention | None
) -> bool:  # fmt: skip
    try:
        times = evaluations(SOLVERS.build(way["solver"]), way["spacing"], convention)
    except ConfigError:
        return False
    return all(np.abs(known[known < 1.0] - t).min() < MIN_STEP for t in times)


def moved(grid: Sequence[float], by: np.ndarray) -> list[float]:
    """Return boundaries whose steps have grown by factors exp(by), scaled to the same ends.

    Any change keeps their order.
    """
    steps = np.diff(np.asarray(grid, dtype=np.float64)) * np.exp(by)
    inner = grid[0] + np.cumsum(steps)[:-1] * (grid[-1] - grid[0]) / steps.sum()
    return [grid[0], *inner.tolist(), grid[-1]]


def fit_settings(way: Mapping[str, Any]) -> list[str]:
    """Return what ``flowbdt fit --set`` needs to train just the times that a way asks for."""
    solver = way["solver"] if isinstance(way["solver"], str) else json.dumps(way["solver"])
    return [
        f"solver={solver}",
        f"n_steps={len(way['spacing']) - 1}",
        f"spacing={json.dumps(way['spacing'])}",
    ]
