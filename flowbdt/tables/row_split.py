"""Which event belongs to which part: by a keyed hash of the row number, never by a shuffle."""

from __future__ import annotations

import hashlib

import numpy as np

from ..errors import InputError


def split_mask(n: int, fraction: float, seed: int = 0, first_row: int = 0) -> np.ndarray:
    """Return which of ``n`` rows belong to the part of about ``fraction`` of all events.

    A row is in or out by a keyed hash of its number alone, so the answer for a row does not depend
    on the number of rows, on chunking, on the machine or on the order of any set.

    Parameters
    ----------
    n : int, number of rows
    fraction : float in [0, 1]
    seed : int, another seed gives an independent split
    first_row : int, number of the first row, where the table is a block of a larger one

    Returns
    -------
    mask : ndarray (n,), bool; its mean is ``fraction`` only up to binomial scatter

    Raises
    ------
    InputError
        If ``fraction`` is not between 0 and 1.
    """
    if not 0.0 <= fraction <= 1.0:
        raise InputError(f"the fraction of a split must be between 0 and 1, got {fraction}")
    return row_uniform(n, seed, first_row) < fraction


def row_uniform(n: int, seed: int = 0, first_row: int = 0) -> np.ndarray:
    """Return one keyed number in [0, 1) per row number, (n,) float64: the hash behind splits.

    References
    ----------
    Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, the
    finaliser of SplitMix64 (variant 13 of Stafford), applied to key + row.
    """
    key = int.from_bytes(hashlib.sha256(f"flowbdt split {seed}".encode()).digest()[:8], "little")
    state = np.arange(first_row, first_row + n, dtype=np.uint64) + np.uint64(1)
    state = state * np.uint64(0x9E3779B97F4A7C15) + np.full(n, key, dtype=np.uint64)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
