"""The only place that tests shape, dtype, finiteness and names of what a user hands in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError, plural
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


def relative(weight: np.ndarray) -> np.ndarray:
    """Return weights (n,) divided by their mean, float64: their unit does not matter.

    By the largest first, so that no sum of weights of any size overflows or vanishes.
    """
    share = np.asarray(weight, dtype=np.float64) / np.max(weight)
    return np.asarray(share / share.mean())


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
