"""Velocity fields, which solvers integrate. t = 0 is noise, t = 1 is data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError, GridError, InputError
from .closed_form import Preconditioner
from .parametrisations import Convention, FlowMatching, PathConvention
from .paths import Path

TOLERANCE = 1e-9
"""Two times closer than this are the same time."""


def locate(times: Any, t: float) -> int:
    """Return the position of time ``t`` in the sorted ``times`` (T,), within 1e-9.

    Raises
    ------
    GridError
        If t is not among them; the message names the nearest ones.
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

    Attributes
    ----------
    times : the times the field knows, rising, or None if it knows a whole interval
    span : first and last time of that interval, if times is None
    convention : scales of data and noise at each time, or None where the velocity does not tell
        them apart
    why_not : if convention is None, the reason
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
    """A plain function ``velocity(t, x, cond)`` as a field.

    Parameters
    ----------
    velocity : callable
    times : the times it knows, or None for all
    path : the path it moves along with normal noise drawn independently of the data; needed by
        solvers that need denoised points or noise
    """

    def __init__(
        self,
        velocity: Callable[[float, Any, Any], Any],
        times: Sequence[float] | np.ndarray | None = None,
        path: Path | None = None,
    ) -> None:
        self.velocity = velocity
        self.times = times
        self.convention = None if path is None else PathConvention(path)

    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        return self.velocity(t, x, cond)


class ExactGaussian(VelocityField):
    """The exact velocity for normal data N(mean, cov) and standard normal, independent x0.

    On a path with scales a, b, c (see `flowbdt.flow.paths`) the point x_t is normal with mean
    ``a mean`` and covariance C = a^2 cov + (b^2 + c^2) 1, and
    ``v = a' mean + B C^-1 (x - a mean)``, ``B = a a' cov + (b b' + c c') 1``.
    On the linear path: C = (1-t)^2 1 + t^2 cov, B = t cov - (1-t) 1.

    Parameters
    ----------
    mean : (m,), float64
    cov : (m, m), float64, symmetric, eigenvalues not negative (zero is allowed)
    path : Path

    Raises
    ------
    InputError
        If the shapes do not fit or cov is not a covariance matrix.

    References
    ----------
    Derived here, by conditioning jointly normal variables.
    """

    def __init__(self, mean: Any, cov: Any, path: Path) -> None:
        self.mean = np.asarray(mean, dtype=np.float64)
        matrix = np.asarray(cov, dtype=np.float64)
        if self.mean.ndim != 1 or matrix.shape != 2 * self.mean.shape:
            raise InputError(
                f"mean must be (m,) and cov (m, m), got shapes {self.mean.shape} and {matrix.shape}"
            )
        self.path = path
        if path.independent_noise:
            self.convention = PathConvention(path)
        self._values, self._axes = _principal(matrix)

    def _variances(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the variance of x_t along each principal axis (m,), and half its rate."""
        data, source = self.path.scales(t)
        variance = data**2 * self._values + source**2 + self.path.noise_scale(t) ** 2
        rate = data * self.path.rates(t)[0] * self._values + self.path.variance_rate(t)
        return variance, rate

    def _along_axes(self, factors: np.ndarray, x: np.ndarray) -> np.ndarray:
        return ((x @ self._axes) * factors) @ self._axes.T

    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return the velocity (n, m); conditions are not used.

        Where an axis has no width left (zero eigenvalue at t = 1) only the mean moves.
        """
        variance, rate = self._variances(t)
        wide = variance > 1e-30
        factors = np.where(wide, rate / np.where(wide, variance, 1.0), 0.0)
        centre, drift = self.path.scales(t)[0] * self.mean, self.path.rates(t)[0] * self.mean
        return drift + self._along_axes(factors, np.asarray(x) - centre)

    def flow(self, x0: Any, t: float) -> np.ndarray:
        """Return where the flow has carried x0 (n, m) at time t, in closed form.

        ``a mean + C(t)^(1/2) C(0)^(-1/2) x0``: all C have the same axes, so the derivative of
        this is the velocity above. At t = 1 of the linear path: mean + cov^(1/2) x0.
        """
        factors = np.sqrt(self._variances(t)[0] / self._variances(0.0)[0])
        return self.path.scales(t)[0] * self.mean + self._along_axes(factors, np.asarray(x0))


def _principal(cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (m,), rounding errors below zero cut, and eigenvectors (m, m)."""
    scale = max(float(np.abs(cov).max(initial=0.0)), 1e-300)
    if not np.isfinite(cov).all() or np.abs(cov - cov.T).max(initial=0.0) > 1e-8 * scale:
        raise InputError("cov must be finite and symmetric")
    values, axes = np.linalg.eigh(0.5 * (cov + cov.T))
    if values.min(initial=0.0) < -1e-8 * scale:
        raise InputError(
            f"cov must not have negative eigenvalues, the smallest is {values.min():.3g}"
        )
    return np.maximum(values, 0.0), axes


class ClosedFormField(VelocityField):
    """The velocity of a fitted preconditioner, at every time: exact for the fitted distribution.

    Parameters
    ----------
    preconditioner : fitted, without source events
    path : Path

    Notes
    -----
    What it prepares for a time is kept; make a new one to free the memory.
    """

    def __init__(self, preconditioner: Preconditioner, path: Path) -> None:
        self.preconditioner, self.path = preconditioner, path
        if path.independent_noise:
            self.convention = PathConvention(path)
        self._prepared: dict[float, Any] = {}

    def __call__(self, t: float, x: Any, cond: Any = None) -> np.ndarray:
        """Return the velocity (n, m), float64."""
        if t not in self._prepared:
            self._prepared[t] = self.preconditioner.at(self.path, t)
        return np.asarray(self._prepared[t].velocity(np.asarray(x), cond))


class PredictionField(VelocityField):
    """A model of any convention and prediction, such as a network, on the straight path.

    Parameters
    ----------
    predict : callable, (x, clock, cond) -> prediction; x (n, m) and clock in ``convention``
    kind : what it predicts, one of `flowbdt.flow.parametrisations.PREDICTIONS`
    convention : Convention, of the model
    sigma_min, sigma_max : the noise ratios it knows
    sigma_data : width of the data, for kind 'edm'

    Notes
    -----
    It never saw pure noise or pure data, so a grid has to begin at ``span[0]`` with
    ``flow.point(0, noise, span[0])`` (data of mean 0) and to end at ``span[1]``.
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
