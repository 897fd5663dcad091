"""`Denoiser`: a backbone, scaled so that its inputs and predictions are of order one.

The point is ``x = x1 + sigma noise``, with sigma the noise level sigma / alpha. The inputs are
``x / sqrt(sigma^2 + s_d^2)`` and log(sigma) / 4; from the prediction p the denoised point is
``D = a(sigma) x + b(sigma) p``:

==========  ==========================  ===============================
prediction  a                           b
==========  ==========================  ===============================
edm         s_d^2 / (sigma^2 + s_d^2)   sigma s_d / sqrt(sigma^2 + s_d^2)
v           1 / (1 + sigma^2)           -sigma / sqrt(1 + sigma^2)
noise       1                           -sigma
denoised    0                           1
velocity    1 / (1 + sigma)             sigma / (1 + sigma)
==========  ==========================  ===============================

So an error of p is ``|D - x1|^2 / b^2``: all losses are one, with different weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..registry import unknown

KINDS = ("edm", "v", "noise", "denoised", "velocity")
"""Predictions of a backbone; see `flowbdt.flow.parametrisations.PREDICTIONS`."""


def coefficients(kind: str, sigma: Any, sigma_data: float) -> tuple[Any, Any]:
    """Return a and b of ``D = a x + b p`` at noise level sigma, with operators only.

    Raises ConfigError for an unknown kind. edm: Karras et al. 2022, arXiv 2206.00364, table 1; v:
    Salimans, Ho 2022, arXiv 2202.00512, section 4; velocity: Lipman et al. 2023, arXiv 2210.02747.
    """
    if kind == "edm":
        norm = sigma**2 + sigma_data**2
        return sigma_data**2 / norm, sigma * sigma_data / norm**0.5
    if kind == "v":
        norm = 1.0 + sigma**2
        return 1.0 / norm, -sigma / norm**0.5
    if kind == "noise":
        return 0.0 * sigma + 1.0, -sigma
    if kind == "denoised":
        return 0.0 * sigma, 0.0 * sigma + 1.0
    if kind == "velocity":
        return 1.0 / (1.0 + sigma), sigma / (1.0 + sigma)
    raise unknown("prediction of a network", kind, KINDS)


def along(values: Tensor, x: Tensor) -> Tensor:
    """Return one value per event (n,), shaped to multiply x (n, ...)."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


class Denoiser(nn.Module):
    """A backbone with its scaling: the network of training and sampling.

    The backbone maps (x (n, ...), log(sigma) / 4 (n,), cond (n, c) or None) to a prediction (n,
    ...) of one of `KINDS`; ``sigma_data`` is the width of the data, ``sigma_min`` and ``sigma_max``
    the noise levels of the training. Conditions come in any units; `learn_conditions` takes their
    mean and width, and the backbone gets them standardised (but for the number of particles).

    Raises ConfigError if the prediction is unknown or the levels are not ordered.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        prediction: str = "edm",
        sigma_data: float = 1.0,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        super().__init__()
        coefficients(prediction, 1.0, sigma_data)
        if not (0 < sigma_min < sigma_max and sigma_data > 0):
            values = f"{sigma_min!r}, {sigma_max!r} and {sigma_data!r}"
            raise ConfigError(
                f"a denoiser needs 0 < sigma_min < sigma_max and sigma_data above 0, got {values}"
            )
        self.backbone, self.prediction, self.sigma_data = backbone, prediction, sigma_data
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        n_conditions = int(getattr(backbone, "n_conditions", 0))
        # in double precision: conditions come in any units
        self.register_buffer("centre", torch.zeros(n_conditions, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(n_conditions, dtype=torch.float64))

    def learn_conditions(self, cond: Tensor) -> None:
        """Take mean and width of the conditions (n, c), missing values (NaN) left out."""
        if cond.shape[1] != len(self.centre):
            return  # the backbone raises the error when it is evaluated
        cond = cond.double()
        mean = torch.nanmean(cond, dim=0)
        width = torch.sqrt(torch.nanmean((cond - mean) ** 2, dim=0))
        untouched = torch.isnan(mean) | (width <= 1e-12 * mean.abs())
        column = getattr(self.backbone, "count_column", None)
        if column is not None:
            untouched[column] = True
        self.centre.copy_(torch.where(untouched, 0.0, mean))
        self.spread.copy_(torch.where(untouched, 1.0, width))

    def raw(self, scaled: Tensor, sigma: Tensor, cond: Tensor | None = None) -> Tensor:
        """Return the prediction p at ``scaled = x / sqrt(sigma^2 + s_d^2)`` (n, ...)."""
        if cond is not None and cond.shape[1] == len(self.centre):
            cond = ((cond.double() - self.centre) / self.spread).to(scaled.dtype)
        predicted: Tensor = self.backbone(scaled, torch.log(sigma) / 4.0, cond)
        return predicted

    def forward(self, x: Tensor, sigma: Tensor, cond: Tensor | None = None) -> Tensor:
        """Return the denoised point (n, ...) at ``x = x1 + sigma noise``; sigma (n,)."""
        level = along(sigma, x)
        a, b = coefficients(self.prediction, level, self.sigma_data)
        return a * x + b * self.raw(x * (level**2 + self.sigma_data**2) ** -0.5, sigma, cond)

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor besides the backbone."""
        names = ("prediction", "sigma_data", "sigma_min", "sigma_max")
        return {name: getattr(self, name) for name in names}
