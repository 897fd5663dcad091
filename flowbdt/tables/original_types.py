"""The way back of a table: the kind, labels, types and categories in which it came.

`EventTable.dtypes` has numpy's types. Where these say too little, `EventTable.originals` has the
name of a pandas type, ``"bytes"``, or the type of the values of categories, as ``"ordered category
of int64"``.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic_files import to_plain
from ..errors import DataWarning, FormatError, InputError, MissingExtra

if TYPE_CHECKING:
    import pandas as pd


NUMBERS = ("int", "uint", "float", "double")
"""Beginnings of the names of types of numbers, in small letters."""


def original_column(values: np.ndarray, texts: Sequence[str] | None, original: Any) -> Any:
    """Return numbers, or codes of texts with NaN for missing ones, in the type they came in.

    Raises FormatError for an unknown type.
    """
    if texts is None and not original:
        return values
    import pandas as pd

    try:
        ordered = str(original).startswith("ordered")
        if str(original).endswith("category of bool"):
            codes = np.nan_to_num(values.astype(np.float64), nan=-1).astype(np.int64)
            return pd.Categorical.from_codes(codes, pd.Index([False, True]), ordered=ordered)
        if texts is None:
            return pd.array(values, dtype=original)
        codes = np.nan_to_num(values.astype(np.float64), nan=-1).astype(np.int64)
        known = category_values(texts, original)
        if "category of " in original:
            return pd.Categorical.from_codes(codes, known, ordered=ordered)
        column = np.asarray([*known, None], dtype=object)[codes]
        return pd.Series(column, dtype=None if original in ("", "bytes") else original)
    except (TypeError, ValueError) as error:
        raise FormatError(f"a column cannot be made the type {original!r} ({error})") from error


def joint_type(types: Sequence[tuple[str, str]], name: str) -> tuple[str, str]:
    """Return the narrowest type, numpy's and the original, for numbers of several such types.

    Raises InputError that names the column if there is none.
    """
    import pandas as pd

    if not any(original for _, original in types):
        return np.result_type(*(dtype for dtype, _ in types)).name, ""
    columns = [original_column(np.zeros(1, dtype), None, known) for dtype, known in types]
    joint = pd.concat(list(map(pd.Series, columns))).dtype
    numbers = getattr(joint, "numpy_dtype", joint)
    if not isinstance(numbers, np.dtype) or numbers.kind not in "biuf":
        raise InputError(
            f"tables to stack have different types in column {name!r},"
            f" {' and '.join(known or dtype for dtype, known in types)}: convert one of them"
        )
    return numbers.name, "" if isinstance(joint, np.dtype) else str(joint)


def joint_categories(originals: Sequence[str], equal: bool, name: str) -> str:
    """Return the original type for categories of several such types, ``equal`` or to be united.

    Raises InputError that names the column if there is none.
    """
    if len(originals) > 1 and not all(_is_text(known) for known in originals):
        raise InputError(
            f"tables to stack have different categories in column {name!r},"
            f" {' and '.join(known or 'texts' for known in originals)}: convert one of them"
        )
    if not equal and any(known.startswith("ordered") for known in originals):
        raise InputError(
            f"tables to stack have other ordered categories in column {name!r}: their order must"
            " be the same in all"
        )
    return originals[0] if len(originals) == 1 else ""


def _is_text(original: str) -> bool:
    """Return if the values of unordered categories of a type are texts."""
    values = original.removeprefix("category of ").lower()
    return not values.startswith(("ordered", "bytes", *NUMBERS))


def category_values(texts: Sequence[str], original: str) -> Any:
    """Return the values of categories, texts or numbers, that are stored as texts."""
    import pandas as pd

    dtype: Any = original.partition("category of ")[2]
    if dtype.lower().startswith(NUMBERS):
        number = float if dtype[0].lower() in "fd" else int
        return pd.Index([number(text) for text in texts]).astype(dtype)
    if dtype:
        return pd.Index(list(texts), dtype=dtype)
    return [text.encode() for text in texts] if original == "bytes" else list(texts)


def category_numbers(texts: Sequence[str]) -> np.ndarray | None:
    """Return the numbers that texts stand for, truth values as 0 and 1; None if some are none."""
    try:
        return np.array([float({"True": 1, "False": 0}.get(text, text)) for text in texts])
    except ValueError:
        return None


def stored_labels(data: Any) -> list[Any] | dict[str, Any] | None:
    """Return the labels of a DataFrame's columns as JSON holds them; None if all are plain texts.

    Names of the levels of an index of columns, where there are any, go with the labels.

    Labels that JSON cannot hold become texts, with a DataWarning.
    """
    labels = to_plain(list(data.columns)) if hasattr(data, "iloc") else []
    names = list(data.columns.names) if labels else []
    names = names if any(isinstance(name, str) for name in names) else []
    if all(isinstance(label, str) for label in labels) and not names:
        return None
    labels = [[*map(_storable, v)] if isinstance(v, list) else _storable(v) for v in labels]
    entries = [v for label in labels for v in (label if isinstance(label, list) else [label])]
    plain = all(isinstance(entry, (str, int, float, type(None))) for entry in (*entries, *names))
    if plain and not any(entry in (np.inf, -np.inf) for entry in entries):
        return {"labels": labels, "names": names} if names else labels
    warnings.warn(
        f"labels of columns such as {labels[0]!r} come back as texts: use texts or numbers",
        DataWarning,
        stacklevel=3,
    )
    return None


def _storable(label: Any) -> Any:
    """Return a label with None for all that pandas takes for missing, such as NaN and NA."""
    import pandas as pd

    return None if pd.isna(label) is True else label


def as_kind(
    frame: pd.DataFrame, kind: str, labels: list[Any] | dict[str, Any] | None = None
) -> Any:
    """Return a DataFrame as another kind of table with named columns; see `named_columns`.

    Raises MissingExtra if the library of an Arrow table is not installed.
    """
    import pandas as pd

    if labels is not None:
        names = labels["names"] if isinstance(labels, dict) else None
        entries = labels["labels"] if isinstance(labels, dict) else labels
        index = pd.Index([tuple(v) if isinstance(v, list) else v for v in entries])
        frame.columns = index if names is None else index.set_names(names)
    if kind == "frame":
        return frame
    if kind in ("dict", "records", "recarray"):
        columns = {label: frame.iloc[:, i].to_numpy() for i, label in enumerate(frame.columns)}
        if kind == "dict":
            return columns
        records = _records(columns)
        return records if kind == "records" else records.view(np.recarray)
    if kind == "awkward":
        return _awkward(frame)
    try:
        import pyarrow

        table = pyarrow.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
        if kind == "polars":
            return importlib.import_module(kind).from_arrow(table)
        fields = [field.with_type(_usual_arrow_type(field.type)) for field in table.schema]
        return table.cast(pyarrow.schema(fields))
    except ImportError as error:
        raise MissingExtra.of(kind, error, "data") from error


def _awkward(frame: pd.DataFrame) -> Any:
    """Return a DataFrame as an awkward array of records; entries may be missing (None)."""
    try:
        import awkward as ak
    except ImportError as error:
        raise MissingExtra.of("awkward", error, "root") from error
    columns = {}
    for i, label in enumerate(frame.columns):
        column = frame.iloc[:, i]
        plain = isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf"
        values = column.astype(object).where(column.notna(), None)
        columns[str(label)] = column.to_numpy() if plain else ak.from_iter(values.to_list())
    return ak.zip(columns, depth_limit=1)


def _usual_arrow_type(arrow: Any) -> Any:
    """Return the type in which pyarrow itself stores the texts that pandas makes large."""
    import pyarrow

    if pyarrow.types.is_large_string(arrow):
        return pyarrow.string()
    if pyarrow.types.is_dictionary(arrow):
        values = _usual_arrow_type(arrow.value_type)
        return pyarrow.dictionary(pyarrow.int32(), values, arrow.ordered)
    return arrow


def _records(columns: dict[Any, np.ndarray]) -> np.ndarray:
    """Return arrays (n,) as one structured array; texts get numpy's type for them."""
    arrays = {str(k): np.array(v.tolist()) if v.dtype == object else v for k, v in columns.items()}
    records = np.empty(len(next(iter(arrays.values()))), [(k, v.dtype) for k, v in arrays.items()])
    for name, values in arrays.items():
        records[name] = values
    return records
