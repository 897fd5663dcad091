"""Solvers: a family per file, and the one loop that uses them (`base.integrate`)."""

from __future__ import annotations

from . import dormand_prince, dpm, multistep, restart, sde  # noqa: F401  (they enter in SOLVERS)
from .base import (
    SOLVERS,
    Evaluator,
    Solution,
    Solver,
    evaluation_times,
    evaluations,
    integrate,
)

__all__ = [
    "SOLVERS",
    "Evaluator",
    "Solution",
    "Solver",
    "evaluation_times",
    "evaluations",
    "integrate",
]
