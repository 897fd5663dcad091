"""Velocity fields, which solvers integrate. t = 0 is noise, t = 1 is data."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, GridError, InputError
from .closed_form import Preconditioner
from .parametrisations import Convention, FlowMatching, PathConvention
from .paths import Path

if TYPE_CHECKING:
    from .time_grid import TimeGrid

TOLERANCE = 1e-9
"""Two times closer than this are the same time."""


def locate(times: Any, t: float) -> int:
    """Return the position of time ``t`` in the sorted ``times`` (T,), within 1e-9.

    Raises GridError if t is not among them; the message names the nearest ones.
    """
    known = np.asarray(times, dtype=np.float64)
    index = int(np.argmin(np.abs(known - t)))
    if not abs(known[index] - t) <= TOLERANCE:
        near = sorted(known[np.argsort(np.abs(known - t), kind="stable")[:2]])
        raise GridError(
            f"no step model was trained at t = {t:.12g}; the nearest of the {len(known)} trained"
            f" times: {', '.join(f'{value:.6g}' for value in near)}. Sample with the solver and"
            " number of steps of the training, or train again with those you want"
        )
    return index


class VelocityField(ABC):
    """A velocity for each time and point.

    A field knows certain ``times`` (rising), or, if they are None, the interval ``span``.
    ``convention`` gives the scales of data and noise at each time; None, for the reason
    ``why_not``, where the velocity does not tell them apart.
    """

    times: Sequence[float] | np.ndarray | None = None
    span: tuple[float, float] = (0.0, 1.0)
    convention: Convention | None = None
    why_not: str = "the path of this field is unknown: set path=..."

    @abstractmethod
    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return the velocity (n, m) at the points x (n, m), change of x per unit of t.

        ``cond`` is (n, c) or None.
        """

    @property
    def limited(self) -> bool:
        """True unless the field knows every time in [0, 1]."""
        return self.times is not None or self.span != (0.0, 1.0)

    def require(self, times: Sequence[float] | np.ndarray) -> None:
        """Raise GridError unless the field knows all ``times``."""
        for t in times:
            if self.times is not None:
                locate(self.times, float(t))
            elif not self.span[0] - TOLERANCE <= t <= self.span[1] + TOLERANCE:
                raise GridError(
                    f"this field knows times from {self.span[0]:.6g} to {self.span[1]:.6g}, not"
                    f" t = {t:.12g}; let the grid begin and end there"
                )

    def require_all(self, t0: float, t1: float) -> None:
        """Raise GridError unless the field knows every time between t0 and t1."""
        if self.times is not None:
            raise GridError(
                f"this field knows {len(self.times)} times only, but the solver chooses its"
                " times; take a solver with fixed steps"
            )
        self.require([t0, t1])

    def require_convention(self) -> Convention:
        """Return the convention. Raises ConfigError with the reason if there is none."""
        if self.convention is None:
            raise ConfigError(
                "denoised point, noise and score exist only where normal noise is drawn"
                f" independently of the data: {self.why_not}. Use a solver that needs the velocity"
                " only: euler, heun, midpoint, rk4, dormand_prince, adams_bashforth_2, _3 or _4"
            )
        return self.convention

    def denoised_and_noise(self, t: float, x: Any, cond: Any = None) -> tuple[Any, Any]:
        """Return the denoised point E[x1 | x] and the noise E[noise | x], both (n, m)."""
        convention = self.require_convention()
        return convention.split(self(t, x, cond), x, t)

    def denoised(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return E[x1 | x] (n, m). Raises ConfigError if the field cannot tell."""
        convention = self.require_convention()
        return convention.denoised_from(self(t, x, cond), x, t)

    def noise(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return E[noise | x] (n, m). Raises ConfigError if the field cannot tell."""
        convention = self.require_convention()
        return convention.noise_from(self(t, x, cond), x, t)

    def score(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return the gradient of log p (n, m). Raises ConfigError if there is none, as at t = 1."""
        return self.require_convention().score_of(self.noise(t, x, cond), t)


class FunctionField(VelocityField):
    """A plain function ``velocity(t, x, cond)`` as a field that knows ``times``; None for all.

    Solvers that need denoised points or noise need the ``path`` it moves along, with normal noise
    drawn independently of the data.
    """

    def __init__(self, velocity: Any, times: Any = None, path: Path | None = None) -> None:
        self.velocity, self.times = velocity, times
        self.convention = None if path is None else PathConvention(path)

    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        return self.velocity(t, x, cond)


class ClosedFormField(VelocityField):
    """The velocity of a fitted preconditioner, at every time: exact for the fitted distribution.

    It must be fitted without source events. What it prepares for a time is kept.
    """

    def __init__(self, preconditioner: Preconditioner, path: Path) -> None:
        self._at = functools.cache(functools.partial(preconditioner.at, path))
        if path.independent_noise:
            self.convention = PathConvention(path)

    def __call__(self, t: float, x: Any, cond: Any = None) -> np.ndarray:
        return np.asarray(self._at(t).velocity(np.asarray(x), cond))


StepVelocity = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""A model of one time: (x (n, m), cond (n, c) or None) -> velocity (n, m)."""


class Stepwise(VelocityField):
    """One trained model per time of a grid, loaded by ``predictors`` when first needed.

    With ``interpolate`` the velocity between two trained times is interpolated linearly, at the
    price of two models per evaluation and an error that falls with the square of their distance;
    outside them, and without it everywhere else, a time without a model is an error. Not safe to
    share between threads; use one per thread.
    """

    def __init__(
        self,
        grid: TimeGrid,
        predictors: Callable[[int], StepVelocity],
        *,
        convention: Convention | None = None,
        why_not: str | None = None,
        interpolate: bool = False,
    ) -> None:
        self.grid = grid
        self.times = None if interpolate else grid.times
        self.span = (float(grid.times[0]), float(grid.times[-1]))
        self.convention = convention
        self.why_not = why_not or VelocityField.why_not
        self._model = functools.cache(predictors)

    @property
    def n_loaded(self) -> int:
        """Number of models in memory."""
        return self._model.cache_info().currsize

    def __call__(self, t: float, x: Any, cond: Any = None) -> np.ndarray:
        """Return the velocity (n, m), float64.

        Raises GridError if no model was trained at t, InputError if shapes do not fit.
        """
        if self.times is None:
            return self._between(t, x, cond)
        return self._velocity(locate(self.grid.times, t), x, cond)

    def _between(self, t: float, x: Any, cond: Any) -> np.ndarray:
        self.require([t])
        times = self.grid.times
        above = int(np.searchsorted(times, t - TOLERANCE))
        if above < len(times) and abs(times[above] - t) <= TOLERANCE:
            return self._velocity(above, x, cond)
        share = (t - times[above - 1]) / (times[above] - times[above - 1])
        before, after = (self._velocity(i, x, cond) for i in (above - 1, above))
        return (1.0 - share) * before + share * after

    def _velocity(self, index: int, x: Any, cond: Any) -> np.ndarray:
        v = np.asarray(self._model(index)(np.asarray(x, dtype=np.float64), cond))
        if v.shape != x.shape:
            raise InputError(
                f"the model at t = {self.grid.times[index]:g} must return one velocity per event"
                f" and column, shape {x.shape}, but returned {v.shape}; was it trained on this"
                " table?"
            )
        return v.astype(np.float64)


class PredictionField(VelocityField):
    """A model of any convention and prediction, such as a network, on the straight path.

    ``predict`` maps (x, clock, cond), with x (n, m) and clock in ``convention``, to the prediction
    ``kind``, one of `flowbdt.flow.parametrisations.PREDICTIONS` (``sigma_data``: width of the data
    for 'edm'). It knows noise ratios from ``sigma_min`` to ``sigma_max``, so a grid has to begin at
    ``span[0]`` with ``flow.point(0, noise, span[0])`` (data of mean 0) and to end at ``span[1]``.
    """

    def __init__(
        self,
        predict: Callable[[Any, float, Any], Any],
        kind: str,
        convention: Convention,
        *,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        sigma_data: float = 1.0,
    ) -> None:
        self.predict, self.kind, self.model_convention = predict, kind, convention
        self.sigma_data, self.convention = sigma_data, FlowMatching()
        self.span = (self.convention.clock(sigma_max), self.convention.clock(sigma_min))

    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        return self.require_convention().velocity(*self.denoised_and_noise(t, x, cond), t)

    def denoised_and_noise(self, t: float, x: Any, cond: Any = None) -> tuple[Any, Any]:
        there, clock = self.require_convention().move(x, t, self.model_convention)
        value = self.predict(there, clock, cond)
        return self.model_convention.denoised_and_noise(
            self.kind, value, there, clock, self.sigma_data
        )

    def denoised(self, t: float, x: Any, cond: Any = None) -> Any:
        return self.denoised_and_noise(t, x, cond)[0]

    def noise(self, t: float, x: Any, cond: Any = None) -> Any:
        return self.denoised_and_noise(t, x, cond)[1]
