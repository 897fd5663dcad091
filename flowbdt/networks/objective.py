"""`Objective`: which noise levels are drawn, what is predicted, and how errors are weighted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..flow import torchcfm_reference
from ..flow.couplings import COUPLINGS, MinibatchOT
from ..registry import spec_name, unknown
from .denoiser import Denoiser, along, coefficients
from .loss_weights import WEIGHTS, Uncertainty, Weight
from .noise_levels import LEVELS, Levels

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
"""Objectives as published, by name; every part can be exchanged."""


class Objective:
    """A loss for a `Denoiser`.

    Parameters
    ----------
    prediction : one of `flowbdt.networks.denoiser.KINDS`
    weight : name in `WEIGHTS`, or mapping with parameters
    levels : name in `LEVELS`, or mapping with parameters
    sigma_data : width of the data
    flow_matcher : 'own', or 'torchcfm' to take points and velocities of the straight line from
        torchcfm's matcher (prediction 'velocity' only; the same numbers up to rounding)
    coupling : 'independent', or 'minibatch_ot' to pair noise with events by distance

    Raises
    ------
    ConfigError
        If a name is unknown or the parts contradict each other.
    MissingExtra
        If torchcfm is asked for and missing.
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
                "a network learns from coupling 'independent' or 'minibatch_ot', not"
                f" {coupling!r}; given pairs are for trees"
            )
        self._pairs: Any = COUPLINGS.build(coupling)
        straight = flow_matcher == "torchcfm" or isinstance(self._pairs, MinibatchOT)
        if straight and prediction != "velocity":
            raise ConfigError(
                "torchcfm's matcher and minibatch_ot go with prediction 'velocity': paired noise"
                f" tells neither score nor denoised point; got prediction {prediction!r}"
            )
        self._matcher = _matcher() if flow_matcher == "torchcfm" else None

    @classmethod
    def of(cls, spec: Any, **changes: Any) -> Objective:
        """Return an objective by name (see `OBJECTIVES`), from a mapping, or as it is.

        ``changes`` replace parts of a named one.
        """
        if isinstance(spec, Objective):
            return spec
        if isinstance(spec, str):
            if spec not in OBJECTIVES:
                raise unknown("objective", spec, OBJECTIVES)
            spec = OBJECTIVES[spec]
        return cls(**{**spec, **changes})

    def settings(self) -> dict[str, Any]:
        """Return all parameters in plain values."""
        return {
            "prediction": self.prediction,
            "weight": self.weight_spec,
            "levels": self.levels_spec,
            "sigma_data": self.sigma_data,
            "flow_matcher": self.flow_matcher,
            "coupling": self.coupling,
        }

    def denoiser(self, backbone: nn.Module) -> Denoiser:
        """Return the backbone with the scaling that this objective trains."""
        levels = self.levels
        return Denoiser(
            backbone, self.prediction, self.sigma_data, levels.sigma_min, levels.sigma_max
        )

    def modules(self) -> list[nn.Module]:
        """Return what is learned along with the network: a learned weight."""
        return [self.weight] if isinstance(self.weight, nn.Module) else []

    def losses(
        self, denoiser: Denoiser, x1: Tensor, cond: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return the weighted loss of each event (n,), mean over its values.

        Parameters
        ----------
        denoiser : of the same prediction and sigma_data
        x1 : tensor (n, ...), events
        cond : tensor (n, c) or None
        generator : on the device of x1, the only source of noise
        """
        sigma = self.levels.draw(len(x1), generator, x1.device).to(x1.dtype)
        noise = torch.randn(x1.shape, generator=generator, device=x1.device, dtype=x1.dtype)
        noise = self._paired(noise, x1, cond, generator)
        scaled, target = self._question(x1, noise, sigma)
        error = (denoiser.raw(scaled, sigma, cond) - target) ** 2
        factor = coefficients(self.prediction, sigma, self.sigma_data)[1] ** 2
        loss = error.flatten(1).mean(1) * factor * self.weight(sigma, self.sigma_data)
        if isinstance(self.weight, Uncertainty):
            log_loss = self.weight.log_loss(sigma)
            return loss * torch.exp(-log_loss) + log_loss
        return loss

    def _question(self, x1: Tensor, noise: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the backbone sees and what it should answer."""
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
        flat = [part.flatten(1).cpu().numpy() for part in (noise, x1)]
        known = None if cond is None else cond.cpu().numpy()
        paired = self._pairs.pair(flat[0], flat[1], known, rng)
        return torch.from_numpy(paired).to(x1).reshape(x1.shape)


def _matcher() -> Any:
    """Return torchcfm's matcher of the straight line. Raises MissingExtra."""
    return torchcfm_reference.load_torchcfm()[1].ConditionalFlowMatcher(sigma=0.0)
