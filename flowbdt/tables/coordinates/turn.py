"""The common turn of an event about the beam: taken out of a table, and drawn again.

Where it is a symmetry, the azimuth of one particle is uniform and says nothing of the rest. It is
then not learned: events are, turned so that this particle lies at azimuth 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...typed_settings import Stored
from ..event_table import EventTable

HARMONICS = 4
"""Cosines and sines of the azimuth, up to this multiple, that are held against the columns."""

FEWEST = 500
"""Rows below which a symmetry is not taken for shown."""

UNLIKELY = 1e-3
"""Probability of all the correlations that are found, below which there is no symmetry."""


@dataclass(frozen=True, eq=False)
class Turn:
    """What turns with an event: columns of azimuths [rad], pairs of columns of x and y components.

    Parameters
    ----------
    reference : the column of an azimuth, or those of x and y components, that is turned to 0
    angles : columns of azimuths, with the low end of their range
    vectors : pairs of columns
    """

    reference: tuple[str, ...] = ()
    angles: Mapping[str, float] = field(default_factory=dict)
    vectors: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.reference)

    @property
    def drawn(self) -> str:
        """The column that is 0 in all events without their turn."""
        return self.reference[-1] if self else ""

    @property
    def columns(self) -> set[str]:
        """All columns that turn."""
        return {*self.angles, *(name for pair in self.vectors for name in pair)}

    def angle(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the azimuth (n,) of the reference, from columns (n,) by name."""
        if len(self.reference) == 1:
            return columns[self.reference[0]]
        x, y = (columns[name] for name in self.reference)
        return np.arctan2(y, x)

    def turned(self, columns: Mapping[str, np.ndarray], by: np.ndarray) -> dict[str, np.ndarray]:
        """Return the columns that turn, turned by angles (n,)."""
        result = {}
        for name, low in self.angles.items():
            moved = low + (columns[name] + by - low) % (2 * np.pi)
            result[name] = np.minimum(moved, np.nextafter(low + 2 * np.pi, low))
        for x, y in self.vectors:
            result[x] = columns[x] * np.cos(by) - columns[y] * np.sin(by)
            result[y] = columns[x] * np.sin(by) + columns[y] * np.cos(by)
        return result

    def taken_out(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the columns that turn, with the reference at azimuth 0; NaN where it is unknown.

        What is there already stays to the last bit.
        """
        by = -self.angle(columns)
        result = self.turned(columns, by)
        there = by == 0
        for name, values in result.items():
            result[name] = np.where(there, columns[name], values)
        if len(self.reference) == 2:
            result[self.reference[0]] = np.hypot(*(columns[name] for name in self.reference))
        result[self.drawn] = np.where(np.isnan(by), np.nan, 0.0)
        return result

    def out_of(self, table: EventTable) -> EventTable:
        """Return a table with the turn taken out."""
        if not self:
            return table
        return table.with_values(self.taken_out(table.by_name()))

    def is_symmetry(self, table: EventTable) -> bool:
        """Return if the azimuth of the reference is uniform, and independent of all the rest.

        No correlation of its harmonics with a constant, with the rank of another column or
        condition, with the square of that, or with where it is missing, may be less likely than
        `UNLIKELY` all together. Derived here.
        """
        from scipy.stats import chi2, rankdata

        weight = np.ones(table.n) if table.weight is None else table.weight
        share = weight / weight.sum()
        n = 1.0 / float((share**2).sum())
        if n < FEWEST:
            return False
        angle = self.angle(table.by_name())
        waves = [f(k * angle) for k in range(1, HARMONICS + 1) for f in (np.cos, np.sin)]
        z = np.sqrt(2 * n) * share @ np.stack(waves, axis=1)
        largest, count = float((z**2).max()), z.size
        for name, values in self.out_of(table).by_name().items():
            known = ~np.isnan(values)
            if name in self.reference[-1:] or np.ptp(values[known]) == 0 == (~known).sum():
                continue
            rank = np.where(known, 0.0, np.nan)
            rank[known] = rankdata(values[known]) / known.sum() - 0.5
            for seen in (np.nan_to_num(rank), np.nan_to_num(rank**2), known.astype(float)):
                seen = seen - share @ seen
                spread = share @ seen**2
                if spread > 0:
                    z = np.sqrt(2 * n / spread) * (share * seen) @ np.stack(waves, axis=1)
                    largest, count = max(largest, float((z**2).max())), count + z.size
        return bool(chi2.sf(largest, 1) * count > UNLIKELY)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` needs, as a JSON-like dict."""
        return {
            "reference": list(self.reference),
            "angles": dict(self.angles),
            "vectors": [list(pair) for pair in self.vectors],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Turn:
        """Rebuild a turn; none from None."""
        if data is None:
            return cls()
        vectors = tuple((str(x), str(y)) for x, y in data["vectors"])
        return cls(tuple(data["reference"]), dict(data["angles"]), vectors)


class StoredTurn(Stored):
    """A stored turn."""

    reference: list[str]
    angles: dict[str, float]
    vectors: list[list[str]]
