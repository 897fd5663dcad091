"""The contract of a solver, and `integrate`, the one loop over steps.

To add a solver: derive from `Solver`, set ``order`` and ``offsets`` (the evaluation points within
a step), write ``step``, register it. Training times, the check before the start and the cost come
from a dry run; nothing else is needed.
"""

from __future__ import annotations

import inspect
import itertools
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ... import seeding
from ...errors import ConfigError
from ...registry import Registry
from ...typed_settings import check_fields
from ..fields import TOLERANCE, VelocityField
from ..parametrisations import Convention, FlowMatching

SOLVERS: Registry[Solver] = Registry("solver")

Stepped = tuple[Any, Any]
"""The points after a step, and the state of the solver there."""


class Evaluator:
    """Evaluations of a field during one integration: velocity, or denoised point and noise.

    Records the evaluation times and counts restarts. ``convention`` gives the scales of data and
    noise at each time.
    """

    def __init__(self, field: VelocityField, cond: Any = None) -> None:
        self._field, self._cond = field, cond
        self.times: list[float] = []
        self.n_restarts = 0

    @property
    def convention(self) -> Convention:
        """Scales of data and noise; ConfigError if the field has no independent normal noise."""
        return self._field.require_convention()

    def __call__(self, t: float, x: Any) -> Any:
        self.times.append(t)
        return self._field(t, x, self._cond)

    def denoised_and_noise(self, t: float, x: Any) -> tuple[Any, Any]:
        """Return the denoised point E[x1 | x] and the noise E[noise | x], both (n, m)."""
        self.times.append(t)
        return self._field.denoised_and_noise(t, x, self._cond)

    def denoised(self, t: float, x: Any) -> Any:
        """Return the denoised point (n, m) alone: cheaper than both."""
        self.times.append(t)
        return self._field.denoised(t, x, self._cond)

    def noise(self, t: float, x: Any) -> Any:
        """Return the noise (n, m) alone: cheaper than both."""
        self.times.append(t)
        return self._field.noise(t, x, self._cond)


class _ZeroField(VelocityField):
    """A field of zeros, for dry runs."""

    def __init__(self, convention: Convention | None) -> None:
        self.convention = convention or FlowMatching()

    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        return 0.0 * x

    denoised = noise = __call__

    def denoised_and_noise(self, t: float, x: Any, cond: Any = None) -> tuple[Any, Any]:
        return 0.0 * x, 0.0 * x


class Solver(ABC):
    """One step of dx/dt = v(t, x), with operators only: numpy arrays and torch tensors both work.

    A solver with settings is a dataclass of them; `parameters` reports them.

    Attributes
    ----------
    order : int, the error of the result falls as the step to this power; of a stochastic solver
        the error of expectations, at least
    offsets : evaluation points within a step, 0 = start, 1 = end, one entry per evaluation
    lead_offsets : the same for the first steps where they differ, one tuple per step
    clock : 'time' or 'log_snr': in which variable order and offsets are meant
    needs_denoised : True if it uses denoised point or noise, which only fields with a normal
        source, drawn independently of the data, have
    stochastic : True if the solver draws from rng
    adaptive : True if the evaluation times depend on the points
    """

    order: int
    offsets: tuple[float, ...]
    lead_offsets: tuple[tuple[float, ...], ...] = ()
    clock: ClassVar[str] = "time"
    needs_denoised: ClassVar[bool] = False
    stochastic: bool = False
    adaptive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self, "solver setting")

    def start(self, boundaries: list[float]) -> Any:
        """Return the state before the first step (what a solver keeps between steps)."""
        return None

    @abstractmethod
    def step(self, field: Evaluator, t0: float, t1: float, x: Any, state: Any, rng: Any) -> Stepped:
        """Return x at t1 (never changed in place) and the new state."""

    def march(
        self, field: Evaluator, x: Any, boundaries: list[float], rng: Any, state: Any = None
    ) -> Stepped:
        """Do all steps; return x at the last boundary and the state there."""
        state = self.start(boundaries) if state is None else state
        for t0, t1 in itertools.pairwise(boundaries):
            x, state = self.step(field, t0, t1, x, state, rng)
        return x, state

    def parameters(self) -> dict[str, Any]:
        """Return all parameters with their values, defaults included."""
        known = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in known if hasattr(self, name)}


def normal_like(x: Any, rng: Any) -> Any:
    """Return standard normal noise of the shape, type and device of x.

    Raises ConfigError unless x and ``rng`` are of the same library.
    """
    try:
        if hasattr(x, "new_empty"):  # a tensor; torch itself need not be imported for this
            return x.new_empty(x.shape).normal_(generator=rng)
        return rng.standard_normal(x.shape)
    except (TypeError, AttributeError) as error:
        raise ConfigError(
            f"points of type {type(x).__name__} need a generator of the same library (numpy's"
            f" Generator for arrays, torch.Generator for tensors), got {type(rng).__name__}"
        ) from error


