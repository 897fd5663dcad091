"""DDIM, DPM-Solver, DPM-Solver++ and UniPC: exponential integrators in the log-SNR.

In half log-SNR lambda = log(alpha / sigma) the linear part of the motion is exact and only the
noise e (DPM-Solver) or the denoised point D (DPM-Solver++) has to be approximated:

``x1 = (alpha1 / alpha0) x0 - sigma1 integral e^(lambda1 - lambda) e dlambda``
``x1 = (sigma1 / sigma0) x0 + alpha1 integral e^(lambda - lambda1) D dlambda``

Lambda is infinite at pure noise and at pure data: a step from t = 0 or to t = 1 is DDIM's, with
one evaluation. So the orders hold where the log-SNR is finite; over all of [0, 1] they are 2 at
most, whatever is declared.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import msgspec

from ..parametrisations import Convention
from .base import SOLVERS, Evaluator, Solver, Stepped
from .multistep import (
    Multistep,
    Past,
    decaying_moments,
    growing_moments,
    polynomial_weights,
)
from .runge_kutta import weighted_sum


class Singlestep(Solver):
    """A step with evaluations in between, at fixed shares of its log-SNR."""

    clock = "log_snr"
    needs_denoised = True

    def step(self, field: Evaluator, t0: float, t1: float, x: Any, state: Any, rng: Any) -> Stepped:
        ends = [field.convention.log_snr(t) for t in (t0, t1)]
        if not all(math.isfinite(end) for end in ends):
            return field.convention.point(*field.denoised_and_noise(t0, x), t1), state
        return self.inner(field, t0, t1, x), state

    @abstractmethod
    def inner(self, field: Evaluator, t0: float, t1: float, x: Any) -> Any:
        """Return x at t1 where the log-SNR is finite."""


def between(convention: Convention, t0: float, t1: float, share: float) -> float:
    """Return the time at which ``share`` of the step in log-SNR is done."""
    begin, end = convention.log_snr(t0), convention.log_snr(t1)
    return convention.clock(math.exp(-(begin + share * (end - begin))))


def noise_step(
    convention: Convention, x: Any, t0: float, t1: float, noises: list[Any], weights: Any
) -> Any:
    """Return ``(alpha1 / alpha0) x - sigma1 sum of weight * noise``."""
    (a0, _), (a1, b1) = convention.scales(t0), convention.scales(t1)
    return weighted_sum([a1 / a0, *(-b1 * w for w in weights)], [x, *noises])


def data_step(
    convention: Convention, x: Any, t0: float, t1: float, points: list[Any], weights: Any
) -> Any:
    """Return ``(sigma1 / sigma0) x + alpha1 sum of weight * denoised point``."""
    (_, b0), (a1, b1) = convention.scales(t0), convention.scales(t1)
    return weighted_sum([b1 / b0, *(a1 * w for w in weights)], [x, *points])


def log_snr_step(convention: Convention, t0: float, t1: float) -> float:
    """Return the length of the step in log-SNR."""
    return convention.log_snr(t1) - convention.log_snr(t0)


def log_snr_places(convention: Convention, t0: float, t1: float, nodes: Past) -> list[float]:
    """Return where the nodes are in log-SNR, 0 = start of the step, 1 = its end."""
    begin, h = convention.log_snr(t0), log_snr_step(convention, t0, t1)
    return [(convention.log_snr(t) - begin) / h for t, _ in nodes]


def ddim_step(convention: Convention, x: Any, t0: float, t1: float, denoised: Any) -> Any:
    """Return DDIM's step from the denoised point alone, from where there is noise."""
    (a0, b0), (a1, b1) = convention.scales(t0), convention.scales(t1)
    return (b1 / b0) * x + (a1 - a0 * b1 / b0) * denoised


@SOLVERS.register("ddim")
class DDIM(Solver):
    """The point that denoised point and noise of the start give at the end.

    Order 1, one evaluation per step, ``x(t1) = alpha1 D + sigma1 e``. On the straight path this
    is Euler's step, on curved ones it is not: for a single event it follows the curve exactly.

    Source: Song, Meng, Ermon 2021, arXiv 2010.02502, equation 12 with sigma = 0.
    """

    order = 1
    offsets = (0.0,)
    needs_denoised = True

    def step(self, field: Evaluator, t0: float, t1: float, x: Any, state: Any, rng: Any) -> Stepped:
        denoised, noise = field.denoised_and_noise(t0, x)
        return field.convention.point(denoised, noise, t1), state


