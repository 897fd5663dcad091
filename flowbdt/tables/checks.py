"""The only place that tests shape, dtype, finiteness and names of what a user hands in."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from ..errors import DataWarning, InputError, InputTypeError, MissingExtra, plural
from ..registry import unknown

MAX_CATEGORIES = 1000
FEW_CATEGORIES = 50
"""Different texts that may be categories whatever they look like."""
FEW_NUMBERS = 20
"""The same of texts that begin as a number does."""
NUMBER = re.compile(r"\s*[-+(]?\s*[^\w\s]?\s*\d")
"""The beginning of a number, price or date."""
LABEL = re.compile(r"[^\W\d][^\d.,]*\d+\D*")
"""A name with one whole number, such as "Station 07"."""
ROWS_OF_LABEL = 30
"""Rows for each different text from which on such names are no identifiers."""
NO_NUMBERS = (str, bytes, Decimal, date, timedelta, np.datetime64, np.timedelta64)


def finite(array: np.ndarray, names: Sequence[str], what: str, missing: bool = False) -> None:
    """Refuse NaN and infinity in a (n, d) array, naming columns, counts and the first row.

    With ``missing`` NaN is allowed, but not in all rows of a column.
    """
    bad = np.isinf(array) if missing else ~np.isfinite(array)
    for name, rows, values in zip(names, bad.T, array.T, strict=True):
        if missing and rows.any():
            raise InputError(
                f"{what} must be finite or missing, but column {name!r} has infinity in"
                f" {plural(int(rows.sum()), 'row')} (first: row {int(np.argmax(rows))}); remove or"
                " replace these rows first, by NaN where the value is not known"
            )
        if missing and len(values) and np.isnan(values).all():
            raise InputError(
                f"column {name!r} of {what} has no value but NaN, in {plural(len(values), 'row')}:"
                " there is nothing to learn, leave the column out"
            )
        if rows.any():
            raise InputError(
                f"{what} must be finite, but column {name!r} has NaN or infinity in"
                f" {plural(int(rows.sum()), 'row')} (first: row {int(np.argmax(rows))});"
                " remove or replace these rows first"
            )


def weights(
    weight: np.ndarray, n_rows: int, *, signed: bool = False, part: bool = False
) -> np.ndarray:
    """Return event weights as float64 (n,); refuse wrong length, NaN, negative, all zero.

    With ``signed`` some may be negative, if the sum is positive; of a ``part`` of a table it and
    all may be anything.
    """
    weight = unmasked(weight, "weights")
    try:
        array = np.asarray(weight)
        texts = array.dtype == object and any(isinstance(v, (str, bytes)) for v in array.flat)
        if array.dtype.kind not in "biufO" or texts:
            raise TypeError(f"got {'texts' if texts else array.dtype}")
        weight = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"weights must be numbers, one per event: {error}") from error
    if weight.shape != (n_rows,):
        raise InputError(f"weights must have shape ({n_rows},), one per event, got {weight.shape}")
    finite(weight[:, None], ["weight"], "weights")
    if part:
        return weight
    negative = plural(int((weight < 0).sum()), "event")
    if not signed and (weight < 0).any():
        raise InputError(
            f"weights must not be negative here, but those of {negative} (first: row"
            f" {int(np.argmax(weight < 0))}) are: replace them by the non-negative ones of the same"
            " density that flowbdt.trees.signed_weights.positive_weights gives"
        )
    if not weight.any():
        raise InputError("weights must not all be zero")
    if rescaled(weight).sum() <= 0:
        raise InputError(
            f"weights must have a positive sum, but with those of {negative} that are negative it"
            f" is {weight.sum():.3g}: no density has such weights; check their sign"
        )
    return weight


def relative(weight: np.ndarray) -> np.ndarray:
    """Return weights (n,) divided by their mean, float64: their unit does not matter."""
    share = rescaled(weight)
    return np.asarray(share / share.mean())


def relative_or_ones(weight: np.ndarray | None, n_rows: int) -> np.ndarray:
    """Return `relative` weights (n,); ones where there are none."""
    return np.ones(n_rows) if weight is None else relative(weight)


def rescaled(weight: np.ndarray) -> np.ndarray:
    """Return weights (n,) over a power of two near the largest: exact, and no sum overflows."""
    weight = np.asarray(weight, dtype=np.float64)
    return np.asarray(np.ldexp(weight, -np.frexp(np.abs(weight).max())[1]))


def unique_names(names: Sequence[Any], n_columns: int, what: str) -> tuple[str, ...]:
    """Return column names as strings; refuse a wrong count and repeats."""
    result = tuple(str(name) for name in names)
    if len(result) != n_columns:
        raise InputError(f"{what}: {n_columns} columns need as many names, got {len(result)}")
    repeated = sorted({name for name in result if result.count(name) > 1})
    if repeated:
        raise InputError(f"{what}: column names must differ, repeated: {', '.join(repeated)}")
    return result


def known_columns(wanted: Sequence[str], names: Sequence[str], what: str) -> None:
    """Refuse a column name that the table does not have, listing those it has."""
    for name in wanted:
        if name not in names:
            raise InputError(str(unknown(f"column (in {what})", name, names)))


def same_columns(names: Sequence[str], expected: Sequence[str], what: str) -> None:
    """Refuse a table whose columns are not exactly the expected ones, in any order."""
    missing = [name for name in expected if name not in names]
    extra = [name for name in names if name not in expected]
    if missing or extra:
        raise InputError(
            f"{what} must have the columns {', '.join(expected)};"
            f" missing: {', '.join(missing) or 'none'}; not expected: {', '.join(extra) or 'none'}"
        )


def min_rows(n_rows: int, needed: int, what: str) -> None:
    """Refuse a table with too few rows."""
    if n_rows < needed:
        raise InputError(f"{what} needs at least {needed} rows, got {n_rows} (n_samples={n_rows})")


@dataclass(frozen=True)
class ReadColumn:
    """A column as numbers: values (n,) float64, codes of ``texts`` unless these are empty.

    ``dtype`` is numpy's name of the type to give back, ``original`` that of pandas or the kind of
    the categories, where these say more.
    """

    values: np.ndarray
    dtype: str
    texts: tuple[str, ...] = ()
    original: str = ""


def named_columns(data: Any, what: str, gaps: bool = False) -> tuple[Any, str]:
    """Return a table whose columns have names as a DataFrame, others as they are; and its kind.

    Kinds: 'table' (an EventTable), 'frame', 'dict', 'records' (structured array), 'recarray',
    'array', 'awkward', 'polars', and 'pyarrow' for all other tables that speak Arrow.
    """
    if hasattr(data, "cond_names"):
        return data, "table"
    if hasattr(data, "tocsr"):  # sparse, refused later; some are mappings
        return data, "array"
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        return data, "frame"
    fields = getattr(getattr(data, "dtype", None), "names", None)
    if _is_awkward(data):
        if not data.fields:
            return data, "array"
        return named_columns({n: data[n] for n in data.fields}, what, gaps)[0], "awkward"
    if isinstance(data, Mapping):
        columns, kind = dict(data), "dict"
    elif fields:
        columns = {name: data[name] for name in fields}
        kind = "recarray" if isinstance(data, np.recarray) else "records"
    elif hasattr(data, "columns") and not hasattr(data, "iloc"):
        kind = "polars" if type(data).__module__.startswith("polars.") else "pyarrow"
        return _arrow_frame(data, what), kind
    else:
        return data, "array"
    import pandas as pd

    for name, values in columns.items():
        columns[name] = values = unmasked(values, f"column {name!r} of {what}", gaps)
        try:
            shape = np.shape(values)
        except ValueError as error:  # lists of different lengths
            raise InputError(f"column {name!r} of {what} must be one array: {error}") from error
        if len(shape) != 1:
            raise InputError(f"column {name!r} of {what} must have shape (n,), got {shape}")
    try:
        return pd.DataFrame(columns), kind
    except (ValueError, TypeError) as error:
        raise InputError(f"{what} cannot be read: {error}") from error


def _arrow_frame(data: Any, what: str) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtra.of("pyarrow", error, "data") from error
    try:
        table = pyarrow.table(data)
        frame = table.to_pandas()
        for i, column in enumerate(table.columns):
            kind = _nullable(column.type) if column.null_count else None
            if kind is not None:  # whole numbers stay whole beside missing ones
                frame.isetitem(i, column.to_pandas(types_mapper={column.type: kind}.get))
        return frame
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InputError(f"{what} cannot be read through Arrow: {error}") from error


def _nullable(kind: Any) -> Any:
    """Return pandas' nullable type for a type of whole numbers or truth values of Arrow."""
    import pandas as pd

    name = str(kind)
    if name == "bool":
        return pd.BooleanDtype()
    if not name.startswith(("int", "uint")):
        return None
    return pd.api.types.pandas_dtype(name.replace("int", "Int").replace("uI", "UI"))