@dataclass(frozen=True, eq=False)
class Solution:
    """The points x (n, m) at the last boundary, and the record of an integration.

    ``n_evaluations``: calls of the field, each for all rows, at ``times`` (in that order);
    ``seconds``: wall time; ``nonfinite_fraction``: share of rows with NaN or infinity;
    ``n_restarts``: how often noise was added back to start again from there.
    """

    x: Any
    n_evaluations: int
    times: np.ndarray
    seconds: float
    nonfinite_fraction: float
    n_restarts: int = 0


def time_at(t0: float, t1: float, offset: float) -> float:
    """Return t0 + offset (t1 - t0), exactly t0 and t1 at the ends."""
    return t1 if offset == 1.0 else t0 + offset * (t1 - t0)


def check_boundaries(boundaries: Any) -> list[float]:
    """Return step boundaries as floats; refuse fewer than two, or not strictly monotonic ones."""
    values = np.asarray(boundaries, dtype=np.float64)
    steps = np.diff(values)
    if (
        values.ndim != 1
        or len(values) < 2
        or not np.isfinite(values).all()
        or not ((steps > TOLERANCE).all() or (steps < -TOLERANCE).all())
    ):
        raise ConfigError(
            "boundaries must be at least two finite times, all rising or all falling, got"
            f" {np.array2string(values, threshold=8)}"
        )
    return [float(value) for value in values]


def evaluations(
    solver: Solver, boundaries: Any, convention: Convention | None = None
) -> list[float]:
    """Return the times at which ``solver`` evaluates the field, in order, one per evaluation.

    Found by a dry run on one row of zeros, so they are by construction those of `integrate`.
    ``convention`` matters to solvers that step in noise levels; None is the straight line.
    Raises ConfigError if the solver is adaptive: its times depend on the points.
    """
    if solver.adaptive:
        raise ConfigError(
            f"{type(solver).__name__} chooses its times from the points, so they cannot be"
            " known in advance; step models need a solver with fixed steps"
        )
    evaluator = Evaluator(_ZeroField(convention))
    rng = seeding.stream(0, "dry-run")
    solver.march(evaluator, np.zeros((1, 1)), check_boundaries(boundaries), rng)
    return evaluator.times


def evaluation_times(
    solver: Solver, boundaries: Any, convention: Convention | None = None
) -> np.ndarray:
    """Return all times (T,) at which ``solver`` evaluates the field, sorted, each once."""
    times = np.sort(np.asarray(evaluations(solver, boundaries, convention), dtype=np.float64))
    return times[np.concatenate([[True], np.diff(times) > TOLERANCE])]


def integrate(
    solver: Solver,
    field: VelocityField,
    x0: Any,
    boundaries: Any,
    cond: Any = None,
    rng: Any = None,
) -> Solution:
    """Move x0 along the field from the first to the last boundary.

    Raises GridError before any step, if the solver would evaluate the field at a time it does not
    know. Raises ConfigError if the boundaries are not monotonic, a stochastic solver has no rng, or
    the solver needs denoised points of a field that has none.

    Floating-point overflow is not warned about; it is counted in ``nonfinite_fraction``.

    Parameters
    ----------
    solver : Solver
    field : VelocityField
    x0 : ndarray (n, m), computed in float64; or a torch tensor, of any type and device
    boundaries : (n_steps + 1,), rising (noise to data) or falling (data to noise)
    cond : ndarray (n, c) or None, handed to the field unchanged
    rng : needed by stochastic solvers only: a numpy Generator for arrays, a torch.Generator on
        the same device for tensors
    """
    steps = check_boundaries(boundaries)
    check_field(solver, field, steps, rng)
    evaluator = Evaluator(field, cond)
    x = np.asarray(x0, dtype=np.float64) if isinstance(x0, np.ndarray) else x0
    began = time.perf_counter()
    with np.errstate(over="ignore", invalid="ignore"):
        x, _ = solver.march(evaluator, x, steps, rng)
    seconds, times = time.perf_counter() - began, np.asarray(evaluator.times)
    bad = _nonfinite_fraction(x)
    return Solution(x, len(times), times, seconds, bad, evaluator.n_restarts)


def check_field(
    solver: Solver, field: VelocityField, boundaries: list[float], rng: Any = None
) -> None:
    """Refuse, before any step, what the solver cannot do with this field (see `integrate`)."""
    if solver.stochastic and rng is None:
        raise ConfigError(
            f"{type(solver).__name__} adds noise: pass rng, a numpy Generator (for torch"
            " tensors a torch.Generator)"
        )
    if solver.stochastic and boundaries[0] > boundaries[-1]:
        raise ConfigError(
            f"{type(solver).__name__} goes from noise to data only: backwards there is nothing to"
            " draw; take a deterministic solver"
        )
    convention = field.require_convention() if solver.needs_denoised else field.convention
    if solver.adaptive:
        field.require_all(min(boundaries), max(boundaries))
    elif field.limited:
        field.require(evaluation_times(solver, boundaries, convention))


def _nonfinite_fraction(x: Any) -> float:
    if len(x) == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        # x - x is 0 only for finite numbers, in numpy and torch alike
        bad = ((x - x) != 0).reshape(len(x), -1).any(1)
    return float(bad.sum()) / len(x)