@SOLVERS.register("dpm_solver_2")
class DPMSolver2(Singlestep):
    """Noise at the middle of the step in log-SNR. Order 2, two evaluations per step.

    Source: Lu et al. 2022, arXiv 2206.00927, algorithm 1 (r1 = 1/2).
    """

    order = 2
    offsets = (0.0, 0.5)

    def inner(self, field: Evaluator, t0: float, t1: float, x: Any) -> Any:
        c, h = field.convention, log_snr_step(field.convention, t0, t1)
        middle = between(c, t0, t1, 0.5)
        u = noise_step(c, x, t0, middle, [field.noise(t0, x)], [math.expm1(0.5 * h)])
        return noise_step(c, x, t0, t1, [field.noise(middle, u)], [math.expm1(h)])


@SOLVERS.register("dpm_solver_3")
class DPMSolver3(Singlestep):
    """Noise at thirds of the step in log-SNR. Order 3, three evaluations per step.

    Source: Lu et al. 2022, arXiv 2206.00927, algorithm 2 (r1 = 1/3, r2 = 2/3).
    """

    order = 3
    offsets = (0.0, 1 / 3, 2 / 3)

    def inner(self, field: Evaluator, t0: float, t1: float, x: Any) -> Any:
        c, h, start = field.convention, log_snr_step(field.convention, t0, t1), field.noise(t0, x)
        first, second = (between(c, t0, t1, share) for share in self.offsets[1:])
        u = noise_step(c, x, t0, first, [start], [math.expm1(h / 3)])
        e1 = field.noise(first, u)
        # in each stage the slope is taken from the latest point: at a half, then at two thirds
        u = noise_step(c, x, t0, second, [start, e1], _line(2 * h / 3, 0.5))
        e2 = field.noise(second, u)
        return noise_step(c, x, t0, t1, [start, e2], _line(h, 2 / 3))


def _line(h: float, place: float) -> Any:
    """Return weights of the noise at 0 and at ``place`` of a step h, for the line through both."""
    return polynomial_weights([0.0, place], growing_moments(h, 2))


@SOLVERS.register("dpm_solver_pp_2s")
class DPMSolverPP2S(Singlestep):
    """Denoised point at the middle of the step in log-SNR. Order 2, two evaluations per step.

    Source: Lu et al. 2022, arXiv 2211.01095, algorithm 1 (r = 1/2).
    """

    order = 2
    offsets = (0.0, 0.5)

    def inner(self, field: Evaluator, t0: float, t1: float, x: Any) -> Any:
        c, h = field.convention, log_snr_step(field.convention, t0, t1)
        middle = between(c, t0, t1, 0.5)
        u = data_step(c, x, t0, middle, [field.denoised(t0, x)], [-math.expm1(-0.5 * h)])
        return data_step(c, x, t0, t1, [field.denoised(middle, u)], [-math.expm1(-h)])


Quadrature = Literal["exact", "published"]


class DataMultistep(Multistep):
    """Interpolate the denoised point in log-SNR; the kernel decays as e^(-decay lambda)."""

    clock = "log_snr"
    needs_denoised = True
    decay: float = 1.0
    quadrature: Quadrature

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quadrature == "published":
            self.order = min(self.order, 2)

    def value(self, field: Evaluator, t: float, x: Any) -> Any:
        return field.denoised(t, x)

    def coordinate(self, convention: Convention, t: float) -> float:
        return convention.log_snr(t)

    def weights(self, convention: Convention, t0: float, t1: float, nodes: Past) -> Any:
        """Return one weight per node for the step from t0 to t1.

        Published moments, two nodes: the second is half the first (the "midpoint" form). Three
        nodes: half of the exact third one, because the code takes a second difference for a second
        derivative without the factor 2; its error is then of the order of two nodes.
        """
        moments = decaying_moments(self.decay * log_snr_step(convention, t0, t1), len(nodes))
        if self.quadrature == "published" and len(nodes) > 1:
            moments[-1] = 0.5 * moments[0 if len(nodes) == 2 else 2]
        return polynomial_weights(log_snr_places(convention, t0, t1, nodes), moments)

    def determines_both(self, field: Evaluator, t: float) -> bool:
        return field.convention.scales(t)[1] > 0

    def advance(self, field: Evaluator, x: Any, t0: float, t1: float, nodes: Past, rng: Any) -> Any:
        weights = self.weights(field.convention, t0, t1, nodes)
        return data_step(field.convention, x, t0, t1, [d for _, d in nodes], weights)

    def one_node(self, field: Evaluator, x: Any, t0: float, t1: float, value: Any, rng: Any) -> Any:
        return ddim_step(field.convention, x, t0, t1, value)


