"""What is compared: every sampler, its exact settings, and the grids of both parts."""

from __future__ import annotations

from typing import Any

from flowbdt.errors import ConfigError
from flowbdt.flow.parametrisations import Convention
from flowbdt.flow.schedule_search import steps_within
from flowbdt.flow.schedules import SCHEDULES
from flowbdt.flow.solvers import SOLVERS, evaluations

UNIFORM, EDM = "uniform", {"name": "edm", "sigma_min": 0.02, "sigma_max": 80.0, "rho": 7.0}

SOLVERS_OF: dict[str, Any] = {
    "Euler = DDIM": "euler",
    "Heun": "heun",
    "midpoint": "midpoint",
    "RK4": "rk4",
    "Dormand-Prince": "dormand_prince",
    "Adams-Bashforth 2": "adams_bashforth_2",
    "Adams-Bashforth 3": "adams_bashforth_3",
    "Adams-Bashforth 4": "adams_bashforth_4",
    "LMS 3": {"name": "lms", "degree": 3},
    "LMS 4": {"name": "lms", "degree": 4},
    "DEIS 2": {"name": "deis", "degree": 2},
    "DEIS 3": {"name": "deis", "degree": 3},
    "DPM-Solver-2": "dpm_solver_2",
    "DPM-Solver-3": "dpm_solver_3",
    "DPM-Solver++ 2S": "dpm_solver_pp_2s",
    "DPM-Solver++ 2M": "dpm_solver_pp_2m",
    "DPM-Solver++ 3M": "dpm_solver_pp_3m",
    "UniPC-2": {"name": "unipc", "degree": 2},
    "UniPC-3": {"name": "unipc", "degree": 3},
    "EDM, no churn": "edm",
    "EDM, churn 10": {"name": "edm", "s_churn": 10.0},
    "DDPM": "ddpm",
    "Euler-Maruyama": {"name": "euler_maruyama", "churn": 1.0},
    "SDE-DPM++ 2M": "dpm_solver_pp_2m_sde",
    "SDE-DPM++ 3M": "dpm_solver_pp_3m_sde",
    "SEEDS-2": "seeds_2",
    "Restart (Heun)": {"name": "restart", "base": "heun"},
    "Restart (AB2)": {"name": "restart", "base": "adams_bashforth_2"},
}
"""Names as in the papers; settings as in the configuration."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "one step at a time": (
        "Euler = DDIM",
        "Heun",
        "midpoint",
        "RK4",
        "Dormand-Prince",
        "EDM, no churn",
    ),
    "several steps, in time": (
        "Adams-Bashforth 2",
        "Adams-Bashforth 3",
        "Adams-Bashforth 4",
        "LMS 3",
        "LMS 4",
        "DEIS 2",
        "DEIS 3",
    ),
    "exponential, in log-SNR": (
        "DPM-Solver-2",
        "DPM-Solver-3",
        "DPM-Solver++ 2S",
        "DPM-Solver++ 2M",
        "DPM-Solver++ 3M",
        "UniPC-2",
        "UniPC-3",
    ),
    "with noise": (
        "DDPM",
        "Euler-Maruyama",
        "EDM, churn 10",
        "SDE-DPM++ 2M",
        "SDE-DPM++ 3M",
        "SEEDS-2",
        "Restart (Heun)",
        "Restart (AB2)",
    ),
}
"""Where a sampler is drawn: each is in colour in one column and in grey in the others."""

SAMPLERS: dict[str, dict[str, Any]] = {
    **{name: {"solver": solver, "spacing": UNIFORM} for name, solver in SOLVERS_OF.items()},
    **{
        f"{name}, EDM grid": {"solver": SOLVERS_OF[name], "spacing": EDM}
        for name in ("DPM-Solver++ 2M", "UniPC-2", "EDM, no churn", "DDPM", "SDE-DPM++ 2M")
    },
}
"""What is run: everything on equal steps in time, some also on the grid made for diffusion."""

GRIDS: dict[str, Any] = {
    "uniform": UNIFORM,
    "warped 1.2": {"name": "warped", "start": 1.2, "end": 1.2},
    "power 1.3": {"name": "power", "exponent": 1.3},
    "cosine": "cosine",
    "exponential 0.05-10": {"name": "exponential", "sigma_min": 0.05, "sigma_max": 10.0},
    "EDM 0.1-10, rho 5": {"name": "edm", "sigma_min": 0.1, "sigma_max": 10.0, "rho": 5.0},
    "EDM 0.02-80": EDM,
    "EDM as published": "edm",
}
"""Schedules that are compared at equal cost."""

OWN_GRIDS = (
    "Heun",
    "Adams-Bashforth 2",
    "Adams-Bashforth 3",
    "DPM-Solver++ 2M",
    "UniPC-2",
    "EDM, churn 10",
)
"""On trees these are also trained at just the times they ask for."""

CHURNS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0)
CHURN_RANGES = ((0.0, None), (0.05, 1.0), (0.05, 10.0))
CHURN_NOISE = (1.0, 1.007)
"""What the scan of EDM's churn goes through; ``s_churn / n_steps`` is cut at sqrt(2) - 1, so the
largest values are all the same: that is what extreme means."""

FINE = 64
"""Steps of the grid that all nested samplers share on trees: 65 times."""


def steps_for(spec: dict[str, Any], budget: int, convention: Convention) -> int | None:
    """Return the number of steps that costs the most up to ``budget`` evaluations, or None."""
    solver, spacing = SOLVERS.build(spec["solver"]), spec["spacing"]
    try:
        return steps_within(solver, budget, convention, spacing)
    except ConfigError:  # one step costs more
        return None


def nested(spec: dict[str, Any], budget: int, convention: Convention) -> dict[str, Any] | None:
    """Return sampler settings on boundaries of the shared grid, or None if it does not nest.

    Every second boundary and more are skipped; the number of steps is the largest divisor of the
    fine grid within the budget, so that stages inside a step are boundaries too. A single step is
    no way, and a sampler on another grid is not on the shared one.
    """
    if spec["spacing"] != UNIFORM:
        return None
    shared = {"solver": spec["solver"], "spacing": UNIFORM}
    most = steps_for(shared, budget, convention)
    divisors = [n for n in (32, 16, 8, 4, 2) if most is not None and n <= most]
    for n_steps in divisors:
        grid = SCHEDULES.build(UNIFORM)(n_steps)
        try:
            asked = evaluations(SOLVERS.build(spec["solver"]), grid, convention)
        except ConfigError:
            continue
        if all(abs(t * FINE - round(t * FINE)) < 1e-6 for t in asked):
            return {**shared, "n_steps": n_steps}
    return None
