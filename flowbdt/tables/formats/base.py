"""The interface of table formats, their registry, and the checks that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...atomic_files import read_json, to_plain, write_json
from ...errors import FormatError, InputError
from ...registry import Registry
from .. import checks
from ..event_table import EventTable

if TYPE_CHECKING:
    import pandas as pd

JETNET = " (JetNet's own layout is read by flowbdt.physics.jets.jetnet_files.read_jetnet)"
MAX_CATEGORIES = 1000
"""More different texts than this in a column are taken for numbers that could not be read."""


@dataclass
class StoredColumns:
    """The content of a table file: arrays (n,) by name in order, and what is known about them.

    An array may stand for values that are still in the file, if it has a shape and slices.
    """

    arrays: dict[str, Any]
    units: dict[str, str] = field(default_factory=dict)
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    weight: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, table: EventTable, attributes: Mapping[str, Any]) -> StoredColumns:
        """Return all columns of a table in the types to store; categories as codes."""
        names = (*table.names, *table.cond_names, *(() if table.weight is None else ("weight",)))
        checks.unique_names(names, len(names), "the table to write (columns, conditions, weight)")
        arrays = {
            name: table.x[:, i].astype(dtype)
            for i, (name, dtype) in enumerate(zip(table.names, table.dtypes, strict=True))
        }
        if table.cond is not None:
            arrays |= {name: table.cond[:, i].copy() for i, name in enumerate(table.cond_names)}
        if table.weight is not None:
            arrays["weight"] = table.weight
        units = dict(zip(table.names, table.units, strict=True))
        categories = {name: texts for name, texts in table.categories.items() if name in names}
        weight = None if table.weight is None else "weight"
        return cls(arrays, units, categories, table.cond_names, weight, dict(attributes))

    @property
    def description(self) -> dict[str, Any]:
        """All but the values as plain values, for formats that have one place for everything."""
        dtypes = {name: values.dtype.name for name, values in self.arrays.items()}
        known = {key: value for key, value in vars(self).items() if key != "arrays"}
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
        )

    def to_frame(self) -> pd.DataFrame:
        """Return the columns as people read them: categories as texts, missing ones as None."""
        import pandas as pd

        arrays = dict(self.arrays)
        for name, texts in self.categories.items():
            lookup = np.array([*texts, None], dtype=object)
            codes = np.nan_to_num(arrays[name].astype(np.float64), nan=len(texts))
            arrays[name] = lookup[codes.astype(np.int64)]
        return pd.DataFrame(arrays)

    def n_rows(self, path: Path, names: Iterable[str] | None = None) -> int:
        """Return the common length of some columns. Raises InputError if none, unequal or zero."""
        lengths: dict[str, int] = {}
        for name in self.arrays if names is None else names:
            shape = self.arrays[name].shape
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


class TableFormat(ABC):
    """One kind of table file, registered in `FORMATS` under each ending that it has.

    Derive from `WholeFormat` unless the format can be read and written in blocks: ``in_blocks``
    says that tables may be larger than the memory.
    """

    in_blocks: ClassVar[bool] = False

    @abstractmethod
    def opened(self, path: Path) -> AbstractContextManager[StoredColumns]:
        """Return the content of a file, usable within a ``with`` block."""

    @abstractmethod
    def writer(self, part: Path, path: Path, attributes: Mapping[str, Any]) -> Writer:
        """Begin the file ``part``, which becomes ``path`` when it is whole."""

    def blocks(self, path: Path, block_rows: int, first: int = 0) -> Iterator[StoredColumns]:
        """Yield the conditions (all columns, if none are marked) from row ``first`` on."""
        with self.opened(path) as stored:
            names = stored.conditions or tuple(stored.arrays)
            for low in range(first, stored.n_rows(path), block_rows):
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
        return dict(read_json(_beside(path))) if _beside(path).is_file() else {}

    def attributes(self, path: Path) -> dict[str, Any]:
        return dict(self.description(path).get("attributes", {}))


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


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
    return FormatError(
        f"{path} is not a readable {path.suffix} file ({error}); it may be truncated or of another"
        " format: copy or make it again"
    )


def coded(stored: StoredColumns, names: Iterable[str], path: Path) -> dict[str, np.ndarray]:
    """Return columns as `EventTable.of` takes them: native numbers, or texts that are categories.

    Raises InputError if a column mixes numbers and texts, holds other objects, or too many texts;
    FormatError if codes do not fit the stored categories.
    """
    return {n: _coded(stored.arrays[n], n, stored.categories.get(n), path) for n in names}


def _coded(
    values: np.ndarray, name: str, categories: tuple[str, ...] | None, path: Path
) -> np.ndarray:
    if values.dtype.kind in "biuf":
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if categories is not None:
            _check_codes(values, name, len(categories), path)
        return values
    if values.dtype.kind not in "OUST":
        return values  # times and complex numbers: refused by EventTable.of
    values = _checked_texts(values, name, path)
    return values if categories is None else _codes(values, name, categories, path)


def _check_codes(values: np.ndarray, name: str, n_texts: int, path: Path) -> None:
    present = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    if present.size and not (present.min() >= 0 and present.max() < n_texts):
        raise FormatError(
            f"{path}: the codes of {name!r} must be 0 to {n_texts - 1}, as many as it has"
            f" categories, got {present.min()} to {present.max()}: make the file again"
        )


def _checked_texts(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    import pandas as pd

    series = pd.Series(values, dtype=object)
    series = series.map(lambda item: item.decode() if isinstance(item, bytes) else item)
    present = series.notna()
    plain = series[present].map(lambda item: isinstance(item, (str, bool, int, float)))
    if not plain.all():
        raise InputError(f"{path}: column {name!r} must hold numbers or texts, got other objects")
    numeric = pd.to_numeric(series[present], errors="coerce").notna()
    if numeric.any() and not numeric.all():
        row = int(numeric.index[int(np.argmin(numeric.to_numpy()))])
        raise InputError(
            f"{path}: column {name!r} must be numeric or text throughout, but row {row} has"
            f" {series[row]!r} among numbers: correct or remove these rows"
        )
    if series[present].nunique() > MAX_CATEGORIES:
        raise InputError(
            f"{path}: column {name!r} has more than {MAX_CATEGORIES} different texts (such as"
            f" {series[present].iloc[0]!r}), which is no category; write it as numbers or leave"
            " it out"
        )
    return series.to_numpy(dtype=object)


def _codes(values: np.ndarray, name: str, categories: tuple[str, ...], path: Path) -> np.ndarray:
    import pandas as pd

    present = pd.notna(values)
    unknown = sorted({str(item) for item in values[present]} - set(categories))
    if unknown:
        raise FormatError(
            f"{path}: column {name!r} has {', '.join(unknown)}, stored categories are"
            f" {', '.join(categories)}: correct the file beside it"
        )
    lookup = {text: code for code, text in enumerate(categories)}
    codes = np.array([lookup.get(str(item), -1) for item in values])
    return codes if present.all() else np.where(present, codes, np.nan)
