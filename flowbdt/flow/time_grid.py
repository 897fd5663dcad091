"""Steps of the solver, the times that need a trained model, and samplers through these times.

The times come from a dry run of the solver, so training makes exactly the models that sampling
needs, none missing and none unused.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from ..errors import ConfigError, DataWarning, FormatError, GridError
from ..registry import spec_name
from ..typed_settings import AtLeastOne, check_settings, check_value
from .fields import TOLERANCE, locate
from .parametrisations import Convention
from .schedules import SCHEDULES, boundaries_of
from .solvers import SOLVERS, Solver, evaluation_times, evaluations

MIN_STEP = 1e-6
"""Smallest step: well above TOLERANCE, so that times inside a step stay distinct."""


@dataclass(frozen=True, eq=False)
class TimeGrid:
    """Step boundaries and trained times.

    Raises ConfigError if either is not rising or outside [0, 1].

    Parameters
    ----------
    boundaries : ndarray (n_steps + 1,), float64, rising, in [0, 1] (0 noise, 1 data)
    times : ndarray (T,), float64, rising; one step model each

    Examples
    --------
    >>> grid = TimeGrid.build("midpoint", 2)
    >>> grid.boundaries.tolist(), grid.times.tolist()
    ([0.0, 0.5, 1.0], [0.0, 0.25, 0.5, 0.75])
    >>> grid.locate(0.75)
    3
    """

    boundaries: np.ndarray
    times: np.ndarray

    def __post_init__(self) -> None:
        for name, shortest, smallest in (("boundaries", 2, MIN_STEP), ("times", 1, TOLERANCE)):
            values = _rising(getattr(self, name), name, shortest, smallest)
            object.__setattr__(self, name, values)

    @classmethod
    def build(
        cls,
        solver: Solver | str | Mapping[str, Any],
        n_steps: int | None = None,
        spacing: str | Mapping[str, Any] | Sequence[float] | np.ndarray = "uniform",
        convention: Convention | None = None,
    ) -> TimeGrid:
        """Return the grid of ``n_steps`` steps of ``solver``.

        Raises ConfigError if a name or parameter is unknown, n_steps is not a positive integer or
        contradicts the list, or a step is shorter than 1e-6.

        Parameters
        ----------
        solver : a Solver, its name, or a mapping with its name and parameters
        n_steps : int, at least 1; may be left out if spacing is a list
        spacing : name of a schedule (see `flowbdt.flow.schedules`), a mapping with its name and
            parameters such as {"name": "power", "exponent": p}, or a list of n_steps + 1 boundaries
        convention : scales of data and noise, for solvers and schedules that go by noise levels;
            None is the straight line

        Warns
        -----
        DataWarning
            If a list does not cover [0, 1]: x would not start as noise or not end as data.
        """
        method = solver if isinstance(solver, Solver) else SOLVERS.build(solver)
        boundaries = _rising(_boundaries(n_steps, spacing, convention), "boundaries", 2, MIN_STEP)
        if boundaries[0] > TOLERANCE or boundaries[-1] < 1 - TOLERANCE:
            warnings.warn(
                f"the time grid covers [{boundaries[0]:g}, {boundaries[-1]:g}] only; noise is"
                " at t = 0 and data at t = 1, so samples will be distorted",
                DataWarning,
                stacklevel=2,
            )
        return cls(boundaries, evaluation_times(method, boundaries, convention))

    @property
    def n_steps(self) -> int:
        """Number of solver steps."""
        return len(self.boundaries) - 1

    def __len__(self) -> int:
        """Return the number of trained times."""
        return len(self.times)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TimeGrid)
            and np.array_equal(self.boundaries, other.boundaries)
            and np.array_equal(self.times, other.times)
        )

    def __hash__(self) -> int:
        return hash((self.boundaries.tobytes(), self.times.tobytes()))

    def locate(self, t: float) -> int:
        """Return the number of the step model for time t. Raises GridError off the grid."""
        return locate(self.times, t)

    def step_to_next(self, index: int) -> float:
        """Return the time from ``times[index]`` to the next boundary; 0 at the last boundary."""
        t = self.times[index]
        later = self.boundaries[self.boundaries > t + TOLERANCE]
        return float(later[0] - t) if len(later) else 0.0

    def to_json(self) -> dict[str, list[float]]:
        """Return the grid as lists; floats survive JSON exactly."""
        return {"boundaries": self.boundaries.tolist(), "times": self.times.tolist()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> TimeGrid:
        """Rebuild a grid. Raises FormatError if ``content`` is not what `to_json` wrote."""
        try:
            return cls(content["boundaries"], content["times"])
        except (KeyError, TypeError, ConfigError) as error:
            raise FormatError(f"not a time grid: {error!r}") from error


def _rising(values: Any, name: str, shortest: int, smallest: float) -> np.ndarray:
    """Return a read-only float64 array of rising times in [0, 1], or raise ConfigError."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must be a list of numbers, got {values!r}") from error
    if array.ndim != 1 or len(array) < shortest or not np.isfinite(array).all():
        raise ConfigError(f"{name} must be at least {shortest} finite numbers, got {values!r}")
    if not (np.diff(array) > smallest).all() or array[0] < 0 or array[-1] > 1:
        raise ConfigError(
            f"{name} must rise by more than {smallest:g} each, within [0, 1], got"
            f" {np.array2string(array, threshold=8)}; use fewer steps or a milder spacing"
        )
    array.setflags(write=False)
    return array


def _boundaries(n_steps: int | None, spacing: Any, convention: Convention | None) -> Any:
    explicit = not isinstance(spacing, (str, Mapping))
    if n_steps is None and explicit:
        return spacing
    n_steps = check_value(n_steps, AtLeastOne, "n_steps")
    if not explicit:
        return boundaries_of(SCHEDULES.build(spacing), n_steps, convention)
    if hasattr(spacing, "__len__") and len(spacing) != n_steps + 1:
        raise ConfigError(
            f"spacing lists {len(spacing)} boundaries, that is {len(spacing) - 1} steps, but"
            f" n_steps is {n_steps}; leave n_steps out or make them agree"
        )
    return spacing


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

    @classmethod
    def usable(
        cls, settings: Mapping[str, Any], grid: TimeGrid, convention: Convention | None
    ) -> list[str]:
        """Return the solvers that ask for trained times only, with the boundaries of training."""
        found = []
        for name in SOLVERS.names():
            try:
                solver = cls.of({"solver": name}, settings, grid, convention).solver
                for t in evaluation_times(solver, grid.boundaries, convention):
                    grid.locate(float(t))
            except (ConfigError, GridError):
                continue
            if convention is not None or not solver.needs_denoised:
                found.append(name)
        return found

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
