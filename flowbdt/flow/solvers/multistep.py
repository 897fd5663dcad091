"""Multistep methods: interpolate the values at the last boundaries, integrate exactly.

All do the same thing with another quantity in another variable, see `Multistep`. Steps may be
unequal; the weights are exact for whatever the grid is.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from ..parametrisations import Convention
from .base import SOLVERS, Evaluator, Solver, Stepped
from .runge_kutta import advanced, weighted_sum

# Weights of an integral: a function known at some nodes is replaced by the polynomial through them,
# on the interval [0, 1], so that the weights depend neither on its length nor on its place.


def polynomial_weights(nodes: Sequence[float], moments: Sequence[float]) -> np.ndarray:
    """Return w (k,) with ``sum_j w_j f(nodes_j) = integral of f kernel`` for degrees below k.

    Parameters
    ----------
    nodes : k distinct positions, 0 = start of the interval, 1 = its end
    moments : k integrals of u^0, u^1, ... against the kernel
    """
    positions, powers = np.asarray(nodes, dtype=np.float64), np.arange(len(nodes))
    return np.linalg.solve(positions[None, :] ** powers[:, None], np.asarray(moments))


def plain_moments(count: int) -> list[float]:
    """Return the integrals of u^k over [0, 1], ``1 / (k + 1)``."""
    return [1.0 / (k + 1.0) for k in range(count)]


def decaying_moments(h: float, count: int) -> list[float]:
    """Return ``h integral_0^1 exp(-h (1 - u)) u^k du`` for k below count.

    The kernel of data prediction: the newest values weigh most. For h -> infinity all are 1.
    Downward recursion loses no digits for small h, upward none for large.
    """
    if h > 1.0:
        moments = [-math.expm1(-h)]
        for k in range(1, count):
            moments.append(1.0 - k / h * moments[-1])
        return moments
    return [h * _series(h, k) for k in range(count)]


def growing_moments(h: float, count: int) -> list[float]:
    """Return ``h integral_0^1 exp(h (1 - u)) u^k du`` for k below count.

    The kernel of noise prediction.
    """
    if h > 1.0:
        moments = [math.expm1(h)]
        for k in range(1, count):
            moments.append(k / h * moments[-1] - 1.0)
        return moments
    return [h * _series(-h, k) for k in range(count)]


def _series(h: float, k: int) -> float:
    """Return integral_0^1 exp(-h (1 - u)) u^k du = k! sum_j (-h)^j / (j + k + 1)! for |h| <= 1."""
    term, total = 1.0 / (k + 1.0), 0.0
    for j in range(1, 25):
        total += term
        term *= -h / (k + 1.0 + j)
    return total + term


@cache
def _gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return 0.5 * (nodes + 1.0), 0.5 * weights


def numeric_moments(kernel: Callable[[float], float], count: int, nodes: int = 24) -> list[float]:
    """Return integrals of ``kernel(u) u^k`` over [0, 1], by Gauss's rule."""
    positions, weights = _gauss(nodes)
    values = weights * np.array([kernel(float(u)) for u in positions])
    return [float(values @ positions**k) for k in range(count)]


Past = tuple[tuple[float, Any], ...]
"""Nodes, newest first: times, and the value of the field there."""

Degree = Annotated[int, msgspec.Meta(ge=1, le=4)]


@dataclass(frozen=True)
class History:
    """The last nodes and the point where they began."""

    nodes: Past = ()
    t_origin: float = 0.0
    x_origin: Any = None


