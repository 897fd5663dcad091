"""The sampler of Karras et al.: Heun's method in the noise ratio, with noise added before steps."""

from __future__ import annotations

import math
from typing import Any

from ...errors import ConfigError
from .base import SOLVERS, Ask, Solver, normal_like, not_negative


@SOLVERS.register("edm")
class EDMSampler(Solver):
    """Heun's method on ``x / alpha`` in sigma / alpha; with ``s_churn`` noise is added first.

    Order 2, two evaluations per step and one in the step to pure data. Before a step whose noise
    ratio is within [s_tmin, s_tmax], the point is lifted to a ratio larger by 1 + gamma, with
    ``gamma = min(s_churn / n_steps, sqrt(2) - 1)``; the field is then asked there. Trees get
    models for those times. Without churn nothing is drawn.

    From pure noise, where the ratio is infinite, the trapezoid rule is used on ``x / sigma`` in
    alpha / sigma instead, which is as accurate and finite; there is no noise to add.

    Parameters
    ----------
    s_churn : 0 or more, the total amount of noise
    s_tmin, s_tmax : range of noise ratios with churn; None: no upper limit
    s_noise : factor of the noise, 1 or a little above

    References
    ----------
    Karras et al. 2022, arXiv 2206.00364, algorithm 2 (algorithm 1 without churn).
    """

    order = 2
    offsets = (0.0, 1.0)
    clock = "log_snr"
    needs_parts = True

    def __init__(
        self,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float | None = None,
        s_noise: float = 1.0,
    ) -> None:
        for name, value in (("s_churn", s_churn), ("s_tmin", s_tmin), ("s_noise", s_noise)):
            not_negative(f"{name} of edm", value)
        if s_tmax is not None and not s_tmax > s_tmin:
            raise ConfigError(f"s_tmax of edm must be above s_tmin, got {s_tmax} and {s_tmin}")
        self.s_churn, self.s_tmin, self.s_tmax, self.s_noise = s_churn, s_tmin, s_tmax, s_noise
        self.stochastic = s_churn > 0

    def start(self, boundaries: list[float]) -> Any:
        """Return gamma, which depends on the number of steps."""
        return min(self.s_churn / (len(boundaries) - 1), math.sqrt(2.0) - 1.0)

    def step(
        self, field: Ask, t0: float, t1: float, x: Any, state: Any, rng: Any
    ) -> tuple[Any, Any]:
        """Add noise if it is due, then do one step of Heun's method."""
        c = field.convention
        if self._due(c.ratio(t0), state):
            t0, x = lifted(c, x, t0, (1.0 + state) * c.ratio(t0), self.s_noise, rng)
        (a0, b0), (a1, b1) = c.scales(t0), c.scales(t1)
        if a0 <= 0:
            return self._from_noise(field, t0, t1, x), state
        noise, change = field.noise(t0, x), b1 - a1 * b0 / a0
        ahead = (a1 / a0) * x + change * noise
        if b1 <= 0:
            return ahead, state
        return (a1 / a0) * x + (0.5 * change) * (noise + field.noise(t1, ahead)), state

    def _from_noise(self, field: Ask, t0: float, t1: float, x: Any) -> Any:
        """Return the trapezoid rule on the denoised point; DDIM's step if it goes to pure data."""
        (_, b0), (a1, b1) = (field.convention.scales(t) for t in (t0, t1))
        denoised = field.denoised(t0, x)
        ahead = (b1 / b0) * x + a1 * denoised
        if b1 <= 0:
            return ahead
        return (b1 / b0) * x + (0.5 * a1) * (denoised + field.denoised(t1, ahead))

    def _due(self, ratio: float, gamma: float) -> bool:
        if not (gamma > 0 and math.isfinite(ratio)):
            return False
        return self.s_tmin <= ratio <= (math.inf if self.s_tmax is None else self.s_tmax)


def lifted(
    convention: Any, x: Any, t: float, ratio: float, s_noise: float, rng: Any
) -> tuple[float, Any]:
    """Return (time, point) after adding noise until the noise ratio is ``ratio``.

    ``x / alpha`` gets normal noise of variance ratio^2 - ratio(t)^2, so that points of the
    distribution at t become points of the distribution there (for ``s_noise`` 1).
    """
    there = convention.clock(ratio)
    return there, climbed(convention, x, t, there, s_noise, rng)


def climbed(convention: Any, x: Any, t: float, there: float, s_noise: float, rng: Any) -> Any:
    """Return the point at the noisier time ``there``; it may be pure noise itself."""
    (a0, b0), (a1, b1) = convention.scales(t), convention.scales(there)
    keep = a1 / a0
    width = math.sqrt(max(b1**2 - (keep * b0) ** 2, 0.0))
    return keep * x + (s_noise * width) * normal_like(x, rng)
