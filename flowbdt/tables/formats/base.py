"""The interface of table formats, their registry, and the checks that all of them share."""

from __future__ import annotations

import fnmatch
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import msgspec
import numpy as np

from ...atomic_files import read_json, to_plain, write_json
from ...errors import FormatError, InputError
from ...registry import Registry
from .. import checks
from ..event_table import EventTable, cast
from ..original_types import original_column

if TYPE_CHECKING:
    import pandas as pd

JETNET = " (JetNet's own layout is read by flowbdt.physics.jets.jetnet_files.read_jetnet)"


@dataclass
class StoredColumns:
    """The content of a table file: arrays (n,) by name in order, and what is known about them.

    An array may stand for values that are still in the file, if it has a shape and slices. One that
    is no column says in ``refusal`` why, and what to do. ``derive`` returns the columns, none of
    them listed, that a name or pattern stands for.
    """

    arrays: dict[str, Any]
    units: dict[str, str] = field(default_factory=dict)
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    weight: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    originals: dict[str, str] = field(default_factory=dict)
    derive: Callable[[str], dict[str, Any]] = lambda pattern: {}

    @classmethod
    def of(cls, table: EventTable, attributes: Mapping[str, Any]) -> StoredColumns:
        """Return all columns of a table in the types to store; categories as codes."""
        names = (*table.names, *table.cond_names, *(() if table.weight is None else ("weight",)))
        checks.unique_names(names, len(names), "the table to write (columns, conditions, weight)")
        arrays = {
            name: cast(values, dtype)
            for name, values, dtype in zip(table.names, table.x.T, table.dtypes, strict=True)
        }
        if table.cond is not None:
            arrays |= {name: table.cond[:, i].copy() for i, name in enumerate(table.cond_names)}
        if table.weight is not None:
            arrays["weight"] = table.weight
        units = dict(zip(table.names, table.units, strict=True))
        categories = {name: texts for name, texts in table.categories.items() if name in names}
        weight = None if table.weight is None else "weight"
        originals = {name: known for name, known in table.originals.items() if name in names}
        roles: dict[str, Any] = {
            "conditions": table.cond_names,
            "weight": weight,
            "originals": originals,
        }
        return cls(arrays, units, categories, attributes=dict(attributes), **roles)

    @property
    def description(self) -> dict[str, Any]:
        """All but the values as plain values, for formats that have one place for everything."""
        dtypes = {name: values.dtype.name for name, values in self.arrays.items()}
        known = {key: value for key, value in vars(self).items() if key not in ("arrays", "derive")}
        if not self.originals:
            del known["originals"]
        return dict(to_plain({"flowbdt_table": 1, "dtypes": dtypes, **known}))

    @classmethod
    def described(
        cls, arrays: dict[str, np.ndarray], description: Mapping[str, Any]
    ) -> StoredColumns:
        """Join arrays and a `description`; names that the arrays lack are left out."""
        weight = description.get("weight")
        return cls(
            arrays,
            {k: str(v) for k, v in description.get("units", {}).items() if k in arrays},
            {k: tuple(v) for k, v in description.get("categories", {}).items() if k in arrays},
            tuple(name for name in description.get("conditions", ()) if name in arrays),
            weight if weight in arrays else None,
            dict(description.get("attributes", {})),
            {k: str(v) for k, v in description.get("originals", {}).items() if k in arrays},
        )

    def to_frame(self, categories_as_texts: bool = False) -> pd.DataFrame:
        """Return the columns as people read them: categories as values, missing ones as None."""
        import pandas as pd

        types = {name: known for name, known in self.originals.items() if known != "bytes"}
        if categories_as_texts:
            types = {name: known for name, known in types.items() if name not in self.categories}
        columns = {
            name: original_column(values, self.categories.get(name), types.get(name, ""))
            for name, values in self.arrays.items()
        }
        return pd.DataFrame(columns)

    def named(self, names: Iterable[str], but: Collection[str] = ()) -> list[str]:
        """Return names, with the columns that a pattern such as ``Jet_*`` matches in its place.

        Patterns leave out what is there already, and ``but``. Columns that are derived join
        ``arrays``; a name that is not known stays as it is.
        """
        found: list[str] = []
        for name in names:
            if name in self.arrays:
                found.append(name)
                continue
            derived = self.derive(name)
            matching = fnmatch.filter(self.arrays, name)
            self.arrays.update(derived)
            taken = {*found, *but}
            new = [n for n in dict.fromkeys((*matching, *derived)) if n not in taken]
            found += new if matching or derived else [name]
        return found

    def n_rows(self, path: Path, names: Iterable[str] | None = None) -> int:
        """Return the common length of some columns. Raises InputError if none, unequal or zero."""
        lengths: dict[str, int] = {}
        for name in self.arrays if names is None else names:
            if refusal := getattr(self.arrays[name], "refusal", ""):
                raise InputError(f"{path}: column {name!r} {refusal}")
            shape: tuple[int, ...] = self.arrays[name].shape or ()
            if len(shape) != 1:
                raise InputError(
                    f"{path}: column {name!r} must have shape (n,), got {shape}; write one array"
                    f" per column{JETNET if name.endswith('_features') else ''}"
                )
            lengths[name] = shape[0]
        if not lengths:
            raise InputError(f"{path} has no columns; expected at least one")
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise InputError(f"{path}: columns must have equal numbers of rows, got {listed}")
        if 0 in lengths.values():
            raise InputError(f"{path} has no rows; expected at least one event")
        return next(iter(lengths.values()))

    def rows(self, names: Iterable[str], span: slice) -> StoredColumns:
        """Return some columns of some rows, in memory."""
        values = {name: self.arrays[name][span] for name in names}
        in_memory = {n: np.array(v) if isinstance(v, np.memmap) else v for n, v in values.items()}
        return replace(self, arrays=in_memory)


