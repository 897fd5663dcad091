"""What discrete columns say of others: where these are missing, repeated or equal to others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..event_table import stored_range
from .discrete import Mixed
from .rounded_floats import SINGLE, number_type, rounded


@dataclass(frozen=True)
class Pattern:
    """What a discrete column says of others: where they are missing, together, or of which kind.

    Codes are 0 for known and 1 for missing; of one ``mixed`` column the places among the kinds that
    occur, and after these one for missing, if it has ``gaps``. ``names`` are those of the table.
    """

    columns: tuple[str, ...]
    names: tuple[str, ...]
    mixed: Mixed | None = None
    gaps: bool = True
    dtype: str = "float64"

    @cached_property
    def places(self) -> list[int]:
        """The places of the columns in the table."""
        return [self.names.index(column) for column in self.columns]

    @cached_property
    def values(self) -> np.ndarray:
        """A value for each code, NaN for that which is to be drawn anew in complete rows."""
        if self.mixed is None:
            return np.array([0.0, 1.0])
        return np.append(np.arange(len(self.mixed.occurring)), [np.nan] * self.gaps)

    @property
    def missing(self) -> int:
        """The code of what is missing."""
        return 1 if self.mixed is None else len(self.mixed.occurring)

    def codes(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the codes (n,), int, of rows with columns (n,) by name."""
        values = columns[self.columns[0]]
        if self.mixed is None:
            return np.isnan(values).astype(np.int64)
        codes = np.searchsorted(self.mixed.occurring, self.mixed.kinds(values, columns))
        return np.where(np.isnan(values), self.missing, codes)

    @cached_property
    def sources(self) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """The atom of each code, NaN for none, and codes of an equality with the other's place."""
        assert self.mixed is not None
        mixed, first = self.mixed, 1 + len(self.mixed.atoms)
        atoms = np.array([np.nan, *mixed.atoms, *(np.nan for _ in mixed.equal)])
        others = [(first + k, self.names.index(other)) for k, other in enumerate(mixed.equal)]
        codes = {kind: code for code, kind in enumerate(mixed.occurring.tolist())}
        equal = [(codes[kind], place) for kind, place in others if kind in codes]
        return np.append(atoms[mixed.occurring], np.nan), equal

    def enter(self, x: np.ndarray, codes: np.ndarray) -> None:
        """Enter the atoms and equal values that codes (n,) mean in rows x (n, d), in place.

        Columns that it may equal are complete then; what is missing keeps its value.
        """
        if self.mixed is None:
            return
        (atoms, equal), place = self.sources, self.places[0]
        values = atoms[codes]
        x[:, place] = np.where(np.isnan(values), x[:, place], values)
        for code, other in equal:
            rows = codes == code
            x[rows, place] = as_stored(x[rows, other], self.dtype)


def as_stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return values as float64 that the type of the column holds exactly (rounded, in range)."""
    kind = number_type(dtype)
    if kind.name == SINGLE:
        return rounded(values, dtype)
    if kind.kind == "f":
        return np.clip(values, *stored_range(kind.name)).astype(kind).astype(np.float64)
    if kind.kind == "b":
        return (values >= 0.5).astype(np.float64)
    if kind.kind in "iu":
        return np.clip(np.rint(values), *stored_range(dtype))
    return values
