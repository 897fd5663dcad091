"""Read and write tables of events, whole or in blocks; the file ending decides the format."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ... import atomic_files
from ...errors import FormatError, InputError, RunError
from ...registry import unknown
from .. import checks
from ..event_table import EventTable, conditions_table
from .base import FORMATS, StoredColumns, TableFormat, coded, split_path

Rows = slice | Sequence[int] | None


def read_table(
    path: str | Path,
    columns: Sequence[str] | None = None,
    conditions: Sequence[str] = (),
    weight: str | None = None,
    rows: Rows = None,
    units: Mapping[str, str] | None = None,
    missing: bool = False,
) -> EventTable:
    """Read a table of events.

    Parameters
    ----------
    path : str or Path, ending .h5, .hdf5 (one data set (n,) per column), .npz (one array (n,) per
        column, or ``x`` (n, d) with ``names``), .npy (2-d or structured), .csv, .parquet or .root
        (a TTree or RNTuple; of several, ``events.root:Events`` chooses one)
    columns : names to read, in this order, or patterns such as ``MET_*``; None for all that are no
        condition and no weight. Of branches with several values per event (.root) the k-th is the
        column ``NAME_k``, from 0 on, NaN where there are fewer
    conditions : names of the columns that events are generated for
    weight : name of the column of event weights
    rows : slice or (start, stop); None for all
    units : unit by column name; goes before the file's
    missing : True allows missing entries in columns (NaN, empty fields of a .csv file)

    Returns
    -------
    EventTable; columns in the order of ``columns``, else as stored (HDF5: alphabetical unless the
    file has the attribute ``column_order``). A file from `write_table` remembers which columns were
    conditions and weights, unless ``conditions`` and ``weight`` say otherwise.

    Raises
    ------
    InputError
        If the ending or a column is unknown, columns differ in length, there is no row, or values
        are not finite numbers or plain categories.
    FormatError
        If the file is truncated, foreign, or holds Python objects.
    MissingExtra
        If the ending is .parquet and pyarrow is not installed, or .root and uproot.
    """
    path = existing(path)
    with format_of(path).opened(path) as stored:
        chosen = _ChosenColumns(path, stored, columns, conditions, weight)
        span = row_span(rows, stored.n_rows(path, chosen.names), path)
        return chosen.table(span, units, missing=missing)


def read_like(path: str | Path, other: EventTable, weight: str | None = None) -> EventTable:
    """Read the columns of another table, and those of its conditions that the file has.

    Errors are those of `read_table`.
    """
    path = existing(path)
    with format_of(path).opened(path) as stored:
        known = set(stored.named(other.cond_names)) & set(stored.arrays)
        conditions = [name for name in other.cond_names if name in known]
    return read_table(path, other.names, conditions, weight).like(other)


def iter_blocks(
    path: str | Path,
    block_rows: int = 65536,
    columns: Sequence[str] | None = None,
    conditions: Sequence[str] = (),
    weight: str | None = None,
    units: Mapping[str, str] | None = None,
    missing: bool = False,
) -> Iterator[EventTable]:
    """Read a table in blocks of at most ``block_rows`` rows, in order; arguments as `read_table`.

    .h5 and .root files are never in memory as a whole; other endings are read once and cut. Text
    columns without stored categories are numbered per block; `EventTable.concatenate` corrects it.
    Errors are those of `read_table`, and InputError if ``block_rows`` is not positive.
    """
    if block_rows < 1:
        raise InputError(f"block_rows must be at least 1, got {block_rows}")
    path = existing(path)
    if not format_of(path).in_blocks:
        whole = read_table(path, columns, conditions, weight, units=units, missing=missing)
        for start in range(0, whole.n, block_rows):
            yield whole.take(slice(start, start + block_rows))
        return
    with format_of(path).opened(path) as stored:
        chosen = _ChosenColumns(path, stored, columns, conditions, weight)
        for start in range(0, stored.n_rows(path, chosen.names), block_rows):
            yield chosen.table(
                slice(start, start + block_rows), units, missing=missing, whole=False
            )


def read_conditions(
    path: str | Path, names: Sequence[str] = (), texts: Collection[str] = ()
) -> EventTable:
    """Read conditions to generate events for: as `read_table`, but NaN is allowed (missing).

    From a file that has all of ``names`` only these are read, from a file of `write_table` that has
    conditions these, else all columns. ``texts``: those whose categories are known, so that ``1``
    or ``NA`` in a .csv file are texts. Errors are those of `read_table`, but of the values only
    infinity is refused.
    """
    path = existing(path)
    with format_of(path, texts).opened(path) as stored:
        return _conditions_table(stored, path, names, texts)


def read_given(path: str | Path, texts: Collection[str] = ()) -> EventTable:
    """Read all columns but the weight as `read_conditions` does: NaN is allowed (unknown)."""
    path = existing(path)
    with format_of(path, texts).opened(path) as stored:
        names = [name for name in stored.arrays if name != stored.weight]
        return _conditions_table(stored, path, names, texts)


def condition_blocks(
    path: str | Path,
    block_rows: int,
    first: int = 0,
    names: Sequence[str] = (),
    texts: Collection[str] = (),
) -> Iterator[EventTable]:
    """Yield conditions from row ``first`` on, at most ``block_rows`` at a time.

    Of .h5, .npy, .root and .csv files no more than a block is in memory, of .parquet a row group,
    of .npz all. Raises the errors of `read_conditions`, and InputError if a column has texts in one
    block and numbers in another.
    """
    path = existing(path)
    are_texts: dict[str, bool] = {}
    for columns in format_of(path, texts).blocks(path, block_rows, first, names):
        table = _conditions_table(columns, path, names, texts)
        for name, values in zip(table.names, table.x.T, strict=True):
            if name in columns.categories or np.isnan(values).all():
                continue
            if are_texts.setdefault(name, name in table.categories) != (name in table.categories):
                raise InputError(
                    f"{path}: column {name!r} must be numeric or text throughout, but has"
                    " both: correct or remove these rows"
                )
        yield table


def _conditions_table(
    stored: StoredColumns, path: Path, names: Sequence[str], texts: Collection[str]
) -> EventTable:
    """Return the conditions in a file: ``names``, else the columns marked as such, else all."""
    import pandas as pd

    if not names or not set(stored.named(names)) <= set(stored.arrays):
        names = stored.conditions or tuple(stored.arrays)
    stored = stored.rows(names, slice(0, stored.n_rows(path, names)))
    with errors_of(path):
        table = conditions_table(pd.DataFrame(coded(stored, names, path)), None, names, texts)
    return replace(
        table,
        units=tuple(stored.units.get(name, "") for name in names),
        dtypes=("float64",) * len(names),
        categories=table.categories | {k: v for k, v in stored.categories.items() if k in names},
    )


@contextlib.contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Name the file in errors about its columns."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def count_rows(path: str | Path) -> int:
    """Return the number of rows of a table file; errors as `read_conditions`.

    A .csv file is read for it, block by block.
    """
    path = existing(path)
    return format_of(path).count_rows(path)


def read_attributes(path: str | Path) -> dict[str, Any]:
    """Return the attributes (run digest, solver, seed, ...) that were stored with a table."""
    path = existing(path)
    return format_of(path).attributes(path)


def existing(path: str | Path) -> Path:
    """Return the path of a table file with something in it. Raises InputError, FormatError."""
    path = Path(path)
    format_of(path)
    file, _ = split_path(path)
    try:
        size = file.stat().st_size if file.is_file() else None
    except (OSError, ValueError) as error:  # such as a name that no system could have
        raise InputError(f"{file} is not a file: {error}") from error
    if size is None:
        raise InputError(f"{file} is not a file: check the name and the working folder")
    try:
        open(file, "rb").close()
    except OSError as error:
        raise FormatError(f"{file} cannot be read ({error}): check its permissions") from error
    if size == 0:
        raise FormatError(f"{file} is empty (0 bytes); expected a table: copy or make it again")
    return path


def format_of(path: Path, texts: Collection[str] = ()) -> TableFormat:
    """Return the format of a table file, with `TableFormat.texts`.

    Raises InputError if its ending is unknown.
    """
    file, _ = split_path(path)
    ending = file.suffix.lower()
    if ending not in FORMATS.names():
        raise InputError(str(unknown(f"{FORMATS.kind} {path}:", file.suffix, FORMATS.names())))
    format_ = FORMATS.build(ending)
    format_.texts = texts
    return format_


def format_to_write(path: Path) -> TableFormat:
    """Return the format for a table file to write.

    Raises InputError if its ending is unknown, or a part of a file is named.
    """
    file, part = split_path(path)
    if file != path:
        what = format_of(path).parts
        raise InputError(
            f"{path} names the {what} {part!r}, but files are written whole, with one {what}: say"
            f" {file}"
        )
    return format_of(path)


def row_span(rows: Rows, n_rows: int, path: Path) -> slice:
    """Return start and stop within the file. Raises InputError if they are not in it."""
    if rows is None:
        return slice(0, n_rows)
    if not isinstance(rows, slice) and len(rows) != 2:
        raise InputError(f"rows must be a slice or (start, stop), got {rows!r}")
    rows = rows if isinstance(rows, slice) else slice(*rows)
    start, stop = rows.start or 0, n_rows if rows.stop is None else rows.stop
    if rows.step not in (None, 1) or not 0 <= start < stop <= n_rows:
        raise InputError(
            f"{path} has {n_rows} rows: rows must be start:stop with 0 <= start < stop <= {n_rows}"
            f" and no step, got {start}:{stop}{'' if rows.step is None else f':{rows.step}'}"
        )
    return slice(start, stop)


class _ChosenColumns:
    """The columns of a file to read, the conditions and the weight."""

    def __init__(
        self,
        path: Path,
        stored: StoredColumns,
        columns: Sequence[str] | None,
        conditions: Sequence[str],
        weight: str | None,
    ) -> None:
        self.path, self.stored = path, stored
        for names in (columns, conditions):
            if isinstance(names, str):
                raise InputError(f"column names must be a list of texts, got the text {names!r}")
        conditions = stored.named(conditions)
        roles = (*conditions, weight or "", *stored.conditions, stored.weight or "")
        columns = columns and stored.named(columns, roles)
        named = (*(columns or ()), *conditions, *(() if weight is None else (weight,)))
        checks.known_columns(named, list(stored.arrays), str(path))
        checks.unique_names(named, len(named), f"{path}, columns, conditions and weight together")
        # What the file remembers holds only where the caller says nothing else.
        self.conditions = tuple(conditions or (c for c in stored.conditions if c not in named))
        remembered = None if stored.weight in named else stored.weight
        self.weight = remembered if weight is None else weight
        rest = [name for name in stored.arrays if name not in (*self.conditions, self.weight)]
        self.columns = tuple(rest if columns is None else columns)
        if not self.columns:
            raise InputError(f"{path}: no column is left beside conditions and weight")

    @property
    def names(self) -> tuple[str, ...]:
        """All names to read."""
        weight = () if self.weight is None else (self.weight,)
        return (*self.columns, *self.conditions, *weight)

    def table(
        self,
        span: slice,
        units: Mapping[str, str] | None,
        whole: bool = True,
        missing: bool = False,
    ) -> EventTable:
        """Build the checked table of some rows; errors name the file."""
        import pandas as pd

        units = dict(units or {})
        checks.known_columns(list(units), list(self.stored.arrays), f"{self.path}, units")
        stored = self.stored.categories
        values = coded(self.stored.rows(self.names, span), self.names, self.path)
        with errors_of(self.path):
            frame = pd.DataFrame({name: values[name] for name in self.columns})
            cond = pd.DataFrame({name: values[name] for name in self.conditions})
            known = {n: unit for n, unit in (self.stored.units | units).items() if n in frame}
            given = cond if self.conditions else None
            table = EventTable.of(frame, units=known, cond=given, missing=missing)
            weight = self._weights(values, whole)
        kept = {name: stored[name] for name in self.names if name in stored}
        originals = {**table.originals, **self.stored.originals}
        return replace(
            table, weight=weight, categories={**table.categories, **kept}, originals=originals
        )

    def _weights(self, values: dict[str, np.ndarray], whole: bool) -> np.ndarray | None:
        if self.weight is None:
            return None
        weight = values[self.weight]
        if weight.dtype.kind not in "biuf":
            raise InputError(f"the weights {self.weight!r} must be numbers, got texts")
        return checks.weights(weight, len(weight), signed=True, part=not whole)


def write_table(
    path: str | Path, table: EventTable, attributes: Mapping[str, Any] | None = None
) -> None:
    """Write a table whole or not at all. Equal tables give equal bytes.

    Columns keep their types (``table.dtypes``), units and categories. Conditions and weights are
    columns too, marked as such; that of the weights is called ``weight``. The units and attributes
    of a .csv or .npy file go to a file beside it, with ``.json`` added to the name.

    Parameters
    ----------
    path : str or Path, ending as for `read_table`
    table : EventTable
    attributes : plain values that tell where the table comes from

    Raises
    ------
    InputError, RunError
        If the ending is unknown, or two columns would have one name; if the disk is full or the
        folder cannot be written.
    """
    with TableWriter(path, attributes) as writer:
        writer.append(table)


class TableWriter:
    """Write a table in blocks; nothing appears under ``path`` unless the ``with`` block succeeds.

    Memory is bounded by a block for .h5 and .root; other endings collect the blocks and write at
    the end.
    Arguments are those of `write_table`; ``n_rows`` counts the rows appended so far.
    """

    def __init__(self, path: str | Path, attributes: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.attributes = dict(attributes or {})
        self.n_rows = 0
        self._first: EventTable | None = None
        self._format = format_to_write(self.path)

    def __enter__(self) -> Self:
        if not self.path.parent.is_dir():
            raise RunError(f"the folder of {self.path} does not exist: make it first")
        with contextlib.ExitStack() as stack:
            part = stack.enter_context(atomic_files.atomic(self.path))
            self._writer = self._format.writer(part, self.path, self.attributes)
            stack.callback(self._writer.abandon)
            self._open = stack.pop_all()
        return self

    def append(self, table: EventTable) -> None:
        """Add the events of ``table``. Raises InputError if its columns are not the first's."""
        if self._first is None:
            self._first = table.take(slice(0, 0))
        first, same = self._first, ("names", "units", "dtypes", "cond_names")
        alike = all(getattr(table, what) == getattr(first, what) for what in same)
        if not alike or (table.weight is None) != (first.weight is None):
            raise InputError(
                f"blocks of {self.path} must have equal columns, units and types: the first has"
                f" {first.names} {first.dtypes}, another {table.names} {table.dtypes}"
            )
        self._writer.append(table)
        self.n_rows += table.n

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._open:
            if error is not None:
                raise error
            if self._first is None:
                raise InputError(f"nothing was appended to {self.path}; expected a table")
            self._writer.close()
