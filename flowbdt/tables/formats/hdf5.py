"""Tables in HDF5: one data set per column, units and provenance as attributes.

The layout, format 1: root attributes ``flowbdt_table`` (1), ``column_order`` and whatever the
caller stores; data sets of shape (n,) with the attributes ``unit``, ``role`` ("condition" or
"weight") and ``categories`` (texts that integer codes count). Foreign files with one data set per
column are read too; their columns come in alphabetical order, because HDF5 keeps no other.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...atomic_files import to_plain
from ...errors import FlowbdtError, FormatError, InputError
from ..event_table import EventTable
from .base import FORMATS, GrowingFile, StoredColumns, TableFormat, Writer, unreadable

if TYPE_CHECKING:
    import h5py

FORMAT = 1
CHUNK = 16384
"""Rows per compressed chunk: the unit in which rows are written, however they were appended."""
SEGMENT = 2**22
"""Values, about, after which a file that grows is closed and opened again: what is there is whole
then. At the same rows in every file, however it was written, because the bytes depend on it."""
MAX_ATTRIBUTE = 60_000
"""Bytes; HDF5 keeps attributes in an object header of at most 64 kB."""
RESERVED = ("flowbdt_table", "column_order")


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to read. Raises FormatError when it is truncated or foreign."""
    import h5py

    with contextlib.ExitStack() as stack:
        with _reading(path):
            handle = stack.enter_context(h5py.File(path, "r"))
            version = int(handle.attrs.get("flowbdt_table", FORMAT))
            _refuse_other_files(handle, path)
        if version > FORMAT:
            raise FormatError(
                f"{path} has table format {version}, this release reads up to {FORMAT}: update"
                " flowbdt"
            )
        yield handle


@contextlib.contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Turn h5py's errors about a broken file into FormatError."""
    try:
        yield
    except FlowbdtError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise unreadable(Path(path), error) from error


def _refuse_other_files(handle: h5py.File, path: str | Path) -> None:
    """Refuse links into other files, and data that lie in other files."""
    import h5py

    links: list[tuple[str, Any]] = []
    handle.visititems_links(lambda name, link: links.append((name, link)))
    for name, link in links:
        item = handle[name] if isinstance(link, h5py.HardLink) else link
        far = isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)
        if far or isinstance(link, h5py.ExternalLink):
            raise FormatError(
                f"{path}: the data of {name!r} lie in another file, which is not opened: copy them"
                " into this one"
            )


@FORMATS.register(".h5")
@FORMATS.register(".hdf5")
class Hdf5(TableFormat):
    """HDF5, read and written in blocks."""

    in_blocks = True

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[StoredColumns]:
        with opened(path) as handle:
            with _reading(path):
                stored = _stored_columns(handle, path)
            yield stored

    def attributes(self, path: Path) -> dict[str, Any]:
        with opened(path) as handle, _reading(path):
            stored = handle.attrs
            names = [name for name in sorted(stored) if name not in RESERVED]
            return {name: _decoded(stored[name]) for name in names}

    def writer(self, part: Path, path: Path, attributes: Mapping[str, Any]) -> Writer:
        return Hdf5Writer(GrowingFile(part, "w+b"), attributes)


def _stored_columns(handle: h5py.File, path: Path) -> StoredColumns:
    """Return columns whose values are read when they are sliced."""
    known = {name: handle[name].attrs for name in _column_names(handle, path)}
    arrays: dict[str, _Unread] = {}
    for name in known:
        for column in handle[name].dtype.names or (None,):
            if (column or name) in arrays:
                raise InputError(
                    f"{path} has two columns called {column or name!r}, in data sets with fields"
                    " and beside them: rename one"
                )
            arrays[column or name] = _Unread(handle[name], path, column)
    roles = {name: _text(attributes.get("role", "")) for name, attributes in known.items()}
    return StoredColumns(
        arrays,
        {name: _text(a.get("unit", a.get("units", ""))) for name, a in known.items()},
        {name: _texts(a["categories"]) for name, a in known.items() if "categories" in a},
        tuple(name for name, role in roles.items() if role == "condition"),
        next((name for name, role in roles.items() if role == "weight"), None),
        originals={name: _text(a["original"]) for name, a in known.items() if "original" in a},
    )


def _column_names(handle: h5py.File, path: Path) -> list[str]:
    """Return the column names in the stored order; the others follow alphabetically."""
    for name in handle:
        try:
            kind = f"a {handle.get(name, getclass=True).__name__.lower()}"
        except (KeyError, RuntimeError, AttributeError):
            kind = "a link that leads nowhere"
        if kind != "a dataset":
            raise InputError(
                f"{path} must hold one data set per column at its top, but {name!r} is {kind};"
                " copy the data sets that you need to the top of a new file"
            )
    stored = [text for text in _texts(handle.attrs.get("column_order", ())) if text in handle]
    return stored + sorted(set(handle) - set(stored))


class _Unread:
    """A data set, or a field of one, that stands for its values."""

    def __init__(self, dataset: h5py.Dataset, path: str | Path, field: str | None = None) -> None:
        self._dataset, self._path, self._field = dataset, path, field
        self._dtype = dataset.dtype if field is None else dataset.dtype[field]
        self.shape = dataset.shape if field is None else dataset.shape + self._dtype.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        import h5py

        with _reading(self._path):
            if self._field is not None:
                values = self._dataset.fields(self._field)[rows]
                return values if values.dtype != object else np.array([_text(v) for v in values])
            if h5py.check_string_dtype(self._dtype) is not None:
                return np.asarray(self._dataset.asstr()[rows].astype(object))
            return np.asarray(self._dataset[rows])