@SOLVERS.register("dpm_solver_pp_2m")
@dataclass(eq=False)
class DPMSolverPP2M(DataMultistep):
    """Two-step DPM-Solver++. Order 2, one evaluation per step.

    Source: Lu et al. 2022, arXiv 2211.01095, algorithm 2.

    Parameters
    ----------
    quadrature : 'published' (midpoint form) or 'exact' (weights of the interpolating line)
    """

    quadrature: Quadrature = "published"
    degree = 2
    warm_start = False


@SOLVERS.register("dpm_solver_pp_3m")
@dataclass(eq=False)
class DPMSolverPP3M(DataMultistep):
    """Three-step DPM-Solver++. Order 3, one evaluation per step and one more at the start.

    Source: Lu et al. 2022, arXiv 2211.01095, section 4 (multistep of order 3; formulas in their
    code).

    Parameters
    ----------
    quadrature : 'exact', or 'published': the formula of the authors' code and of those derived
        from it, whose measured order is 2 (see `DataMultistep.weights`)
    warm_start : see `Multistep`; without, the order is 2
    """

    quadrature: Quadrature = "exact"
    warm_start: bool = True
    degree = 3


@dataclass(frozen=True)
class Passed:
    """History of UniPC: older nodes, the corrected point at the last boundary, and the origin."""

    nodes: Past = ()
    t_last: float = 0.0
    x_last: Any = None
    t_origin: float = 0.0
    x_origin: Any = None
    done: int = 0


@SOLVERS.register("unipc")
@dataclass(eq=False)
class UniPC(Solver):
    """Predict with ``order`` nodes, correct with the evaluation that the next step needs anyway.

    One evaluation per step, and one more at the start for ``degree`` 3. The corrector sees one
    node more than the predictor and lifts the order by one: order is ``degree + 1`` where the
    log-SNR is finite. Steps from pure noise and to pure data are DDIM's. The last point is
    predicted only: there is nothing to correct it with.

    Source: Zhao et al. 2023, arXiv 2302.04867, algorithms 1 (UniC-p) and 2 (UniP-p), in their form
    for data prediction.

    Parameters
    ----------
    degree : 1 to 3, the p of UniPC-p
    variant : 'bh2' or 'bh1', the published choices of B(h); they differ only where two nodes are
        used, everywhere else B(h) cancels
    warm_start : for degree 3, integrate the second step anew from the very first point, which
        keeps order 4 at the price of one evaluation; without, as published, the order is 3
    """

    offsets = (0.0,)
    clock = "log_snr"
    needs_denoised = True

    degree: Annotated[int, msgspec.Meta(ge=1, le=3)] = 2
    variant: Literal["bh1", "bh2"] = "bh2"
    warm_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.order = self.degree + 1 if self.warm_start or self.degree < 3 else 3
        self._evaluates_twice = self.warm_start and self.degree == 3
        # the second step evaluates twice at its start
        self.lead_offsets = ((0.0,), (0.0, 0.0)) if self._evaluates_twice else ()

    def start(self, boundaries: list[float]) -> Any:
        return Passed()

    def step(self, field: Evaluator, t0: float, t1: float, x: Any, state: Any, rng: Any) -> Stepped:
        begin, end = (field.convention.log_snr(t) for t in (t0, t1))
        if math.isinf(begin):
            return field.convention.point(*field.denoised_and_noise(t0, x), t1), Passed()
        denoised = field.denoised(t0, x)
        if state.nodes:
            since = state.t_last, state.x_last
            if self._evaluates_twice and state.done == 2:
                since = state.t_origin, state.x_origin
            x = self._integrated(field, since[1], since[0], t0, ((t0, denoised), *state.nodes))
            if self._evaluates_twice and state.done == 1:
                denoised = field.denoised(t0, x)
        else:
            state = replace(state, t_origin=t0, x_origin=x)
        nodes = ((t0, denoised), *state.nodes)[: self.degree]
        state = replace(state, nodes=nodes, t_last=t0, x_last=x, done=state.done + 1)
        if math.isinf(end):
            return ddim_step(field.convention, x, t0, t1, denoised), state
        return self._integrated(field, x, t0, t1, nodes), state

    def _integrated(self, field: Evaluator, x: Any, t0: float, t1: float, nodes: Past) -> Any:
        c = field.convention
        h = log_snr_step(c, t0, t1)
        moments = decaying_moments(h, len(nodes))
        if len(nodes) == 2:
            moments[1] = 0.5 * (moments[0] if self.variant == "bh2" else h)
        weights = polynomial_weights(log_snr_places(c, t0, t1, nodes), moments)
        return data_step(c, x, t0, t1, [d for _, d in nodes], weights)
