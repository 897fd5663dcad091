"""The curved paths and the bridge, registered beside the straight line of `flowbdt.flow.paths`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import ConfigError
from ..typed_settings import NotNegative
from .paths import PATHS, Path


def _plain(value: Any) -> Any:
    """Return a python float for a scalar: numpy scalars do not multiply torch tensors well."""
    return float(value) if np.ndim(value) == 0 else value


@PATHS.register("target")
class Target(Path):
    """Noise that shrinks onto each event, ``x_t = t x1 + (1 - (1 - sigma) t) x0``.

    x0 itself is the noise of this path, so none is added besides it (``noise_scale`` is 0) and
    x0 must be standard normal. sigma = 0 is the linear path; sigma > 0 ends at x1 + sigma x0.
    The velocity is written as ``x1 - (1 - sigma) x0``, equal to the published
    ``(x1 - (1 - sigma) x_t) / (1 - (1 - sigma) t)`` but also defined at t = 1.

    Source: Lipman et al. 2023, arXiv 2210.02747, equations 20 and 21 (torchcfm:
    TargetConditionalFlowMatcher, whose epsilon is x0 here).
    """

    def scales(self, t: Any) -> tuple[Any, Any]:
        return t, 1.0 - (1.0 - self.sigma) * t

    def rates(self, t: Any) -> tuple[Any, Any]:
        return 1.0, self.sigma - 1.0

    def noise_scale(self, t: Any) -> Any:
        return 0.0


@PATHS.register("trigonometric")
class Trigonometric(Path):
    """Quarter circle, ``x_t = sin(pi t / 2) x1 + cos(pi t / 2) x0 + sigma noise``.

    Keeps the variance at 1 all along for standardised data.

    Source: Albergo, Vanden-Eijnden 2023, arXiv 2209.15571, equation 5 (torchcfm:
    VariancePreservingConditionalFlowMatcher).
    """

    def scales(self, t: Any) -> tuple[Any, Any]:
        angle = 0.5 * math.pi * np.asarray(t, dtype=np.float64)
        return _plain(np.sin(angle)), _plain(np.cos(angle))

    def rates(self, t: Any) -> tuple[Any, Any]:
        sine, cosine = self.scales(t)
        return 0.5 * math.pi * cosine, -0.5 * math.pi * sine


@PATHS.register("schrodinger_bridge")
@dataclass(eq=False)
class SchrodingerBridge(Path):
    """Brownian bridge, ``x_t = t x1 + (1 - t) x0 + sigma sqrt(t (1 - t)) noise``.

    Made for pairs from optimal transport (coupling ``minibatch_ot``). The velocity
    ``x1 - x0 + (1 - 2 t) / (2 t (1 - t)) (x_t - mean)`` has infinite variance at t = 0 and 1;
    there `target` gives its expectation, ``x1 - x0``.

    Source: Tong et al. 2024, arXiv 2302.00482, equations 20 and 21 (torchcfm:
    SchrodingerBridgeConditionalFlowMatcher, which adds 1e-8 to the denominator instead).
    """

    independent_noise: ClassVar[bool] = False

    sigma: NotNegative = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma == 0:
            raise ConfigError(
                "sigma of path 'schrodinger_bridge' must be above 0; sigma = 0 is path 'linear'"
            )

    def scales(self, t: Any) -> tuple[Any, Any]:
        return t, 1.0 - t

    def rates(self, t: Any) -> tuple[Any, Any]:
        return 1.0, -1.0

    def noise_scale(self, t: Any) -> Any:
        return _plain(self.sigma * np.sqrt(np.maximum(t * (1.0 - t), 0.0)))

    def noise_rate(self, t: Any) -> Any:
        spread = np.asarray(2.0 * t * (1.0 - t))
        inside = spread > 0
        return _plain(np.where(inside, (1.0 - 2.0 * t) / np.where(inside, spread, 1.0), 0.0))
