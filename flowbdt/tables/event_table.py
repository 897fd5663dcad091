"""`EventTable`: events as rows, named columns with units, optional conditions and weights.

`align_conditions` and `align_columns` bring a table to the order and coding of the training table.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, plural
from . import checks, original_types
from .html_table import html_table, small_histogram

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
    weight : ndarray (n,), float64, of a positive sum, or None for unit weights
    categories : for columns or conditions that came as text, the texts; x holds their position
    originals : types to go out as where numpy's name does not say it: of pandas, of categories
    """

    x: np.ndarray
    names: tuple[str, ...]
    units: tuple[str, ...]
    dtypes: tuple[str, ...]
    cond: np.ndarray | None = None
    cond_names: tuple[str, ...] = ()
    weight: np.ndarray | None = None
    categories: Categories = field(default_factory=dict)
    originals: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        x: Any,
        names: Sequence[str] | None = None,
        *,
        units: dict[str, str] | None = None,
        cond: Any = None,
        weight: Any = None,
        missing: bool = False,
    ) -> EventTable:
        """Build a checked table from an EventTable, a DataFrame or a 2-d array.

        Structured arrays, mappings of arrays, records of awkward and tables of Arrow or polars are
        read by their names.
        With ``missing`` columns may have missing entries, which become NaN.

        Raises
        ------
        InputError
            If the table is not two-dimensional, or a column holds neither finite numbers nor
            plausible categories; if names repeat, weights have no positive sum, units are of no
            column, or conditions or weights are not as many as rows; if a column has missing
            entries that are not allowed, or no others.
        """
        for rows, what in ((cond, "conditions"), (weight, "weights")):
            checks.warn_of_other_order(x, rows, what)
        if isinstance(x, EventTable):
            table = x if names is None else x.select(names)
        else:
            table = _from_columns(x, names, missing=missing)
        if units:
            checks.known_columns(list(units), table.names, "units")
            known = zip(table.names, table.units, strict=True)
            table = replace(table, units=tuple(units.get(name, unit) for name, unit in known))
        if cond is not None:
            added = conditions_table(cond, table.n)
            names = (*table.names, *added.names)
            checks.unique_names(names, len(names), "columns and conditions together")
            table = replace(
                table,
                cond=added.x,
                cond_names=added.names,
                categories={**table.categories, **added.categories},
                originals={**table.originals, **added.originals},
            )
        if weight is not None:
            table = replace(table, weight=checks.weights(weight, table.n, signed=True))
        checks.finite(table.x, table.names, "the table", missing)
        return table

    @property
    def n(self) -> int:
        """Number of events."""
        return int(self.x.shape[0])

    def __len__(self) -> int:
        return self.n

    def _repr_html_(self) -> str:
        """Return the columns and conditions for notebooks, those with most missing values first."""
        return html_table(self.headline(), self.described())

    def headline(self) -> str:
        """Return the number of events, in words."""
        return f"{self.n:,} events" + ", with weights" * (self.weight is not None)

    def described(self) -> list[dict[str, Any]]:
        """Return name, unit, type, missing share, range and shape of every column and condition,
        those with most missing values first."""
        kinds = dict(zip(self.names, zip(self.units, self.dtypes, strict=True), strict=True))
        rows = []
        for name, values in self.by_name().items():
            unit, kind = kinds.get(name, ("", "condition"))
            texts, gaps = self.categories.get(name), np.isnan(values)
            known = values[~gaps]
            row = {"column": name, "unit": unit, "type": kind, "missing": float(gaps.mean())}
            if texts is None and len(known):
                row |= {"least": known.min(), "median": np.median(known), "largest": known.max()}
            shown = "" if texts is None else f" {', '.join(texts[:5])}"
            rows.append((-gaps.mean(), {**row, "shape": small_histogram(values) + shown}))
        return [row for _, row in sorted(rows, key=lambda pair: pair[0])]

    def column(self, name: str) -> np.ndarray:
        """Return one column (n,). Raises InputError that lists the known names."""
        return self.x[:, self._index(name)]

    def by_name(self) -> dict[str, np.ndarray]:
        """Return all columns and conditions (n,) by name."""
        columns = dict(zip(self.names, self.x.T, strict=True))
        if self.cond is not None:
            columns |= dict(zip(self.cond_names, self.cond.T, strict=True))
        return columns

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
        return self.as_conditions(moved).select(other.names).order_conditions(other.cond_names)

    def with_columns(self, names: Sequence[str], x: np.ndarray) -> EventTable:
        """Return the table with further columns x (n, k), float64, without units."""
        return replace(
            self,
            x=np.hstack([self.x, x]),
            names=(*self.names, *names),
            units=(*self.units, *("",) * len(names)),
            dtypes=(*self.dtypes, *("float64",) * len(names)),
        )

    def with_values(self, columns: Mapping[str, np.ndarray]) -> EventTable:
        """Return the table with other values (n,) in some of its columns, by name."""
        x = self.x.copy()
        for name, values in columns.items():
            x[:, self.names.index(name)] = values
        return replace(self, x=x)

    def order_conditions(self, names: Sequence[str]) -> EventTable:
        """Return the table with the conditions of these names first, in this order."""
        if self.cond is None:
            return self
        first = [name for name in names if name in self.cond_names]
        order = (*first, *(name for name in self.cond_names if name not in first))
        cond = self.cond[:, [self.cond_names.index(name) for name in order]]
        return replace(self, cond=cond, cond_names=order)

    @staticmethod
    def concatenate(tables: Sequence[EventTable]) -> EventTable:
        """Stack tables of the same columns; categories become the union of all texts.

        Types become the narrowest that holds those of all tables, as in numpy and pandas. Raises
        InputError if there is no table, if columns, units or conditions differ, or if a column has
        numbers here and texts there, or categories of different kinds.
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
        dtypes, originals = _joint_types(tables)
        if any(table.categories != first.categories for table in tables[1:]):
            texts = united([table.categories for table in tables])
            tables = [table.recoded(texts) for table in tables]
            first = tables[0]
        return replace(
            first,
            dtypes=dtypes,
            originals=originals,
            x=np.concatenate([table.x for table in tables]),
            cond=_stack([table.cond for table in tables]),
            weight=_stack([table.weight for table in tables]),
        )

    def _type_of(self, name: str, column: int | None) -> tuple[str, str]:
        """Return numpy's type of a column, or of a condition, and the original one."""
        return "float64" if column is None else self.dtypes[column], self.originals.get(name, "")

    def _has_values(self, name: str, column: int | None) -> bool:
        """Return if a column has texts or numbers, and not only missing entries."""
        if column is not None or self.cond is None or name in self.categories:
            return True
        return not np.isnan(self.cond[:, self.cond_names.index(name)]).all()

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

        typed = zip(self.names, self.x.T, self.dtypes, strict=True)
        return pd.DataFrame({name: self.original(name, cast(x, t)) for name, x, t in typed})

    def typed(self, name: str) -> np.ndarray:
        """Return one column in numpy's type; categories as their values."""
        values = self.column(name)
        if name in self.categories:
            known = original_types.category_values(
                self.categories[name], self.originals.get(name, "")
            )
            codes = np.nan_to_num(values, nan=-1).astype(np.int64)
            return np.asarray([*known, None], dtype=object)[codes]
        return cast(values, self.dtypes[self.names.index(name)])

    def as_kind(self, kind: str, labels: list[Any] | dict[str, Any] | None = None) -> Any:
        """Return the table as one of the kinds of `checks.named_columns`, with these labels."""
        if kind == "table":
            return self
        if kind == "array":
            return self.x.astype(np.result_type(*self.dtypes))
        return original_types.as_kind(self.to_frame(), kind, labels)

    def original(self, name: str, values: np.ndarray) -> Any:
        """Return numbers or codes of a column, NaN for missing ones, as pandas' type it came in."""
        return original_types.original_column(
            values, self.categories.get(name), self.originals.get(name, "")
        )


