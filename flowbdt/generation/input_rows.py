"""What events are generated for or from: conditions and source events, in memory or in a file.

Both are handed out by slices of the events' numbers, so that of a file only the rows that are
being worked on need be in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits  # comes with scikit-learn

from .. import atomic_files, seeding
from ..errors import InputError
from ..tables.event_table import EventTable, align_columns, align_conditions
from ..tables.formats import condition_blocks, count_rows, iter_blocks, read_conditions
from ..tables.transforms import TableTransform

READ_TOGETHER = 16 * seeding.BLOCK
"""Rows of a file that are read at a time."""

Categories = dict[str, tuple[str, ...]]


class Rows(Protocol):
    """Numbers (n, c) of which slices are asked for, each beginning where one before ended."""

    def __getitem__(self, span: slice, /) -> np.ndarray: ...


def is_file(given: Any) -> bool:
    """Whether something is named by the path of its file."""
    return isinstance(given, (str, PathLike))


def count(given: Any) -> int | None:
    """Return how many rows conditions or source have; None if there are none."""
    if is_file(given):
        return count_rows(given)
    return len(given) if hasattr(given, "__len__") else None


class FromFile:
    """Rows (n, c) of a file, in order; at most a block is in memory.

    Parameters
    ----------
    path : of the file, for messages
    blocks : first row -> blocks of rows from there on
    n_rows : int
    """

    def __init__(
        self, path: Path, blocks: Callable[[int], Iterator[np.ndarray]], n_rows: int
    ) -> None:
        self.path, self._blocks, self.n_rows = path, blocks, n_rows
        self._next, self._left = 0, np.zeros((0, 0))
        self._found: Iterator[np.ndarray] | None = None

    def __getitem__(self, span: slice) -> np.ndarray:
        """Return rows start to stop; going back reads the file anew."""
        low, high = int(span.start), min(int(span.stop), self.n_rows)
        if self._found is None or low != self._next:
            self._found, self._left = self._blocks(low), np.zeros((0, 0))
        parts, missing = [], high - low
        while missing > 0:
            if not len(self._left):
                self._left = next(self._found, np.zeros((0, 0)))
                if not len(self._left):
                    raise InputError(f"{self.path} ends before row {high}: was it changed?")
            parts.append(self._left[:missing])
            self._left = self._left[missing:]
            missing -= len(parts[-1])
        self._next = high
        return np.concatenate(parts)

    def digest(self) -> str:
        """Return the hash of the file."""
        return atomic_files.digest_file(self.path)


def conditions_of(
    cond: Any, names: tuple[str, ...], categories: Categories, n_rows: int
) -> np.ndarray | FromFile:
    """Return conditions of ``n_rows`` events, in the order and coding of the training table.

    Parameters
    ----------
    cond : as in `align_conditions`, or the path of a file with one row for each event, or for all
    names, categories : of the conditions that the model was trained with
    n_rows : number of events

    Raises
    ------
    InputError, FormatError, MissingExtra
        As `align_conditions` and `read_conditions`; for a file when the block is read.
    """
    if not is_file(cond):
        return align_conditions(cond, names, categories, n_rows)
    path = Path(cond)
    found = count_rows(path)
    if found == 1:
        return align_conditions(read_conditions(path), names, categories, n_rows)
    if found != n_rows:
        raise InputError(f"cond must have 1 or {n_rows} rows, one per event, got {found} in {path}")

    def blocks(first: int) -> Iterator[np.ndarray]:
        for table in condition_blocks(path, READ_TOGETHER, first):
            yield align_conditions(table, names, categories, table.n)

    return FromFile(path, blocks, n_rows)


class Starts:
    """Latent points that given events start from; those of a block are computed when asked for.

    Parameters
    ----------
    source : EventTable, DataFrame, array, or the path of a file with one row per event
    transform : of the run
    categories : of its columns
    n_rows : number of events

    Raises
    ------
    InputError, FormatError, MissingExtra
        If columns do not fit, there are more or fewer rows, or the file cannot be read.
    """

    def __init__(
        self, source: Any, transform: TableTransform, categories: Categories, n_rows: int
    ) -> None:
        self._transform, self._categories = transform, categories
        self._file: FromFile | None = None
        if is_file(source):
            self._file = FromFile(Path(source), lambda low: self._read(source, low), n_rows)
            found = count_rows(source)
        else:
            self._table = self._like(source)
            found = self._table.n
        if found != n_rows:
            raise InputError(f"source must have {n_rows} rows, one per event, got {found}")

    def _like(self, table: Any) -> EventTable:
        return align_columns(table, self._transform.names, self._categories)

    def _read(self, path: Any, first: int) -> Iterator[np.ndarray]:
        low = 0
        for block in iter_blocks(path, READ_TOGETHER):
            if low + block.n > first:
                yield self._like(block.take(slice(max(first - low, 0), None))).x
            low += block.n

    def __getitem__(self, span: slice) -> np.ndarray:
        """Return points (k, m) of the rows start to stop; start must be that of a block."""
        low, high = int(span.start), int(span.stop)
        parts = []
        with threadpool_limits(1, user_api="blas"):  # sums in one order
            for start in range(low, high, seeding.BLOCK):
                rows = slice(start, min(start + seeding.BLOCK, high))
                parts.append(self._transform.forward(self._part(rows), start))
        return np.concatenate(parts)

    def _part(self, rows: slice) -> EventTable:
        if self._file is not None:
            return EventTable.of(self._file[rows], self._transform.names)
        return replace(self._table.take(rows), cond=None)

    def digest(self) -> str:
        """Return the hash of the file or of the numbers."""
        return (
            atomic_files.digest_array(self._table.x) if self._file is None else self._file.digest()
        )


def digest(given: np.ndarray | FromFile | Starts | None) -> str | None:
    """Return what tells conditions or source from others: the hash of the file or the numbers."""
    if given is None:
        return None
    if not isinstance(given, np.ndarray):
        return given.digest()
    one_for_all = len(given) > 1 and given.strides[0] == 0
    return atomic_files.digest_array(given[:1] if one_for_all else given)
