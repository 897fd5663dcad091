"""The `Dataset` contract: named tables with units, source, licence and disjoint splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar

import numpy as np

from ...errors import InputError
from ...registry import Registry, unknown
from ...seeding import row_uniform
from ...tables.event_table import EventTable


class Dataset(ABC):
    """A table that knows its columns, its source and its splits.

    A subclass sets the attributes and writes `_load`; it never touches the network.
    """

    name: ClassVar[str]  # as in `DATASETS`
    source: ClassVar[str]  # who made the data
    licence: ClassVar[str]  # what may be done with them
    splits: ClassVar[tuple[str, ...]] = ("train", "test")  # disjoint
    relations: ClassVar[tuple[str, ...]] = ()  # exact ones, such as "tau21 = tau2 / tau1"
    columns: tuple[str, ...]  # their names, in order
    units: dict[str, str]  # by column, "" where it has none

    def load(self, split: str = "all") -> EventTable:
        """Return the events of a split, or of "all", in fixed order. Raises InputError."""
        self.check_split(split)
        table = self._load(split)
        if table.n == 0:
            raise InputError(
                f"the split {split!r} of {self.name!r} is empty: use a larger file or another split"
            )
        return table

    def check_split(self, split: str) -> None:
        """Raise InputError unless there is a split of this name."""
        known = (*self.splits, "all")
        if split not in known:
            raise InputError(str(unknown(f"split of the data set {self.name!r}:", split, known)))

    @abstractmethod
    def _load(self, split: str) -> EventTable:
        """Return the events of a known split, or of "all"."""


DATASETS: Registry[Dataset] = Registry("data set")


def hashed_rows(n: int, fractions: dict[str, float], seed: int = 0) -> dict[str, np.ndarray]:
    """Return disjoint splits of the row numbers 0 to n - 1, by a keyed hash of the number.

    ``fractions`` has the share of each split, in order; each row, int64, ascending, is in exactly
    one of them. Raises InputError if a fraction is negative or they do not add up to 1.
    """
    shares = list(fractions.values())
    if min(shares, default=-1.0) < 0 or abs(sum(shares) - 1.0) > 1e-9:
        raise InputError(f"fractions must not be negative and add up to 1, got {fractions}")
    number = np.searchsorted(np.cumsum(shares)[:-1], row_uniform(n, seed), side="right")
    return {name: np.flatnonzero(number == i) for i, name in enumerate(fractions)}


def hashed_split(
    table: EventTable, split: str, fractions: dict[str, float], seed: int
) -> EventTable:
    """Return the rows of one split by `hashed_rows`, or the whole table for "all"."""
    return table if split == "all" else table.take(hashed_rows(table.n, fractions, seed)[split])


def as_integers(table: EventTable, names: Collection[str]) -> EventTable:
    """Return the table with integer types for some columns, so that they are generated as such."""
    columns = zip(table.names, table.dtypes, strict=True)
    dtypes = tuple("int32" if name in names else dtype for name, dtype in columns)
    return replace(table, dtypes=dtypes)
