"""Read tables, whole or in blocks; which columns, and as what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import FormatError, InputError
from ...registry import unknown
from .. import checks
from ..event_table import EventTable
from . import hdf5, npy_csv_parquet
from .columns import Columns, coded, same_length

HDF5_ENDINGS = (".h5", ".hdf5")
ENDINGS = (*HDF5_ENDINGS, *npy_csv_parquet.READERS)

Rows = slice | Sequence[int] | None


def read_table(
    path: str | Path,
    columns: Sequence[str] | None = None,
    conditions: Sequence[str] = (),
    weight: str | None = None,
    rows: Rows = None,
    units: Mapping[str, str] | None = None,
) -> EventTable:
    """Read a table of events; the file ending says how.

    Parameters
    ----------
    path : str or Path, ending .h5, .hdf5 (one data set (n,) per column), .npz (one array (n,) per
        column, or ``x`` (n, d) with ``names``), .npy (2-d or structured), .csv or .parquet
    columns : names to read, in this order; None for all that are no condition and no weight
    conditions : names of the columns that are given at generation
    weight : name of the column of event weights
    rows : slice or (start, stop); None for all
    units : unit by column name; goes before what the file says

    Returns
    -------
    EventTable; columns in the order asked for, else as stored (HDF5: alphabetical unless the file
    has the attribute ``column_order``). A file from `write_table` remembers which columns were
    conditions and weights, where ``conditions`` and ``weight`` are not given.

    Raises
    ------
    InputError
        If the ending or a column is unknown, columns differ in length, there is no row, or values
        are not finite numbers or plain categories.
    FormatError
        If the file is truncated, foreign, or holds Python objects.
    MissingExtra
        If the ending is .parquet and pyarrow is not installed.
    """
    path = existing(path)
    if path.suffix.lower() in HDF5_ENDINGS:
        with hdf5.opened(path) as handle:
            wanted = _hdf5_choice(handle, path, columns, conditions, weight)
            n_rows = hdf5.row_count(handle, wanted.names, path)
            return _hdf5_table(handle, wanted, row_span(rows, n_rows, path), units)
    stored = npy_csv_parquet.READERS[path.suffix.lower()](path)
    wanted = _Choice(path, list(stored.arrays), stored, columns, conditions, weight)
    arrays = {name: stored.arrays[name] for name in wanted.names}
    n_rows = same_length({name: array.shape for name, array in arrays.items()}, path)
    span = row_span(rows, n_rows, path)
    return wanted.table({name: array[span] for name, array in arrays.items()}, units)


def iter_blocks(
    path: str | Path,
    block_rows: int = 65536,
    columns: Sequence[str] | None = None,
    conditions: Sequence[str] = (),
    weight: str | None = None,
    units: Mapping[str, str] | None = None,
) -> Iterator[EventTable]:
    """Read a table in blocks of at most ``block_rows`` rows, in order; arguments as `read_table`.

    HDF5 files are never in memory as a whole; other endings are read once and cut. Text columns
    without stored categories are numbered per block; `EventTable.concatenate` puts that right.

    Raises
    ------
    InputError, FormatError, MissingExtra
        As `read_table`; and InputError if ``block_rows`` is not positive.
    """
    if block_rows < 1:
        raise InputError(f"block_rows must be at least 1, got {block_rows}")
    path = existing(path)
    if path.suffix.lower() not in HDF5_ENDINGS:
        whole = read_table(path, columns, conditions, weight, units=units)
        for start in range(0, whole.n, block_rows):
            yield whole.take(slice(start, start + block_rows))
        return
    with hdf5.opened(path) as handle:
        wanted = _hdf5_choice(handle, path, columns, conditions, weight)
        n_rows = hdf5.row_count(handle, wanted.names, path)
        for start in range(0, n_rows, block_rows):
            span = slice(start, min(start + block_rows, n_rows))
            yield _hdf5_table(handle, wanted, span, units, whole=False)


def read_conditions(path: str | Path) -> EventTable:
    """Read conditions to generate events for: as `read_table`, but NaN is allowed (missing).

    From a file of `write_table` that has conditions only these are read, else all columns.

    Raises
    ------
    InputError, FormatError, MissingExtra
        As `read_table`, but of the values only infinity is refused.
    """
    path = existing(path)
    return conditions_table(_stored(path), path)


def conditions_table(stored: Columns, path: Path) -> EventTable:
    """Return what a file holds as conditions: those marked so, else all columns."""
    import pandas as pd

    arrays = {name: stored.arrays[name] for name in stored.conditions} or stored.arrays
    n_rows = same_length({name: array.shape for name, array in arrays.items()}, path)
    values = {
        name: coded(array, name, stored.categories.get(name), path)
        for name, array in arrays.items()
    }
    try:
        # Only conditions may have gaps, so they are checked as conditions of a column of zeros.
        table = EventTable.of(np.zeros((n_rows, 1)), cond=pd.DataFrame(values))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return replace(
        table,
        x=np.zeros((n_rows, 0)) if table.cond is None else table.cond,
        names=table.cond_names,
        units=tuple(stored.units.get(name, "") for name in arrays),
        dtypes=("float64",) * len(arrays),
        cond=None,
        cond_names=(),
        categories={**table.categories, **stored.categories},
    )


def _stored(path: Path) -> Columns:
    """Return the whole file, unchecked."""
    if path.suffix.lower() not in HDF5_ENDINGS:
        return npy_csv_parquet.READERS[path.suffix.lower()](path)
    with hdf5.opened(path) as handle:
        known = hdf5.column_names(handle, path)
        hdf5.row_count(handle, known, path)
        arrays = hdf5.read_columns(handle, known, slice(None), path)
        return replace(hdf5.describe(handle, known), arrays=arrays)


def read_attributes(path: str | Path) -> dict[str, Any]:
    """Return the attributes (run digest, solver, seed, ...) that were stored with a table."""
    path = existing(path)
    if path.suffix.lower() in HDF5_ENDINGS:
        with hdf5.opened(path) as handle:
            return hdf5.read_attributes(handle)
    return dict(npy_csv_parquet.read_meta(path).get("attributes", {}))


def existing(path: str | Path) -> Path:
    """Return a path that is a table file with something in it. Raises InputError, FormatError."""
    path = Path(path)
    check_ending(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file: check the name and the working folder")
    if path.stat().st_size == 0:
        raise FormatError(f"{path} is empty (0 bytes); expected a table: copy or make it again")
    return path


def check_ending(path: Path) -> None:
    if path.suffix.lower() not in ENDINGS:
        error = unknown(f"ending of the table file {path}:", path.suffix, ENDINGS)
        raise InputError(str(error))


def row_span(rows: Rows, n_rows: int, path: Path) -> slice:
    """Return start and stop within the file. Raises InputError if they are not in it."""
    if rows is None:
        return slice(0, n_rows)
    if not isinstance(rows, slice):
        if len(rows) != 2:
            raise InputError(f"rows must be a slice or (start, stop), got {rows!r}")
        rows = slice(*rows)
    start, stop = rows.start or 0, n_rows if rows.stop is None else rows.stop
    if rows.step not in (None, 1) or not 0 <= start < stop <= n_rows:
        raise InputError(
            f"{path} has {n_rows} rows: rows must be start:stop with 0 <= start < stop <= {n_rows}"
            f" and no step, got {start}:{stop}{'' if rows.step is None else f':{rows.step}'}"
        )
    return slice(start, stop)


class _Choice:
    """Which columns of a file to read, and as what: columns, conditions, weight."""

    def __init__(
        self,
        path: Path,
        known: Sequence[str],
        stored: Columns,
        columns: Sequence[str] | None,
        conditions: Sequence[str],
        weight: str | None,
    ) -> None:
        self.path, self.known, self.stored = path, known, stored
        asked = _asked(columns, conditions, weight)
        checks.known_columns(asked, known, str(path))
        checks.unique_names(asked, len(asked), f"{path}, columns, conditions and weight together")
        # What the file remembers holds only where the caller says nothing else.
        self.conditions = tuple(conditions or (c for c in stored.conditions if c not in asked))
        remembered = None if stored.weight in asked else stored.weight
        self.weight = remembered if weight is None else weight
        rest = [name for name in known if name not in (*self.conditions, self.weight)]
        self.columns = tuple(rest if columns is None else columns)
        if not self.columns:
            raise InputError(f"{path}: no column is left beside conditions and weight")

    @property
    def names(self) -> tuple[str, ...]:
        """All names to read."""
        weight = () if self.weight is None else (self.weight,)
        return (*self.columns, *self.conditions, *weight)

    def table(
        self, arrays: dict[str, np.ndarray], units: Mapping[str, str] | None, whole: bool = True
    ) -> EventTable:
        """Build the checked table; errors name the file."""
        units = dict(units or {})
        checks.known_columns(list(units), self.known, f"{self.path}, units")
        stored = self.stored.categories
        values = {
            name: coded(array, name, stored.get(name), self.path) for name, array in arrays.items()
        }
        try:
            table = self._unweighted(values, {**self.stored.units, **units})
            weight = self._weights(values, whole)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error
        kept = {name: stored[name] for name in self.names if name in stored}
        return replace(table, weight=weight, categories={**table.categories, **kept})

    def _unweighted(self, values: dict[str, np.ndarray], units: dict[str, str]) -> EventTable:
        import pandas as pd

        frame = pd.DataFrame({name: values[name] for name in self.columns})
        cond = pd.DataFrame({name: values[name] for name in self.conditions})
        return EventTable.of(frame, units=units, cond=cond if self.conditions else None)

    def _weights(self, values: dict[str, np.ndarray], whole: bool) -> npt.NDArray[Any] | None:
        if self.weight is None:
            return None
        weight = values[self.weight]
        if weight.dtype.kind not in "biuf":
            raise InputError(f"the weights {self.weight!r} must be numbers, got texts")
        if whole:
            return checks.weights(weight, len(weight))
        # All zero is wrong for a table, not for a block of one: check with one event more.
        return checks.weights(np.append(weight, 1.0), len(weight) + 1)[:-1]


def _asked(
    columns: Sequence[str] | None, conditions: Sequence[str], weight: str | None
) -> tuple[str, ...]:
    for names in (columns, conditions):
        if isinstance(names, str):
            raise InputError(f"column names must be a list of texts, got the text {names!r}")
    return (*(columns or ()), *conditions, *(() if weight is None else (weight,)))


def _hdf5_choice(
    handle: Any,
    path: Path,
    columns: Sequence[str] | None,
    conditions: Sequence[str],
    weight: str | None,
) -> _Choice:
    known = hdf5.column_names(handle, path)
    return _Choice(path, known, hdf5.describe(handle, known), columns, conditions, weight)


def _hdf5_table(
    handle: Any, wanted: _Choice, span: slice, units: Mapping[str, str] | None, whole: bool = True
) -> EventTable:
    arrays = hdf5.read_columns(handle, wanted.names, span, wanted.path)
    return wanted.table(arrays, units, whole)