def row_count(data: Any) -> int:
    """Return the number of rows of a table of any kind; 0 if it has none."""
    if isinstance(data, Mapping):
        data = next(iter(data.values()), ())
    return len(data) if hasattr(data, "__len__") and getattr(data, "shape", None) != () else 0


def has_names(data: Any) -> bool:
    """Test if columns have names: not of an array, and not if they are only counted."""
    if hasattr(data, "cond_names"):
        return all(data.names != tuple(f"{c}{i}" for i in range(len(data.names))) for c in "xc")
    if hasattr(data, "iloc"):
        labels = list(data.columns) if hasattr(data, "columns") else [data.name]
        return labels not in ([None], list(range(len(labels))))
    return named_columns(data, "the table")[1] != "array"


def unmasked(data: Any, what: str, gaps: bool = False) -> Any:
    """Return a masked array as a plain one, with ``gaps`` NaN (or None) for what is masked.

    Else masked entries are refused. Awkward arrays become plain ones, and those of lists of
    different lengths are refused. Other data are returned as they are.
    """
    if _is_awkward(data):
        data = _from_awkward(data, what)
    if isinstance(data, (list, tuple)) and any(map(np.ma.isMaskedArray, data)):
        data = np.ma.array(data)
    if not np.ma.isMaskedArray(data):
        return data
    n_masked = int(np.ma.count_masked(data))
    if gaps and n_masked:
        numbers = data.dtype.kind in "biuf"
        values = data.data if numbers else data.data.astype(object)
        missing: Any = np.nan if numbers else None
        return np.where(np.ma.getmaskarray(data), missing, values)
    if n_masked:
        raise InputError(
            f"{what} has missing entries, {n_masked} that are masked: fill them in with"
            " .filled(value), or drop these rows"
        )
    return data.data


