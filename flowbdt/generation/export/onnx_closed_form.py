"""The closed-form velocity as matrix products and a softmax, in double.

A full covariance is whitened by its Cholesky factor, which is triangular with the conditions last.
If only some conditions are known, the inner variables w of the point stay what they are, and those
of the conditions become Q w: with L the factor of the conditions given the point, S = L L^T, and E
what picks the known ones, ``Q = L^T E (E^T S E)^-1 E^T L``, a projection. So one graph serves all
patterns of known conditions, with a table of the projections and of the densities' constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from ...flow.closed_form.base import PreparedNone
from ...flow.closed_form.conditioning import FullKernel, Kernel, LowRankKernel
from ...flow.closed_form.mixture_on_path import PreparedMixture
from ...flow.step_inputs import StepInputs
from .onnx_graph import Graph, Tensor

MOST_UNKNOWN = 5
"""With more conditions than this there would be too many patterns of known ones for a table."""


def takes_unknown(prepared: object, n_cond: int) -> bool:
    """Whether conditions may be unknown in the graph of this closed form, or without any."""
    if isinstance(prepared, PreparedNone) or not n_cond:
        return True
    full = isinstance(_kernel(prepared, n_cond), FullKernel)
    return full and n_cond <= MOST_UNKNOWN


def _kernel(prepared: object, n_cond: int) -> Kernel:
    if not isinstance(prepared, PreparedMixture):
        raise ConfigError(
            f"a closed form of the kind {type(prepared).__name__} cannot be exported; train with"
            " preconditioner 'none', 'gaussian' or 'mixture'"
        )
    return prepared.kernel(np.ones(n_cond, dtype=bool))


@dataclass(frozen=True)
class Answer:
    """Closed form at one point: velocity and end point (n, m), weights (n, K); None for none."""

    velocity: Tensor | None = None
    end_point: Tensor | None = None
    weights: Tensor | None = None


class ClosedForm:
    """The closed form of every step, for points and the conditions of all events.

    Parameters
    ----------
    graph : Graph
    first : the closed form of any step, which has the centres of the conditions
    cond : Tensor (n, c), float64, NaN = unknown; None if there are no conditions
    n_cond : c
    """

    def __init__(self, graph: Graph, first: object, cond: Tensor | None, n_cond: int) -> None:
        self._graph, self._n_cond = graph, n_cond
        self._none = isinstance(first, PreparedNone)
        self._known: Tensor | None = None
        self._pattern: Tensor | None = None
        if self._none or cond is None:
            return
        # what is filled in falls out by the projection; the centre keeps it small until then
        missing, centre = cond.is_nan(), _kernel(first, n_cond).centre[-n_cond:]
        self._known = graph.where(missing, centre[None], cond)
        if takes_unknown(first, n_cond):
            places = 1 << np.arange(n_cond, dtype=np.int64)
            self._pattern = (missing.cast(np.int64) * places[None]).sum(axis=1)

    def at(self, step: StepInputs, x: Tensor) -> Answer:
        """Return what is known at the points x (n, m) of a step."""
        if self._none:
            return Answer()
        prepared = step.prepared
        kernel = _kernel(prepared, self._n_cond)
        assert isinstance(prepared, PreparedMixture)
        turn = prepared.turn()
        if turn is None:
            raise ConfigError(
                "a closed form that starts from given events cannot be exported; export a model"
                " that starts from noise"
            )
        seen = x if self._known is None else self._graph.join([x, self._known])
        end, weights = self._end_point(prepared, kernel, seen - kernel.centre[None])
        return Answer(end * turn[0] + x * turn[1], end, weights)

    def _end_point(
        self, prepared: PreparedMixture, kernel: Kernel, seen: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return E[x1 | seen] (n, m) and the weights; ``seen`` is centred."""
        graph, k = self._graph, len(kernel.constant)
        m, size = len(kernel.centre) - self._n_cond, kernel.stack.shape[1] // k
        inner = graph.node("Gemm", seen, kernel.stack[:-1], kernel.stack[-1])
        inner, constant = inner.reshape(-1, size, k), graph.constant(kernel.constant[None])
        if self._pattern is not None:
            inner = self._projected(prepared, kernel, inner, m)
            constant = self._table([p.constant for p in self._patterns(prepared)])
        weights = None
        if k > 1:
            joint = constant - self._square(kernel, inner, seen) * 0.5
            weights = graph.node("Softmax", joint, axis=1)
            inner = inner * weights.reshape(-1, 1, k)
        base, gain = kernel.base[:, m : 2 * m], kernel.gain[:, m : 2 * m]
        share = base if weights is None else weights @ base
        end = inner.reshape(-1, size * k) @ gain + share
        if isinstance(kernel, LowRankKernel):
            ratio = kernel.ratio[:, m : 2 * m]
            end = end + seen.take(range(m)) * (ratio if weights is None else weights @ ratio)
        return end, weights

    def _square(self, kernel: Kernel, inner: Tensor, seen: Tensor) -> Tensor:
        """Return the squared distance of every component, but for a constant (n, K)."""
        square = inner.sum_of_squares(axis=1)
        if isinstance(kernel, LowRankKernel):
            return (seen * seen) @ kernel.quadratic + seen @ kernel.linear - square
        return square

    def _patterns(self, prepared: PreparedMixture) -> list[Kernel]:
        """Return the kernel of each pattern; bit j of its number: condition j is unknown."""
        places = np.arange(self._n_cond)
        return [prepared.kernel((p >> places) & 1 == 0) for p in range(1 << self._n_cond)]

    def _table(self, rows: Sequence[np.ndarray]) -> Tensor:
        """Return the row that belongs to the pattern of each event."""
        assert self._pattern is not None
        return self._graph.node("Gather", np.stack(rows), self._pattern, axis=0)

    def _projected(
        self, prepared: PreparedMixture, kernel: Kernel, inner: Tensor, m: int
    ) -> Tensor:
        """Return the inner variables (n, I, K) with those of the conditions projected."""
        c, k = self._n_cond, len(kernel.constant)
        table = projections(kernel, m, c)
        own = self._graph.node("Gather", inner, np.arange(m, m + c), axis=1)
        turned = (self._table(list(table)) * own.reshape(-1, 1, c, k)).sum(axis=2)
        points = self._graph.node("Gather", inner, np.arange(m), axis=1)
        return self._graph.join([points, turned])


def projections(kernel: Kernel, m: int, n_cond: int) -> np.ndarray:
    """Return Q of every pattern of unknown conditions, (2^c, c, c, K). See the module."""
    k = len(kernel.constant)
    whole = kernel.stack[:-1].reshape(m + n_cond, -1, k)  # (input, inner, component)
    factor = np.linalg.inv(whole[m:, m:].transpose(2, 1, 0))
    cov = factor @ factor.swapaxes(1, 2)
    result = np.zeros((1 << n_cond, n_cond, n_cond, k))
    for pattern in range(1 << n_cond):
        known = np.flatnonzero((pattern >> np.arange(n_cond)) & 1 == 0)
        if pattern == 0:
            result[0] = np.eye(n_cond)[:, :, None]
        elif len(known):
            part = factor[:, known]
            inverse = np.linalg.inv(cov[:, known[:, None], known])
            result[pattern] = (part.swapaxes(1, 2) @ inverse @ part).transpose(1, 2, 0)
    return result
