"""`Sampler`: solver, boundaries and options that turn trained velocities into events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..registry import spec_name, unknown
from .parametrisations import Convention
from .solvers import SOLVERS, Solver, evaluations
from .time_grid import TimeGrid

OPTIONS = ("solver", "n_steps", "spacing", "interpolate")


@dataclass(frozen=True, eq=False)
class Sampler:
    """Solver, boundaries and options with which a trained run is sampled.

    Parameters
    ----------
    solver : Solver
    name : str, of the solver
    boundaries : ndarray (n_steps + 1,), float64, rising
    spacing : the schedule as requested, for the record
    interpolate : whether to interpolate between the times of step models
    """

    solver: Solver
    name: str
    boundaries: np.ndarray
    spacing: Any
    interpolate: bool = False

    @classmethod
    def of(
        cls,
        spec: Mapping[str, Any] | None,
        settings: Mapping[str, Any],
        grid: TimeGrid,
        convention: Convention | None,
    ) -> Sampler:
        """Return the sampler of the training, or another one on the same step models.

        Raises ConfigError if an option is unknown, or the solver is adaptive.

        Parameters
        ----------
        spec : None for that of the training; else a mapping with some of `OPTIONS`. Without
            n_steps and spacing the boundaries are those of the training
        settings : of the run
        grid : of the run
        convention : of the run's path, or None
        """
        spec = spec or {}
        for name in spec:
            if name not in OPTIONS:
                raise unknown("sampler option", name, OPTIONS)
        requested = spec.get("solver", settings["solver"])
        solver: Solver = SOLVERS.build(requested)
        name = spec_name(requested)
        interpolate = spec.get("interpolate", False)
        if not isinstance(interpolate, bool):
            raise ConfigError(f"interpolate must be true or false, got {interpolate!r}")
        spacing = spec.get("spacing", settings["spacing"])
        boundaries = grid.boundaries
        if "n_steps" in spec or "spacing" in spec:
            listed = isinstance(spacing, (list, tuple, np.ndarray))
            n_steps = spec.get("n_steps", None if listed else grid.n_steps)
            boundaries = TimeGrid.build(solver, n_steps, spacing, convention).boundaries
        evaluations(solver, boundaries, convention)  # refuses an adaptive one
        return cls(solver, name, boundaries, spacing, interpolate)

    def record(self, convention: Convention | None) -> dict[str, Any]:
        """Return solver, schedule, all parameters and evaluations, in plain values."""
        return {
            "solver": self.name,
            "solver_parameters": self.solver.parameters(),
            "spacing": self.spacing,
            "boundaries": self.boundaries.tolist(),
            "n_steps": len(self.boundaries) - 1,
            "n_evaluations": len(evaluations(self.solver, self.boundaries, convention)),
            "interpolate": self.interpolate,
        }