class Writer(ABC):
    """A table file that is being written, block by block."""

    @abstractmethod
    def append(self, table: EventTable) -> None:
        """Add the rows of ``table``, whose columns are those of the blocks before."""

    @abstractmethod
    def close(self) -> None:
        """Write what was held back and close the file."""

    def abandon(self) -> None:  # noqa: B027  (most formats have nothing open)
        """Close the file without writing what was held back."""


class GrowingFile(io.FileIO):
    """A file that keeps the first error of writing, and from then on only pretends to write.

    HDF5 crashes where a write fails or a file cannot be closed, others take part of a write for all
    of it: `check` raises the error later.
    """

    _error: OSError | None = None

    def write(self, content: Any) -> int:
        rest = memoryview(content).cast("B")
        size = len(rest)
        try:
            while len(rest) and self._error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size) if self._error is None else 0
        except OSError as error:
            self._error = error
            return 0

    def check(self) -> None:
        """Raise the OSError that was kept, if any."""
        if self._error is not None:
            raise self._error


class TableFormat(ABC):
    """One kind of table file, registered in `FORMATS` under each ending that it has.

    Derive from `WholeFormat` unless the format can be read and written in blocks: ``in_blocks``
    says that tables may be larger than the memory.
    """

    in_blocks: ClassVar[bool] = False
    parts: ClassVar[str] = ""
    """What a name behind a colon chooses in a file, as in ``events.root:Events``, if anything."""
    texts: Collection[str] = ()
    """Columns of known categories, for formats in which a text may look like a number."""

    @abstractmethod
    def opened(self, path: Path) -> AbstractContextManager[StoredColumns]:
        """Return the content of a file, usable within a ``with`` block."""

    @abstractmethod
    def writer(self, part: Path, path: Path, attributes: Mapping[str, Any]) -> Writer:
        """Begin the file ``part``, which becomes ``path`` when it is whole."""

    def blocks(
        self, path: Path, block_rows: int, first: int = 0, names: Sequence[str] = ()
    ) -> Iterator[StoredColumns]:
        """Yield rows from ``first`` on: at least the columns ``names``, if all of them are there.

        Else the conditions, or all columns if none are marked.
        """
        with self.opened(path) as stored:
            if not names or not set(stored.named(names)) <= set(stored.arrays):
                names = stored.conditions or tuple(stored.arrays)
            for low in range(first, stored.n_rows(path, names), block_rows):
                yield stored.rows(names, slice(low, low + block_rows))

    def count_rows(self, path: Path) -> int:
        """Return the number of rows."""
        with self.opened(path) as stored:
            return stored.n_rows(path)

    def attributes(self, path: Path) -> dict[str, Any]:
        """Return the attributes that were stored with the table."""
        with self.opened(path) as stored:
            return stored.attributes


FORMATS: Registry[TableFormat] = Registry("ending of the table file")


class WholeFormat(TableFormat):
    """A format whose files are read and written at once."""

    @abstractmethod
    def read(self, path: Path) -> StoredColumns:
        """Return the content of a file. Raises FormatError if it is damaged."""

    @abstractmethod
    def write(self, part: Path, path: Path, columns: StoredColumns) -> None:
        """Write the file ``part``, which becomes ``path`` when it is whole."""

    @contextmanager
    def opened(self, path: Path) -> Iterator[StoredColumns]:
        yield self.read(path)

    def writer(self, part: Path, path: Path, attributes: Mapping[str, Any]) -> Writer:
        return _WholeWriter(self, part, path, attributes)


class _WholeWriter(Writer):
    def __init__(self, kind: WholeFormat, *target: Any) -> None:
        self._kind, self._target = kind, target
        self._blocks: list[EventTable] = []

    def append(self, table: EventTable) -> None:
        self._blocks.append(table)

    def close(self) -> None:
        part, path, attributes = self._target
        table = EventTable.concatenate(self._blocks)
        self._kind.write(part, path, StoredColumns.of(table, attributes))


