"""`Objective`: the noise levels of a training, the prediction, and the loss.

A noise level sigma is the ratio sigma / alpha of `flowbdt.flow.parametrisations`. A distribution of
levels is given by its quantile function, so a batch can be spread evenly over it, which steadies
the loss.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..flow import torchcfm_reference
from ..flow.couplings import COUPLINGS, MinibatchOT
from ..registry import Registry, spec_name, unknown
from .denoiser import Denoiser, along, coefficients
from .loss_weights import WEIGHTS, Uncertainty, Weight

LEVELS: Registry[Levels] = Registry("distribution of noise levels")


class Levels(ABC):
    """A distribution of noise levels; stores its parameters under their names."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """Return sigma (n,) below which a share u (n,) of the training happens, before limits."""

    def draw(self, n: int, generator: torch.Generator, device: torch.device | str) -> Tensor:
        """Return n levels, one from each n-th of the distribution (arXiv 2107.00630)."""
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
    """``log sigma ~ N(mean, std^2)``: Karras et al. 2022, arXiv 2206.00364, table 1 and section 5.

    The published mean, -1.2, is that for data of width 1/2; for width 1 it is -1.2 + log 2.
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
        return torch.exp(self.mean + self.std * torch.special.ndtri(u))


@LEVELS.register("uniform_log_snr")
class UniformLogSNR(Levels):
    """Uniform in log SNR, that is in log sigma, between the limits."""

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        self._limits(sigma_min, sigma_max)

    def quantile(self, u: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** u


@LEVELS.register("uniform_time")
class UniformTime(Levels):
    """Uniform in the time of flow matching: ``sigma = (1 - t) / t``."""

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 500.0) -> None:
        self._limits(sigma_min, sigma_max)

    def quantile(self, u: Tensor) -> Tensor:
        return u / (1.0 - u)


