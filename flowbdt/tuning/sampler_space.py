"""Samplers to search: solver, levels and their parameters, within a budget of evaluations.

Constraints hold by construction: levels are written as one level and a ratio above 1 to the next,
so that they are always in order, and the number of steps follows from the budget.
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

DENOISING = {
    "DEIS 2": {"name": "deis", "degree": 2},
    "DPM-Solver++ 2M": "dpm_solver_pp_2m",
    "UniPC": "unipc",
    "EDM with churn": "edm",
}
"""Solvers that need denoised points or noise."""

KARRAS = {"name": "edm", "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}

PUBLISHED: tuple[dict[str, Any], ...] = (
    # Heun without noise: Karras et al. 2022, arXiv 2206.00364, table 1
    {"solver": "edm", "spacing": KARRAS},
    # Song et al. 2020, arXiv 2010.02502, on the cosine schedule, arXiv 2102.09672
    {"solver": "euler", "spacing": "cosine"},
    # even in log-SNR, as Lu et al. 2022, arXiv 2211.01095, propose
    {
        "solver": "dpm_solver_pp_2m",
        "spacing": {"name": "exponential", "sigma_min": 0.002, "sigma_max": 80.0},
    },
    {"solver": "dpm_solver_pp_2m", "spacing": KARRAS},
    {"solver": "unipc", "spacing": KARRAS},  # Zhao et al. 2023, arXiv 2302.04867
    {"solver": "unipc", "spacing": "cosine"},
)
"""Samplers that a search over all noise levels begins with, besides those of the space."""

RESTARTED = "Adams-Bashforth 2, restarted"

DIGITS = 4
"""Of a boundary between step models: finer differences change no event."""


def sampler_space(convention: Convention | None, solver: Any) -> Space:
    """Return the parameters of a search of samplers, around the solver of a run.

    ``convention`` has the scales of data and noise of the run's path; None if it has none.
    """
    solvers: dict[str, Any] = {**PLAIN, **({} if convention is None else DENOISING)}
    if convention is not None:
        solvers[RESTARTED] = "restart"
    label = next((name for name, value in solvers.items() if value == solver), None)
    if label is None:
        label, solvers = "that of the run", {"that of the run": solver, **solvers}
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


def sampler_of(
    params: Mapping[str, Any], space: Space, budget: int, convention: Convention | None
) -> dict[str, Any]:
    """Return the sampler of some parameters, as `flowbdt generate --sampler` takes it.

    Raises ConfigError if it does not fit into ``budget`` evaluations.
    """
    spacing = _spacing(params)
    label = params["solver"]
    solver: Any = space["solver"].value(label)
    if label == RESTARTED:
        low = float(params["restart_low"])
        interval = [low, low * float(params["restart_ratio"]), 1]
        solver = {"name": "restart", "base": "adams_bashforth_2", "intervals": [interval]}
    if label == "EDM with churn":
        steps = steps_within(SOLVERS.build("edm"), budget, convention, spacing)
        solver = {"name": "edm", "s_churn": float(params["churn"]) * steps}
    return within({"solver": solver, "spacing": spacing}, budget, convention)


def within(
    sampler: Mapping[str, Any], budget: int, convention: Convention | None
) -> dict[str, Any]:
    """Return a solver on a named schedule with as many steps as fit into ``budget`` evaluations.

    Raises ConfigError if not one does.
    """
    solver, spacing = sampler["solver"], sampler["spacing"]
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


def cost(sampler: Mapping[str, Any], convention: Convention | None) -> int:
    """Return the evaluations of the velocity that a sampler takes."""
    return len(evaluations(SOLVERS.build(sampler["solver"]), sampler["spacing"], convention))


def settled(
    sampler: Mapping[str, Any], trained: Sequence[float] | None, convention: Convention | None
) -> dict[str, Any] | None:
    """Return a sampler whose boundaries are trained times, or rounded ones between step models.

    ``sampler`` has a solver and a list of boundaries; ``trained`` are times with a step model, to
    stay at, and None allows times between them. None if boundaries coincide, or another time would
    be needed.
    """
    grid = np.asarray(sampler["spacing"], dtype=np.float64)
    if trained is None:
        grid = np.concatenate([grid[:1], np.round(grid[1:-1], DIGITS), grid[-1:]])
    else:
        known = np.unique(np.append(np.asarray(trained, dtype=np.float64), [0.0, 1.0]))
        grid = known[np.abs(known[:, None] - grid).argmin(axis=0)]
    if not (np.diff(grid) > MIN_STEP).all():
        return None
    solver = sampler["solver"]
    result = {"solver": solver, "spacing": grid.tolist(), "interpolate": trained is None}
    if trained is None:
        return result
    try:
        times = evaluations(SOLVERS.build(solver), grid.tolist(), convention)
    except ConfigError:
        return None
    near = all(np.abs(known[known < 1.0] - t).min() < MIN_STEP for t in times)
    return result if near else None


def stretched(grid: Sequence[float], by: np.ndarray) -> list[float]:
    """Return boundaries whose steps have grown by factors exp(by), scaled to the same ends.

    Any change keeps their order.
    """
    steps = np.diff(np.asarray(grid, dtype=np.float64)) * np.exp(by)
    inner = grid[0] + np.cumsum(steps)[:-1] * (grid[-1] - grid[0]) / steps.sum()
    return [grid[0], *inner.tolist(), grid[-1]]


def fit_settings(sampler: Mapping[str, Any]) -> list[str]:
    """Return the options of ``flowbdt fit --set`` that train just the times of a sampler."""
    solver, spacing = sampler["solver"], sampler["spacing"]
    return [
        f"solver={solver if isinstance(solver, str) else json.dumps(solver)}",
        f"n_steps={len(spacing) - 1}",
        f"spacing={json.dumps(spacing)}",
    ]
