"""`EventTable`: events as rows, named columns with units, optional conditions and weights.

`align_conditions` and `align_columns` bring a table to the order and coding of the training table.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataWarning, InputError, InputTypeError
from . import checks

if TYPE_CHECKING:
    import pandas as pd


Categories = dict[str, tuple[str, ...]]
"""The texts of columns by name; a code is the position of its text."""


@dataclass(frozen=True, eq=False)
class EventTable:
    """A table of events that knows its columns.

    Build it with `EventTable.of` (checked) or read it with `flowbdt.read_table`.

    Parameters
    ----------
    x : ndarray (n, d), float64, in ``units``
    names : tuple of str, one per column of x
    units : tuple of str, "" where a column has none
    dtypes : tuple of str, numpy names of the types the columns came in and go out as
    cond : ndarray (n, c), float64, or None; NaN marks a missing condition
    cond_names : tuple of str
    weight : ndarray (n,), float64, non-negative, or None for unit weights
    categories : for columns or conditions that came as text, the texts; x holds their position
    """

    x: np.ndarray
    names: tuple[str, ...]
    units: tuple[str, ...]
    dtypes: tuple[str, ...]
    cond: np.ndarray | None = None
    cond_names: tuple[str, ...] = ()
    weight: np.ndarray | None = None
    categories: Categories = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        x: Any,
        names: Sequence[str] | None = None,
        *,
        units: dict[str, str] | None = None,
        cond: Any = None,
        weight: Any = None,
    ) -> EventTable:
        """Build a checked table from an EventTable, a DataFrame or a 2-d array.

        Raises
        ------
        InputError
            If the table is not two-dimensional and numeric, has NaN or infinity, repeated names,
            negative weights, or another number of conditions or weights than of rows.
        """
        if isinstance(x, EventTable):
            table = x if names is None else x.select(names)
        else:
            table = _from_columns(x, names, units or {})
        if cond is not None:
            added = conditions_table(cond, table.n)
            categories = {**table.categories, **added.categories}
            table = replace(table, cond=added.x, cond_names=added.names, categories=categories)
        if weight is not None:
            table = replace(table, weight=checks.weights(weight, table.n))
        checks.finite(table.x, table.names, "the table")
        return table

    @property
    def n(self) -> int:
        """Number of events."""
        return int(self.x.shape[0])

    def __len__(self) -> int:
        return self.n

    def column(self, name: str) -> np.ndarray:
        """Return one column (n,). Raises InputError that lists the known names."""
        return self.x[:, self._index(name)]

    def unit(self, name: str) -> str:
        """Return the unit of one column. Raises InputError that lists the known names."""
        return self.units[self._index(name)]

    def _index(self, name: str) -> int:
        checks.known_columns([name], self.names, "the table")
        return self.names.index(name)

    def select(self, names: Sequence[str]) -> EventTable:
        """Return the table with these columns only, in this order."""
        index = [self._index(name) for name in names]
        return replace(
            self,
            x=self.x[:, index],
            names=tuple(names),
            units=tuple(self.units[i] for i in index),
            dtypes=tuple(self.dtypes[i] for i in index),
        )

    def take(self, rows: Any) -> EventTable:
        """Return the events ``rows`` (a slice, index array or mask)."""
        return replace(
            self,
            x=self.x[rows],
            cond=None if self.cond is None else self.cond[rows],
            weight=None if self.weight is None else self.weight[rows],
        )

    def as_conditions(self, names: Sequence[str]) -> EventTable:
        """Move columns to the conditions, unless they are there already."""
        names = [name for name in names if name not in self.cond_names]
        if not names:
            return self
        moved = self.select(names).x
        cond = moved if self.cond is None else np.hstack([self.cond, moved])
        rest = self.select([name for name in self.names if name not in names])
        return replace(rest, cond=cond, cond_names=(*self.cond_names, *names))

    def like(self, other: EventTable) -> EventTable:
        """Return the table with the columns of another, and where present its conditions."""
        moved = [name for name in other.cond_names if name in self.names]
        return self.as_conditions(moved).select(other.names)

    @staticmethod
    def concatenate(tables: Sequence[EventTable]) -> EventTable:
        """Stack tables of the same columns; categories become the union of all texts.

        Raises InputError if there is no table, or if columns, units or conditions differ.
        """
        if not tables:
            raise InputError("there must be at least one table to stack, got none")
        first = tables[0]
        for what in ("names", "cond_names", "units"):
            for values in (getattr(table, what) for table in tables):
                if values != (expected := getattr(first, what)):
                    raise InputError(
                        f"tables to stack must have equal {what}, got {expected} and {values}"
                    )
        if any(table.categories != first.categories for table in tables[1:]):
            texts = united([table.categories for table in tables])
            tables = [table.recoded(texts) for table in tables]
            first = tables[0]
        return replace(
            first,
            x=np.concatenate([table.x for table in tables]),
            cond=_stack([table.cond for table in tables]),
            weight=_stack([table.weight for table in tables]),
        )

    def recoded(self, categories: Categories) -> EventTable:
        """Return the table with the category codes of another one, whose ``categories`` these are.

        A table numbers the texts that it holds, so its codes differ from those of a table with
        more texts. Raises InputError for a text that is not in the other list, and for numbers.
        """
        x, cond = self.x.copy(), None if self.cond is None else self.cond.copy()
        conditions = zip(self.cond_names, () if cond is None else cond.T, strict=True)
        for name, values in (*zip(self.names, x.T, strict=True), *conditions):
            if name in categories:
                values[:] = _recode(name, values, self.categories.get(name), categories[name])
        return replace(self, x=x, cond=cond, categories={**self.categories, **categories})

    def to_frame(self) -> pd.DataFrame:
        """Return a DataFrame with the columns in the types they came in (no conditions)."""
        import pandas as pd

        return pd.DataFrame({name: self.typed(name) for name in self.names})

    def typed(self, name: str) -> np.ndarray:
        """Return one column in the type it came in; categories as their texts."""
        values = self.column(name)
        if name in self.categories:
            return np.asarray(self.categories[name], dtype=object)[values.astype(np.int64)]
        return values.astype(self.dtypes[self.names.index(name)])


def united(tables: Sequence[Categories]) -> Categories:
    """Return the categories of tables together, those of the first table first."""
    result: Categories = {}
    for categories in tables:
        for name, texts in categories.items():
            result[name] = tuple(dict.fromkeys((*result.get(name, ()), *texts)))
    return result


def _recode(
    name: str, codes: np.ndarray, old: tuple[str, ...] | None, new: tuple[str, ...]
) -> np.ndarray:
    if old == new:
        return codes
    if old is None:
        raise InputError(
            f"column {name!r} must hold texts, one of {', '.join(new)}; got numbers: hand the"
            " column in as text"
        )
    present = ~np.isnan(codes)  # NaN: a missing condition
    used = np.unique(codes[present]).astype(np.int64)
    unknown = [old[code] for code in used if old[code] not in new]
    if unknown:
        raise InputError(
            f"column {name!r} has the unknown categories {', '.join(unknown)};"
            f" known: {', '.join(new)}"
        )
    lookup = np.array([new.index(text) if text in new else -1 for text in old], dtype=np.float64)
    result = codes.copy()
    result[present] = lookup[codes[present].astype(np.int64)]
    return result


def _stack(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    present = [array for array in arrays if array is not None]
    if not present:
        return None
    if len(present) != len(arrays):
        raise InputError("either all tables to stack have conditions (weights), or none")
    return np.concatenate(present)


def _is_frame(data: Any) -> bool:
    return hasattr(data, "columns") and hasattr(data, "iloc")


def _from_columns(
    data: Any, names: Sequence[str] | None, units: dict[str, str], gaps: bool = False
) -> EventTable:
    """Return columns as a table; with ``gaps`` those of conditions, where NaN means missing."""
    what, letter = ("the conditions", "c") if gaps else ("the table", "x")
    if _is_frame(data):
        columns = [data.iloc[:, i] for i in range(data.shape[1])]
        names = list(data.columns) if names is None else names
    else:
        columns = list(_numeric_2d(data, what).T)
        names = [f"{letter}{i}" for i in range(len(columns))] if names is None else names
    if not columns:
        raise InputError(
            f"{what} has 0 feature(s) (shape=({len(data)}, 0)) while a minimum of 1 is required."
        )
    checked = checks.unique_names(names, len(columns), what)
    read = {n: _as_float(column, n, gaps) for n, column in zip(checked, columns, strict=True)}
    return EventTable(
        x=np.column_stack([values for values, _, _ in read.values()]),
        names=checked,
        units=tuple(units.get(name, "") for name in checked),
        dtypes=tuple(dtype for _, dtype, _ in read.values()),
        categories={name: texts for name, (_, _, texts) in read.items() if texts},
    )


def _numeric_2d(data: Any, what: str) -> np.ndarray:
    if hasattr(data, "tocsr"):
        raise InputError(f"{what} must be a dense array, got a sparse one; call .toarray() first")
    array = np.asarray(data)
    if array.ndim != 2:
        raise InputError(
            f"{what} must be a 2-d array (events, columns), got {array.ndim} dimension(s)."
            " Reshape your data: x.reshape(-1, 1) makes one column"
        )
    if array.dtype.kind == "c":
        raise InputError(f"{what} must hold real numbers. Complex data not supported")
    if array.dtype.kind not in "biuf":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            kind = InputTypeError if isinstance(error, TypeError) else InputError
            raise kind(
                f"{what} must hold numbers, got dtype {array.dtype} ({error});"
                " hand text columns in as a DataFrame"
            ) from error
    return array


def _as_float(column: Any, name: str, gaps: bool) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """Return values as float64, the type to give back, and the texts if it was categorical."""
    if isinstance(column, np.ndarray):
        return _exact(column, name, gaps), column.dtype.name, ()
    if column.dtype == object:  # numbers in an object column are numbers
        column = column.infer_objects()
    numbers = column.dtype.kind in "biuf"
    if numbers and gaps:
        return column.to_numpy(dtype=np.float64, na_value=np.nan), "float64", ()
    if numbers and isinstance(column.dtype, np.dtype):
        return _exact(column.to_numpy(), name, gaps), column.dtype.name, ()
    if not gaps and column.isna().any():
        raise InputError(
            f"column {name!r} has {int(column.isna().sum())} missing entries; fill them in, drop"
            " these rows, or hand the column in as a condition, where missing is allowed"
        )
    if numbers:  # pandas' nullable and Arrow numbers
        dtype = np.dtype(getattr(column.dtype, "numpy_dtype", np.float64))
        return _exact(column.to_numpy(dtype=dtype), name, gaps), dtype.name, ()
    values, texts = _texts(column, name)
    return values, "int64", texts


def _exact(values: np.ndarray, name: str, gaps: bool) -> np.ndarray:
    """Return values as float64; warn if integers of a column are too large for that."""
    large = (
        not gaps and values.dtype.kind in "iu" and values.dtype.itemsize == 8 and values.size > 0
    )
    if large and max(int(values.max()), -int(values.min())) > 2**53:
        warnings.warn(
            f"column {name!r} has integers beyond 2**53, which are rounded to a multiple of"
            " 2 or more; leave out identifiers, they are not quantities to learn",
            DataWarning,
            stacklevel=2,
        )
    return values.astype(np.float64)


def _texts(column: Any, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return codes (n,) float64, NaN where missing, and the texts that the codes count."""
    if column.dtype.kind in "cmM":
        raise InputError(
            f"column {name!r} must hold real numbers or texts, got {column.dtype}. Complex data"
            " and times are not supported: split or convert the column first"
        )
    present = column.notna().to_numpy()
    used = {str(value) for value in column[present]}
    known = [str(text) for text in column.cat.categories] if hasattr(column, "cat") else []
    # An ordered list that came with the column keeps its order; text is sorted, never a set.
    texts = tuple(known) if used <= set(known) else tuple(sorted(used))
    codes = {text: code for code, text in enumerate(texts)}
    values = np.array([codes.get(str(value), np.nan) for value in column], dtype=np.float64)
    return np.where(present, values, np.nan), texts


