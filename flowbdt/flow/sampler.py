"""`Sampler`: solver, boundaries and options that turn trained velocities into events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from ..registry import spec_name
from ..typed_settings import AtLeastOne, check_settings
from .parametrisations import Convention
from .solvers import SOLVERS, Solver, evaluations
from .time_grid import TimeGrid


class SamplerOptions(TypedDict, total=False):
    """Options that a request may set."""

    solver: Any
    n_steps: AtLeastOne | None
    spacing: Any
    interpolate: bool


@dataclass(frozen=True, eq=False)
class Sampler:
    """Solver, boundaries and options with which a trained run is sampled.

    ``boundaries`` (n_steps + 1,) are float64 and rise; ``spacing`` is the schedule as requested,
    for the record; ``interpolate``: whether to interpolate between the times of step models.
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
        """Return the sampler ``spec`` for a run with these settings, grid and convention.

        None is that of the training; without n_steps and spacing the boundaries are those of the
        training. Raises ConfigError if an option is unknown, or the solver is adaptive.
        """
        spec = check_settings(spec or {}, SamplerOptions, "sampler option")
        requested = spec.get("solver", settings["solver"])
        solver: Solver = SOLVERS.build(requested)
        spacing = spec.get("spacing", settings["spacing"])
        boundaries = grid.boundaries
        if "n_steps" in spec or "spacing" in spec:
            listed = isinstance(spacing, (list, tuple, np.ndarray))
            n_steps = spec.get("n_steps", None if listed else grid.n_steps)
            boundaries = TimeGrid.build(solver, n_steps, spacing, convention).boundaries
        evaluations(solver, boundaries, convention)  # refuses an adaptive one
        interpolate = spec.get("interpolate", False)
        return cls(solver, spec_name(requested), boundaries, spacing, interpolate)

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
