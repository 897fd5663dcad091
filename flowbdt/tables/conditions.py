"""Conditions handed in at generation, brought to the order and coding of the training table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError
from . import checks
from .event_table import EventTable


def aligned(
    cond: Any, names: tuple[str, ...], categories: dict[str, tuple[str, ...]], n_rows: int
) -> np.ndarray:
    """Return conditions (n_rows, c) as float64, in the order and coding of the training table.

    Parameters
    ----------
    cond : array, DataFrame, Series or EventTable of ``n_rows`` rows, or of one for all events.
        Columns are found by name where there are names, else by position. An EventTable, such as
        `tableio.read_conditions` makes of a file, may have more columns.
    names, categories : of the conditions that the model was trained with
    n_rows : number of events to generate

    Raises
    ------
    InputError
        If a column is missing or unknown, a category was never trained on, the number of rows is
        neither 1 nor ``n_rows``, or a value is infinite.
    """
    rows = len(cond) if hasattr(cond, "__len__") else 0
    if rows not in (1, n_rows):
        raise InputError(f"cond must have 1 or {n_rows} rows, one per event, got {rows}")
    table = EventTable.of(np.zeros((rows, 1)), cond=cond)
    if isinstance(cond, EventTable) and set(names) < set(table.cond_names):
        table = _narrowed(table, names)  # a file of whole events: its other columns are not asked
    if not set(table.cond_names) & set(names) and len(table.cond_names) == len(names):
        renamed = dict(zip(table.cond_names, names, strict=True))  # found by position
        texts = {renamed.get(name, name): text for name, text in table.categories.items()}
        table = replace(table, cond_names=names, categories=texts)
    checks.same_columns(table.cond_names, names, "cond")
    values = _in_coding(table, categories).cond
    assert values is not None  # cond was given
    values = values[:, [table.cond_names.index(name) for name in names]]
    # one row for all is not copied: of very many events there need not be an array
    return np.broadcast_to(values, (n_rows, len(names))) if rows == 1 else values


def _narrowed(table: EventTable, names: tuple[str, ...]) -> EventTable:
    """Return the table with these conditions only."""
    assert table.cond is not None  # it has names
    values = table.cond[:, [table.cond_names.index(name) for name in names]]
    kept = {k: v for k, v in table.categories.items() if k in names or k in table.names}
    return replace(table, cond=values, cond_names=names, categories=kept)


def like(data: Any, names: tuple[str, ...], categories: dict[str, tuple[str, ...]]) -> EventTable:
    """Return a table with the columns of another: by name, or by position for a plain array.

    Raises
    ------
    InputError
        If columns are missing or unknown, or hold a text that the other table does not have.
    """
    named = isinstance(data, EventTable) or hasattr(data, "columns")
    table = EventTable.of(data) if named else EventTable.of(data, names)
    checks.same_columns(table.names, names, "the source table")
    return _in_coding(table.select(names), categories)


def _in_coding(table: EventTable, categories: dict[str, tuple[str, ...]]) -> EventTable:
    """Return the table in the category codes that a model was trained with."""
    present = (*table.names, *table.cond_names)
    for name in table.categories:
        if name in present and name not in categories:
            raise InputError(f"column {name!r} must hold numbers, as in training; it holds texts")
    return table.recoded({k: v for k, v in categories.items() if k in present})
