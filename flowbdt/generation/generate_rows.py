"""Events of a trained flow by row number: noise, solver, inverse transform, rejection.

All random numbers are keyed by row number: an event does not depend on which others are generated.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import plural
from ..flow.solvers import integrate
from ..seeding import BLOCK, RowNoise
from .event_selection import EventSelection, at_rows, warn_of_events

if TYPE_CHECKING:
    from ..flow.fields import VelocityField
    from ..flow.time_grid import Sampler
    from ..tables.transforms import TableTransform
    from .native.core import Columns
    from .native.engine import NativeFlow

NOT_FINITE = "{} not finite: the flow carried points beyond all numbers"
UNDEFINED = "a relation is undefined in {}; its column was set to an end of its training range"


@dataclass(frozen=True, eq=False)
class EventGenerator(EventSelection):
    """Generator of events from noise (or source events), for any row numbers."""

    field: VelocityField  # at every trained time: closed form plus trees
    sampler: Sampler  # solver and boundaries, from t = 0 (noise) to t = 1 (data)
    transform: TableTransform
    compiled_flow: NativeFlow | None = None
    compiled_inverse: Columns | None = None

    def events(
        self, seed: int, rows: np.ndarray, cond: np.ndarray | None, start: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the events (k, d) of rising row numbers (k,).

        ``cond`` is (k, c), in the units of the table, or None; ``start`` (k, m) are latent points
        that replace the noise.
        """
        edges = np.flatnonzero(np.diff(rows // BLOCK)) + 1 if not self.is_rowwise else ()
        spans = [slice(low, high) for low, high in itertools.pairwise([0, *edges, len(rows)])]
        blocks = [
            self._attempt(seed, 0, rows[s], at_rows(cond, s), at_rows(start, s)) for s in spans
        ]
        x, codes = blocks[0] if len(blocks) == 1 else map(np.vstack, zip(*blocks, strict=True))
        self._redraw(x, codes, seed, rows, cond)
        x = self._completed(x, codes, seed, rows, cond, self.fills)
        return self._turned(x, seed, rows, cond)

    def _turned(self, x: np.ndarray, seed: int, rows: np.ndarray, cond: Any) -> np.ndarray:
        if not self.transform.turn:
            return x
        angles = 2 * np.pi * RowNoise(seed, "turn", rows, once=True).random()
        if self.compiled_inverse is None:
            return self.transform.turned(x, angles, cond)
        x = np.array(x, order="C")
        _warn_undefined(self.compiled_inverse.turn(x, angles, cond))
        return x

    def _without_turn(self, x: np.ndarray) -> np.ndarray:
        return self.transform.without_turn(x)

    @property
    def is_rowwise(self) -> bool:
        """True if the bits of an event do not depend on the rows generated with it."""
        return self.compiled_flow is not None and self.compiled_inverse is not None

    def _attempt(
        self, seed: int, attempt: int, rows: np.ndarray, cond: Any, start: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return new events (k, d): noise, solver, inverse transform; and codes, see `_columns`."""
        keys, x0 = ((attempt,) if attempt else ()), start
        if x0 is None:
            noise = RowNoise(seed, "sample", rows, keys, once=True)
            x0 = noise.standard_normal((len(rows), self.transform.n_latent))
        if not self.transform.n_latent:
            end = x0
        elif self.compiled_flow is not None:
            scaled = None if cond is None else self.scaling[-cond.shape[1] :].forward(cond)
            end = self.compiled_flow.run(x0, scaled)
        else:
            rng, sampler = RowNoise(seed, "solver", rows, keys), self.sampler
            known = {"cond": cond, "rng": rng}
            end = integrate(sampler.solver, self.field, x0, sampler.boundaries, **known).x
        return self._columns(end, seed, rows, cond, attempt)

    def columns_of(self, z: np.ndarray, seed: int, rows: np.ndarray, cond: Any) -> np.ndarray:
        """Return the columns (n, d) of latent points (n, m) of rows; discrete ones are drawn."""
        x, codes = self._columns(z, seed, rows, cond, 0)
        x = self._completed(x, codes, seed, rows, cond, self.fills)
        return self._turned(x, seed, rows, cond)

    def _columns(
        self, z: np.ndarray, seed: int, rows: np.ndarray, cond: Any, attempt: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return columns (n, d) of latent points, and the codes (n, q) that classifiers drew."""
        if self.discrete is None:
            return self._inverse(z, cond), np.zeros((len(z), 0), dtype=np.int64)
        compiled = self.compiled_inverse is not None and self.discrete.is_compiled
        if not compiled or not np.isfinite(z).all():
            return self.discrete.columns(self.transform.latent_of(z), cond, seed, rows, attempt)
        x, _ = self._restored(z, cond)  # relations come again
        return x, self.discrete.codes(x, cond, seed, rows, attempt)

    def _completed(self, x: np.ndarray, codes: np.ndarray, *of_rows: Any) -> np.ndarray:
        """Return columns (n, d) with what classifiers drew; see `DiscreteColumns.completed`."""
        return x if self.discrete is None else self.discrete.completed(x, codes, *of_rows)

    def _inverse(self, z: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Return the columns (n, d) of latent points (n, m)."""
        lost = 1.0 - np.isfinite(z).all(axis=1).mean()
        if lost:
            warn_of_events(NOT_FINITE.format(f"{lost:.2%} of {len(z)} events are"))
        if self.compiled_inverse is None or lost:
            return self.transform.inverse(z, cond=cond)
        x, undefined = self._restored(z, cond)
        _warn_undefined(undefined)
        return x

    def _restored(self, z: np.ndarray, cond: np.ndarray | None) -> tuple[np.ndarray, int]:
        """Return the columns (n, d) by the core, and how often a relation is undefined."""
        assert self.compiled_inverse is not None
        x = np.empty((len(z), self.compiled_inverse.n_columns))
        return x, self.compiled_inverse.inverse(np.ascontiguousarray(z), cond, x)


def _warn_undefined(count: int) -> None:
    if count:
        warn_of_events(UNDEFINED.format(plural(count, "generated event")))
