"""Loss weights lambda(sigma), all on one scale: factors of the squared error of the denoised point.

The loss is ``E[lambda(sigma) |D(x; sigma) - x1|^2]`` with noise level sigma = sigma / alpha, so
SNR = 1 / sigma^2. The same weight on the error of the noise, of v or of the network's output
follows from ``D = a x + b p`` (see `flowbdt.networks.denoiser`): an error of the prediction p
counts ``lambda b^2``. Operators only: sigma may be a number, an array or a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..registry import Registry

WEIGHTS: Registry[Weight] = Registry("loss weight")


class Weight(Protocol):
    """A factor of the squared error of the denoised point."""

    def __call__(self, sigma: Any, sigma_data: float) -> Any:
        """Return lambda(sigma), of the shape of sigma."""


def _smaller(value: Any, limit: float) -> Any:
    return 0.5 * (value + limit - abs(value - limit))


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} of a loss weight must be above 0, got {value!r}")


def _edm(sigma: Any, sigma_data: float) -> Any:
    return 1.0 / sigma**2 + 1.0 / sigma_data**2


PLAIN: dict[str, Weight] = {
    # (sigma^2 + s_d^2) / (sigma s_d)^2: 1 on the error of the EDM network F; Karras et al. 2022,
    # arXiv 2206.00364, table 1
    "edm": _edm,
    # the plain error of the denoised point
    "denoised": lambda sigma, sigma_data: 0.0 * sigma + 1.0,
    # SNR: 1 on the error of the noise, the simple loss of DDPM; Ho, Jain, Abbeel 2020, arXiv
    # 2006.11239, equation 14
    "noise": lambda sigma, sigma_data: 1.0 / sigma**2,
    # SNR + 1: 1 on the error of v; Salimans, Ho 2022, arXiv 2202.00512, section 4
    "v": lambda sigma, sigma_data: 1.0 / sigma**2 + 1.0,
    # 1 on the error of the velocity of flow matching: D = x_t + (1 - t) velocity with 1 - t =
    # sigma / (1 + sigma) (derived here)
    "velocity": lambda sigma, sigma_data: (1.0 + 1.0 / sigma) ** 2,
}
"""Weights without parameters."""


def _builder(weight: Weight) -> Callable[[], Weight]:
    return lambda: weight


for _name, _weight in PLAIN.items():
    WEIGHTS.register(_name)(_builder(_weight))


@WEIGHTS.register("min_snr")
class MinSNR:
    """``min(SNR, gamma)``, as published for the denoised point: Hang et al. 2023, arXiv 2303.09556.

    On the error of the noise it is min(SNR, gamma) / SNR, on that of v min(SNR, gamma) / (SNR + 1).
    """

    def __init__(self, gamma: float = 5.0) -> None:
        _positive(gamma=gamma)
        self.gamma = gamma

    def __call__(self, sigma: Any, sigma_data: float) -> Any:
        return _smaller(1.0 / sigma**2, self.gamma)


@WEIGHTS.register("min_snr_edm")
class MinSNROnEDM(MinSNR):
    """``min((sigma^2 + s_d^2) / (sigma s_d)^2, gamma)``: the EDM weight, capped."""

    def __call__(self, sigma: Any, sigma_data: float) -> Any:
        return _smaller(_edm(sigma, sigma_data), self.gamma)


@WEIGHTS.register("soft_min_snr")
class SoftMinSNR:
    """``(sigma s_d)^2 / (sigma^2 + s_d^2)^2``, even in log(sigma / s_d).

    ``of='network'``: a factor of the error of the EDM network F, so for the denoised point it is 1
    / (sigma^2 + s_d^2), a soft form of min(SNR, 1 / s_d^2); 'denoised': of the denoised point
    itself.

    Crowson et al. 2024, arXiv 2401.11605 (soft-min-SNR, of='network').
    """

    def __init__(self, of: str = "network") -> None:
        if of not in ("network", "denoised"):
            raise ConfigError(f"of of weight 'soft_min_snr' is network or denoised, not {of!r}")
        self.of = of

    def __call__(self, sigma: Any, sigma_data: float) -> Any:
        norm = sigma**2 + sigma_data**2
        return 1.0 / norm if self.of == "network" else (sigma * sigma_data / norm) ** 2


@WEIGHTS.register("p2")
class P2:
    """``SNR / (k + SNR)^gamma``, Choi et al. 2022, arXiv 2204.00227, with its defaults."""

    def __init__(self, k: float = 1.0, gamma: float = 1.0) -> None:
        _positive(k=k, gamma=gamma)
        self.k, self.gamma = k, gamma

    def __call__(self, sigma: Any, sigma_data: float) -> Any:
        snr = 1.0 / sigma**2
        return snr / (self.k + snr) ** self.gamma


@WEIGHTS.register("uncertainty")
class Uncertainty(nn.Module):
    """The EDM weight times a learned factor: ``L -> L / exp(u(sigma)) + u(sigma)``.

    u is a linear function of Fourier features of log(sigma) / 4, trained along with the network.
    At the optimum exp(u) is the mean loss at sigma, so every noise level counts alike (Kendall,
    Gal, Cipolla 2018, arXiv 1705.07115; for noise levels Karras et al. 2024, arXiv 2312.02696).
    """

    frequency: Tensor
    phase: Tensor

    def __init__(self, n_features: int = 32) -> None:
        super().__init__()
        if n_features < 1:
            raise ConfigError(f"n_features of weight 'uncertainty' must be above 0: {n_features!r}")
        spread = torch.special.ndtri((torch.arange(n_features) + 0.5) / n_features)
        self.register_buffer("frequency", 2.0 * math.pi * spread, persistent=False)
        phase = 2.0 * math.pi * ((torch.arange(n_features) * 0.618034) % 1.0)
        self.register_buffer("phase", phase, persistent=False)
        self.linear = nn.Linear(n_features, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """Return the fixed part of the weight, that of EDM, (n,)."""
        return _edm(sigma, sigma_data)

    def log_loss(self, sigma: Tensor) -> Tensor:
        """Return u(sigma), the log of the expected loss, (n,)."""
        angle = torch.log(sigma)[:, None] / 4.0 * self.frequency + self.phase
        return self.linear(math.sqrt(2.0) * torch.cos(angle))[:, 0]