class Multistep(Solver):
    """Interpolate the values at the last ``degree`` boundaries and integrate over the step.

    One evaluation per step, at its start: well suited to step models. A subclass defines which
    value of the field is interpolated (`value`), in which variable (`coordinate`), and how its
    integral moves x (`advance`).

    **Start.** The first steps have too few nodes. With ``warm_start`` the error they would make
    is removed: they predict, evaluate once more at their end, and integrate again from the very
    first point through all nodes. That evaluates at boundaries only, costs ``degree - 2``
    evaluations once, and keeps the order. Without, the order of the whole is 2 at most, as in
    published codes.

    **Ends.** Where the coordinate of a node is infinite (pure noise has no finite noise ratio,
    pure data no finite log-SNR), the node cannot be interpolated: a step from there is DDIM's
    and the history begins anew behind it. Where the value alone does not determine both denoised
    point and noise (`determines_both`), DDIM's step evaluates both.
    """

    offsets = (0.0,)

    degree: Degree
    warm_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        extra = max(self.degree - 2, 0)
        self.order = self.degree if self.warm_start else self.degree - extra
        self.lead_offsets = ((0.0, 1.0),) * (extra if self.warm_start else 0)

    @abstractmethod
    def value(self, field: Evaluator, t: float, x: Any) -> Any:
        """Return the interpolated value, from one evaluation."""

    @abstractmethod
    def coordinate(self, convention: Convention, t: float) -> float:
        """Return the variable of the interpolation at time t."""

    @abstractmethod
    def advance(self, field: Evaluator, x: Any, t0: float, t1: float, nodes: Past, rng: Any) -> Any:
        """Return x at t1 from x at t0 and the nodes, whose coordinates are finite."""

    @abstractmethod
    def one_node(self, field: Evaluator, x: Any, t0: float, t1: float, value: Any, rng: Any) -> Any:
        """Return x at t1 from one value, where a coordinate is infinite."""

    def determines_both(self, field: Evaluator, t: float) -> bool:
        """Return False where the value alone does not determine denoised point and noise."""
        return True

    def start(self, boundaries: list[float]) -> Any:
        return History()

    def step(self, field: Evaluator, t0: float, t1: float, x: Any, state: Any, rng: Any) -> Stepped:
        if not self.determines_both(field, t0):
            return field.convention.point(*field.denoised_and_noise(t0, x), t1), History()
        value = self.value(field, t0, x)
        if not self._finite(field, t0):
            return self.one_node(field, x, t0, t1, value, rng), History()
        state = state if state.nodes else History((), t0, x)
        nodes = ((t0, value), *state.nodes)[: self.degree]
        state = History(nodes, state.t_origin, state.x_origin)
        if not (self._finite(field, t1) and self.determines_both(field, t1)):
            return self.one_node(field, x, t0, t1, value, rng), state
        ahead = self.advance(field, x, t0, t1, nodes, rng)
        if self.warm_start and len(nodes) < self.degree - 1 and self._finite(field, t1):
            nodes = ((t1, self.value(field, t1, ahead)), *nodes)
            ahead = self.advance(field, state.x_origin, state.t_origin, t1, nodes, rng)
        return ahead, state

    def _finite(self, field: Evaluator, t: float) -> bool:
        return math.isfinite(self.coordinate(field.convention, t))


@dataclass(eq=False)
class AdamsBashforth(Multistep):
    """Extrapolate the velocities of the last ``degree`` boundaries.

    Source: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, section III.5
    (variable steps).
    """

    def value(self, field: Evaluator, t: float, x: Any) -> Any:
        return field(t, x)

    def coordinate(self, convention: Convention, t: float) -> float:
        return t

    def advance(self, field: Evaluator, x: Any, t0: float, t1: float, nodes: Past, rng: Any) -> Any:
        weights = adams_bashforth_weights([t for t, _ in nodes], t1, t0)
        return advanced(x, t1 - t0, weighted_sum(weights, [v for _, v in nodes]))

    def one_node(self, field: Evaluator, x: Any, t0: float, t1: float, value: Any, rng: Any) -> Any:
        return x + (t1 - t0) * value

    def _finite(self, field: Evaluator, t: float) -> bool:
        return True  # needs no convention, so that any field will do


def adams_bashforth_weights(times: list[float], t1: float, t0: float | None = None) -> Any:
    """Return w (k,) so that ``sum(w_j f(times[j]))`` is the mean of f from t0 to t1.

    Exact for polynomials of degree below k, whatever the spacing. ``t0`` is ``times[0]`` by
    default.
    """
    t0 = times[0] if t0 is None else t0
    return polynomial_weights([(t - t0) / (t1 - t0) for t in times], plain_moments(len(times)))


@SOLVERS.register("adams_bashforth_2")
class AdamsBashforth2(AdamsBashforth):
    """Two-step Adams-Bashforth. Order 2, one evaluation per step; the first step is Euler's."""

    degree = 2


@SOLVERS.register("adams_bashforth_3")
class AdamsBashforth3(AdamsBashforth):
    """Three-step Adams-Bashforth. Order 3, one evaluation per step and one more in the first.

    The first step is Heun's and the second Adams-Bashforth 2: both err by step^3 once, which keeps
    order 3 for the whole, and both evaluate at boundaries only.
    """

    degree = 3


