"""A model of another convention, such as a diffusion network, as a velocity field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .conventions import Convention, FlowMatching
from .fields import VelocityField


class PredictionField(VelocityField):
    """A model of any convention and prediction, such as a network, on the straight path.

    Parameters
    ----------
    predict : callable, (x, clock, cond) -> prediction; x (n, m) and clock in ``convention``
    kind : what it predicts, one of `flowbdt.conventions.PREDICTIONS`
    convention : Convention, of the model
    sigma_min, sigma_max : the noise ratios it knows
    sigma_data : width of the data, for kind 'edm'

    Notes
    -----
    It never saw pure noise or pure data, so a grid has to begin at ``span[0]`` with
    ``flow.point(0, noise, span[0])`` (data of mean 0) and to end at ``span[1]``.
    """

    def __init__(
        self,
        predict: Callable[[Any, float, Any], Any],
        kind: str,
        convention: Convention,
        *,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        sigma_data: float = 1.0,
    ) -> None:
        self.predict, self.kind, self.model_convention = predict, kind, convention
        self.sigma_data, self.convention = sigma_data, FlowMatching()
        self.span = (self.convention.clock(sigma_max), self.convention.clock(sigma_min))

    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return the velocity (n, m)."""
        return self.require_convention().velocity(*self.parts(t, x, cond), t)

    def parts(self, t: float, x: Any, cond: Any = None) -> tuple[Any, Any]:
        """Return denoised point and noise, straight from the prediction."""
        there, clock = self.require_convention().move(x, t, self.model_convention)
        value = self.predict(there, clock, cond)
        return self.model_convention.parts(self.kind, value, there, clock, self.sigma_data)

    def denoised(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return the denoised point, straight from the prediction."""
        return self.parts(t, x, cond)[0]

    def noise(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return the noise, straight from the prediction."""
        return self.parts(t, x, cond)[1]
