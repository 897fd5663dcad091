"""Solvers: a family per file, and the one loop that uses them (`base.integrate`)."""

from __future__ import annotations

from .base import SOLVERS, Evaluator, Solution, Solver, evaluation_times, evaluations, integrate
from .dormand_prince import DormandPrince, DormandPrinceAdaptive
from .dpm import DDIM, DPMSolver2, DPMSolver3, DPMSolverPP2M, DPMSolverPP2S, DPMSolverPP3M, UniPC
from .multistep import DEIS, LMS, AdamsBashforth2, AdamsBashforth3, AdamsBashforth4, Multistep
from .restart import Restart
from .runge_kutta import RK4, Euler, Heun, Midpoint, RungeKutta
from .sde import DDPM, SEEDS2, DPMSolverPP2MSDE, DPMSolverPP3MSDE, EDMSampler, EulerMaruyama

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
    "Evaluator",
    "Heun",
    "Midpoint",
    "Multistep",
    "Restart",
    "RungeKutta",
    "Solution",
    "Solver",
    "UniPC",
    "evaluation_times",
    "evaluations",
    "integrate",
]
