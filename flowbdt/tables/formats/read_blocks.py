"""Conditions of any number of events, read from a file block by block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..event_table import EventTable
from . import hdf5, npy_csv_parquet
from .columns import Columns, same_length
from .read import HDF5_ENDINGS, conditions_table, existing


def count_rows(path: str | Path) -> int:
    """Return how many rows a table file has; a .csv file is read for it, block by block.

    Raises
    ------
    InputError, FormatError, MissingExtra
        As `read_conditions`.
    """
    path = existing(path)
    if path.suffix.lower() in HDF5_ENDINGS:
        with hdf5.opened(path) as handle:
            return hdf5.row_count(handle, hdf5.column_names(handle, path), path)
    return npy_csv_parquet.row_count(path)


def condition_blocks(path: str | Path, block_rows: int, first: int = 0) -> Iterator[EventTable]:
    """Yield conditions from row ``first`` on, at most ``block_rows`` at a time.

    Of .h5, .npy and .csv files no more than a block is in memory, of .parquet a row group, of .npz
    all. Raises what `read_conditions` does, and InputError if a column has texts in one block and
    numbers in another.
    """
    path = existing(path)
    kinds: dict[str, bool] = {}
    for columns in _blocks(path, block_rows, first):
        table = conditions_table(columns, path)
        _check_kinds(table, columns, kinds, path)
        yield table


def _blocks(path: Path, block_rows: int, first: int) -> Iterator[Columns]:
    ending = path.suffix.lower()
    if ending in HDF5_ENDINGS:
        return _hdf5_blocks(path, block_rows, first)
    if ending in npy_csv_parquet.BLOCKS:
        return _without(npy_csv_parquet.BLOCKS[ending](path, block_rows), first)
    return _cut(npy_csv_parquet.mapped(path), path, block_rows, first)


def _hdf5_blocks(path: Path, block_rows: int, first: int) -> Iterator[Columns]:
    with hdf5.opened(path) as handle:
        known = hdf5.column_names(handle, path)
        n_rows, described = hdf5.row_count(handle, known, path), hdf5.describe(handle, known)
        names = described.conditions or tuple(known)
        for low in range(first, n_rows, block_rows):
            span = slice(low, min(low + block_rows, n_rows))
            described.arrays = hdf5.read_columns(handle, names, span, path)
            yield described


def _cut(whole: Columns, path: Path, block_rows: int, first: int) -> Iterator[Columns]:
    """Yield blocks of columns that are in memory, or mapped from a file."""
    arrays = whole.arrays
    n_rows = same_length({name: array.shape for name, array in arrays.items()}, path)
    for low in range(first, n_rows, block_rows):
        span = slice(low, low + block_rows)
        whole.arrays = {name: np.array(array[span]) for name, array in arrays.items()}
        yield whole


def _without(blocks: Iterator[Columns], first: int) -> Iterator[Columns]:
    """Leave out the rows before ``first``."""
    low = 0
    for columns in blocks:
        size = len(next(iter(columns.arrays.values())))
        if low + size > first:
            rest = slice(max(first - low, 0), None)
            columns.arrays = {name: array[rest] for name, array in columns.arrays.items()}
            yield columns
        low += size


def _check_kinds(table: EventTable, columns: Columns, kinds: dict[str, bool], path: Path) -> None:
    """Refuse columns that are texts here and were numbers before, or the other way round."""
    for name, values in zip(table.names, np.asarray(table.x).T, strict=True):
        if name in columns.categories or np.isnan(values).all():
            continue
        text = name in table.categories
        if kinds.setdefault(name, text) != text:
            raise InputError(
                f"{path}: column {name!r} must be numeric or text throughout, but has"
                " both: correct or remove these rows"
            )
