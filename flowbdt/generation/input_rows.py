"""Conditions and source events of a sample, in memory or read block by block from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .. import atomic_files, seeding
from ..errors import InputError
from ..tables.checks import row_count
from ..tables.conditions import ConditionRanges
from ..tables.event_table import EventTable, align_columns, align_conditions
from ..tables.formats import condition_blocks, count_rows, iter_blocks, read_conditions
from ..tables.formats.base import split_path
from ..tables.transforms import TableTransform
from ..training.threads import one_thread_of_blas

READ_TOGETHER = 16 * seeding.BLOCK
"""Rows of a file that are read at a time."""

Categories = dict[str, tuple[str, ...]]


class FileRows:
    """Rows (n, c) of a file, in order; at most a block is in memory.

    ``blocks`` yields blocks of rows from a first row on; ``path`` is for messages.
    """

    def __init__(
        self, path: Path, blocks: Callable[[int], Iterator[np.ndarray]], n_rows: int
    ) -> None:
        self.path, self._blocks, self.n_rows = path, blocks, n_rows
        self._next, self._left = 0, list[np.ndarray]()
        self._open: Iterator[np.ndarray] | None = None

    def __getitem__(self, span: slice) -> np.ndarray:
        """Return rows start to stop; going back reads the file anew."""
        low, high = int(span.start), min(int(span.stop), self.n_rows)
        if self._open is None or low != self._next:
            self._open, self._left = self._blocks(low), []
        while sum(map(len, self._left)) < high - low:
            block = next(self._open, None)
            if block is None:
                raise InputError(f"{self.path} ends before row {high}: was it changed?")
            self._left.append(block)
        rows = np.concatenate(self._left)
        self._next, self._left = high, [rows[high - low :]]
        return rows[: high - low]

    def clipped(self, ranges: ConditionRanges) -> FileRows:
        """Return the rows moved into ranges."""
        return FileRows(self.path, lambda low: map(ranges.clip, self._blocks(low)), self.n_rows)


def conditions_of(
    cond: Any, names: tuple[str, ...], categories: Categories, n_rows: int
) -> np.ndarray | FileRows:
    """Return conditions of ``n_rows`` events, in the order and coding of the training table.

    Arguments and errors as `align_conditions`; ``cond`` may be the path of a file with one row for
    each event, or for all, whose errors are those of `read_conditions`, when the block is read.
    """
    if not _is_file(cond):
        return align_conditions(cond, names, categories, n_rows)
    path = Path(cond)
    count = count_rows(path)
    if count == 1:
        return align_conditions(read_conditions(path, names, categories), names, categories, n_rows)
    if count != n_rows:
        raise InputError(f"cond must have 1 or {n_rows} rows, one per event, got {count} in {path}")

    def blocks(first: int) -> Iterator[np.ndarray]:
        for table in condition_blocks(path, READ_TOGETHER, first, names, categories):
            yield align_conditions(table, names, categories, table.n)

    return FileRows(path, blocks, n_rows)


def within(
    rows: np.ndarray | FileRows, ranges: ConditionRanges, n_rows: int, outside: str
) -> np.ndarray | FileRows:
    """Return conditions after a look at all of them; see `Flow.condition_rows`."""
    clipped: np.ndarray | FileRows = rows
    if isinstance(rows, FileRows):
        if outside == "clip":
            clipped = rows.clipped(ranges)
        spans = range(0, n_rows, READ_TOGETHER)
        far = sum(ranges.count_far(rows[low : low + READ_TOGETHER]) for low in spans)
    else:
        one_for_all = n_rows > 1 and rows.strides[0] == 0
        looked_at = rows[:1] if one_for_all else rows
        if outside == "clip":
            clipped = np.broadcast_to(ranges.clip(looked_at), rows.shape)
        far = ranges.count_far(looked_at) * (n_rows if one_for_all else 1)
    ranges.report(np.asarray(far), n_rows, outside)
    return clipped


class SourcePoints:
    """Latent points of source events, computed for a block at a time.

    ``source`` is an EventTable, DataFrame, array, or the path of a file, with one row per event.
    Raises InputError or FormatError if columns or number of rows do not fit.
    """

    def __init__(
        self, source: Any, transform: TableTransform, categories: Categories, n_rows: int
    ) -> None:
        self._transform, self._categories = transform, categories
        if _is_file(source):
            file = FileRows(Path(source), lambda low: self._read(source, low), n_rows)
            self.events: FileRows | EventTable = file
            count = count_rows(source)
        else:
            self.events = self._like(source)
            count = self.events.n
        if count != n_rows:
            raise InputError(f"source must have {n_rows} rows, one per event, got {count}")

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
        points = []
        with one_thread_of_blas():  # sums in one order
            for start in range(low, high, seeding.BLOCK):
                rows = slice(start, min(start + seeding.BLOCK, high))
                if isinstance(self.events, FileRows):
                    events = EventTable.of(self.events[rows], self._transform.names)
                else:
                    events = replace(self.events.take(rows), cond=None)
                points.append(self._transform.forward(events, start))
        return np.concatenate(points)


InputRows = np.ndarray | FileRows | SourcePoints
"""Numbers (n, c), read in slices that follow one another."""


def rows_digest(rows: InputRows) -> str:
    """Return the hash of the numbers, or of the file that they are read from."""
    data = rows.events if isinstance(rows, SourcePoints) else rows
    if isinstance(data, FileRows):
        file, part = split_path(data.path)
        return atomic_files.digest_file(file) + part
    array = data.x if isinstance(data, EventTable) else data
    one_for_all = len(array) > 1 and array.strides[0] == 0
    return atomic_files.digest_array(array[:1] if one_for_all else array)


def number_of_events(n: int | None, *inputs: Any) -> int:
    """Return ``n``, else the number of rows of conditions or source, else 1.

    Raises InputError if it is not a whole number of at least 1.
    """
    counts = [count_rows(rows) if _is_file(rows) else row_count(rows) for rows in inputs]
    return at_least_one(max(1, *counts) if n is None else n, "n_samples")


def at_least_one(number: Any, name: str) -> int:
    """Return a whole number of at least 1. Raises InputError for anything else."""
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
        raise InputError(f"{name} must be a whole number of at least 1, got {number!r}")
    return int(number)


def _is_file(data: Any) -> bool:
    return isinstance(data, (str, PathLike))
