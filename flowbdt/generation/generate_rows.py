"""Events of a trained flow by row number: noise, solver, inverse transform, rejection.

All random numbers are keyed by row number: an event does not depend on which others are generated.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from warnings import warn

import numpy as np

from ..errors import DataWarning, RunError, plural
from ..flow.solvers import integrate
from ..seeding import BLOCK, RowNoise
from ..tables.conditions import ColumnScaling
from ..tables.expressions import Cuts, Observables

if TYPE_CHECKING:
    from ..flow.fields import VelocityField
    from ..flow.time_grid import Sampler
    from ..tables.transforms import TableTransform
    from ..trees.density_ratio import DensityRatio
    from .compiled.engine import CompiledFlow, CompiledInverse
    from .discrete_columns import DiscreteColumns

MOST_ATTEMPTS = 100
"""Attempts per event; at an acceptance of 0.1 one event in 40,000 needs more."""

MOST_DRAWS = 2_000
"""Attempts for an event that does not meet a cut; at a share of .01 one in 5e8 needs more."""

MOST_TURNS = 1_000
"""Attempts for an event with the value whose turn it is; at a share of .01 one in 23,000 needs more
and has another value."""

warn_of_events = partial(warn, category=DataWarning, stacklevel=3)

NOT_FINITE = "{} not finite: the flow carried points beyond all numbers"
UNDEFINED = "a relation is undefined in {}; its column was set to an end of its training range"
KEPT = "all attempts were rejected for {}, kept all the same: the model does not describe them"


@dataclass(frozen=True, eq=False)
class EventGenerator:
    """Generator of events from noise (or source events), for any row numbers."""

    field: VelocityField  # at every trained time: closed form plus trees
    sampler: Sampler  # solver and boundaries, from t = 0 (noise) to t = 1 (data)
    transform: TableTransform
    scaling: ColumnScaling  # of columns and conditions, before trees see them
    ratio: DensityRatio | None = None  # the rejection classifier; None to keep every event
    compiled_flow: CompiledFlow | None = None
    compiled_inverse: CompiledInverse | None = None
    discrete: DiscreteColumns | None = None  # of columns that classifiers draw
    fills: bool = False  # True gives values where others would be missing
    names: tuple[str, ...] = ()  # of columns and conditions
    observables: Observables = Observables()  # noqa: RUF009 (that the classifier sees; immutable)
    cuts: Cuts = Cuts()  # noqa: RUF009 (that every event must meet; immutable)

    def events(
        self, seed: int, rows: np.ndarray, cond: np.ndarray | None, start: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the events (k, d) of rising row numbers (k,).

        ``cond`` is (k, c), in the units of the table, or None; ``start`` (k, m) are latent points
        that replace the noise.
        """
        edges = np.flatnonzero(np.diff(rows // BLOCK)) + 1 if not self.is_rowwise else ()
        spans = [slice(low, high) for low, high in itertools.pairwise([0, *edges, len(rows)])]
        blocks = [self._attempt(seed, 0, rows[s], _at(cond, s), _at(start, s)) for s in spans]
        x, codes = blocks[0] if len(blocks) == 1 else map(np.vstack, zip(*blocks, strict=True))
        if self.keeps_shares:
            self._redraw_values(x, codes, seed, rows, cond)
        elif self.redraws:
            self._redraw_rejected(x, codes, seed, rows, cond)
        return self._completed(x, codes, seed, rows, cond, self.fills)

    @property
    def redraws(self) -> bool:
        """True if some events are drawn anew."""
        return self.ratio is not None or len(self.cuts) > 0 or self.keeps_shares

    @property
    def keeps_shares(self) -> bool:
        """True if events of another value of the first column than the one wanted are."""
        others = self.ratio is not None or len(self.cuts) > 0
        return self.discrete is not None and self.discrete.keeps_shares and not others

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
        return self._completed(*self._columns(z, seed, rows, cond, 0), seed, rows, cond, self.fills)

    def _columns(
        self, z: np.ndarray, seed: int, rows: np.ndarray, cond: Any, attempt: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return columns (n, d) of latent points, and the codes (n, q) that classifiers drew."""
        if self.discrete is None:
            return self._inverse(z), np.zeros((len(z), 0), dtype=np.int64)
        return self.discrete.columns(self.transform.latent_of(z), cond, seed, rows, attempt)

    def _completed(self, x: np.ndarray, codes: np.ndarray, *of_rows: Any) -> np.ndarray:
        """Return columns (n, d) with what classifiers drew; see `DiscreteColumns.completed`."""
        return x if self.discrete is None else self.discrete.completed(x, codes, *of_rows)

    def _inverse(self, z: np.ndarray) -> np.ndarray:
        """Return the columns (n, d) of latent points (n, m)."""
        lost = 1.0 - np.isfinite(z).all(axis=1).mean()
        if lost:
            warn_of_events(NOT_FINITE.format(f"{lost:.2%} of {len(z)} events are"))
        if self.compiled_inverse is None or lost:
            return self.transform.inverse(z)
        x = np.empty((len(z), self.compiled_inverse.n_columns))
        undefined = self.compiled_inverse.inverse(np.ascontiguousarray(z), x)
        if undefined:
            warn_of_events(UNDEFINED.format(plural(undefined, "generated event")))
        return x

    def _redraw_values(
        self, x: np.ndarray, codes: np.ndarray, seed: int, rows: np.ndarray, cond: Any
    ) -> None:
        """Draw events (k, d) and codes anew, in place, that have another value than wanted."""
        assert self.discrete is not None
        wanted, attempt = self.discrete.wanted(seed, rows), 1
        left = np.flatnonzero(codes[:, 0] != wanted)
        while len(left) and attempt < MOST_TURNS:
            x[left], codes[left] = self._attempt(seed, attempt, rows[left], _at(cond, left))
            left, attempt = left[codes[left, 0] != wanted[left]], attempt + 1

    def _redraw_rejected(
        self, x: np.ndarray, codes: Any, seed: int, rows: Any, cond: Any, first: int = 1
    ) -> None:
        """Draw events (k, d) and codes anew, in place, until all meet the cuts and are accepted.

        The classifier has its say in the first `MOST_ATTEMPTS`, the cuts to the end.
        """
        left = np.arange(len(x))
        for attempt in range(first, MOST_DRAWS + 1):
            if attempt == MOST_ATTEMPTS + 1 and len(left) > 1:  # is it hopeless? not for all
                one = left[:1]
                only = x[one], codes[one], seed, rows[one], _at(cond, one)
                self._redraw_rejected(*only, first=attempt)
            of_rows = seed, rows[left], _at(cond, left)
            events = self._completed(x[left], codes[left], *of_rows)
            kept = self._meets_cuts(events, x[left], codes[left], *of_rows)
            if self.ratio is not None and attempt < MOST_ATTEMPTS:
                uniform = RowNoise(seed, "accept", rows[left], (attempt,), once=True).random()
                inputs = self.classifier_inputs(events, of_rows[2])
                kept &= self.ratio.keeps(inputs, uniform)
            elif self.ratio is not None and attempt == MOST_ATTEMPTS:
                warn_of_events(KEPT.format(plural(len(left), "event")))
            left = left[~kept]
            if not len(left):
                return
            x[left], codes[left] = self._attempt(seed, attempt, rows[left], _at(cond, left))
        raise RunError(
            f"event {rows[left[0]]} meets require {self.cuts.text} in none of {MOST_DRAWS} draws"
            f" (a share below {2 / MOST_DRAWS:.1%}): at its conditions the model hardly has such"
            " events; fit without this cut, or leave these conditions out"
        )

    def _meets_cuts(self, events: np.ndarray, *drawn: Any) -> np.ndarray:
        """Return which events (k, d) meet the cuts, bool (k,); ``drawn`` as for `_completed`."""
        if not len(self.cuts):
            return np.ones(len(events), dtype=bool)
        if self.fills:  # what comes out are other values
            events = self._completed(*drawn, True)
        return self.cuts.hold(self.by_name(events, drawn[-1]))

    def by_name(self, x: np.ndarray, cond: np.ndarray | None) -> dict[str, np.ndarray]:
        """Return columns (n,) of events (n, d) and conditions by name."""
        columns = [*x.T, *([] if cond is None else cond.T)]
        # not strided: numpy would take another way, whose last bits may differ
        return dict(zip(self.names, map(np.ascontiguousarray, columns), strict=True))

    def classifier_inputs(self, x: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Return the inputs (n, d + c + k), float32, of the rejection classifier."""
        inputs = self.scaling.forward(x if cond is None else np.hstack([x, cond]))
        if len(self.observables):
            values = self.observables.values(self.by_name(x, cond))
            inputs = np.hstack([inputs, ColumnScaling.none(values.shape[1]).forward(values)])
        return inputs.astype(np.float32)


def _at(array: np.ndarray | None, rows: slice | np.ndarray) -> np.ndarray | None:
    return None if array is None else array[rows]
