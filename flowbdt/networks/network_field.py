"""A network as a velocity field, for every solver of `flowbdt.flow.solvers`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..flow.fields import VelocityField
from ..flow.parametrisations import Convention, convention_for
from ..flow.paths import Linear, Path
from .denoiser import Denoiser, coefficients


class NetworkField(VelocityField):
    """A trained `Denoiser` as a field on any path, at every time from pure noise to data.

    Points may be torch tensors, which are asked without copies, or numpy arrays, which are turned
    into tensors and back. Beyond the noise levels of the training the nearest one is asked for:
    above, the denoised point is kept; below, the noise.

    Parameters
    ----------
    denoiser : Denoiser, on the device where points will be
    path : Path; None is the straight line. A network of independent noise serves any of them
    coupling : of the training; anything but 'independent' leaves a velocity only, on the line
    batch_size : events asked at once; None for all

    Attributes
    ----------
    n_asked : events times evaluations so far
    """

    def __init__(
        self,
        denoiser: Denoiser,
        path: Path | None = None,
        *,
        coupling: str = "independent",
        batch_size: int | None = None,
    ) -> None:
        self.denoiser, self.batch_size, self.n_asked = denoiser.eval(), batch_size, 0
        self._scales: Convention = convention_for(path or Linear(), "independent")
        if coupling == "independent":
            self.convention = self._scales
        else:
            self.why_not = f"the network learned from noise paired by {coupling}"
        first = next(denoiser.parameters())
        self._type, self._device = first.dtype, first.device

    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return the velocity, like x."""
        return self._scales.velocity(*self.denoised_and_noise(t, x, cond), t)

    def denoised_and_noise(self, t: float, x: Any, cond: Any = None) -> tuple[Any, Any]:
        """Return denoised point and noise, like x."""
        return self._completed(t, x, *self._denoised(t, x, cond))

    def denoised(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return the denoised point, like x. Raises ConfigError for paired noise."""
        self.require_convention()
        level, point, denoised = self._denoised(t, x, cond)
        if self._ratio(t) >= level:
            return denoised
        return self._completed(t, x, level, point, denoised)[0]

    def noise(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return the noise, like x. Raises ConfigError for paired noise."""
        self.require_convention()
        return self.denoised_and_noise(t, x, cond)[1]

    def _ratio(self, t: float) -> float:
        alpha, sigma = self._scales.scales(t)
        return sigma / alpha if alpha > 0 else math.inf

    def _completed(
        self, t: float, x: Any, level: float, point: Any, denoised: Any
    ) -> tuple[Any, Any]:
        """Return denoised point and noise at t from what `_denoised` told."""
        alpha, sigma = self._scales.scales(t)
        if self._ratio(t) >= level:
            return denoised, (x - alpha * denoised) * (1.0 / sigma)
        noise = (point - denoised) * (1.0 / level)
        return (x - sigma * noise) * (1.0 / alpha), noise

    def _denoised(self, t: float, x: Any, cond: Any) -> tuple[float, Any, Any]:
        """Return the noise level asked, the point there (alpha = 1), and its denoised point."""
        net = self.denoiser
        alpha, sigma = self._scales.scales(t)
        level = min(max(self._ratio(t), net.sigma_min), net.sigma_max)
        width = math.sqrt((alpha * net.sigma_data) ** 2 + sigma**2)
        scaled = x * (1.0 / width)
        predicted = self._predicted(scaled, level, cond)
        point = scaled * math.sqrt(level**2 + net.sigma_data**2)
        a, b = coefficients(net.prediction, level, net.sigma_data)
        return level, point, a * point + b * predicted

    @torch.inference_mode()
    def _predicted(self, scaled: Any, level: float, cond: Any) -> Any:
        """Return the backbone's answer, like ``scaled``."""
        x, known = self._tensor(scaled), None if cond is None else self._tensor(cond)
        self.n_asked += len(x)
        size = self.batch_size or max(len(x), 1)
        answers = [
            self.denoiser.raw(part, part.new_full((len(part),), level), given)
            for part, given in _parts(x, known, size)
        ]
        answer = answers[0] if len(answers) == 1 else torch.cat(answers)
        if isinstance(scaled, np.ndarray):
            return answer.cpu().numpy().astype(scaled.dtype)
        return answer.to(scaled)

    def _tensor(self, values: Any) -> Tensor:
        # from_numpy shares memory; a read-only array would be warned about, so it is copied
        if isinstance(values, np.ndarray):
            values = torch.from_numpy(values if values.flags.writeable else values.copy())
        tensor: Tensor = values.to(self._device, self._type)
        return tensor


def _parts(x: Tensor, cond: Tensor | None, size: int) -> list[tuple[Tensor, Tensor | None]]:
    pieces = [slice(first, first + size) for first in range(0, max(len(x), 1), size)]
    return [(x[rows], None if cond is None else cond[rows]) for rows in pieces]
