"""Columns whose numbers are floats with fewer digits than their type has.

A program that prints floats with eight digits writes 36.830002 for 36.83; only as single precision
do such numbers lie on the lattice of hundredths. Files of experiments keep ten or twelve bits of a
mantissa, to be packed well: distances of such numbers are seldom as small as those of others.
"""

from __future__ import annotations

import numpy as np

SINGLE = "float32"
PRINTED = {"float32 of 8 digits": 8, "float32 of 9 digits": 9}
"""Types of columns, with the significant digits that floats were printed with."""

FEWEST_BITS, MOST_BITS = 4, 20
"""Of a mantissa that was rounded, behind its leading one."""
ROUNDED = {f"float32 of {n} bits": n for n in range(FEWEST_BITS, MOST_BITS + 1)}
"""Types of columns, with the bits that are left of mantissas."""

FEWEST = 20
"""Numbers of more than seven digits that must be printed floats: one of eight digits often is."""
NEED_ALL, FEWEST_ALIKE = 0.25, 5
"""Share of different rounded numbers that need all bits, by chance half, and how many do between
two powers of two and between two others: of a lattice only the largest do."""

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


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return values, as float64, as a column of single precision holds them, or one of a kind."""
    if dtype in ROUNDED:
        return in_bits(values, ROUNDED[dtype])
    floats = single(values)
    return in_digits(floats, PRINTED[dtype]) if dtype in PRINTED else floats


def in_digits(values: np.ndarray, digits: int) -> np.ndarray:
    """Return values as they are read after printing with so many significant digits."""
    exponent = np.floor(np.log10(np.maximum(np.abs(values), SMALLEST))).astype(int)
    up, down = (
        POWERS[np.clip(sign * (digits - 1 - exponent), 0, len(POWERS) - 1)] for sign in (1, -1)
    )
    return np.asarray(np.rint(values * up / down) * down / up)


def in_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Return values, as float64, with so many bits of their mantissas, of floats in range."""
    largest, cut = largest_of_bits(bits), 52 - bits
    words = np.clip(values, -largest, largest).astype(np.float64).view(np.int64)
    words = (words + (1 << (cut - 1))) & ~((1 << cut) - 1)  # an overflow raises the exponent
    return single(words.view(np.float64))


def largest_of_bits(bits: int) -> float:
    """Return the largest number of single precision with so many bits of its mantissa."""
    return (2.0 - 2.0**-bits) * 2.0**127


def floats_of(values: np.ndarray, dtype: str) -> str:
    """Return a type of a column of ``dtype`` that holds its known values (n,): the narrowest."""
    if dtype not in ("float64", SINGLE):
        return dtype
    if all(_are_floats(some, 0) for some in (values[:100], values)):
        bits = _bits_of(values)
        if bits is not None:
            return f"{SINGLE} of {bits} bits"
        return SINGLE if dtype == SINGLE or _needs_floats(values) else dtype
    for kind, digits in PRINTED.items():
        if all(_are_floats(some, digits) for some in (values[:100], values)):
            return kind if _needs_floats(values) else dtype
    return dtype


def _needs_floats(values: np.ndarray) -> bool:
    longer = values[in_digits(values, 7) != values]
    return longer.size >= FEWEST and bool((longer != np.rint(longer)).any())


def _are_floats(values: np.ndarray, digits: int) -> bool:
    floats = single(values)
    return bool(((in_digits(floats, digits) if digits else floats) == values).all())


def _bits_of(values: np.ndarray) -> int | None:
    """Return how many bits of their mantissas floats were rounded to; None if they were not."""
    if (_needed_bits(values[:100]) > MOST_BITS).any():
        return None
    distinct = np.unique(np.abs(values))
    needed = _needed_bits(distinct)
    bits = int(needed.max())
    powers = np.frexp(distinct[needed == bits])[1]
    many = np.unique(powers, return_counts=True)[1] >= FEWEST_ALIKE
    enough = many.sum() > 1 and len(powers) >= NEED_ALL * len(distinct)
    return bits if enough and FEWEST_BITS <= bits <= MOST_BITS else None


def _needed_bits(values: np.ndarray) -> np.ndarray:
    """Return how many bits of the mantissa each float needs, 0 of zero and powers of two."""
    mantissa = np.ldexp(np.frexp(values)[0], 24).astype(np.int64)  # whole, with the leading one
    last = np.maximum(mantissa & -mantissa, 1)
    return np.where(mantissa == 0, 0, 23 - np.log2(last).astype(np.int64))
