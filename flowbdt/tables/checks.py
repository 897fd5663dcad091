"""The only place that tests shape, dtype, finiteness and names of what a user hands in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import FormatError, InputError, plural
from ..registry import unknown


def finite(array: np.ndarray, names: Sequence[str], what: str) -> None:
    """Refuse NaN and infinity in a (n, d) array, naming columns, counts and the first row."""
    bad = ~np.isfinite(array)
    for name, rows in zip(names, bad.T, strict=True):
        if rows.any():
            raise InputError(
                f"{what} must be finite, but column {name!r} has NaN or infinity in"
                f" {plural(int(rows.sum()), 'row')} (first: row {int(np.argmax(rows))});"
                " remove or replace these rows first"
            )


def weights(weight: np.ndarray, n_rows: int) -> np.ndarray:
    """Return event weights as float64 (n,); refuse wrong length, NaN, negative, all zero."""
    weight = np.asarray(weight, dtype=np.float64)
    if weight.shape != (n_rows,):
        raise InputError(f"weights must have shape ({n_rows},), one per event, got {weight.shape}")
    finite(weight[:, None], ["weight"], "weights")
    if (weight < 0).any():
        raise InputError(
            f"weights must not be negative, but {plural(int((weight < 0).sum()), 'event')} (first:"
            f" row {int(np.argmax(weight < 0))}) are; xgboost cannot train on signed weights:"
            " reweight or resample to positive weights first (e.g. by cell resampling)"
        )
    if not weight.any():
        raise InputError("weights must not all be zero")
    return weight


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


def stored_array(
    arrays: Mapping[str, Any],
    name: str,
    shape: Sequence[int | None],
    kind: str = "f",
    low: float = -np.inf,
    high: float = np.inf,
) -> np.ndarray:
    """Return an array that a file holds.

    ``shape`` has None where any length will do, ``kind`` is "f" for floats, "i" for whole numbers,
    "u" for bytes. Raises FormatError unless type and shape are these, and all numbers finite and
    between ``low`` and ``high``.
    """
    array = arrays.get(name)
    wanted = "x".join("n" if size is None else str(size) for size in shape) or "single"
    if not isinstance(array, np.ndarray) or array.dtype.kind != kind or array.ndim != len(shape):
        got = getattr(array, "dtype", type(array).__name__), getattr(array, "shape", "none")
    elif any(size not in (None, length) for size, length in zip(shape, array.shape, strict=True)):
        got = array.dtype, array.shape
    elif array.size and not (
        np.isfinite(array).all() and low <= array.min() <= array.max() <= high
    ):
        raise FormatError(
            f"the stored array {name!r} must hold finite numbers from {low:g} to {high:g}"
        )
    else:
        return array
    kinds = {"f": "floating-point numbers", "i": "whole numbers", "u": "bytes"}[kind]
    raise FormatError(
        f"the stored array {name!r} must hold {wanted} {kinds}, got {got[0]} of shape {got[1]}"
    )