def _is_awkward(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "awkward" and hasattr(data, "fields")


def _from_awkward(data: Any, what: str) -> np.ndarray:
    """Return an awkward array as one of numpy, masked where entries are missing."""
    import awkward as ak

    if not data.fields:
        try:
            return np.ma.asanyarray(ak.to_numpy(data))
        except (ValueError, TypeError):  # of several pages
            pass
    raise InputError(
        f"{what} must have one value per event, got an awkward array of type {data.type.content}:"
        " take single objects with ak.pad_none(a, k, clip=True)[:, i], where missing ones are"
        " allowed, or make a row of each object with ak.flatten; of a record, take its fields"
    )


def numeric_2d(data: Any, what: str, gaps: bool = False) -> np.ndarray:
    """Return an array (n, d) of numbers. Raises InputError for all that is none."""
    if hasattr(data, "tocsr"):
        raise InputError(f"{what} must be a dense array, got a sparse one; call .toarray() first")
    data = unmasked(data, what, gaps)
    try:
        array = np.asarray(data)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"{what} must be a 2-d array (events, columns): {error}") from error
    if gaps and array.ndim == 1:
        array = array[:, None]  # one condition
    if array.ndim != 2:
        raise InputError(
            f"{what} must be a 2-d array (events, columns), got {plural(array.ndim, 'dimension')}."
            " Reshape your data: x.reshape(-1, 1) makes one column"
        )
    if array.dtype.kind == "c":
        raise InputError(f"{what} must hold real numbers. Complex data not supported")
    if array.dtype.kind in "biuf":
        return array
    advice = "; hand text columns in as a DataFrame, convert times to numbers such as seconds"
    strange = [v for v in array.flat if isinstance(v, NO_NUMBERS)] if array.dtype == object else []
    if array.dtype != object or strange:
        such = f", such as {strange[0]!r}" if strange else ""
        raise InputError(f"{what} must hold numbers, got dtype {array.dtype}{such}{advice}")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        kind = InputTypeError if isinstance(error, TypeError) else InputError
        raise kind(
            f"{what} must hold numbers, got an entry that is none ({error}){advice}"
        ) from error