class PlainFormat(WholeFormat):
    """A format for values only: the rest is in a file beside, ``.json`` added to the name."""

    @abstractmethod
    def write_values(self, part: Path, columns: StoredColumns) -> None:
        """Write the file ``part`` with the values of the columns."""

    def write(self, part: Path, path: Path, columns: StoredColumns) -> None:
        self.write_values(part, columns)
        write_json(_beside(path), columns.description)

    def description(self, path: Path) -> dict[str, Any]:
        """Return the `StoredColumns.description` beside a file; empty if there is none."""
        beside = _beside(path)
        return checked_description(read_json(beside), beside) if beside.is_file() else {}

    def attributes(self, path: Path) -> dict[str, Any]:
        return dict(self.description(path).get("attributes", {}))


def split_path(path: Path) -> tuple[Path, str]:
    """Return the file and, where its format has several `TableFormat.parts`, the name of one."""
    endings = (name for name in FORMATS.names() if FORMATS.get(name).parts)
    match = re.fullmatch(rf"(.+(?:{'|'.join(map(re.escape, endings))})):(.*)", str(path), re.I)
    return (path, "") if match is None else (Path(match[1]), match[2])


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


class Description(TypedDict, total=False):
    """The types in a `StoredColumns.description`."""

    units: dict[str, str]
    categories: dict[str, list[str]]
    originals: dict[str, str]
    conditions: list[str]
    weight: str | None
    dtypes: dict[str, str]
    attributes: dict[str, Any]


def checked_description(content: Any, path: Path) -> dict[str, Any]:
    """Return the description that came with a file. Raises FormatError if it is none."""
    try:
        described: dict[str, Any] = msgspec.convert(content, Description)
        for dtype in described.get("dtypes", {}).values():
            np.dtype(dtype)
    except (msgspec.ValidationError, TypeError) as error:
        raise FormatError(
            f"{path} does not describe a table ({error}): write the table again, or delete the"
            " description"
        ) from error
    return described


def rows_from(blocks: Iterator[StoredColumns], first: int) -> Iterator[StoredColumns]:
    """Leave out the rows before ``first`` of a format that is read from its beginning."""
    low = 0
    for columns in blocks:
        size = len(next(iter(columns.arrays.values())))
        if low + size > first:
            yield columns.rows(columns.arrays, slice(max(first - low, 0), None))
        low += size


def unreadable(path: Path, error: Exception) -> FormatError:
    """Return the error for a file that the library for its format cannot read."""
    if "pickle" in str(error):
        return FormatError(
            f"{path} holds Python objects or no array at all; only plain arrays are read: save"
            " numbers, or texts as numpy strings"
        )
    ending = split_path(path)[0].suffix
    return FormatError(
        f"{path} is not a readable {ending} file ({error}); it may be truncated or of another"
        " format: copy or make it again"
    )


def coded(stored: StoredColumns, names: Iterable[str], path: Path) -> dict[str, Any]:
    """Return columns as `EventTable.of` takes them; those with stored categories as codes.

    Raises FormatError if codes or texts do not fit the stored categories.
    """
    return {n: _coded(stored.arrays[n], n, stored.categories.get(n), path) for n in names}


def _coded(values: Any, name: str, categories: tuple[str, ...] | None, path: Path) -> Any:
    plain = isinstance(values, np.ndarray)
    if plain and values.dtype.kind in "biuf":
        if categories is not None:
            _check_codes(values, name, len(categories), path)
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if plain and values.dtype.kind == "V":
        raise InputError(f"{path}: column {name!r} must hold numbers or texts, got {values.dtype}")
    if plain and values.dtype.kind in "SUT":
        try:
            texts = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
        except UnicodeDecodeError as error:
            raise FormatError(f"{path}: column {name!r} is no UTF-8 text ({error})") from error
        values = texts.astype(object)
    return values if categories is None else _codes(values, name, categories, path)


def _check_codes(values: np.ndarray, name: str, n_texts: int, path: Path) -> None:
    present = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    fits = (present >= 0) & (present < n_texts) & (present == np.floor(present))
    if not fits.all():
        raise FormatError(
            f"{path}: the codes of {name!r} must be 0 to {n_texts - 1}, as many as it has"
            f" categories, got {present[~fits][0]}: make the file again"
        )


def _codes(values: Any, name: str, categories: tuple[str, ...], path: Path) -> np.ndarray:
    import pandas as pd

    present = pd.notna(values)
    texts = pd.Series(values)[present].astype(object).map(str)
    codes = np.full(len(values), np.nan)
    codes[present] = pd.Index(categories, dtype=object).get_indexer(texts)
    if (codes < 0).any():
        raise FormatError(
            f"{path}: column {name!r} has {', '.join(sorted(set(texts) - set(categories)))}, stored"
            f" categories are {', '.join(categories)}: correct the file beside it"
        )
    return codes.astype(np.int64) if present.all() else codes
