"""Where the empirical distribution of a column is smooth and where it jumps: knots for `rank`.

A column is cut into smooth runs and *atoms* (values repeated too often to be chance: spikes,
hard limits). Each owns an interval of the cumulative distribution, hence of the normal latent
value z. A run is piecewise linear in z between order statistics; an atom is flat. A gap between a
run and its neighbour takes no interval at all, so nothing is generated in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import plural
from .base import LARGEST

N_KNOTS = 1000
"""Knots for the smooth part of a column."""
MAX_ATOMS = 500
"""Repeated values kept exactly; if there are more, the most frequent ones."""
ATOM_SHARE = 0.005
"""A value held by this share of the rows (and by 10 rows) is an atom wherever it stands."""
SPIKE_SHARE = 0.0005
"""A value held by this share (and by 10 rows) is an atom if its neighbours are 5 times rarer."""


@dataclass(frozen=True)
class Distinct:
    """The distinct values of a column: values (u,) increasing, counts (u,)."""

    values: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Distinct:
        """Count the distinct values of a column (n,)."""
        return cls(*np.unique(values, return_counts=True))

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.counts.sum())


def find_atoms(distinct: Distinct) -> np.ndarray:
    """Return a mask (u,) of the values that are atoms.

    All of them when there are few distinct values for the number of rows; else those held by a
    large share of the rows, those that stand out from their neighbours, and an extreme value held
    by three or more rows (a hard limit). Values on a fine lattice (rounded data) are not atoms:
    their neighbours are repeated as often.
    """
    counts, n = distinct.counts, distinct.n
    if counts.size <= MAX_ATOMS and 10 * counts.size <= n:
        return np.ones(counts.size, dtype=bool)
    atoms = counts >= max(10, ATOM_SHARE * n)
    extremes = np.zeros(counts.size, dtype=bool)
    extremes[[0, -1]] = counts[[0, -1]] >= 3
    candidates = np.flatnonzero((counts >= max(10, SPIKE_SHARE * n)) | extremes)
    atoms[candidates] |= counts[candidates] >= 5 * _typical_neighbour(counts, candidates)
    return _most_frequent(atoms, counts)


def _typical_neighbour(counts: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the median count of the 30 nearest distinct values of each indexed one."""
    offsets = np.concatenate([np.arange(-15, 0), np.arange(1, 16)])
    around = index[:, None] + offsets
    inside = (around >= 0) & (around < counts.size)
    near = np.where(inside, counts[np.clip(around, 0, counts.size - 1)], np.nan)
    return np.nanmedian(near, axis=1) if index.size else np.empty(0)


def _most_frequent(atoms: np.ndarray, counts: np.ndarray) -> np.ndarray:
    if atoms.sum() <= MAX_ATOMS:
        return atoms
    order = np.argsort(np.where(atoms, -counts, 0), kind="stable")
    kept = np.zeros_like(atoms)
    kept[order[:MAX_ATOMS]] = True
    return kept


def build_knots(distinct: Distinct, atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return knots (z, x), both non-decreasing; equal x: an atom, equal z: a gap.

    z is the normal quantile of the mid-rank for values inside a run, of the edge of the interval
    where a run meets an atom. At most about `N_KNOTS` + 4 knots per atom; in the tails every
    event has its own.
    """
    from scipy.special import ndtri

    atoms = atoms | _lonely(atoms)
    cumulative = np.concatenate([[0.0], np.cumsum(distinct.counts) / distinct.n])
    begin, end = cumulative[:-1], cumulative[1:]
    middle = (begin + end) / 2
    after_atom = np.concatenate([[False], atoms[:-1]])
    before_atom = np.concatenate([atoms[1:], [False]])
    middle = np.where(after_atom, begin, np.where(before_atom, end, middle))
    z_run = ndtri(np.clip(middle, _TINY, 1 - _TINY))
    chosen = _thin(z_run, atoms)
    run_index = np.flatnonzero(chosen & ~atoms)
    atom_index = np.flatnonzero(atoms)
    index = np.concatenate([run_index, atom_index, atom_index])
    z_begin = ndtri(np.clip(begin[atom_index], _TINY, 1 - _TINY))
    z_end = ndtri(np.clip(end[atom_index], _TINY, 1 - _TINY))
    z = np.concatenate([z_run[run_index], z_begin, z_end])
    order = np.lexsort((z, index))
    return z[order], distinct.values[index[order]]


_TINY = 1e-16


def _lonely(atoms: np.ndarray) -> np.ndarray:
    """Return a mask of runs of a single value beside an atom: too short to be a line."""
    left = np.concatenate([[True], atoms[:-1]])
    right = np.concatenate([atoms[1:], [True]])
    return left & right


def _thin(z: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """Return a mask that keeps about `N_KNOTS` values, evenly in z, and both ends of each run."""
    span = max(float(z[-1] - z[0]), 1e-9)
    cell = np.floor((z - z[0]) * (N_KNOTS / span))
    new_cell = np.concatenate([[True], cell[1:] != cell[:-1]])
    starts = np.concatenate([[True], atoms[:-1]])
    ends = np.concatenate([atoms[1:], [True]])
    return np.asarray(new_cell | starts | ends)


def extend_low(
    z: np.ndarray, x: np.ndarray, reach: float, low: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Add a knot ``reach`` below the lowest, on the line through the outermost unit of z.

    The line is flattened where it would pass the declared bound ``low``. Nothing is added below
    an atom: it is a hard limit.
    """
    corners = np.flatnonzero((np.diff(x) == 0) | (np.diff(z) == 0))
    last = int(corners[0]) if corners.size else z.size - 1
    if last == 0 or reach == 0:
        return z, x
    inner = max(min(int(np.searchsorted(z, z[0] + 1.0)), last), 1)
    with np.errstate(over="ignore"):
        x_new = x[0] - reach * (x[inner] - x[0]) / (z[inner] - z[0])
    x_new = max(x_new, -LARGEST if low is None else low)
    if x_new >= x[0]:
        return z, x
    return np.concatenate([[z[0] - reach], z]), np.concatenate([[x_new], x])


def extend_high(
    z: np.ndarray, x: np.ndarray, reach: float, high: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Add a knot above the highest: the mirror image of `extend_low`."""
    z, x = extend_low(-z[::-1], -x[::-1], reach, None if high is None else -high)
    return -z[::-1], -x[::-1]


def describe_atoms(z: np.ndarray, x: np.ndarray) -> str:
    """Return the atoms and their shares, the largest first, at most three by value."""
    from scipy.special import ndtr

    flat = np.flatnonzero(np.diff(x) == 0)
    if flat.size == 0:
        return "no repeated values"
    share = ndtr(z[flat + 1]) - ndtr(z[flat])
    top = flat[np.argsort(-share, kind="stable")[:3]]
    shown = ", ".join(f"{x[i]:g} ({100 * (ndtr(z[i + 1]) - ndtr(z[i])):.3g}%)" for i in top)
    more = ", ..." if flat.size > 3 else ""
    return f"{plural(int(flat.size), 'repeated value')} kept exactly: {shown}{more}"
