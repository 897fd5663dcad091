"""Solvers: a step each (`ode`), and the one loop that uses them (`base.integrate`)."""

from __future__ import annotations

from .base import SOLVERS, Solution, Solver, asked_times, integrate
from .ode import (
    RK4,
    AdamsBashforth2,
    AdamsBashforth3,
    DormandPrince,
    Euler,
    Heun,
    Midpoint,
    RungeKutta,
)

__all__ = [
    "RK4",
    "SOLVERS",
    "AdamsBashforth2",
    "AdamsBashforth3",
    "DormandPrince",
    "Euler",
    "Heun",
    "Midpoint",
    "RungeKutta",
    "Solution",
    "Solver",
    "asked_times",
    "integrate",
]
