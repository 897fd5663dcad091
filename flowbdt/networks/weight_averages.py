"""Averages of weights along the training: exponential, and power functions chosen afterwards.

A power-function average after T steps gives step i the share ``(i / T)^(gamma + 1) - ((i - 1) /
T)^(gamma + 1)``: its width is a fixed fraction of the training, ``sigma_rel``. Two such averages
are kept and stored at intervals; any other width, at any time, is a sum of the stored ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError

SIGMA_RELS = (0.05, 0.10)
"""Widths that are tracked, as in the reference."""

WEAKEST = 1e-12
"""Directions weaker than this fraction of the strongest one are left out of the fit."""


def power_of(sigma_rel: float) -> float:
    """Return gamma of the power function whose width is ``sigma_rel`` of the training.

    ``sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))``, by bisection; ConfigError outside
    (0, 1 / sqrt(12)). Karras et al. 2024, arXiv 2312.02696, section 3.1.
    """
    if not 0 < sigma_rel < 1.0 / math.sqrt(12.0):
        raise ConfigError(f"sigma_rel must be between 0 and 0.288, got {sigma_rel!r}")
    low, high = 0.0, 10.0 / sigma_rel
    for _ in range(200):
        middle = 0.5 * (low + high)
        width = math.sqrt((middle + 1.0) / (middle + 3.0)) / (middle + 2.0)
        low, high = (middle, high) if width > sigma_rel else (low, middle)
    return 0.5 * (low + high)


class Average:
    """A running average of tensors."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self.values = {k: v.detach().clone() for k, v in values.items() if v.is_floating_point()}

    def share(self, step: int) -> float:
        """Return the weight of the newest values after ``step`` steps, the first is 1."""
        raise NotImplementedError

    @torch.no_grad()
    def update(self, values: Mapping[str, Tensor], step: int) -> None:
        """Add the values after ``step`` steps."""
        share = self.share(step)
        for name, average in self.values.items():
            average.lerp_(values[name].detach(), share)


class EMA(Average):
    """The exponential average; shares 1 - min(decay, (1 + step) / (10 + step)) forget the start."""

    def __init__(self, values: Mapping[str, Tensor], decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"the decay of an average must be in [0, 1), got {decay!r}")
        super().__init__(values)
        self.decay = decay

    def share(self, step: int) -> float:
        return 1.0 - min(self.decay, (1.0 + step) / (10.0 + step))


class PowerEMA(Average):
    """The power-function average of a width (Karras et al. 2024, arXiv 2312.02696, 3.1)."""

    def __init__(self, values: Mapping[str, Tensor], sigma_rel: float) -> None:
        super().__init__(values)
        self.sigma_rel, self.gamma = sigma_rel, power_of(sigma_rel)

    def share(self, step: int) -> float:
        return 1.0 - (1.0 - 1.0 / step) ** (self.gamma + 1.0)


def profile(gamma: float, step: int, first: int, last: int) -> np.ndarray:
    """Return the shares of steps first + 1 ... last in an average taken after ``step`` steps."""
    edges = np.minimum(np.arange(first, last + 1) / step, 1.0) ** (gamma + 1.0)
    return np.diff(edges)


def fit_shares(
    stored: Sequence[tuple[float, int]], sigma_rel: float, step: int, block: int = 65536
) -> np.ndarray:
    """Return the factors (k,) with which stored averages add up best to one of another width.

    Least squares over the shares of all training steps, ``block`` of them in memory at once, with
    factors that add up to 1, so that a constant weight is reproduced. ``stored`` has width and
    step.

    Karras et al. 2024, arXiv 2312.02696, section 3.2 (there continuous, with a free sum).
    """
    if not stored:
        raise ConfigError("no stored averages: set snapshots of the training above 0")
    kinds = [(power_of(width), at) for width, at in stored]
    kinds.append((power_of(sigma_rel), step))
    last, k = max(at for _, at in kinds), len(stored)
    products = np.zeros((k + 1, k + 1))
    for first in range(0, last, block):
        rows = np.array([profile(g, at, first, min(first + block, last)) for g, at in kinds])
        products += rows @ rows.T
    scale = 1.0 / np.sqrt(np.diag(products))  # late and early averages differ in size
    products *= scale[:, None] * scale
    total = scale[:k] / scale[k]
    system = np.block([[products[:k, :k], total[:, None]], [total[None, :], np.zeros((1, 1))]])
    goal = np.append(products[:k, k], 1.0)
    solution = np.linalg.lstsq(system, goal, rcond=WEAKEST)[0][:k]
    return np.asarray(solution * total)


def reconstruct(
    stored: Sequence[Mapping[str, Any]], sigma_rel: float, step: int | None = None
) -> dict[str, Tensor]:
    """Return the average of width ``sigma_rel`` from stored ones, at a step (None: the last)."""
    step = max((entry["step"] for entry in stored), default=0) if step is None else step
    shares = fit_shares([(e["sigma_rel"], e["step"]) for e in stored], sigma_rel, step)
    names = stored[0]["values"]
    return {
        name: sum(
            share * entry["values"][name].double()
            for share, entry in zip(shares, stored, strict=True)
        ).to(names[name].dtype)
        for name in names
    }
