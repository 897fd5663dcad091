"""The exact velocity field of Gaussian data, the reference of many tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowbdt.errors import InputError
from flowbdt.flow.fields import VelocityField
from flowbdt.flow.parametrisations import PathConvention
from flowbdt.flow.paths import Path


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
