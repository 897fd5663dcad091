"""Probability paths: where is the point at time t, and how fast does it move?

**Time direction, for the whole package: t = 0 is noise, t = 1 is data.** A velocity is a change per
unit of t towards the data; generation integrates from 0 to 1.

All paths here have the form ``x_t = a(t) x1 + b(t) x0 + c(t) noise`` with x0 the starting point
(standard normal noise, or a given point of another table), x1 the data and ``noise`` a second,
independent standard normal. A new path of this form says its a, b, c and their rates, nothing else.
numpy only: a training worker needs no torch. The values are those of torchcfm's matchers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from ..errors import ConfigError, InputError
from ..registry import Registry

PATHS: Registry[Path] = Registry("path")


def _plain(value: Any) -> Any:
    """Return a python float for a scalar: numpy scalars do not multiply torch tensors well."""
    return float(value) if np.ndim(value) == 0 else value


def _not_negative(sigma: float, name: str) -> float:
    if not (isinstance(sigma, (int, float)) and math.isfinite(sigma) and sigma >= 0):
        raise ConfigError(f"sigma of path {name!r} must be a number >= 0, got {sigma!r}")
    return float(sigma)


class Path(ABC):
    """A path between noise (t = 0) and data (t = 1).

    Everywhere below ``x0``, ``x1``, ``x_t``, ``noise`` are arrays (n, m), float64, no unit; ``t``
    is a float in [0, 1], or an array (n, 1) with one time per event.
    """

    sigma: float

    @abstractmethod
    def scales(self, t: Any) -> tuple[Any, Any]:
        """Return a(t) and b(t), the factors of x1 and x0."""

    @abstractmethod
    def rates(self, t: Any) -> tuple[Any, Any]:
        """Return da/dt and db/dt."""

    def noise_scale(self, t: Any) -> Any:
        """Return c(t), the standard deviation of the noise that is added besides x0."""
        return self.sigma

    def noise_rate(self, t: Any) -> Any:
        """Return (dc/dt) / c, the relative growth of that noise."""
        return 0.0

    def time_at_ratio(self, ratio: float) -> float:
        """Return the time t at which the noise ratio ``sqrt(b^2 + c^2) / a`` is ``ratio``.

        Bisection, to the last digit of t; the ratio falls from infinity at t = 0. Raises
        ConfigError if it never falls that low (paths that keep noise up to t = 1).
        """
        low, high = 0.0, 1.0
        if self._log_ratio(high) > math.log(ratio):
            raise ConfigError(
                f"noise ratio {ratio:g} is not reached: this path keeps"
                f" {math.exp(self._log_ratio(high)):g} at t = 1"
            )
        for _ in range(80):
            middle = 0.5 * (low + high)
            if self._log_ratio(middle) > math.log(ratio):
                low = middle
            else:
                high = middle
        return high

    def _log_ratio(self, t: float) -> float:
        data, source = self.scales(t)
        spread = math.hypot(source, self.noise_scale(t))
        if data <= 0:
            return math.inf
        return math.log(spread / data) if spread > 0 else -math.inf

    def location(self, x0: Any, x1: Any, t: Any, noise: Any = None) -> Any:
        """Return x_t, the point of the path at time t.

        Raises InputError if noise is needed (``noise_scale(t) > 0``) and not given.
        """
        mean, scale = self._mean(x0, x1, t), self.noise_scale(t)
        if not np.any(scale):
            return mean
        if noise is None:
            raise InputError(
                f"this path adds noise at t = {t} (sigma = {self.sigma}), but none was given;"
                " hand in standard normal noise of the shape of x1"
            )
        return mean + scale * noise

    def _mean(self, x0: Any, x1: Any, t: Any) -> Any:
        data, source = self.scales(t)
        return data * x1 + source * x0

    def target(self, x0: Any, x1: Any, t: Any, x_t: Any) -> Any:
        """Return u_t (n, m), the velocity of the path at x_t for this pair (x0, x1).

        A regression on u_t learns the velocity that moves the whole distribution.
        """
        data, source = self.rates(t)
        velocity = data * x1 + source * x0
        growth = self.noise_rate(t)
        if not np.any(growth):
            return velocity
        return velocity + growth * (x_t - self._mean(x0, x1, t))

    def mean_target(self, x0: Any, x1: Any, t: Any, t_next: Any, noise: Any = None) -> Any:
        """Return the mean velocity from t to t_next, ``(x_{t_next} - x_t) / (t_next - t)``.

        Both points use the same noise. For an Euler step over exactly this interval it is the
        better target where the path is curved. With ``t_next == t`` it is `target`.
        """
        x_t = self.location(x0, x1, t, noise)
        if np.all(np.asarray(t_next) == np.asarray(t)):
            return self.target(x0, x1, t, x_t)
        return (self.location(x0, x1, t_next, noise) - x_t) / (t_next - t)

    def variance_rate(self, t: Any) -> Any:
        """Return half the rate of the variance that x0 and noise give x_t, ``b b' + c c'``."""
        source, source_rate = self.scales(t)[1], self.rates(t)[1]
        return source * source_rate + self.noise_rate(t) * self.noise_scale(t) ** 2

    def score_from_velocity(self, v: Any, x: Any, t: Any) -> Any:
        """Return the score, the gradient of log p_t at x (n, m), from the velocity there.

        With s the score, Tweedie's formula gives E[x0 | x] = -b s and E[noise | x] = -c s;
        eliminating E[x1 | x] from x and v leaves
        ``s = (a v - a' x) / (a' (b^2 + c^2) - a (b b' + c c'))``.

        Raises
        ------
        ConfigError
            Where the score is not defined (t = 1 without added noise), or for a path whose
            method does not draw x0 independently of x1.

        Notes
        -----
        Holds for standard normal x0 paired independently with x1 (coupling ``independent``).

        References
        ----------
        Derived here; the linear case, ``-(x - t v) / (1 - t)``, is in Albergo, Boffi,
        Vanden-Eijnden 2023 (arXiv 2303.08797).
        """
        (data, source), data_rate = self.scales(t), self.rates(t)[0]
        variance = source**2 + self.noise_scale(t) ** 2
        below = data_rate * variance - data * self.variance_rate(t)
        # cos(pi/2) is 6e-17 in floating point: that is a zero too
        if np.any(np.abs(below) < 1e-12):
            raise ConfigError(
                f"the score of path {type(self).__name__} is not defined at t = {t}: nothing but"
                " data is left there; ask for it at a smaller t, or give the path sigma > 0"
            )
        return (data * v - data_rate * x) / below


@PATHS.register("linear")
class Linear(Path):
    """Straight line, ``x_t = t x1 + (1 - t) x0 + sigma noise``, with velocity ``x1 - x0``.

    References
    ----------
    Tong et al. 2024, arXiv 2302.00482, equations 14 and 15 (torchcfm:
    ConditionalFlowMatcher). sigma = 0 is also Liu et al. 2022, arXiv 2209.03003.

    Examples
    --------
    >>> path = Linear()
    >>> x0, x1 = np.zeros((1, 1)), np.ones((1, 1))
    >>> float(path.location(x0, x1, 0.25)[0, 0]), float(path.target(x0, x1, 0.25, None)[0, 0])
    (0.25, 1.0)
    """

    def __init__(self, sigma: float = 0.0) -> None:
        self.sigma = _not_negative(sigma, "linear")

    def scales(self, t: Any) -> tuple[Any, Any]:
        """Return t and 1 - t."""
        return t, 1.0 - t

    def rates(self, t: Any) -> tuple[Any, Any]:
        """Return 1 and -1."""
        return 1.0, -1.0

    def time_at_ratio(self, ratio: float) -> float:
        """Return ``1 / (1 + ratio)`` where no noise is added."""
        return super().time_at_ratio(ratio) if self.sigma else 1.0 / (1.0 + ratio)


@PATHS.register("target")
class Target(Path):
    """Noise that shrinks onto each event, ``x_t = t x1 + (1 - (1 - sigma) t) x0``.

    x0 itself is the noise of this path, so none is added besides it (``noise_scale`` is 0) and
    x0 must be standard normal. sigma = 0 is the linear path; sigma > 0 ends at x1 + sigma x0.
    The velocity is written as ``x1 - (1 - sigma) x0``, equal to the published
    ``(x1 - (1 - sigma) x_t) / (1 - (1 - sigma) t)`` but also defined at t = 1.

    References
    ----------
    Lipman et al. 2023, arXiv 2210.02747, equations 20 and 21 (torchcfm:
    TargetConditionalFlowMatcher, whose epsilon is x0 here).
    """

    def __init__(self, sigma: float = 0.0) -> None:
        self.sigma = _not_negative(sigma, "target")

    def scales(self, t: Any) -> tuple[Any, Any]:
        """Return t and 1 - (1 - sigma) t."""
        return t, 1.0 - (1.0 - self.sigma) * t

    def rates(self, t: Any) -> tuple[Any, Any]:
        """Return 1 and sigma - 1."""
        return 1.0, self.sigma - 1.0

    def noise_scale(self, t: Any) -> Any:
        """Return 0: x0 is the noise."""
        return 0.0


@PATHS.register("trigonometric")
class Trigonometric(Path):
    """Quarter circle, ``x_t = sin(pi t / 2) x1 + cos(pi t / 2) x0 + sigma noise``.

    Keeps the variance at 1 all along for standardised data.

    References
    ----------
    Albergo, Vanden-Eijnden 2023, arXiv 2209.15571, equation 5 (torchcfm:
    VariancePreservingConditionalFlowMatcher).
    """

    def __init__(self, sigma: float = 0.0) -> None:
        self.sigma = _not_negative(sigma, "trigonometric")

    def scales(self, t: Any) -> tuple[Any, Any]:
        """Return sin(pi t / 2) and cos(pi t / 2)."""
        angle = 0.5 * math.pi * np.asarray(t, dtype=np.float64)
        return _plain(np.sin(angle)), _plain(np.cos(angle))

    def rates(self, t: Any) -> tuple[Any, Any]:
        """Return pi/2 cos(pi t / 2) and -pi/2 sin(pi t / 2)."""
        sine, cosine = self.scales(t)
        return 0.5 * math.pi * cosine, -0.5 * math.pi * sine


@PATHS.register("schrodinger_bridge")
class SchrodingerBridge(Path):
    """Brownian bridge, ``x_t = t x1 + (1 - t) x0 + sigma sqrt(t (1 - t)) noise``.

    Made for pairs from optimal transport (coupling ``minibatch_ot``). The velocity
    ``x1 - x0 + (1 - 2 t) / (2 t (1 - t)) (x_t - mean)`` has infinite variance at t = 0 and 1;
    there `target` gives its expectation, ``x1 - x0``.

    References
    ----------
    Tong et al. 2024, arXiv 2302.00482, equations 20 and 21 (torchcfm:
    SchrodingerBridgeConditionalFlowMatcher, which adds 1e-8 to the denominator instead).
    """

    def __init__(self, sigma: float = 1.0) -> None:
        self.sigma = _not_negative(sigma, "schrodinger_bridge")
        if self.sigma == 0:
            raise ConfigError(
                "sigma of path 'schrodinger_bridge' must be above 0; sigma = 0 is path 'linear'"
            )

    def scales(self, t: Any) -> tuple[Any, Any]:
        """Return t and 1 - t."""
        return t, 1.0 - t

    def rates(self, t: Any) -> tuple[Any, Any]:
        """Return 1 and -1."""
        return 1.0, -1.0

    def noise_scale(self, t: Any) -> Any:
        """Return sigma sqrt(t (1 - t))."""
        return _plain(self.sigma * np.sqrt(np.maximum(t * (1.0 - t), 0.0)))

    def noise_rate(self, t: Any) -> Any:
        """Return (1 - 2 t) / (2 t (1 - t)), and 0 at both ends."""
        spread = np.asarray(2.0 * t * (1.0 - t))
        inside = spread > 0
        return _plain(np.where(inside, (1.0 - 2.0 * t) / np.where(inside, spread, 1.0), 0.0))

    def score_from_velocity(self, v: Any, x: Any, t: Any) -> Any:
        """Raise ConfigError: with paired x0 and x1 the velocity alone does not give the score."""
        raise ConfigError(
            "path 'schrodinger_bridge' has no score from its velocity alone, because x0 is paired"
            " with x1; use path 'linear', 'target' or 'trigonometric' for a stochastic solver"
        )
