"""Stochastic samplers: they take noise away and draw some of it anew.

All need a field that tells denoised point and noise apart, and a generator; nothing is drawn
elsewhere. Fresh noise forgets errors of earlier steps, at the price of more steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from ...errors import ConfigError
from ...typed_settings import NotNegative
from ..parametrisations import Convention
from .base import SOLVERS, Evaluator, Solver, Stepped, normal_like
from .dpm import DataMultistep, Quadrature, between, log_snr_step
from .multistep import Past
from .runge_kutta import weighted_sum


@SOLVERS.register("ddpm")
@dataclass(eq=False)
class DDPM(Solver):
    """Ancestral sampling. Order 1, one evaluation per step.

    Of the noise left at t1, the share ``eta^2 (1 - r^2)`` in variance is fresh, r the ratio of
    the noise ratios at t1 and t0: with eta = 1 the step draws from the posterior of DDPM for a
    known denoised point, with eta = 0 it is DDIM's.

    Source: Ho, Jain, Abbeel 2020, arXiv 2006.11239, equations 6 and 7; Song, Meng, Ermon 2021,
    arXiv 2010.02502, equations 12 and 16.
    """

    order = 1
    offsets = (0.0,)
    clock = "log_snr"
    needs_denoised = True
    stochastic = True

    eta: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0

    def step(self, field: Evaluator, t0: float, t1: float, x: Any, state: Any, rng: Any) -> Stepped:
        denoised, noise = field.denoised_and_noise(t0, x)
        (a0, b0), (a1, b1) = (field.convention.scales(t) for t in (t0, t1))
        if b1 <= 0:
            return a1 * denoised, state
        fresh = self.eta**2 * (1.0 - (b1 * a0 / (a1 * b0)) ** 2)
        weights = [a1, b1 * math.sqrt(1.0 - fresh), b1 * math.sqrt(fresh)]
        return weighted_sum(weights, [denoised, noise, normal_like(x, rng)]), state


@SOLVERS.register("euler_maruyama")
@dataclass(eq=False)
class EulerMaruyama(Solver):
    """Euler's method on ``dx = (v - churn e) dt + sqrt(2 churn sigma) dW``.

    Any diffusion w(t) added with half of it times the score, here w = 2 churn sigma, keeps the
    distributions along the path; this one vanishes with the noise and stays finite at both ends.
    Order 1 for expectations, one evaluation per step. The last step, to pure data, draws nothing:
    noise drawn there would stay.

    Source: Ma et al. 2024, arXiv 2401.08740 (SiT): the reverse equation holds for any diffusion
    w(t); here w is proportional to sigma.
    """

    order = 1
    offsets = (0.0,)
    needs_denoised = True
    stochastic = True

    churn: NotNegative = 1.0

    def step(self, field: Evaluator, t0: float, t1: float, x: Any, state: Any, rng: Any) -> Stepped:
        c, h = field.convention, t1 - t0
        velocity = field(t0, x)
        if c.scales(t1)[1] <= 0:
            return x + h * velocity, state
        width = math.sqrt(2.0 * self.churn * c.scales(t0)[1] * abs(h))
        noise, fresh = c.noise_from(velocity, x, t0), normal_like(x, rng)
        return weighted_sum([1.0, h, -h * self.churn, width], [x, velocity, noise, fresh]), state


@dataclass(eq=False)
class StochasticMultistep(DataMultistep):
    """Multistep DPM-Solver++ on the reverse SDE, ``eta`` times its noise. Order 1 for expectations.

    ``x1 = (sigma1 / sigma0) e^(-eta h) x0 + alpha1 integral (1 + eta) e^(-(1 + eta)(lambda1 -
    lambda)) D dlambda + sigma1 sqrt(1 - e^(-2 eta h)) z``, h the step in log-SNR. One evaluation
    per step. Steps from pure noise are the limit h -> infinity, those to pure data return D.

    Source: Lu et al. 2022, arXiv 2211.01095 (SDE-DPM-Solver++); eta as in Crowson 2022,
    k-diffusion, and, as tau^2, in Xue et al. 2023, arXiv 2309.05019 (SA-Solver).
    """

    eta: NotNegative = 1.0
    quadrature: Quadrature = "published"
    stochastic = True
    warm_start = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.order, self.decay = 1, 1.0 + self.eta

    def advance(self, field: Evaluator, x: Any, t0: float, t1: float, nodes: Past, rng: Any) -> Any:
        c = field.convention
        (_, b0), (a1, b1) = c.scales(t0), c.scales(t1)
        h = self.eta * log_snr_step(c, t0, t1)
        kept, width = b1 / b0 * math.exp(-h), b1 * math.sqrt(-math.expm1(-2.0 * h))
        weights = [a1 * w for w in self.weights(c, t0, t1, nodes)]
        values = [d for _, d in nodes]
        if width:
            return weighted_sum([kept, *weights, width], [x, *values, normal_like(x, rng)])
        return weighted_sum([kept, *weights], [x, *values])

    def one_node(self, field: Evaluator, x: Any, t0: float, t1: float, value: Any, rng: Any) -> Any:
        (_, b0), (a1, b1) = (field.convention.scales(t) for t in (t0, t1))
        if b1 <= 0:
            return a1 * value
        kept = (1.0 / b0) * x if self.eta == 0 else normal_like(x, rng)
        return a1 * value + b1 * kept


@SOLVERS.register("dpm_solver_pp_2m_sde")
class DPMSolverPP2MSDE(StochasticMultistep):
    """With two nodes; ``quadrature`` as in `DPMSolverPP2M`."""

    degree = 2


@SOLVERS.register("dpm_solver_pp_3m_sde")
class DPMSolverPP3MSDE(StochasticMultistep):
    """With three nodes; ``quadrature`` as in `DPMSolverPP3M`, but published by default.

    The noise limits the order to 1, so that exact weights gain nothing, and at few steps they
    extrapolate too far.
    """

    degree = 3


@SOLVERS.register("seeds_2")
class SEEDS2(Solver):
    """Exponential integrator of the reverse SDE with one stage in between.

    The linear part and the noise are exact, the noise prediction is that at the middle of the
    step in log-SNR; both stages share their noise, as the same path of the SDE must. Two
    evaluations per step. Steps from pure noise and to pure data are those of `DDPM`.

    Source: Gonzalez et al. 2023, arXiv 2305.14267 (SEEDS-2, c2 = 1/2).
    """

    order = 1
    offsets = (0.0, 0.5)
    clock = "log_snr"
    needs_denoised = True
    stochastic = True

    def step(self, field: Evaluator, t0: float, t1: float, x: Any, state: Any, rng: Any) -> Stepped:
        c = field.convention
        h = log_snr_step(c, t0, t1)
        if not math.isfinite(h):
            return DDPM().step(field, t0, t1, x, state, rng)
        middle, noise = between(c, t0, t1, 0.5), field.noise(t0, x)
        first, second = normal_like(x, rng), normal_like(x, rng)
        grown = math.sqrt(math.expm1(h))  # what half a step adds to x / alpha, in units of sigma
        u = (
            _reverse(c, x, (t0, middle), noise, math.expm1(0.5 * h))
            + (c.scales(middle)[1] * grown) * first
        )
        noise = field.noise(middle, u)
        fresh = (math.exp(0.5 * h) * grown) * first + grown * second
        return _reverse(c, x, (t0, t1), noise, math.expm1(h)) + c.scales(t1)[1] * fresh, state


def _reverse(c: Convention, x: Any, times: tuple[float, float], noise: Any, grown: float) -> Any:
    """Return ``(alpha1 / alpha0) x - 2 sigma1 (e^h - 1) e``: the reverse SDE without its noise."""
    (a0, _), (a1, b1) = c.scales(times[0]), c.scales(times[1])
    return (a1 / a0) * x - (2.0 * b1 * grown) * noise


@SOLVERS.register("edm")
@dataclass(eq=False)
class EDMSampler(Solver):
    """Heun's method on ``x / alpha`` in sigma / alpha; with ``s_churn`` noise is added first.

    Order 2, two evaluations per step and one in the step to pure data. Before a step whose noise
    ratio is within [s_tmin, s_tmax], the point is lifted to a ratio larger by 1 + gamma, with
    ``gamma = min(s_churn / n_steps, sqrt(2) - 1)``; the field is then evaluated there. Trees get
    models for those times. Without churn nothing is drawn.

    From pure noise, where the ratio is infinite, the trapezoid rule is used on ``x / sigma`` in
    alpha / sigma instead, which is as accurate and finite; there is no noise to add.

    Source: Karras et al. 2022, arXiv 2206.00364, algorithm 2 (algorithm 1 without churn).

    Parameters
    ----------
    s_churn : 0 or more, the total amount of noise
    s_tmin, s_tmax : range of noise ratios with churn; None: no upper limit
    s_noise : factor of the noise, 1 or a little above
    """

    order = 2
    offsets = (0.0, 1.0)
    clock = "log_snr"
    needs_denoised = True

    s_churn: NotNegative = 0.0
    s_tmin: NotNegative = 0.0
    s_tmax: float | None = None
    s_noise: NotNegative = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.s_tmax is not None and not self.s_tmax > self.s_tmin:
            raise ConfigError(f"s_tmax must be above s_tmin, got {self.s_tmax} and {self.s_tmin}")
        self.stochastic = self.s_churn > 0

    def start(self, boundaries: list[float]) -> Any:
        return min(self.s_churn / (len(boundaries) - 1), math.sqrt(2.0) - 1.0)

    def step(self, field: Evaluator, t0: float, t1: float, x: Any, state: Any, rng: Any) -> Stepped:
        c = field.convention
        ratio = c.ratio(t0)
        if state > 0 and self.s_tmin <= ratio < math.inf and ratio <= (self.s_tmax or math.inf):
            there = c.clock((1.0 + state) * ratio)
            t0, x = there, climbed(c, x, t0, there, self.s_noise, rng)
        (a0, b0), (a1, b1) = c.scales(t0), c.scales(t1)
        if a0 <= 0:
            return self._from_noise(field, t0, t1, x), state
        noise, change = field.noise(t0, x), b1 - a1 * b0 / a0
        ahead = (a1 / a0) * x + change * noise
        if b1 <= 0:
            return ahead, state
        return (a1 / a0) * x + (0.5 * change) * (noise + field.noise(t1, ahead)), state

    def _from_noise(self, field: Evaluator, t0: float, t1: float, x: Any) -> Any:
        """Return the trapezoid rule on the denoised point; DDIM's step if it goes to pure data."""
        (_, b0), (a1, b1) = (field.convention.scales(t) for t in (t0, t1))
        denoised = field.denoised(t0, x)
        ahead = (b1 / b0) * x + a1 * denoised
        if b1 <= 0:
            return ahead
        return (b1 / b0) * x + (0.5 * a1) * (denoised + field.denoised(t1, ahead))


def climbed(convention: Any, x: Any, t: float, there: float, s_noise: float, rng: Any) -> Any:
    """Return x after adding noise up to the noisier time ``there``; it may be pure noise itself.

    For ``s_noise`` 1 points of the distribution at t become points of the distribution there.
    """
    (a0, b0), (a1, b1) = convention.scales(t), convention.scales(there)
    keep = a1 / a0
    width = math.sqrt(max(b1**2 - (keep * b0) ** 2, 0.0))
    return keep * x + (s_noise * width) * normal_like(x, rng)
