"""Conventions of noise levels, clocks and predictions, and all conversions between them.

Every model of this family knows points ``x = alpha x1 + sigma noise``, with x1 the data and noise
standard normal, independent of x1. Conventions differ in alpha, sigma and the clock that runs
along; models differ in what they predict at such a point. Two facts join them all:

- the **noise ratio** ``sigma / alpha`` is the noise level of a point, and ``x / alpha`` is the same
  point in every convention;
- the **denoised point** D = E[x1 | x] and the **noise** e = E[noise | x] with ``x = alpha D +
  sigma e`` say everything a model can say: velocity ``alpha' D + sigma' e``, score ``-e / sigma``.

Flow matching on the straight line has alpha = t, sigma = 1 - t, so a velocity field *is* a
denoiser at noise level (1 - t) / t of the point x / t. This is the only module that knows such
formulas. Operators only: points may be numpy arrays or torch tensors, clocks are numbers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from ..errors import ConfigError
from ..registry import unknown
from .paths import Linear, Path

PREDICTIONS = ("velocity", "denoised", "noise", "score", "v", "edm")
"""What a model may predict. velocity: dx / dclock. v: ``alpha noise - sigma x1`` (Salimans, Ho
2022, arXiv 2202.00512, section 4). edm: the raw network F of Karras et al. 2022 (arXiv 2206.00364,
equation 7 and table 1), with sigma_data."""


TINY = 1e-15
"""A scale below this is zero up to rounding."""


class Convention(ABC):
    """Scales of data and noise along a clock: ``x = alpha x1 + sigma noise``."""

    @abstractmethod
    def scales(self, clock: float) -> tuple[float, float]:
        """Return alpha and sigma."""

    @abstractmethod
    def rates(self, clock: float) -> tuple[float, float]:
        """Return d alpha / d clock and d sigma / d clock."""

    @abstractmethod
    def clock(self, ratio: float) -> float:
        """Return the clock at which sigma / alpha is ``ratio``."""

    def ratio(self, clock: float) -> float:
        """Return sigma / alpha; infinity where nothing of data is left."""
        alpha, sigma = self.scales(clock)
        return sigma / alpha if alpha > 0 else math.inf

    def log_snr(self, clock: float) -> float:
        """Return lambda = log(alpha / sigma), half the log of the signal-to-noise ratio."""
        alpha, sigma = self.scales(clock)
        if alpha <= 0:
            return -math.inf
        return math.log(alpha / sigma) if sigma > 0 else math.inf

    def split(self, velocity: Any, x: Any, clock: float) -> tuple[Any, Any]:
        """Return (denoised point, noise) from the velocity at x; defined at both ends of time."""
        return self.denoised_from(velocity, x, clock), self.noise_from(velocity, x, clock)

    def denoised_from(self, velocity: Any, x: Any, clock: float) -> Any:
        """Return the denoised point from the velocity at x."""
        sigma, d_sigma, turn = self.scales(clock)[1], self.rates(clock)[1], self._turn(clock)
        denoised = velocity * (sigma / turn)
        denoised -= x * (d_sigma / turn)  # in place: a third array would cost more than the sum
        return denoised

    def noise_from(self, velocity: Any, x: Any, clock: float) -> Any:
        """Return the noise from the velocity at x."""
        alpha, d_alpha, turn = self.scales(clock)[0], self.rates(clock)[0], self._turn(clock)
        noise = x * (d_alpha / turn)
        noise -= velocity * (alpha / turn)
        return noise

    def _turn(self, clock: float) -> float:
        """Return how fast the mix of data and noise changes; 0 would tell them apart no more."""
        (alpha, sigma), (d_alpha, d_sigma) = self.scales(clock), self.rates(clock)
        turn = d_alpha * sigma - alpha * d_sigma
        if not abs(turn) > 1e-300:
            raise ConfigError(
                f"data and noise cannot be separated at clock {clock}: both are constant"
            )
        return turn

    def velocity(self, denoised: Any, noise: Any, clock: float) -> Any:
        """Return dx / dclock from denoised point and noise."""
        d_alpha, d_sigma = self.rates(clock)
        return denoised * d_alpha + noise * d_sigma

    def point(self, denoised: Any, noise: Any, clock: float) -> Any:
        """Return ``alpha denoised + sigma noise``."""
        alpha, sigma = self.scales(clock)
        return denoised * alpha + noise * sigma

    def noise_of(self, denoised: Any, x: Any, clock: float) -> Any:
        """Return the noise that belongs to a denoised point; ConfigError where none is left."""
        alpha, sigma = self.scales(clock)
        return (x - denoised * alpha) * (1.0 / self._present(sigma, "noise", clock))

    def denoised_of(self, noise: Any, x: Any, clock: float) -> Any:
        """Return the denoised point that belongs to a noise; ConfigError at pure noise."""
        alpha, sigma = self.scales(clock)
        return (x - noise * sigma) * (1.0 / self._present(alpha, "data", clock))

    def score_of(self, noise: Any, clock: float) -> Any:
        """Return the score, the gradient of log p at the point, ``-noise / sigma``."""
        return noise * (-1.0 / self._present(self.scales(clock)[1], "noise", clock))

    def _present(self, scale: float, what: str, clock: float) -> float:
        if not scale > TINY:
            raise ConfigError(
                f"nothing of the {what} is left at clock {clock:g}, so the"
                " prediction does not exist there; evaluate a little inside"
            )
        return scale

    def denoised_and_noise(
        self, kind: str, value: Any, x: Any, clock: float, sigma_data: float = 1.0
    ) -> tuple[Any, Any]:
        """Return (denoised point, noise) from the prediction ``value`` (n, m) at x (n, m).

        ``sigma_data`` is the width of the data, for the kind ``edm`` only. Raises ConfigError if
        the kind is unknown, or does not determine one of the two at this clock.
        """
        if kind == "velocity":
            return self.split(value, x, clock)
        if kind in ("noise", "score"):
            noise = value if kind == "noise" else value * -self.scales(clock)[1]
            return self.denoised_of(noise, x, clock), noise
        if kind == "v":
            alpha, sigma = self.scales(clock)
            norm = 1.0 / (alpha**2 + sigma**2)
            return (x * alpha - value * sigma) * norm, (x * sigma + value * alpha) * norm
        denoised = value if kind == "denoised" else self._from_edm(value, x, clock, sigma_data)
        if kind not in PREDICTIONS:
            raise unknown("prediction", kind, PREDICTIONS)
        return denoised, self.noise_of(denoised, x, clock)

    def express(
        self, kind: str, pair: tuple[Any, Any], clock: float, sigma_data: float = 1.0
    ) -> Any:
        """Return the prediction ``kind`` for a pair (denoised point, noise)."""
        denoised, noise = pair
        if kind == "velocity":
            return self.velocity(denoised, noise, clock)
        if kind == "score":
            return self.score_of(noise, clock)
        alpha, sigma = self.scales(clock)
        if kind == "v":
            return noise * alpha - denoised * sigma
        if kind == "edm":
            skip, out = edm_scales(sigma / self._present(alpha, "data", clock), sigma_data)
            return (denoised - (denoised + noise * (sigma / alpha)) * skip) * (1.0 / out)
        if kind not in PREDICTIONS:
            raise unknown("prediction", kind, PREDICTIONS)
        return denoised if kind == "denoised" else noise

    def _from_edm(self, value: Any, x: Any, clock: float, sigma_data: float) -> Any:
        alpha, sigma = self.scales(clock)
        alpha = self._present(alpha, "data", clock)
        skip, out = edm_scales(sigma / alpha, sigma_data)
        return x * (skip / alpha) + value * out

    def move(self, x: Any, clock: float, other: Convention) -> tuple[Any, float]:
        """Return the same point, and its clock, in another convention.

        Raises ConfigError at pure noise, which has no finite noise ratio.
        """
        alpha = self._present(self.scales(clock)[0], "data", clock)
        there = other.clock(self.ratio(clock))
        return x * (other.scales(there)[0] / alpha), there


def edm_scales(ratio: float, sigma_data: float) -> tuple[float, float]:
    """Return c_skip and c_out: ``D = c_skip x / alpha + c_out F``.

    Source: Karras et al. 2022, arXiv 2206.00364, table 1, column "Ours".
    """
    norm = ratio**2 + sigma_data**2
    return sigma_data**2 / norm, ratio * sigma_data / math.sqrt(norm)


class PathConvention(Convention):
    """A path of this package with its time t: 0 noise, 1 data.

    Noise that the path adds besides x0 counts as noise too: ``sigma = sqrt(b^2 + c^2)``.

    Raises ConfigError for the Schroedinger bridge, whose noise is not independent of the data.
    """

    def __init__(self, path: Path) -> None:
        if not path.independent_noise:
            raise ConfigError(
                "path 'schrodinger_bridge' pairs noise with data, so its velocity alone gives"
                " neither score nor denoised point; use path 'linear', 'target' or 'trigonometric'"
            )
        self.path = path

    def scales(self, clock: float) -> tuple[float, float]:
        alpha, source = self.path.scales(clock)
        # cos(pi / 2) is 6e-17 in floating point, but it is the end all the same
        sigma = math.hypot(source, self.path.noise_scale(clock))
        return float(alpha) if alpha > TINY else 0.0, sigma if sigma > TINY else 0.0

    def rates(self, clock: float) -> tuple[float, float]:
        sigma = self.scales(clock)[1]
        d_alpha, d_source = self.path.rates(clock)
        if sigma <= 0:
            return float(d_alpha), float(d_source)
        return float(d_alpha), float(self.path.variance_rate(clock)) / sigma

    def clock(self, ratio: float) -> float:
        # to the last digit; some paths keep noise up to t = 1
        if isinstance(self.path, Linear) and not self.path.sigma:
            return 1.0 / (1.0 + ratio)
        if self._is_above(1.0, ratio):
            raise ConfigError(
                f"noise ratio {ratio:g} is not reached: this path keeps {self.ratio(1.0):g} at"
                " t = 1"
            )
        low, high = 0.0, 1.0
        for _ in range(80):
            middle = 0.5 * (low + high)
            if self._is_above(middle, ratio):
                low = middle
            else:
                high = middle
        return high

    def _is_above(self, clock: float, ratio: float) -> bool:
        here = self.ratio(clock)
        return here > 0 and math.log(here) > math.log(ratio)


class FlowMatching(PathConvention):
    """The straight line: alpha = t, sigma = 1 - t; t = 1 / (1 + ratio)."""

    def __init__(self) -> None:
        super().__init__(Linear())


class VariancePreserving(Convention):
    """alpha^2 + sigma^2 = 1; the clock u runs from data (0) to noise (1).

    ``log alpha = -beta_d u^2 / 4 - beta_min u / 2``.

    Source: Song et al. 2021, arXiv 2011.13456, equation 33; in the notation of Karras et al. 2022,
    arXiv 2206.00364, table 1, column "VP", whose values are the defaults.
    """

    def __init__(self, beta_d: float = 19.9, beta_min: float = 0.1) -> None:
        self.beta_d, self.beta_min = beta_d, beta_min

    def _exponent(self, clock: float) -> float:
        return 0.5 * self.beta_d * clock**2 + self.beta_min * clock

    def scales(self, clock: float) -> tuple[float, float]:
        exponent = self._exponent(clock)
        return math.exp(-0.5 * exponent), math.sqrt(-math.expm1(-exponent))

    def rates(self, clock: float) -> tuple[float, float]:
        alpha, sigma = self.scales(clock)
        beta = self.beta_d * clock + self.beta_min
        return -0.5 * beta * alpha, 0.5 * beta * alpha**2 / self._present(sigma, "noise", clock)

    def clock(self, ratio: float) -> float:
        exponent = math.log1p(ratio**2)
        root = math.sqrt(self.beta_min**2 + 2.0 * self.beta_d * exponent)
        return 2.0 * exponent / (root + self.beta_min)


class VarianceExploding(Convention):
    """alpha = 1, sigma = sqrt(clock): the clock is the variance of the noise.

    Source: Song et al. 2021, arXiv 2011.13456; Karras et al. 2022, arXiv 2206.00364, table 1, "VE".
    """

    def scales(self, clock: float) -> tuple[float, float]:
        return 1.0, math.sqrt(clock)

    def rates(self, clock: float) -> tuple[float, float]:
        return 0.0, 0.5 / self._present(math.sqrt(clock), "noise", clock)

    def clock(self, ratio: float) -> float:
        return ratio**2


class EDM(Convention):
    """alpha = 1, sigma = clock: the clock is the noise level itself.

    Source: Karras et al. 2022, arXiv 2206.00364, section 4: sigma(t) = t, s(t) = 1.
    """

    def scales(self, clock: float) -> tuple[float, float]:
        return 1.0, float(clock)

    def rates(self, clock: float) -> tuple[float, float]:
        return 0.0, 1.0

    def clock(self, ratio: float) -> float:
        return ratio


def convention_for(path: Path, coupling: str) -> Convention:
    """Return the convention of a path whose noise is paired with events by ``coupling``.

    Raises ConfigError, with the reason, if velocities then tell neither score nor denoised point.
    """
    if coupling == "given":
        raise ConfigError(
            "coupling='given' starts from events instead of normal noise, so there is no score"
        )
    if coupling != "independent":
        raise ConfigError(
            f"coupling={coupling!r} chooses the noise to fit the event, so noise and data are not"
            " independent, and the velocity no longer gives the score"
        )
    return PathConvention(path)
