"""`Columns`: what every table file holds, and the checks that all formats share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FormatError, InputError
from .. import checks
from ..event_table import EventTable

MAX_CATEGORIES = 1000
"""More different texts than this in a column are taken for numbers that could not be read."""


@dataclass
class Columns:
    """What a file holds: arrays (n,) by name in order, and what is known about them."""

    arrays: dict[str, np.ndarray]
    units: dict[str, str] = field(default_factory=dict)
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    weight: str | None = None

    def meta(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return all but the values as a JSON-like mapping, for formats without attributes."""
        return {
            "flowbdt_table": 1,
            "units": self.units,
            "categories": self.categories,
            "conditions": self.conditions,
            "weight": self.weight,
            "dtypes": {name: values.dtype.name for name, values in self.arrays.items()},
            "attributes": dict(attributes),
        }

    @classmethod
    def with_meta(cls, arrays: dict[str, np.ndarray], meta: Mapping[str, Any]) -> Columns:
        """Join arrays and what `meta` wrote; names that the arrays lack are left out."""
        weight = meta.get("weight")
        return cls(
            arrays=arrays,
            units={k: str(v) for k, v in meta.get("units", {}).items() if k in arrays},
            categories={k: tuple(v) for k, v in meta.get("categories", {}).items() if k in arrays},
            conditions=tuple(name for name in meta.get("conditions", ()) if name in arrays),
            weight=weight if weight in arrays else None,
        )


def of_table(table: EventTable) -> Columns:
    """Return all columns of a table in the types to store; categories as codes."""
    names = (*table.names, *table.cond_names, *(() if table.weight is None else ("weight",)))
    checks.unique_names(names, len(names), "the table to write (columns, conditions and weight)")
    arrays = {
        name: table.x[:, i].astype(dtype)
        for i, (name, dtype) in enumerate(zip(table.names, table.dtypes, strict=True))
    }
    if table.cond is not None:
        arrays |= {name: table.cond[:, i].copy() for i, name in enumerate(table.cond_names)}
    if table.weight is not None:
        arrays["weight"] = table.weight
    return Columns(
        arrays=arrays,
        units=dict(zip(table.names, table.units, strict=True)),
        categories={name: texts for name, texts in table.categories.items() if name in names},
        conditions=table.cond_names,
        weight=None if table.weight is None else "weight",
    )


def check_one_dimension(shapes: Mapping[str, tuple[int, ...]], path: str | Path) -> None:
    """Refuse columns that are not (n,)."""
    for name, shape in shapes.items():
        if len(shape) != 1:
            hint = " (JetNet's own layout is read by flowbdt.physics.jets.jetnet_files.read_jetnet)"
            raise InputError(
                f"{path}: column {name!r} must have shape (n,), got {shape}; write one array per"
                f" column{hint if name.endswith('_features') else ''}"
            )


def same_length(shapes: Mapping[str, tuple[int, ...]], path: str | Path) -> int:
    """Return the common length of 1-d columns. Raises InputError if none, unequal or zero."""
    check_one_dimension(shapes, path)
    lengths = {name: shape[0] for name, shape in shapes.items()}
    if not lengths:
        raise InputError(f"{path} has no columns; expected at least one")
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"{path}: columns must have equal numbers of rows, got {listed}")
    n_rows = next(iter(lengths.values()))
    if n_rows == 0:
        raise InputError(f"{path} has no rows; expected at least one event")
    return n_rows


def coded(
    values: np.ndarray, name: str, categories: tuple[str, ...] | None, path: str | Path
) -> np.ndarray:
    """Return a column as `EventTable.of` takes it: native numbers, or texts that are categories.

    Raises
    ------
    InputError
        If the column mixes numbers and texts, holds other objects, or too many different texts.
    FormatError
        If codes do not fit the stored categories.
    """
    if values.dtype.kind in "biuf":
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if categories is not None:
            _check_codes(values, name, len(categories), path)
        return values
    if values.dtype.kind not in "OUST":
        return values  # times and complex numbers: refused by EventTable.of
    values = _checked_texts(values, name, path)
    return values if categories is None else _codes(values, name, categories, path)


def _check_codes(values: np.ndarray, name: str, n_texts: int, path: str | Path) -> None:
    present = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    if present.size and not (present.min() >= 0 and present.max() < n_texts):
        raise FormatError(
            f"{path}: the codes of {name!r} must be 0 to {n_texts - 1}, as many as it has"
            f" categories, got {present.min()} to {present.max()}: make the file again"
        )


def _checked_texts(values: np.ndarray, name: str, path: str | Path) -> np.ndarray:
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


def _codes(
    values: np.ndarray, name: str, categories: tuple[str, ...], path: str | Path
) -> np.ndarray:
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