@LEVELS.register("cosine")
class CosineLevels(Levels):
    """Uniform in the time of the cosine schedule, as DDPM trains; in steps, or continuous.

    ``alpha^2 = cos^2(a(u)) / cos^2(a(0))``, ``a(u) = pi/2 (u + offset) / (1 + offset)``.

    Nichol, Dhariwal 2021, arXiv 2102.09672, equation 17. A discrete model has ``steps`` levels, u =
    1/steps ... 1; levels beyond the limits are moved there.
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
        if self.steps is not None:
            u = (torch.floor(u * self.steps) + 1.0) / self.steps
        scale = 0.5 * math.pi / (1.0 + self.offset)
        power = (torch.cos(scale * (u + self.offset)) / math.cos(scale * self.offset)) ** 2
        return torch.sqrt(1.0 / power.clamp(min=1e-12) - 1.0)


OBJECTIVES: dict[str, dict[str, Any]] = {
    "edm": {"prediction": "edm", "weight": "edm", "levels": "log_normal"},
    "ddpm": {"prediction": "noise", "weight": "noise", "levels": "cosine"},
    "v": {"prediction": "v", "weight": "v", "levels": "cosine"},
    "flow_matching": {
        "prediction": "velocity",
        "weight": "velocity",
        "levels": "uniform_time",
        "flow_matcher": "torchcfm",
    },
}
"""Objectives as published, by name."""


class Objective:
    """A loss for a `Denoiser`.

    Raises ConfigError if a name is unknown or the settings contradict each other; MissingExtra if
    flow_matcher is 'torchcfm' and it is not installed.

    Parameters
    ----------
    prediction : one of `flowbdt.networks.denoiser.KINDS`
    weight : name in `WEIGHTS`, or mapping with parameters
    levels : name in `LEVELS`, or mapping with parameters
    sigma_data : width of the data
    flow_matcher : 'own', or 'torchcfm' to take points and velocities of the straight line from
        torchcfm's matcher (prediction 'velocity' only; the same numbers up to rounding)
    coupling : 'independent', or 'minibatch_ot' to pair noise with events by distance
    """

    def __init__(
        self,
        prediction: str = "edm",
        weight: Any = "edm",
        levels: Any = "log_normal",
        sigma_data: float = 1.0,
        *,
        flow_matcher: str = "own",
        coupling: Any = "independent",
    ) -> None:
        coefficients(prediction, 1.0, sigma_data)
        self.prediction, self.sigma_data, self.coupling = prediction, sigma_data, coupling
        self.weight_spec, self.levels_spec = weight, levels
        self.weight: Weight = WEIGHTS.build(weight)
        self.levels: Levels = LEVELS.build(levels)
        self.flow_matcher = flow_matcher
        if flow_matcher not in ("own", "torchcfm"):
            raise ConfigError(f"flow_matcher must be 'own' or 'torchcfm', got {flow_matcher!r}")
        if spec_name(coupling) not in ("independent", "minibatch_ot"):
            raise ConfigError(
                "the coupling of a network is 'independent' or 'minibatch_ot', not"
                f" {coupling!r}; paired samples are for trees"
            )
        self._pairs: Any = COUPLINGS.build(coupling)
        straight = flow_matcher == "torchcfm" or isinstance(self._pairs, MinibatchOT)
        if straight and prediction != "velocity":
            raise ConfigError(
                "torchcfm's matcher and minibatch_ot go with prediction 'velocity': paired noise"
                f" determines neither score nor denoised point; got prediction {prediction!r}"
            )
        self._matcher: Any = None
        if flow_matcher == "torchcfm":
            self._matcher = torchcfm_reference.load_torchcfm()[1].ConditionalFlowMatcher(sigma=0.0)

    @classmethod
    def of(cls, spec: Any, **changes: Any) -> Objective:
        """Return an objective by name with changed settings, from a mapping, or unchanged."""
        if isinstance(spec, Objective):
            return spec
        if isinstance(spec, str):
            if spec not in OBJECTIVES:
                raise unknown("objective", spec, OBJECTIVES)
            spec = OBJECTIVES[spec]
        return cls(**{**spec, **changes})

    def settings(self) -> dict[str, Any]:
        """Return all parameters in plain values."""
        names = ("prediction", "sigma_data", "flow_matcher", "coupling")
        specs = {"weight": self.weight_spec, "levels": self.levels_spec}
        return {**{name: getattr(self, name) for name in names}, **specs}

    def denoiser(self, backbone: nn.Module) -> Denoiser:
        """Return the backbone with the scaling that this objective trains."""
        limits = (self.levels.sigma_min, self.levels.sigma_max)
        return Denoiser(backbone, self.prediction, self.sigma_data, *limits)

    def modules(self) -> list[nn.Module]:
        """Return the modules that are trained beside the network: a learned weight."""
        return [self.weight] if isinstance(self.weight, nn.Module) else []

    def losses(
        self, denoiser: Denoiser, x1: Tensor, cond: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return the weighted loss (n,) of events x1 (n, ...) and conditions (n, c) or None."""
        sigma = self.levels.draw(len(x1), generator, x1.device).to(x1.dtype)
        noise = torch.randn(x1.shape, generator=generator, device=x1.device, dtype=x1.dtype)
        noise = self._paired(noise, x1, cond, generator)
        scaled, target = self._input_and_target(x1, noise, sigma)
        error = (denoiser.raw(scaled, sigma, cond) - target) ** 2
        factor = coefficients(self.prediction, sigma, self.sigma_data)[1] ** 2
        loss = error.flatten(1).mean(1) * factor * self.weight(sigma, self.sigma_data)
        if isinstance(self.weight, Uncertainty):
            log_loss = self.weight.log_loss(sigma)
            return loss * torch.exp(-log_loss) + log_loss
        return loss

    def _input_and_target(self, x1: Tensor, noise: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        level = along(sigma, x1)
        if self._matcher is not None:
            time = 1.0 / (1.0 + sigma)
            x_t = self._matcher.sample_xt(noise, x1, time, torch.zeros_like(x1))
            target = self._matcher.compute_conditional_flow(noise, x1, time, x_t)
            t = along(time, x1)
            return x_t * ((1.0 - t) ** 2 + (t * self.sigma_data) ** 2) ** -0.5, target
        scaled = (x1 + level * noise) * (level**2 + self.sigma_data**2) ** -0.5
        return scaled, self._target(x1, noise, level)

    def _target(self, x1: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Return p with ``a x + b p = x1``, written without differences of large numbers."""
        if self.prediction == "noise":
            return noise
        if self.prediction == "denoised":
            return x1
        if self.prediction == "velocity":
            return x1 - noise
        s2 = 1.0 if self.prediction == "v" else self.sigma_data**2
        sign = -1.0 if self.prediction == "v" else 1.0
        norm = (level**2 + s2) ** 0.5
        return sign * (level * x1 - s2 * noise) / (norm * s2**0.5)

    def _paired(
        self, noise: Tensor, x1: Tensor, cond: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return the noise in the order of the coupling; independent noise stays as it is."""
        if not isinstance(self._pairs, MinibatchOT):
            return noise
        seed = int(torch.randint(2**31, (), generator=generator, device=x1.device))
        rng = np.random.default_rng(seed)
        flat = [points.flatten(1).cpu().numpy() for points in (noise, x1)]
        known = None if cond is None else cond.cpu().numpy()
        paired = self._pairs.pair(flat[0], flat[1], known, rng)
        return torch.from_numpy(paired).to(x1).reshape(x1.shape)
