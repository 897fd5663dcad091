"""Velocity fields: what a solver asks. t = 0 is noise, t = 1 is data (see `flowbdt.paths`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .errors import ConfigError, InputError
from .paths import Path
from .timegrid import TimeGrid, locate


class VelocityField(ABC):
    """A velocity for each time and point.

    Attributes
    ----------
    times : the times the field knows, rising, or None if it knows all of [0, 1]
    """

    times: Sequence[float] | np.ndarray | None = None

    @abstractmethod
    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return the velocity (n, m) at the points x (n, m), change of x per unit of t.

        ``cond`` is (n, c) or None.
        """

    def require(self, times: Sequence[float] | np.ndarray) -> None:
        """Raise GridError unless the field knows all ``times``."""
        if self.times is not None:
            for t in times:
                locate(self.times, float(t))


class FunctionField(VelocityField):
    """A plain function ``velocity(t, x, cond)`` as a field."""

    def __init__(
        self,
        velocity: Callable[[float, Any, Any], Any],
        times: Sequence[float] | np.ndarray | None = None,
    ) -> None:
        self.velocity = velocity
        self.times = times

    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return ``velocity(t, x, cond)``."""
        return self.velocity(t, x, cond)


class ExactGaussian(VelocityField):
    """The exact velocity for normal data N(mean, cov) and standard normal, independent x0.

    On a path with scales a, b, c (see `flowbdt.paths`) the point x_t is normal with mean a mean
    and covariance C = a^2 cov + (b^2 + c^2) 1, and
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


StepVelocity = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""A model of one time: (x (n, m), cond (n, c) or None) -> velocity (n, m)."""


class Stepwise(VelocityField):
    """One trained model per time of a grid, loaded when first asked.

    Parameters
    ----------
    grid : TimeGrid
    predictors : callable, step number -> model; a model maps points (n, m) float64 and
        conditions (n, c) or None to velocities (n, m)
    keep : int, how many models to hold in memory, the least recently used go first; None for all

    Raises
    ------
    ConfigError
        If keep is less than 1.

    Notes
    -----
    Not safe to share between threads; give each thread its own.
    """

    def __init__(
        self,
        grid: TimeGrid,
        predictors: Callable[[int], StepVelocity],
        keep: int | None = None,
    ) -> None:
        if keep is not None and keep < 1:
            raise ConfigError(f"keep must be at least 1 model, or None for all, got {keep!r}")
        self.grid = grid
        self.times = grid.times
        self.predictors = predictors
        self.keep = keep
        self._loaded: OrderedDict[int, StepVelocity] = OrderedDict()

    @property
    def n_loaded(self) -> int:
        """Number of models in memory."""
        return len(self._loaded)

    def __call__(self, t: float, x: Any, cond: Any = None) -> np.ndarray:
        """Return the velocity (n, m), float64.

        Raises GridError if no model was trained at t, InputError if shapes do not fit.
        """
        model = self._model(self.grid.locate(t))
        v = np.asarray(model(np.asarray(x, dtype=np.float64), cond))
        if v.shape != x.shape:
            raise InputError(
                f"the model at t = {t:g} must return one velocity per event and column,"
                f" shape {x.shape}, but returned {v.shape}; was it trained on this table?"
            )
        return v.astype(np.float64)

    def _model(self, index: int) -> StepVelocity:
        if index in self._loaded:
            self._loaded.move_to_end(index)
            return self._loaded[index]
        if self.keep is not None and len(self._loaded) >= self.keep:
            self._loaded.popitem(last=False)  # before loading, so that memory never exceeds keep
        self._loaded[index] = self.predictors(index)
        return self._loaded[index]
