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

    Points may be torch tensors, without copies, or numpy arrays, which are turned into tensors and
    back. Beyond the noise levels of the training the nearest one is evaluated: above, the denoised
    point is kept; below, the noise. ``batch_size`` events are evaluated at once (None: all);
    ``n_evaluated`` counts events times evaluations.

    A network of independent noise serves any path (None: the straight line). One of another
    coupling has a velocity only, on the line.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        path: Path | None = None,
        *,
        coupling: str = "independent",
        batch_size: int | None = None,
    ) -> None:
        self.denoiser, self.batch_size, self.n_evaluated = denoiser.eval(), batch_size, 0
        self._scales: Convention = convention_for(path or Linear(), "independent")
        if coupling == "independent":
            self.convention = self._scales
        else:
            self.why_not = f"the network learned from noise paired by {coupling}"
        first = next(denoiser.parameters())
        self._type, self._device = first.dtype, first.device

    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        return self._scales.velocity(*self.denoised_and_noise(t, x, cond), t)

    def denoised_and_noise(self, t: float, x: Any, cond: Any = None) -> tuple[Any, Any]:
        return self._completed(t, x, *self._denoised(t, x, cond))

    def denoised(self, t: float, x: Any, cond: Any = None) -> Any:
        self.require_convention()
        level, point, denoised = self._denoised(t, x, cond)
        if self._ratio(t) >= level:
            return denoised
        return self._completed(t, x, level, point, denoised)[0]

    def noise(self, t: float, x: Any, cond: Any = None) -> Any:
        self.require_convention()
        return self.denoised_and_noise(t, x, cond)[1]

    def _ratio(self, t: float) -> float:
        alpha, sigma = self._scales.scales(t)
        return sigma / alpha if alpha > 0 else math.inf

    def _completed(
        self, t: float, x: Any, level: float, point: Any, denoised: Any
    ) -> tuple[Any, Any]:
        """Return denoised point and noise at t from the results of `_denoised`."""
        alpha, sigma = self._scales.scales(t)
        if self._ratio(t) >= level:
            return denoised, (x - alpha * denoised) * (1.0 / sigma)
        noise = (point - denoised) * (1.0 / level)
        return (x - sigma * noise) * (1.0 / alpha), noise

    def _denoised(self, t: float, x: Any, cond: Any) -> tuple[float, Any, Any]:
        """Return the noise level evaluated, the point there (alpha = 1), and its denoised point."""
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
        """Return the backbone's prediction, like ``scaled``."""
        x, known = self._tensor(scaled), None if cond is None else self._tensor(cond, torch.float64)
        self.n_evaluated += len(x)
        size = self.batch_size or max(len(x), 1)
        batches = [slice(first, first + size) for first in range(0, max(len(x), 1), size)]
        sigma = x.new_full((len(x),), level)
        predictions = [
            self.denoiser.raw(x[rows], sigma[rows], None if known is None else known[rows])
            for rows in batches
        ]
        predicted = predictions[0] if len(predictions) == 1 else torch.cat(predictions)
        if isinstance(scaled, np.ndarray):
            return predicted.cpu().numpy().astype(scaled.dtype)
        return predicted.to(scaled)

    def _tensor(self, values: Any, kind: torch.dtype | None = None) -> Tensor:
        # from_numpy shares memory and warns of a read-only array, so that one is copied
        if isinstance(values, np.ndarray):
            values = torch.from_numpy(values if values.flags.writeable else values.copy())
        tensor: Tensor = values.to(self._device, kind or self._type)
        return tensor