def read_column(
    column: Any,
    name: str,
    gaps: bool = False,
    any_text: bool = False,
    known: bool = False,
    typed: bool = True,
) -> ReadColumn:
    """Return a column of a DataFrame, or of an array of numbers, that holds numbers or categories.

    With ``gaps`` missing entries are allowed (NaN). Texts must be plausible categories, few beside
    the rows, unless ``any_text``; where they are ``known`` ones, some may be numbers. Unless
    ``typed``, numbers are float64 whatever they came as.
    """
    if isinstance(column, np.ndarray):
        return ReadColumn(_exact(column, name, typed), column.dtype.name if typed else "float64")
    import pandas as pd

    original = str(column.dtype)
    if original.startswith("dictionary"):  # Arrow's categories
        column = column.astype(object).astype("category")
    if column.dtype.kind == "V":
        raise _no_column(name, column.iloc[0])
    if column.dtype == object:  # numbers in an object column are numbers
        column = column.infer_objects()
    plain = isinstance(column.dtype, np.dtype)
    missing = column.isna().to_numpy()
    if missing.any() and not gaps and not (plain and column.dtype.kind == "f"):
        raise InputError(
            f"column {name!r} has {int(missing.sum())} missing entries; fill them in, drop"
            " these rows, or hand the column in as a condition, where missing is allowed"
        )
    if isinstance(column.dtype, pd.CategoricalDtype):
        return _category(column, name, typed)
    if column.dtype.kind not in "biuf":
        read = _texts(column, name, missing, any_text, known, original)
        return read if typed or read.texts else ReadColumn(read.values, "float64")
    if not typed:
        return ReadColumn(column.to_numpy(dtype=np.float64, na_value=np.nan), "float64")
    if plain:
        return ReadColumn(_exact(column.to_numpy(), name), column.dtype.name)
    dtype = np.dtype(getattr(column.dtype, "numpy_dtype", np.float64))  # nullable, or of Arrow
    values = np.full(len(column), np.nan)
    values[~missing] = _exact(column[~missing].to_numpy(dtype=dtype), name)
    return ReadColumn(values, dtype.name, original=original)


def _exact(values: np.ndarray, name: str, typed: bool = True) -> np.ndarray:
    """Return values as float64; warn if integers of a column are too large for that."""
    large = typed and values.dtype.kind in "iu" and values.dtype.itemsize == 8 and values.size > 0
    if large and max(int(values.max()), -int(values.min())) > 2**53:
        _warn_of_rounding(name)
    return values.astype(np.float64)


def _warn_of_rounding(name: str) -> None:
    warnings.warn(
        f"column {name!r} has integers beyond 2**53, which are rounded to a multiple of 2 or more;"
        " leave out identifiers, they are not quantities to learn",
        DataWarning,
        stacklevel=3,
    )


def warn_of_other_order(table: Any, rows: Any, what: str) -> None:
    """Warn if rows of pandas that go with those of a table have its index in another order."""
    first, second = (data.index if hasattr(data, "iloc") else None for data in (table, rows))
    if first is None or second is None or len(first) != len(second) or first.equals(second):
        return
    if first.isin(second).all() and second.isin(first).all():
        warnings.warn(
            f"{what} have the index of the table in another order; rows go by position, not by"
            " index: use .loc[table.index] if they should go by index",
            DataWarning,
            stacklevel=3,
        )


def _category(column: Any, name: str, typed: bool) -> ReadColumn:
    """Return a column of pandas categories; their order, and their values as texts, are kept."""
    known = column.cat.categories
    values = known.tolist()
    order = "ordered " if column.cat.ordered else ""
    if values and all(isinstance(value, bool) for value in values):  # truth values are numbers
        numbers = ReadColumn(column.astype(np.float64).to_numpy(), "float64")
        # pandas takes no mean or sum of a category: without an order it is a plain column
        kind = "ordered category of bool" if order else "boolean" if column.hasnans else ""
        return replace(numbers, dtype="bool", original=kind) if typed else numbers
    if known.dtype.kind not in "biuf" and not all(isinstance(value, str) for value in values):
        raise _no_column(name, next(v for v in values if not isinstance(v, str)))
    codes = column.cat.codes.to_numpy()
    return ReadColumn(
        np.where(codes < 0, np.nan, codes.astype(np.float64)),
        "int64",
        tuple(map(str, values)),
        f"{order}category of {known.dtype}",
    )


