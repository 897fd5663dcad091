"""Write tables, whole or not at all, in one piece or in blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ... import atomic_files
from ...errors import InputError, RunError
from ..event_table import EventTable
from . import hdf5, npy_csv_parquet
from .columns import of_table
from .read import HDF5_ENDINGS, check_ending


def write_table(
    path: str | Path, table: EventTable, attributes: Mapping[str, Any] | None = None
) -> None:
    """Write a table whole or not at all; the file ending says how. Equal tables, equal bytes.

    Columns keep their types (``table.dtypes``), units and categories. Conditions and weights are
    columns too and are marked as such; the weights' column is called ``weight``. What .csv and .npy
    cannot hold (units, attributes) goes to a file beside them, with ``.json`` added to the name.

    Parameters
    ----------
    path : str or Path, ending as for `read_table`
    table : EventTable
    attributes : plain values that tell where the table comes from

    Raises
    ------
    InputError
        If the ending is unknown, or two columns would have one name.
    RunError
        If the disk is full or the folder cannot be written.
    """
    with TableWriter(path, attributes) as writer:
        writer.append(table)


class TableWriter:
    """Write a table in blocks; nothing appears under ``path`` unless the ``with`` block succeeds.

    Memory is bounded by a block for HDF5; other endings collect the blocks and write at the end.

    Parameters
    ----------
    path, attributes : as `write_table`

    Attributes
    ----------
    n_rows : int, rows appended so far
    """

    def __init__(self, path: str | Path, attributes: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.attributes = dict(attributes or {})
        self.n_rows = 0
        self._first: EventTable | None = None
        self._blocks: list[EventTable] = []
        self._hdf5: hdf5.Writer | None = None
        check_ending(self.path)

    def __enter__(self) -> Self:
        if not self.path.parent.is_dir():
            raise RunError(f"the folder of {self.path} does not exist: make it first")
        self._atomic = atomic_files.atomic(self.path)
        self._part = self._atomic.__enter__()
        self._open = contextlib.ExitStack()
        try:
            if self.path.suffix.lower() in HDF5_ENDINGS:
                handle = self._open.enter_context(open(self._part, "w+b", buffering=0))
                self._hdf5 = hdf5.Writer(handle, self.attributes)
                self._open.callback(self._hdf5.abandon)
        except BaseException as error:
            self._open.close()
            self._atomic.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def append(self, table: EventTable) -> None:
        """Add the events of ``table``. Raises InputError if its columns are not the first's."""
        if self._first is None:
            self._first = table.take(slice(0, 0))
        elif self._hdf5 is not None:
            table = table.recoded(self._first.categories)
        self._check_like_first(table)
        self.n_rows += table.n
        if self._hdf5 is None:
            self._blocks.append(table)
        else:
            self._hdf5.append(of_table(table))

    def _check_like_first(self, table: EventTable) -> None:
        first = self._first
        if first is None:
            return
        same = ("names", "units", "dtypes", "cond_names")
        alike = all(getattr(table, what) == getattr(first, what) for what in same)
        if not alike or (table.weight is None) != (first.weight is None):
            raise InputError(
                f"blocks of {self.path} must have equal columns, units and types: the first has"
                f" {first.names} {first.dtypes}, another {table.names} {table.dtypes}"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            try:
                self._finish()
            except BaseException as failed:
                self._open.close()
                self._atomic.__exit__(type(failed), failed, failed.__traceback__)
                raise
        self._open.close()
        self._atomic.__exit__(kind, error, trace)

    def _finish(self) -> None:
        if self._first is None:
            raise InputError(f"nothing was appended to {self.path}; expected at least one table")
        if self._hdf5 is not None:
            self._hdf5.close()
            return
        columns = of_table(EventTable.concatenate(self._blocks))
        npy_csv_parquet.write(self._part, self.path, columns, self.attributes)
