"""A mixture of Gaussians moved along a path: the optimal velocity in closed form.

Per component the variables y = (x0 if it is a source event, x1, conditions) are jointly normal. At
time t the point ``x_t = a x1 + b x0 + c noise``, its velocity ``u = a' x1 + b' x0 + c' noise`` and
the end point x1 are linear in them, so their expectation at known (x_t, conditions) is linear in
these. Over all components it is the mean of these lines weighted by the posterior probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..paths import Path
from .base import Array, Prepared, check_conditions, check_points
from .conditioning import Kernel, Layout, Problem
from .expectation_maximisation import GaussianMixture, gap_patterns


@dataclass(frozen=True)
class Motion:
    """The scales a, b, c of a path at one time, and their rates."""

    scales: tuple[float, float, float]
    rates: tuple[float, float, float]
    noise_product: float  # c times dc/dt, finite where dc/dt alone is not

    @classmethod
    def of(cls, path: Path, t: float, t_next: float | None) -> Motion:
        """Return the motion at ``t``, or the mean one over [t, t_next]."""
        a, b, c = _scales(path, t)
        if t_next is None or t_next == t:
            data, source = path.rates(t)
            growth = float(path.noise_rate(t))
            return cls((a, b, c), (float(data), float(source), growth * c), growth * c**2)
        after = _scales(path, t_next)
        rates = tuple((x - y) / (t_next - t) for x, y in zip(after, (a, b, c), strict=True))
        return cls((a, b, c), (rates[0], rates[1], rates[2]), c * rates[2])


def _scales(path: Path, t: float) -> tuple[float, float, float]:
    data, source = path.scales(t)
    return float(data), float(source), float(path.noise_scale(t))


def problem(layout: Layout, motion: Motion, observed: np.ndarray) -> Problem:
    """Return the inputs (x_t, ``observed`` conditions) and outputs (u, then x1) at one time."""
    (a, b, c), (data, source, _) = motion.scales, motion.rates
    conditions = np.eye(layout.p)[layout.n_points :][observed]
    variance, product = c**2, motion.noise_product
    if not layout.has_source:  # x0 is standard normal noise, independent of the rest
        variance, product = variance + b**2, product + b * source
    noise, shared = np.zeros(layout.m + len(conditions)), np.zeros(2 * layout.m)
    noise[: layout.m], shared[: layout.m] = variance, product
    return Problem(
        inputs=np.vstack([layout.combination(a, b), conditions]),
        noise=noise,
        outputs=np.vstack([layout.combination(data, source), layout.combination(1.0, 0.0)]),
        shared=shared,
        m=layout.m,
    )


MOST_PATTERNS = 64
"""Patterns of missing conditions whose matrices are kept at a time."""


class PreparedMixture(Prepared):
    """A mixture, of the variables of ``layout``, at one time of a path.

    Unknown conditions (NaN) are integrated over exactly; the matrices for a pattern of known ones
    are worked out when it first occurs.
    """

    def __init__(self, mixture: GaussianMixture, layout: Layout, motion: Motion) -> None:
        self.mixture, self.layout, self._motion = mixture, layout, motion
        self._kernels: dict[bytes, Kernel] = {}
        self.kernel(np.ones(layout.n_cond, dtype=bool))

    def kernel(self, observed: np.ndarray) -> Kernel:
        """Return the kernel for known conditions ``observed`` (n_cond,), bool."""
        key = observed.tobytes()
        if key not in self._kernels:
            if len(self._kernels) >= MOST_PATTERNS:
                self._kernels.pop(next(iter(self._kernels)))  # the oldest
            mixture = self.mixture
            self._kernels[key] = mixture.covariances.kernel(
                mixture.log_weights, mixture.means, problem(self.layout, self._motion, observed)
            )
        return self._kernels[key]

    def turn(self) -> tuple[float, float, float, float] | None:
        """Return p, q, scale and variance; None for source events, unless the point is x0.

        The velocity is ``p posterior_mean + q x``: the expectation of noise is a share of what x1
        does not explain. The point is ``scale x1`` plus normal noise of the variance.
        """
        (a, b, c), (data, source, _) = self._motion.scales, self._motion.rates
        if self.layout.has_source:
            return (data, source / b, 0.0, 0.0) if a == c == 0 else None
        variance, product = b**2 + c**2, b * source + self._motion.noise_product
        share = product / variance if variance > 0 else 0.0
        return data - share * a, share, a, variance

    def _answer(self, x: np.ndarray, cond: Array, wanted: slice) -> tuple[np.ndarray, np.ndarray]:
        x, cond = check_points(x, self.layout.m), check_conditions(cond, len(x), self.layout.n_cond)
        if not self.layout.n_cond:
            return self.kernel(np.ones(0, dtype=bool)).answer(x, wanted)
        outputs = np.empty((len(x), wanted.stop - wanted.start))
        weights = np.empty((len(x), self.mixture.n_components))
        for rows, observed in gap_patterns(np.isnan(cond)):
            r = np.hstack([x[rows], cond[rows][:, observed]])
            outputs[rows], weights[rows] = self.kernel(observed).answer(r, wanted)
        return outputs, weights

    def features(self, x: np.ndarray, cond: Array = None) -> tuple[np.ndarray, np.ndarray]:
        m = self.layout.m
        outputs, weights = self._answer(x, cond, slice(0, 2 * m))
        if weights.shape[1] == 1:
            return outputs[:, :m], outputs[:, m:]
        return outputs[:, :m], np.hstack([outputs[:, m:], weights])

    def velocity(self, x: np.ndarray, cond: Array = None) -> np.ndarray:
        return self._answer(x, cond, slice(0, self.layout.m))[0]
