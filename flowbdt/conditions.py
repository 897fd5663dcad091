"""Conditions handed in at generation, brought to the order and coding of the training table."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import checks
from .errors import InputError
from .table import EventTable


def aligned(
    cond: Any, names: tuple[str, ...], categories: dict[str, tuple[str, ...]], n_rows: int
) -> np.ndarray:
    """Return conditions (n_rows, c) as float64, in the order and coding of the training table.

    Parameters
    ----------
    cond : array, DataFrame, Series or EventTable of ``n_rows`` rows, or of one for all events.
        Columns are found by name where there are names, else by position.
    names, categories : of the conditions that the model was trained with
    n_rows : number of events to generate

    Raises
    ------
    InputError
        If a column is missing or unknown, a category was never trained on, the number of rows is
        neither 1 nor ``n_rows``, or a value is infinite.
    """
    rows = np.shape(cond)[0] if np.ndim(cond) else 0
    if not isinstance(cond, EventTable) and rows not in (1, n_rows):
        raise InputError(f"cond must have 1 or {n_rows} rows, one per event, got {rows}")
    given = cond.n if isinstance(cond, EventTable) else rows
    table = EventTable.of(np.zeros((given, 1)), cond=cond)
    values = table.recoded({k: v for k, v in categories.items() if k in table.cond_names}).cond
    assert values is not None  # cond was given
    if set(table.cond_names) & set(names):
        checks.same_columns(table.cond_names, names, "cond")
        values = values[:, [table.cond_names.index(name) for name in names]]
    elif values.shape[1] != len(names):
        raise InputError(
            f"cond must have the columns {', '.join(names)}, got {values.shape[1]} column(s)"
        )
    return np.repeat(values, n_rows, axis=0) if given == 1 else values
