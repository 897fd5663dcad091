"""Energy divided in two, again and again: every part and the sum of all come out exact.

The energy of a layer is divided between inner and outer rings until single rings are left, that of
a ring between neighbouring sectors until single voxels are left. Each division is one share
between 0 and 1. A voxel holds nothing or at least the threshold, so a part that is not empty
holds at least the threshold too: the share counts what is left beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Segments = dict[tuple[int, int], np.ndarray]
"""Energy of the cells from low up to high, by (low, high); arrays of one shape."""


class Split(NamedTuple):
    """A division of the cells low to high - 1 at ``middle``."""

    low: int
    middle: int
    high: int

    @property
    def whole(self) -> tuple[int, int]:
        """What is divided."""
        return self.low, self.high

    @property
    def parts(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Left and right part."""
        return (self.low, self.middle), (self.middle, self.high)

    @property
    def kind(self) -> tuple[int, int]:
        """Numbers of cells to the left and to the right."""
        return self.middle - self.low, self.high - self.middle


def splits(n: int) -> list[Split]:
    """Return the n - 1 halvings that lead from n cells to single ones, larger ones first."""
    result: list[Split] = []
    level = [(0, n)]
    while level:
        found = [Split(low, (low + high) // 2, high) for low, high in level if high - low > 1]
        result += found
        level = [part for split in found for part in split.parts]
    return result


def ancestors(n: int) -> dict[tuple[int, int], tuple[tuple[int, int], ...]]:
    """Return for every part what it is a part of, the smallest first."""
    result: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {(0, n): ()}
    for split in splits(n):
        for part in split.parts:
            result[part] = (split.whole, *result[split.whole])
    return result


def summed(cells: np.ndarray) -> Segments:
    """Return the energies of all segments from those of the cells, (..., n)."""
    n = cells.shape[-1]
    result = {(0, n): cells.sum(axis=-1)}
    for split in splits(n):
        for low, high in split.parts:
            result[low, high] = cells[..., low:high].sum(axis=-1)
    return result


def share(left: np.ndarray, whole: np.ndarray, threshold: float) -> np.ndarray:
    """Return shares: 0 and 1 where all is on one side, else what the left has beyond the threshold.

    Parameters
    ----------
    left, whole : energies of the left part and of both, whole > 0
    threshold : least energy of a part that is not empty, in the same unit
    """
    inner = (left - threshold) / np.maximum(whole - 2 * threshold, 1e-12)
    inner = np.clip(inner, 1e-9, 1 - 1e-9)
    # sums in another order leave a part of one in a billion where there is nothing
    empty = whole - left <= 1e-9 * whole
    return np.where(left <= 1e-9 * whole, 0.0, np.where(empty, 1.0, inner))


def left_energy(share: np.ndarray, whole: np.ndarray, threshold: float) -> np.ndarray:
    """Return the energy of the left part: the inverse of `share`.

    Too little energy for two parts goes to the side that has the larger share.
    """
    left = threshold + share * (whole - 2 * threshold)
    left = np.where(whole < 2 * threshold, np.where(share > 0.5, whole, 0.0), left)
    return np.where(share <= 0, 0.0, np.where(share >= 1, whole, left))


def fraction(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole; NaN where the whole is empty."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)


def log_energy(energy: np.ndarray) -> np.ndarray:
    """Return the logarithm; NaN where there is no energy."""
    return np.where(energy > 0, np.log(np.where(energy > 0, energy, 1.0)), np.nan)


def divide(segments: Segments, split: Split, shares: np.ndarray, threshold: float) -> None:
    """Enter the two parts of a split from its shares."""
    whole = segments[split.whole]
    left = np.where(whole > 0, left_energy(shares, whole, threshold), 0.0)
    segments[split.parts[0]], segments[split.parts[1]] = left, whole - left


def cells(segments: Mapping[tuple[int, int], np.ndarray], n: int) -> np.ndarray:
    """Return the energies of the n cells, (..., n)."""
    return np.stack([segments[cell, cell + 1] for cell in range(n)], axis=-1)