def read_columns(
    handle: h5py.File, names: Iterable[str], rows: slice, path: str | Path
) -> dict[str, np.ndarray]:
    """Read ``rows`` of some data sets. Raises FormatError if the file ends before its data."""
    return {name: _Unread(handle[name], path)[rows] for name in names}


class Hdf5Writer(Writer):
    """Write columns in blocks to an HDF5 file that grows; the bytes depend on the rows alone.

    Rows are held back until a whole chunk is there, so memory is bounded by one chunk and one
    appended block, and appending 1 x 1000 or 10 x 100 rows gives the same file. No time is stored.
    ``target`` is an empty file open for reading and writing.
    """

    def __init__(self, target: GrowingFile, attributes: Mapping[str, Any]) -> None:
        self._target = target
        self._categories: dict[str, tuple[str, ...]] | None = None
        self._pending: list[dict[str, np.ndarray]] = []
        self._n_pending = 0
        self._n_written = 0
        self._open("w")
        try:
            self._file.attrs["flowbdt_table"] = FORMAT
            for name, value in sorted(attributes.items()):
                if name in RESERVED:
                    raise InputError(f"the attribute name {name!r} is taken: rename it")
                self._file.attrs[name] = _encoded(name, value)
        except BaseException:
            self.abandon()
            raise

    def _open(self, mode: str) -> None:
        import h5py

        self._target.check()
        self._target.seek(0)
        self._file = h5py.File(self._target, mode, libver=("earliest", "v110"))

    def append(self, table: EventTable) -> None:
        if self._categories is None:
            self._categories = table.categories
        elif table.categories != self._categories:
            table = table.recoded(self._categories)
        columns = StoredColumns.of(table, {})
        if not self._file.keys():
            self._create(columns)
        self._pending.append(columns.arrays)
        self._n_pending += table.n
        if self._n_pending >= CHUNK:
            self._flush(self._n_pending - self._n_pending % CHUNK)

    def close(self) -> None:
        try:
            self._flush(self._n_pending)
        finally:
            self._file.close()
        self._target.check()

    def abandon(self) -> None:
        with contextlib.suppress(RuntimeError, OSError, ValueError):  # also if it is closed
            self._file.close()
        self._target.close()

    def _create(self, columns: StoredColumns) -> None:
        for name in columns.arrays:
            if "/" in name or name in ("", "."):
                raise InputError(f"HDF5 takes no column called {name!r}: rename it without '/'")
        self._file.attrs["column_order"] = _checked_size("column_order", list(columns.arrays))
        for name, values in columns.arrays.items():
            dataset = self._file.create_dataset(
                name,
                shape=(0,),
                maxshape=(None,),
                chunks=(CHUNK,),
                dtype=values.dtype,
                compression="gzip",
                compression_opts=4,
                shuffle=True,
                track_times=False,
            )
            dataset.attrs["unit"] = columns.units.get(name, "")
            if name in columns.conditions or name == columns.weight:
                dataset.attrs["role"] = "weight" if name == columns.weight else "condition"
            if name in columns.originals:
                dataset.attrs["original"] = columns.originals[name]
            if name in columns.categories:
                texts = list(columns.categories[name])
                dataset.attrs["categories"] = _checked_size(f"categories of {name}", texts)

    def _flush(self, n_rows: int) -> None:
        if n_rows == 0:
            return
        names = list(self._pending[0])
        held = {name: np.concatenate([a[name] for a in self._pending]) for name in names}
        # Chunk by chunk, so that the order of chunks in the file is always the same.
        for start in range(0, n_rows, CHUNK):
            size = min(CHUNK, n_rows - start)
            for name, values in held.items():
                self._file[name].resize((self._n_written + size,))
                self._file[name][self._n_written :] = values[start : start + size]
            self._target.check()
            self._n_written += size
            if self._n_written % (CHUNK * max(1, SEGMENT // (CHUNK * len(names)))) == 0:
                self._file.close()
                self._open("r+")
        self._n_pending -= n_rows
        self._pending = [{name: values[n_rows:].copy() for name, values in held.items()}]


def _encoded(name: str, value: Any) -> Any:
    value = to_plain(value)
    if not isinstance(value, (bool, int, float, str)):
        value = "json:" + json.dumps(value, sort_keys=True)
    return _checked_size(name, value) if isinstance(value, str) else value


def _decoded(value: Any) -> Any:
    value = to_plain(value.decode() if isinstance(value, bytes) else value)
    if isinstance(value, str) and value.startswith("json:"):
        return json.loads(value[5:])
    return value


def _checked_size(name: str, value: Any) -> Any:
    # A list is stored as references of 16 bytes; a single text in place.
    size = len(value.encode()) if isinstance(value, str) else 16 * len(value)
    if size > MAX_ATTRIBUTE:
        raise InputError(
            f"the attribute {name!r} has {size} bytes, HDF5 holds {MAX_ATTRIBUTE} at most: store"
            " a digest or a file name instead"
        )
    return value


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(map(_text, np.ravel(values)))
