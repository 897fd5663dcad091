"""At which noise levels a network is trained: distributions of sigma, by their quantiles.

A noise level sigma is the ratio sigma / alpha of `flowbdt.flow.parametrisations`. Every
distribution is one
function from (0, 1) to sigma, so a batch can be spread evenly over it, which steadies the loss.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..errors import ConfigError
from ..registry import Registry

LEVELS: Registry[Levels] = Registry("distribution of noise levels")


class Levels(ABC):
    """A distribution of noise levels between ``sigma_min`` and ``sigma_max``.

    The constructor stores its parameters under their own names.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """Return sigma (n,) below which a share u (n,) of the training happens, before limits."""

    def draw(self, n: int, generator: torch.Generator, device: torch.device | str) -> Tensor:
        """Return n noise levels, one from each n-th part of the distribution (one random offset).

        References
        ----------
        Kingma et al. 2021, arXiv 2107.00630, appendix I.1 (one offset for a batch).
        """
        offset = torch.rand((), generator=generator, device=device)
        u = (torch.arange(n, device=device, dtype=torch.float32) + offset) / n
        return self.quantile(u.clamp(1e-6, 1.0 - 1e-6)).clamp(self.sigma_min, self.sigma_max)

    def _limits(self, sigma_min: float, sigma_max: float) -> None:
        if not 0 < sigma_min < sigma_max < math.inf:
            raise ConfigError(
                f"noise levels need 0 < sigma_min < sigma_max, got {sigma_min!r}, {sigma_max!r}"
            )
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)


@LEVELS.register("log_normal")
class LogNormal(Levels):
    """``log sigma ~ N(mean, std^2)``.

    The published mean, -1.2, is that for data of width 1/2; for data of width 1 it is
    -1.2 + log 2, about the default.

    References
    ----------
    Karras et al. 2022, arXiv 2206.00364, table 1 and section 5.
    """

    def __init__(
        self,
        mean: float = -0.5,
        std: float = 1.2,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        if not std > 0:
            raise ConfigError(f"std of log_normal must be above 0, got {std!r}")
        self._limits(sigma_min, sigma_max)
        self.mean, self.std = mean, std

    def quantile(self, u: Tensor) -> Tensor:
        """Return ``exp(mean + std Phi^-1(u))``."""
        return torch.exp(self.mean + self.std * torch.special.ndtri(u))


@LEVELS.register("uniform_log_snr")
class UniformLogSNR(Levels):
    """Uniform in log SNR, that is in log sigma, between the limits."""

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        self._limits(sigma_min, sigma_max)

    def quantile(self, u: Tensor) -> Tensor:
        """Return ``sigma_min (sigma_max / sigma_min)^u``."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** u


@LEVELS.register("uniform_time")
class UniformTime(Levels):
    """Uniform in the time of flow matching: ``sigma = (1 - t) / t``."""

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 500.0) -> None:
        self._limits(sigma_min, sigma_max)

    def quantile(self, u: Tensor) -> Tensor:
        """Return ``u / (1 - u)``, u = 1 - t."""
        return u / (1.0 - u)


@LEVELS.register("cosine")
class CosineLevels(Levels):
    """Uniform in the time of the cosine schedule, as DDPM trains; in steps, or continuous.

    ``alpha^2 = cos^2(a(u)) / cos^2(a(0))``, ``a(u) = pi/2 (u + offset) / (1 + offset)``.

    Parameters
    ----------
    steps : that many levels, u = 1/steps ... 1, as of a discrete model; None for all
    offset : of the schedule
    sigma_min, sigma_max : levels beyond are moved to these limits

    References
    ----------
    Nichol, Dhariwal 2021, arXiv 2102.09672, equation 17.
    """

    def __init__(
        self,
        steps: int | None = None,
        offset: float = 0.008,
        sigma_min: float = 0.002,
        sigma_max: float = 200.0,
    ) -> None:
        if steps is not None and (isinstance(steps, bool) or steps < 1):
            raise ConfigError(f"steps of cosine must be a whole number above 0, got {steps!r}")
        self._limits(sigma_min, sigma_max)
        self.steps, self.offset = steps, offset

    def quantile(self, u: Tensor) -> Tensor:
        """Return ``sqrt(1 / alpha^2 - 1)``."""
        if self.steps is not None:
            u = (torch.floor(u * self.steps) + 1.0) / self.steps
        scale = 0.5 * math.pi / (1.0 + self.offset)
        power = (torch.cos(scale * (u + self.offset)) / math.cos(scale * self.offset)) ** 2
        return torch.sqrt(1.0 / power.clamp(min=1e-12) - 1.0)