def stored_range(dtype: str) -> tuple[float, float]:
    """Return the least and the largest number that a column of a type holds."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return -float(np.finfo(kind).max), float(np.finfo(kind).max)
    if kind.kind == "b":
        return 0.0, 1.0
    info = np.iinfo(kind)
    # 2**63 - 1 is not a float; the next float below it is
    highest = float(info.max) if info.bits < 64 else float(np.nextafter(float(info.max), 0))
    return float(info.min), highest


def with_gaps(dtype: str) -> str:
    """Return the type of values of which some may be missing."""
    return dtype if np.dtype(dtype).kind == "f" else "float64"


def cast(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Return values in a type; integers beyond it become its largest, and not 0.

    Where some are missing, in a type that has no place for them, they stay float64.
    """
    if np.dtype(dtype).kind in "biu" and np.isnan(values).any():
        return values
    if np.dtype(dtype).kind in "iu":
        values = values.clip(*stored_range(dtype))
    return values.astype(dtype)


def _joint_types(tables: Sequence[EventTable]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the types, and originals, of tables that are stacked; see `EventTable.concatenate`."""
    first = tables[0]
    dtypes, originals = list(first.dtypes), dict(first.originals)
    conditions = dict(zip(first.cond_names, range(len(first.cond_names)), strict=True))
    for i, name in enumerate((*first.names, *first.cond_names)):
        column = None if name in conditions else i
        types = list(dict.fromkeys(table._type_of(name, column) for table in tables))
        texts = {table.categories.get(name) for table in tables if table._has_values(name, column)}
        if None in texts and len(texts) > 1:
            raise InputError(
                f"tables to stack must have one kind of column {name!r}, got numbers and texts:"
                " convert one of them"
            )
        if any(texts):
            kinds = list(dict.fromkeys(kind for _, kind in types))
            originals[name] = original_types.joint_categories(kinds, len(texts) == 1, name)
        elif len(types) > 1 and column is not None:
            dtypes[i], originals[name] = original_types.joint_type(types, name)
    return tuple(dtypes), {name: kind for name, kind in originals.items() if kind}


def with_same_codes(tables: Sequence[EventTable]) -> list[EventTable]:
    """Return tables in which a text has one code, whichever texts each of them has."""
    texts = united([table.categories for table in tables])
    return [table.recoded(texts) for table in tables]


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
    present = ~np.isnan(codes)  # NaN: a missing condition
    if old == new or not present.any():
        return codes
    used, inverse = np.unique(codes[present], return_inverse=True)
    if old is None:  # numbers: categories may be numbers, too
        known = _codes_of_numbers(new)
        if not known:
            raise InputError(
                f"column {name!r} must hold texts, one of {', '.join(new)}; got numbers: hand the"
                " column in as text"
            )
        values: list[Any] = used.tolist()
    else:
        known = {text: code for code, text in enumerate(new)}
        values = [old[int(code)] for code in used]
        numbers = _codes_of_numbers(new)
        for text in values:  # "2.0" of a file is the category 2
            number = original_types.category_numbers([text]) if text not in known else None
            if number is not None and float(number[0]) in numbers:
                known[text] = numbers[float(number[0])]
    unknown = [str(value) for value in values if value not in known]
    if unknown:
        raise InputError(
            f"column {name!r} has the unknown categories {', '.join(unknown)};"
            f" known: {', '.join(new)}"
        )
    result = codes.copy()
    result[present] = np.array([known[value] for value in values], dtype=np.float64)[inverse]
    return result


def _codes_of_numbers(texts: tuple[str, ...]) -> dict[Any, int]:
    """Return the codes of categories by their numbers; none unless all are different numbers."""
    numbers = original_types.category_numbers(texts)
    codes = (
        {} if numbers is None else {number: code for code, number in enumerate(numbers.tolist())}
    )
    return codes if len(codes) == len(texts) else {}


def _stack(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    present = [array for array in arrays if array is not None]
    if not present:
        return None
    if len(present) != len(arrays):
        raise InputError("either all tables to stack have conditions (weights), or none")
    return np.concatenate(present)


def _from_columns(
    data: Any,
    names: Sequence[str] | None,
    gaps: bool = False,
    wanted: Sequence[str] = (),
    known: Collection[str] = (),
    what: str | None = None,
    missing: bool = False,
) -> EventTable:
    """Return columns as a table; with ``gaps`` those of conditions, where NaN means missing.

    It means so in other columns, too, with ``missing``. Of a table that has all ``wanted`` columns
    only these are read, their texts whatever they are: they are to be compared with others. Those
    of ``known`` columns have known categories.
    """
    called, letter = ("the conditions", "c") if gaps else ("the table", "x")
    what, missing = what or called, missing or gaps
    data, kind = checks.named_columns(data, what, missing)
    if kind == "array":
        data = checks.unmasked(data, what, missing)
        columns = list(checks.numeric_2d(data, what, gaps).T)
        names = [f"{letter}{i}" for i in range(len(columns))] if names is None else names
    else:
        columns = [data.iloc[:, i] for i in range(data.shape[1])]
        names = list(data.columns) if names is None else names
    if not columns:
        raise InputError(
            f"{what} has 0 feature(s) (shape=({len(data)}, 0)) while a minimum of 1 is required."
        )
    checked = checks.unique_names(names, len(columns), what)
    chosen = dict(zip(checked, columns, strict=True))
    if set(wanted) <= set(checked):
        chosen = {name: chosen[name] for name in wanted or checked}
    checked = tuple(chosen)
    read = {
        name: checks.read_column(column, name, missing, bool(wanted), name in known, not gaps)
        for name, column in chosen.items()
    }
    return EventTable(
        x=np.column_stack([column.values for column in read.values()]),
        names=checked,
        units=("",) * len(checked),
        dtypes=tuple(column.dtype for column in read.values()),
        categories={name: column.texts for name, column in read.items() if column.texts},
        originals={name: column.original for name, column in read.items() if column.original},
    )


def conditions_table(
    cond: Any,
    n_rows: int | None = None,
    wanted: Sequence[str] = (),
    known: Collection[str] = (),
) -> EventTable:
    """Return conditions as a table of their own; NaN means missing. For the rest see above."""
    if hasattr(cond, "iloc") and not hasattr(cond, "columns"):  # a pandas Series
        cond = cond.to_frame(name="c0" if cond.name is None else cond.name)
    if not isinstance(cond, EventTable):
        cond = _from_columns(cond, None, True, wanted, known)
    elif wanted and set(wanted) <= set(cond.names):
        cond = cond.select(wanted)
    if n_rows is not None and cond.n != n_rows:
        raise InputError(f"conditions need one row per event: {n_rows} events, {cond.n} rows")
    if np.isinf(cond.x).any():
        raise InputError("conditions must not be infinite (NaN is allowed and means missing)")
    return cond


def align_conditions(
    cond: Any, names: tuple[str, ...], categories: Categories, n_rows: int
) -> np.ndarray:
    """Return conditions (n_rows, c) as float64, in the order and coding of the training table.

    ``cond`` is a table of any kind of ``n_rows`` rows, or of one for all events. Columns go by
    name, and others are left alone; by position where there are no names. ``names`` and
    ``categories`` are those of the conditions that the model was trained with.

    Raises InputError if a column is missing, a category was never trained on, the number of rows is
    neither 1 nor ``n_rows``, or a value is infinite.
    """
    rows = checks.row_count(cond)
    if rows == 0:
        raise InputError("cond has no rows: hand in one row per event, or one for all events")
    if rows not in (1, n_rows):
        raise InputError(f"cond must have 1 or {n_rows} rows, one per event, got {rows}")
    table = conditions_table(cond, None, names, categories)
    table = _by_name(table, names, checks.has_names(cond), "cond")
    values = _in_coding(table, categories).x
    # one row for all is not copied: of very many events there need not be an array
    return np.broadcast_to(values, (n_rows, len(names))) if rows == 1 else values


def align_columns(data: Any, names: tuple[str, ...], categories: Categories) -> EventTable:
    """Return a table with the columns of another: by name, or by position where it has no names.

    Raises InputError if columns are missing, or hold a text unknown to the other table.
    """
    what = "the source table"
    table = (
        data
        if isinstance(data, EventTable)
        else _from_columns(data, None, False, names, categories)
    )
    checks.finite(table.x, table.names, what)
    return _in_coding(_by_name(table, names, checks.has_names(data), what), categories)


def align_given(
    data: Any, names: tuple[str, ...], conditions: tuple[str, ...], categories: Categories
) -> EventTable:
    """Return a table of given values, NaN where unknown, in the coding of the training table.

    It may have some of the columns and conditions that ``names`` and ``conditions`` are, by name;
    a table without names has all columns, by position. The result has those that it has.

    Raises InputError if a column or a category is unknown, a value is infinite, or no row is there.
    """
    what = "the table of given values"
    if checks.row_count(data) == 0:
        raise InputError(f"{what} has no rows: hand in one row per event, or one for all events")
    named = checks.has_names(data)
    if hasattr(data, "iloc") and not hasattr(data, "columns"):  # a pandas Series
        data = data.to_frame(name="x0" if data.name is None else data.name)
    if isinstance(data, EventTable):
        table = data
        if data.cond is not None:
            dtypes = (*data.dtypes, *("float64",) * len(data.cond_names))
            table = replace(
                data,
                x=np.hstack([data.x, data.cond]),
                names=(*data.names, *data.cond_names),
                units=("",) * len(dtypes),
                dtypes=dtypes,
                cond=None,
                cond_names=(),
            )
    else:
        data = checks.named_columns(data, what, True)[0]
        wanted = list(data.columns) if hasattr(data, "columns") else ()
        table = _from_columns(data, None, True, tuple(map(str, wanted)), categories, what)
    if named:
        checks.known_columns(table.names, (*names, *conditions), what)
    else:
        table = _by_name(table, names, named, what)
    if np.isinf(table.x).any():
        raise InputError(f"{what} must not be infinite (NaN is allowed and means unknown)")
    return _in_coding(table, categories)


def _by_name(table: EventTable, names: tuple[str, ...], named: bool, what: str) -> EventTable:
    """Return the columns of these names; a table without names has them in this order."""
    missing = [name for name in names if name not in table.names]
    if missing and not named:
        if len(table.names) != len(names):
            raise InputError(
                f"{what} has no names, so it must have {plural(len(names), 'column')}:"
                f" {', '.join(names)}; got {len(table.names)}"
            )
        renamed = dict(zip(table.names, names, strict=True))
        texts = {renamed[name]: known for name, known in table.categories.items()}
        return replace(table, names=names, categories=texts)
    if missing:
        others = [name for name in table.names if name not in names]
        raise InputError(
            f"{what} must have the columns {', '.join(names)}; missing: {', '.join(missing)}. It"
            f" has {', '.join(others) or 'no others'}: rename columns, or hand in an array in this"
            " order"
        )
    return table.select(names)


def like_training(table: EventTable, columns: Mapping[str, Any]) -> EventTable:
    """Return real events with the columns, conditions and codes of a run, whose plan has them."""
    names = tuple(columns["names"])
    categories = {name: tuple(texts) for name, texts in columns["categories"].items()}
    conditions = columns["conditions"]
    table = table.as_conditions(conditions).select(names).order_conditions(conditions)
    return align_columns(table, names, categories)


def _in_coding(table: EventTable, categories: Categories) -> EventTable:
    """Return the table in the category codes that a model was trained with."""
    names = (*table.names, *table.cond_names)
    table = table.recoded({k: v for k, v in categories.items() if k in names})
    x = table.x.copy()
    for name in [name for name in names if name in table.categories and name not in categories]:
        texts = table.categories[name]
        numbers = original_types.category_numbers(texts)
        if numbers is None or name not in table.names:
            raise InputError(
                f"column {name!r} must hold numbers, as in training; it holds texts such as"
                f" {next(t for t in texts if original_types.category_numbers([t]) is None)!r}"
            )
        values = x[:, table.names.index(name)]
        values[~np.isnan(values)] = numbers[values[~np.isnan(values)].astype(np.int64)]
    kept = {name: texts for name, texts in categories.items() if name in names}
    return replace(table, x=x, categories=kept)
