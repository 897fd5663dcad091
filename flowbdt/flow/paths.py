"""Probability paths: the noisy point at time t between noise and data, and its velocity.

**Time direction, for the whole package: t = 0 is noise, t = 1 is data.** A velocity is a change per
unit of t towards the data; generation integrates from 0 to 1.

All paths have the form ``x_t = a(t) x1 + b(t) x0 + c(t) noise`` with x0 the starting point
(standard normal noise, or an event of a source table), x1 the data and ``noise`` a second,
independent standard normal. A path defines a, b, c and their rates, nothing else; the straight line
is here, the others are in `flowbdt.flow.curved_paths`. The values are those of torchcfm's matchers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from ..registry import Registry
from ..typed_settings import NotNegative, check_fields

PATHS: Registry[Path] = Registry("path")


@dataclass(eq=False)
class Path(ABC):
    """A path between noise (t = 0) and data (t = 1), with fields as settings.

    Everywhere below ``x0``, ``x1``, ``x_t``, ``noise`` are arrays (n, m), float64, no unit; ``t``
    is a float in [0, 1], or an array (n, 1) with one time per event.
    """

    independent_noise: ClassVar[bool] = True
    """False if the path is made for noise that is paired with the data."""

    sigma: NotNegative = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "path setting")

    @abstractmethod
    def scales(self, t: Any) -> tuple[Any, Any]:
        """Return a(t) and b(t), the factors of x1 and x0."""

    @abstractmethod
    def rates(self, t: Any) -> tuple[Any, Any]:
        """Return da/dt and db/dt."""

    def noise_scale(self, t: Any) -> Any:
        """Return c(t), the standard deviation of the noise that is added to x0."""
        return self.sigma

    def noise_rate(self, t: Any) -> Any:
        """Return (dc/dt) / c, the relative growth of that noise."""
        return 0.0

    def location(self, x0: Any, x1: Any, t: Any, noise: Any = None) -> Any:
        """Return x_t, the point of the path at time t.

        Raises InputError if noise is needed (``noise_scale(t) > 0``) and missing.
        """
        mean, scale = self._mean(x0, x1, t), self.noise_scale(t)
        if not np.any(scale):
            return mean
        if noise is None:
            raise InputError(
                f"this path adds noise at t = {t} (sigma = {self.sigma}): pass standard"
                " normal noise of the shape of x1"
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


@PATHS.register("linear")
class Linear(Path):
    """Straight line, ``x_t = t x1 + (1 - t) x0 + sigma noise``, with velocity ``x1 - x0``.

    Source: Tong et al. 2024, arXiv 2302.00482, equations 14 and 15 (torchcfm:
    ConditionalFlowMatcher). sigma = 0 is also Liu et al. 2022, arXiv 2209.03003.

    Examples
    --------
    >>> path = Linear()
    >>> x0, x1 = np.zeros((1, 1)), np.ones((1, 1))
    >>> float(path.location(x0, x1, 0.25)[0, 0]), float(path.target(x0, x1, 0.25, None)[0, 0])
    (0.25, 1.0)
    """

    def scales(self, t: Any) -> tuple[Any, Any]:
        return t, 1.0 - t

    def rates(self, t: Any) -> tuple[Any, Any]:
        return 1.0, -1.0
