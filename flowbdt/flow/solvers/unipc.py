"""UniPC: predictor and corrector from one evaluation per step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from ...errors import ConfigError
from .base import SOLVERS, Ask, Solver
from .dpm import data_step, ddim_step, log_snr_places, log_snr_step
from .multistep import Node, checked_degree
from .quadrature import decaying_moments, polynomial_weights


@dataclass(frozen=True)
class Passed:
    """What UniPC knows at a boundary: older nodes, the corrected point there, and the origin."""

    nodes: tuple[Node, ...] = ()
    t_last: float = 0.0
    x_last: Any = None
    t_origin: float = 0.0
    x_origin: Any = None
    done: int = 0


@SOLVERS.register("unipc")
class UniPC(Solver):
    """Predict with ``order`` nodes, correct with the evaluation that the next step needs anyway.

    One evaluation per step, and one more at the start for ``degree`` 3. The corrector sees one
    node more than the predictor and lifts the order by one: order is ``degree + 1`` where the
    log-SNR is finite. Steps from pure noise and to pure data are DDIM's. The last point is
    predicted only: there is nothing to correct it with.

    Parameters
    ----------
    degree : 1 to 3, the p of UniPC-p
    variant : 'bh2' or 'bh1', the published choices of B(h); they differ only where two nodes are
        used, everywhere else B(h) cancels
    warm_start : for degree 3, integrate the second step anew from the very first point, which
        keeps order 4 at the price of one evaluation; without, as published, the order is 3

    References
    ----------
    Zhao et al. 2023, arXiv 2302.04867, algorithms 1 (UniC-p) and 2 (UniP-p), in their form for data
    prediction.
    """

    offsets = (0.0,)
    clock = "log_snr"
    needs_parts = True

    def __init__(self, degree: int = 2, variant: str = "bh2", warm_start: bool = True) -> None:
        self.degree = checked_degree("UniPC", degree, 3)
        if variant not in ("bh1", "bh2"):
            raise ConfigError(f"variant of unipc must be 'bh1' or 'bh2', got {variant!r}")
        self.variant, self.warm_start = variant, warm_start
        self.order = degree + 1 if warm_start or degree < 3 else 3
        # the second step asks twice at its start
        self.lead_offsets = ((0.0,), (0.0, 0.0)) if self._asks_again else ()

    @property
    def _asks_again(self) -> bool:
        return self.warm_start and self.degree == 3

    def start(self, boundaries: list[float]) -> Any:
        """Return an empty history."""
        return Passed()

    def step(
        self, field: Ask, t0: float, t1: float, x: Any, state: Any, rng: Any
    ) -> tuple[Any, Any]:
        """Correct x at t0, then predict x at t1."""
        begin, end = (field.convention.log_snr(t) for t in (t0, t1))
        if math.isinf(begin):
            return field.convention.point(*field.parts(t0, x), t1), Passed()
        denoised = field.denoised(t0, x)
        if state.nodes:
            x = self._corrected(field, t0, state, denoised)
            if self._asks_again and state.done == 1:
                denoised = field.denoised(t0, x)
        else:
            state = replace(state, t_origin=t0, x_origin=x)
        nodes = ((t0, denoised), *state.nodes)[: self.degree]
        state = replace(state, nodes=nodes, t_last=t0, x_last=x, done=state.done + 1)
        if math.isinf(end):
            return ddim_step(field.convention, x, t0, t1, denoised), state
        return self._integrated(field, x, t0, t1, nodes), state

    def _corrected(self, field: Ask, t: float, state: Passed, denoised: Any) -> Any:
        nodes = ((t, denoised), *state.nodes)
        if self._asks_again and state.done == 2:
            return self._integrated(field, state.x_origin, state.t_origin, t, nodes)
        return self._integrated(field, state.x_last, state.t_last, t, nodes)

    def _integrated(self, field: Ask, x: Any, t0: float, t1: float, nodes: tuple[Node, ...]) -> Any:
        c = field.convention
        h = log_snr_step(c, t0, t1)
        moments = decaying_moments(h, len(nodes))
        if len(nodes) == 2:
            moments[1] = 0.5 * (moments[0] if self.variant == "bh2" else h)
        weights = polynomial_weights(log_snr_places(c, t0, t1, nodes), moments)
        return data_step(c, x, t0, t1, [d for _, d in nodes], weights)