@SOLVERS.register("adams_bashforth_4")
class AdamsBashforth4(AdamsBashforth):
    """Four-step Adams-Bashforth. Order 4, one evaluation per step, one more in the first two."""

    degree = 4


class NoiseMultistep(Multistep):
    """Interpolate the noise: ``x / alpha`` moves by the integral of e over the noise ratio."""

    clock = "log_snr"
    needs_denoised = True

    def value(self, field: Evaluator, t: float, x: Any) -> Any:
        return field.noise(t, x)

    @abstractmethod
    def moments(self, convention: Convention, t0: float, t1: float, count: int) -> list[float]:
        """Return ``alpha1 integral e^k d(noise ratio)`` over the step, e = 0 at t0 and 1 at t1."""

    def advance(self, field: Evaluator, x: Any, t0: float, t1: float, nodes: Past, rng: Any) -> Any:
        convention = field.convention
        begin, end = (self.coordinate(convention, t) for t in (t0, t1))
        places = [(self.coordinate(convention, t) - begin) / (end - begin) for t, _ in nodes]
        weights = polynomial_weights(places, self.moments(convention, t0, t1, len(nodes)))
        kept = convention.scales(t1)[0] / convention.scales(t0)[0]
        return weighted_sum([kept, *weights], [x, *(e for _, e in nodes)])

    def one_node(self, field: Evaluator, x: Any, t0: float, t1: float, value: Any, rng: Any) -> Any:
        (a0, b0), (a1, b1) = (field.convention.scales(t) for t in (t0, t1))
        return (a1 / a0) * x + (b1 - a1 * b0 / a0) * value

    def determines_both(self, field: Evaluator, t: float) -> bool:
        return field.convention.scales(t)[0] > 0


@SOLVERS.register("lms")
@dataclass(eq=False)
class LMS(NoiseMultistep):
    """Linear multistep method in the noise ratio: the noise as a polynomial in sigma / alpha.

    Order ``degree`` (1 to 4) where the noise ratio is finite, one evaluation per step and
    ``degree - 2`` more at the start. The quadrature weights are exact on any grid, where the code
    that made the method known integrates numerically. Steps to pure data (ratio 0) are regular,
    steps from pure noise are DDIM's.

    Source: Crowson 2022, k-diffusion, ``sample_lms`` (degree 4); the same as rho-AB-DEIS, Zhang,
    Chen 2023, arXiv 2204.13902.
    """

    degree: Degree = 4
    warm_start: bool = True

    def coordinate(self, convention: Convention, t: float) -> float:
        return convention.ratio(t)

    def moments(self, convention: Convention, t0: float, t1: float, count: int) -> list[float]:
        change = convention.ratio(t1) - convention.ratio(t0)
        return [convention.scales(t1)[0] * change * m for m in plain_moments(count)]


@SOLVERS.register("deis")
@dataclass(eq=False)
class DEIS(NoiseMultistep):
    """Exponential integrator with the noise as a polynomial in time or in log-SNR.

    Order ``degree`` (1 to 4), one evaluation per step and ``degree - 2`` more at the start.

    Source: Zhang, Chen 2023, arXiv 2204.13902, equations 14 and 15.

    Parameters
    ----------
    degree : 1 to 4, nodes of the interpolation
    variable : 'time' (t-AB-DEIS) or 'log_snr'; with the latter steps to pure data are DDIM's
    warm_start : see `Multistep`
    """

    degree: Degree = 3
    variable: Literal["time", "log_snr"] = "time"
    warm_start: bool = True

    def coordinate(self, convention: Convention, t: float) -> float:
        return t if self.variable == "time" else convention.log_snr(t)

    def moments(self, convention: Convention, t0: float, t1: float, count: int) -> list[float]:
        alpha, sigma = convention.scales(t1)
        if self.variable == "log_snr":
            h = convention.log_snr(t1) - convention.log_snr(t0)
            return [-sigma * m for m in growing_moments(h, count)]

        def rate(u: float) -> float:
            t = t0 + u * (t1 - t0)
            (a, b), (d_a, d_b) = convention.scales(t), convention.rates(t)
            return alpha * (t1 - t0) * (d_b * a - b * d_a) / a**2

        return numeric_moments(rate, count)