def conditions_table(cond: Any, n_rows: int) -> EventTable:
    """Return conditions as a table of their own; NaN means missing."""
    if hasattr(cond, "to_frame") and hasattr(cond, "iloc"):  # a pandas Series
        cond = cond.to_frame(name="c0" if cond.name is None else cond.name)
    if not isinstance(cond, EventTable):
        if not _is_frame(cond):
            cond = np.asarray(cond)
            cond = cond[:, None] if cond.ndim == 1 else cond
        cond = _from_columns(cond, None, {}, gaps=True)
    if cond.n != n_rows:
        raise InputError(f"conditions need one row per event: {n_rows} events, {cond.n} rows")
    if np.isinf(cond.x).any():
        raise InputError("conditions must not be infinite (NaN is allowed and means missing)")
    return cond


def align_conditions(
    cond: Any, names: tuple[str, ...], categories: Categories, n_rows: int
) -> np.ndarray:
    """Return conditions (n_rows, c) as float64, in the order and coding of the training table.

    ``cond`` is an array, DataFrame, Series or EventTable of ``n_rows`` rows, or of one for all
    events. Columns go by name, or by position where there are no names. An EventTable (from
    `read_conditions`, for example) may have more columns. ``names`` and ``categories`` are those of
    the conditions that the model was trained with.

    Raises InputError if a column is missing or unknown, a category was never trained on, the number
    of rows is neither 1 nor ``n_rows``, or a value is infinite.
    """
    rows = len(cond) if hasattr(cond, "__len__") else 0
    if rows not in (1, n_rows):
        raise InputError(f"cond must have 1 or {n_rows} rows, one per event, got {rows}")
    if isinstance(cond, EventTable) and set(names) < set(cond.names):
        cond = cond.select(names)  # a file of whole events
        cond = replace(cond, categories={k: v for k, v in cond.categories.items() if k in names})
    table = EventTable.of(np.zeros((rows, 1)), cond=cond)
    if not set(table.cond_names) & set(names) and len(table.cond_names) == len(names):
        renamed = dict(zip(table.cond_names, names, strict=True))  # by position
        texts = {renamed.get(name, name): text for name, text in table.categories.items()}
        table = replace(table, cond_names=names, categories=texts)
    checks.same_columns(table.cond_names, names, "cond")
    values = _in_coding(table, categories).cond
    assert values is not None  # there were conditions
    values = values[:, [table.cond_names.index(name) for name in names]]
    # one row for all is not copied: of very many events there need not be an array
    return np.broadcast_to(values, (n_rows, len(names))) if rows == 1 else values


def align_columns(data: Any, names: tuple[str, ...], categories: Categories) -> EventTable:
    """Return a table with the columns of another: by name, or by position for a plain array.

    Raises InputError if columns are missing or unknown, or hold a text unknown to the other table.
    """
    named = isinstance(data, EventTable) or hasattr(data, "columns")
    table = EventTable.of(data) if named else EventTable.of(data, names)
    checks.same_columns(table.names, names, "the source table")
    return _in_coding(table.select(names), categories)


def like_training(table: EventTable, columns: Mapping[str, Any]) -> EventTable:
    """Return real events with the columns, conditions and codes of a run, whose plan has them."""
    names = tuple(columns["names"])
    categories = {name: tuple(texts) for name, texts in columns["categories"].items()}
    table = table.as_conditions(columns["conditions"]).select(names)
    return align_columns(table, names, categories)


def _in_coding(table: EventTable, categories: Categories) -> EventTable:
    """Return the table in the category codes that a model was trained with."""
    present = (*table.names, *table.cond_names)
    for name in table.categories:
        if name in present and name not in categories:
            raise InputError(f"column {name!r} must hold numbers, as in training; it holds texts")
    return table.recoded({k: v for k, v in categories.items() if k in present})