def _texts(
    column: Any, name: str, missing: np.ndarray, any_text: bool, known: bool, original: str
) -> ReadColumn:
    """Return a column of texts (or bytes, or numbers that pandas took for objects)."""
    import pandas as pd

    if column.dtype.kind in "cmM":
        raise InputError(
            f"column {name!r} must hold real numbers or texts, got {column.dtype}. Complex data"
            " and times are not supported: split or convert the column first"
        )
    present = column[~missing].astype(object)
    kinds = set(map(type, present))
    values = np.full(len(column), np.nan)
    if kinds and all(issubclass(kind, (int, float, np.number)) for kind in kinds - {bool}):
        if bool in kinds and len(kinds) > 1:
            raise InputError(f"column {name!r} mixes numbers and truth values: make it one kind")
        try:
            values[~missing] = present.astype(np.float64)  # whole numbers of any size
        except OverflowError as error:
            raise InputError(
                f"column {name!r} has integers beyond 1.8e308, which no float holds: leave out"
                " identifiers, or take the logarithm"
            ) from error
        if any(isinstance(value, int) and abs(value) > 2**53 for value in present):
            _warn_of_rounding(name)
        truth = kinds == {bool}  # and missing ones
        return ReadColumn(values, "bool", (), "boolean") if truth else ReadColumn(values, "float64")
    if kinds and kinds <= {bytes, np.bytes_}:
        try:
            present, original = present.map(lambda item: item.decode()), "bytes"
        except UnicodeDecodeError as error:
            raise _no_column(name, present.iloc[0]) from error
    elif not (known and kinds <= {str, np.str_}):
        _check_texts(present, name, np.flatnonzero(~missing))
    texts, default = tuple(sorted(map(str, present.unique()))), pd.Series(["text"]).dtype
    if not any_text:
        check_plausible(name, texts, len(present))
        _warn_of_blanks(name, texts)
    values[~missing] = pd.Index(texts, dtype=object).get_indexer(present.map(str))
    return ReadColumn(values, "int64", texts, "" if original == str(default) else original)


def _check_texts(present: Any, name: str, rows: np.ndarray) -> None:
    """Refuse what is no text, and texts among numbers, of some ``rows``."""
    import pandas as pd

    strange = present[~present.map(lambda item: isinstance(item, (str, int, float)))]
    if len(strange):
        raise _no_column(name, strange.iloc[0])
    values = pd.to_numeric(present.map(str), errors="coerce")
    numeric = values.notna()
    mixed = not present.map(lambda item: isinstance(item, str)).all()
    if numeric.any() and not numeric.all():
        few_whole = values.nunique() <= FEW_NUMBERS and (values[numeric] % 1 == 0).all()
        if mixed or numeric.mean() >= 0.5 or not few_whole:
            row = int(np.argmin(numeric.to_numpy()))
            raise InputError(
                f"column {name!r} must be numeric or text throughout, but row {rows[row]} has"
                f" {present.iloc[row]!r} among numbers: correct or remove these rows"
            )
    elif mixed:
        raise InputError(f"column {name!r} mixes numbers and texts: make it one kind")


def _no_column(name: str, value: Any) -> InputError:
    return InputError(
        f"column {name!r} must hold numbers or texts, got {type(value).__name__} such as {value!r}:"
        " convert it to numbers (seconds, astype(float), one column per entry), or leave it out"
    )


def _warn_of_blanks(name: str, texts: Sequence[str]) -> None:
    """Warn of categories that differ by blanks around them only."""
    blanks = sorted({text for text in texts if text != text.strip() and text.strip() in texts})
    if blanks:
        warnings.warn(
            f"column {name!r} has the categories {blanks[0]!r} and {blanks[0].strip()!r}, which"
            " differ in blanks only: strip them if they are the same",
            DataWarning,
            stacklevel=2,
        )


def check_plausible(name: str, texts: Sequence[str], n: int) -> None:
    """Refuse texts that are no categories: numbers, dates or identifiers by the hundred."""
    numbers = sum(bool(NUMBER.match(text)) for text in texts)
    digits = sum(any(c.isdigit() for c in text) for text in texts)
    many = len(texts) > MAX_CATEGORIES
    if n >= ROWS_OF_LABEL * len(texts):
        digits -= sum(bool(LABEL.fullmatch(text)) for text in texts)
    if 2 * numbers > len(texts) > FEW_NUMBERS or 2 * digits > len(texts) > FEW_CATEGORIES:
        what = "look like numbers, dates or identifiers"
    elif many or len(texts) > max(FEW_CATEGORIES, n / 2):
        what = "are no category"
    else:
        return
    count = f"more than {MAX_CATEGORIES}" if many else str(len(texts))
    raise InputError(
        f"column {name!r} has {count} different texts (such as {texts[0]!r}) in {plural(n, 'row')},"
        f" which {what}: convert the column to numbers, or leave it out. If they are categories,"
        " say so with .astype('category')"
    )
