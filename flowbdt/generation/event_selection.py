"""Which events are kept: of the wanted value, within cuts and the reach of computed columns, and
accepted by the rejection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from warnings import warn

import numpy as np

from ..errors import DataWarning, RunError, plural
from ..seeding import RowNoise
from ..tables.conditions import ColumnScaling
from ..tables.formulas.expressions import Cuts, Observables

if TYPE_CHECKING:
    from ..trees.density_ratio import DensityRatio
    from .discrete_columns import DiscreteColumns

MOST_ATTEMPTS = 100
"""Attempts per event; at an acceptance of 0.1 one event in 40,000 needs more."""

MOST_DRAWS = 2_000
"""Attempts for an event that does not meet a cut; at a share of .01 one in 5e8 needs more."""

MOST_TURNS = 1_000
"""Attempts for an event with the value whose turn it is; at a share of .01 one in 23,000 needs more
and has another value."""

warn_of_events = partial(warn, category=DataWarning, stacklevel=3)

KEPT = "all attempts were rejected for {}, kept all the same: the model does not describe them"


@dataclass(frozen=True, eq=False, kw_only=True)
class EventSelection(ABC):
    """Draws events anew until all are kept; a subclass knows how they are drawn."""

    scaling: ColumnScaling  # of columns and conditions, before trees see them
    ratio: DensityRatio | None = None  # the rejection classifier; None to keep every event
    discrete: DiscreteColumns | None = None  # of columns that classifiers draw
    fills: bool = False  # True gives values where others would be missing
    names: tuple[str, ...] = ()  # of columns and conditions
    observables: Observables = Observables()  # noqa: RUF009 (that the classifier sees; immutable)
    cuts: Cuts = Cuts()  # noqa: RUF009 (that every event must meet; immutable)
    reach: np.ndarray | None = None  # ends (2, d) of computed columns, see `TableTransform.reach`

    @abstractmethod
    def _attempt(
        self, seed: int, attempt: int, rows: np.ndarray, cond: Any, start: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return new events (k, d), and the codes (k, q) that classifiers drew."""

    @abstractmethod
    def _completed(self, x: np.ndarray, codes: np.ndarray, *of_rows: Any) -> np.ndarray:
        """Return columns (n, d) with what classifiers drew; see `DiscreteColumns.completed`."""

    def _turned(self, x: np.ndarray, seed: int, rows: np.ndarray, cond: Any) -> np.ndarray:
        """Return complete events (n, d) with their turn."""
        return x

    def _without_turn(self, x: np.ndarray) -> np.ndarray:
        """Return complete events (n, d) without their turn."""
        return x

    @property
    def redraws(self) -> bool:
        """True if some events are drawn anew."""
        return self.judges or self.keeps_shares or self.reach is not None

    @property
    def judges(self) -> bool:
        """True if a rejection or cuts decide which events are kept."""
        return self.ratio is not None or len(self.cuts) > 0

    @property
    def keeps_shares(self) -> bool:
        """True if events of another value of the first column than the one wanted are."""
        return self.discrete is not None and self.discrete.keeps_shares and not self.judges

    def _redraw(
        self, x: np.ndarray, codes: np.ndarray, seed: int, rows: np.ndarray, cond: Any
    ) -> None:
        """Draw events (k, d) and codes anew, in place, until all are kept."""
        if self.keeps_shares:
            self._redraw_values(x, codes, seed, rows, cond)
        elif self.redraws:
            self._redraw_rejected(x, codes, seed, rows, cond)

    def _redraw_values(
        self, x: np.ndarray, codes: np.ndarray, seed: int, rows: np.ndarray, cond: Any
    ) -> None:
        """Draw events (k, d) and codes anew, in place, that have another value than wanted."""
        assert self.discrete is not None
        wanted, left = self.discrete.wanted(seed, rows), np.arange(len(x))
        for attempt in range(1, MOST_TURNS + 1):
            others = codes[left, 0] != wanted[left]
            if self.reach is not None and attempt < MOST_ATTEMPTS:
                of_rows = seed, rows[left], at_rows(cond, left)
                others |= ~self.is_near(self._completed(x[left], codes[left], *of_rows))
            left = left[others]
            if not len(left) or attempt == MOST_TURNS:
                return
            x[left], codes[left] = self._attempt(seed, attempt, rows[left], at_rows(cond, left))

    def _redraw_rejected(
        self, x: np.ndarray, codes: Any, seed: int, rows: Any, cond: Any, first: int = 1
    ) -> None:
        """Draw events (k, d) and codes anew, in place, until all meet the cuts and are accepted.

        Classifier and reach have their say in the first `MOST_ATTEMPTS`, the cuts to the end.
        """
        left = np.arange(len(x))
        for attempt in range(first, MOST_DRAWS + 1):
            if attempt == MOST_ATTEMPTS + 1 and len(left) > 1:  # is it hopeless? not for all
                one = left[:1]
                only = x[one], codes[one], seed, rows[one], at_rows(cond, one)
                self._redraw_rejected(*only, first=attempt)
            of_rows = seed, rows[left], at_rows(cond, left)
            events = self._completed(x[left], codes[left], *of_rows)
            kept = self._meets_cuts(events, x[left], codes[left], *of_rows)
            if attempt < MOST_ATTEMPTS:
                kept &= self.is_near(events) & self._accepts(events, attempt, *of_rows)
            elif attempt == MOST_ATTEMPTS and (self.ratio is not None or self.reach is not None):
                warn_of_events(KEPT.format(plural(len(left), "event")))
            left = left[~kept]
            if not len(left):
                return
            x[left], codes[left] = self._attempt(seed, attempt, rows[left], at_rows(cond, left))
        raise RunError(
            f"event {rows[left[0]]} meets require {self.cuts.text} in none of {MOST_DRAWS} draws"
            f" (a share below {2 / MOST_DRAWS:.1%}): at its conditions the model hardly has such"
            " events; fit without this cut, or leave these conditions out"
        )

    def _accepts(
        self, events: np.ndarray, attempt: int, seed: int, rows: np.ndarray, cond: Any
    ) -> np.ndarray | bool:
        """Return which events (k, d) the classifier accepts, bool (k,)."""
        if self.ratio is None:
            return True
        uniform = RowNoise(seed, "accept", rows, (attempt,), once=True).random()
        return self.ratio.keeps(self.classifier_inputs(events, cond), uniform)

    def is_near(self, x: np.ndarray) -> np.ndarray:
        """Return whether all computed columns of events (k, d) without turn are believed, (k,)."""
        if self.reach is None:
            return np.ones(len(x), dtype=bool)
        low, high = self.reach
        return np.asarray(~((x < low) | (x > high)).any(axis=1))

    def _meets_cuts(self, events: np.ndarray, *drawn: Any) -> np.ndarray:
        """Return which events (k, d) meet the cuts, bool (k,); ``drawn`` as for `_completed`."""
        if not len(self.cuts):
            return np.ones(len(events), dtype=bool)
        if self.fills:  # what comes out are other values
            events = self._completed(*drawn, True)
        *_, seed, rows, cond = drawn
        return self.within_cuts(self._turned(events, seed, rows, cond), cond)

    def within_cuts(self, x: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Return which events (k, d) meet the cuts as they stand, bool (k,); there must be cuts."""
        return self.cuts.hold(self.by_name(x, cond))

    def by_name(self, x: np.ndarray, cond: np.ndarray | None) -> dict[str, np.ndarray]:
        """Return columns (n,) of events (n, d) and conditions by name."""
        columns = [*x.T, *([] if cond is None else cond.T)]
        # not strided: numpy would take another way, whose last bits may differ
        return dict(zip(self.names, map(np.ascontiguousarray, columns), strict=True))

    def classifier_inputs(self, x: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Return the inputs (n, d + c + k), float32, of the rejection classifier."""
        x = self._without_turn(x)
        inputs = self.scaling.forward(x if cond is None else np.hstack([x, cond]))
        if len(self.observables):
            values = self.observables.values(self.by_name(x, cond))
            inputs = np.hstack([inputs, ColumnScaling.none(values.shape[1]).forward(values)])
        return inputs.astype(np.float32)


def at_rows(array: np.ndarray | None, rows: slice | np.ndarray) -> np.ndarray | None:
    """Return some rows of an array; None of none."""
    return None if array is None else array[rows]
