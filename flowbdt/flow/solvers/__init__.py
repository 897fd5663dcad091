"""Solvers: a family per file, and the one loop that uses them (`base.integrate`)."""

from __future__ import annotations

from .adaptive import DormandPrinceAdaptive
from .base import SOLVERS, Ask, Solution, Solver, asked_times, evaluations, integrate
from .dpm import DPMSolver2, DPMSolver3, DPMSolverPP2M, DPMSolverPP2S, DPMSolverPP3M
from .edm import EDMSampler
from .multistep import DEIS, LMS, AdamsBashforth2, AdamsBashforth3, AdamsBashforth4, Multistep
from .restart import Restart
from .runge_kutta import DDIM, RK4, DormandPrince, Euler, Heun, Midpoint, RungeKutta
from .sde import DDPM, SEEDS2, DPMSolverPP2MSDE, DPMSolverPP3MSDE, EulerMaruyama
from .unipc import UniPC

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "LMS",
    "RK4",
    "SEEDS2",
    "SOLVERS",
    "AdamsBashforth2",
    "AdamsBashforth3",
    "AdamsBashforth4",
    "Ask",
    "DPMSolver2",
    "DPMSolver3",
    "DPMSolverPP2M",
    "DPMSolverPP2MSDE",
    "DPMSolverPP2S",
    "DPMSolverPP3M",
    "DPMSolverPP3MSDE",
    "DormandPrince",
    "DormandPrinceAdaptive",
    "EDMSampler",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Midpoint",
    "Multistep",
    "Restart",
    "RungeKutta",
    "Solution",
    "Solver",
    "UniPC",
    "asked_times",
    "evaluations",
    "integrate",
]
