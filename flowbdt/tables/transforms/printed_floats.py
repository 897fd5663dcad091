"""Columns of double precision whose numbers are those of single precision, as they are or printed.

A program that prints floats with eight digits writes 36.830002 for 36.83. Only as single precision
do such numbers lie on the lattice of hundredths.
"""

from __future__ import annotations

import numpy as np

SINGLE = "float32"
PRINTED = {"float32 of 8 digits": 8, "float32 of 9 digits": 9}
"""Types of columns, with the significant digits that floats were printed with."""

FEWEST = 20
"""Numbers of more than seven digits that must be such floats: one of eight digits often is."""

POWERS = np.array([float(10**k) for k in range(23)])
"""All powers of ten that a double holds."""

SMALLEST = 1e-14


def number_type(dtype: str) -> np.dtype:
    """Return numpy's type of the numbers of a column."""
    return np.dtype(dtype.partition(" ")[0])


def single(values: np.ndarray) -> np.ndarray:
    """Return values in single precision, at most the largest of these, as float64."""
    largest = float(np.finfo(np.float32).max)
    return np.clip(values, -largest, largest).astype(np.float32).astype(np.float64)


def in_digits(values: np.ndarray, digits: int) -> np.ndarray:
    """Return values as they are read after printing with so many significant digits."""
    exponent = np.floor(np.log10(np.maximum(np.abs(values), SMALLEST))).astype(int)
    up, down = (
        POWERS[np.clip(sign * (digits - 1 - exponent), 0, len(POWERS) - 1)] for sign in (1, -1)
    )
    return np.asarray(np.rint(values * up / down) * down / up)


def floats_of(values: np.ndarray, dtype: str) -> str:
    """Return a type of a column of ``dtype`` that holds its known values (n,): the narrowest."""
    if dtype != "float64":
        return dtype
    for kind, digits in {SINGLE: 0, **PRINTED}.items():
        if all(_are_floats(some, digits) for some in (values[:100], values)):
            return kind if _needs_floats(values) else dtype
    return dtype


def _needs_floats(values: np.ndarray) -> bool:
    longer = values[in_digits(values, 7) != values]
    return longer.size >= FEWEST and bool((longer != np.rint(longer)).any())


def _are_floats(values: np.ndarray, digits: int) -> bool:
    floats = single(values)
    return bool(((in_digits(floats, digits) if digits else floats) == values).all())
