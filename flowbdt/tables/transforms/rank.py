"""Rank-to-normal: the empirical distribution of a column, mapped to a standard normal.

A column is cut into smooth runs and *atoms* (values repeated too often to be chance: spikes,
hard limits). Each has an interval of the cumulative distribution, hence of the normal latent
value z. A run is piecewise linear in z between order statistics; an atom is flat. A gap between a
run and its neighbour has no interval, so nothing is generated in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ConfigError, InputError, plural
from .base import LARGEST, REACH, TRANSFORMS, ColumnTransform, check_number, check_tails

N_KNOTS = 1000
"""Knots for the smooth part of a column."""
MAX_ATOMS = 500
"""Repeated values kept exactly; if there are more, the most frequent ones."""
ATOM_SHARE = 0.005
"""A value held by this share of the rows (and by 10 rows) is an atom wherever it stands."""
SPIKE_SHARE = 0.0005
"""A value held by this share (and by 10 rows) is an atom if its neighbours are 5 times rarer."""
_INSIDE = 1e-5
"""Share of an atom's interval left free at each end, so that rounding cannot leave it."""
_NUDGE = 1e-11
"""Distance in z of the end of a smooth run from the gap beside it, in `Rank.forward`."""


@TRANSFORMS.register("rank")
@dataclass(eq=False)
class Rank(ColumnTransform):
    """Map a column to a standard normal through its empirical distribution, piecewise linearly.

    `forward` spreads an atom (see `find_atoms`) over its interval with random numbers, `inverse`
    gives the value back exactly. Values between an atom and its neighbour come back as the atom.

    Parameters
    ----------
    tails : "auto", "limit", "extend", or {"low": ..., "high": ...}
        "limit": never beyond the training range; "extend": linear in the latent value, with the
        slope of the outermost unit, up to ``reach`` beyond. "auto" extends, except on a side
        where the extreme value is repeated: that is a limit.
    low, high : float, None or (low only) "auto"
        Declared bounds that no extension passes, in the unit of the column. "auto": zero if no
        training value is negative.
    reach : float, in latent units
    atoms : "auto", "none", or a list of values to keep exactly

    Notes
    -----
    State: at most about 2000 knots. The latent value is clipped to the first and last knot.
    """

    name = "rank"
    fitted = ("z", "x", "limited", "bound")
    tails: str | Mapping[str, str] = "auto"
    low: float | str | None = "auto"
    high: float | None = None
    reach: float = REACH
    atoms: str | Sequence[float] = "auto"

    def fit(self, values: np.ndarray, rng: np.random.Generator) -> Rank:
        self.bound = self._choose_low(values)
        self._check_bounds(values)
        reach = check_number(self.reach, "reach of 'rank'", positive=True)
        distinct = Distinct.of(values)
        z, x = build_knots(distinct, self._choose_atoms(distinct))
        self.limited = check_tails(self.tails, "'rank'")
        for side, count in (("low", distinct.counts[0]), ("high", distinct.counts[-1])):
            if self.limited[side] == "auto":
                self.limited[side] = "limit" if count > 1 else "extend"
        if self.limited["low"] == "extend":
            z, x = extend_low(z, x, reach, self.bound)
        if self.limited["high"] == "extend":
            z, x = extend_high(z, x, reach, self.high)
        self.z, self.x = z, x
        self._prepare()
        return self

    def _choose_low(self, values: np.ndarray) -> float | None:
        if self.low == "auto":
            return 0.0 if values.min() >= 0 else None
        return None if self.low is None else check_number(self.low, "low of 'rank'")

    def _check_bounds(self, values: np.ndarray) -> None:
        for side, sign, bound in (("low", 1, self.bound), ("high", -1, self.high)):
            if bound is None:
                continue
            if (sign * values).min() < sign * check_number(bound, f"{side} of 'rank'"):
                raise InputError(
                    f"transform 'rank' was declared {side} = {bound:g}, but training values lie"
                    f" beyond it (range {values.min():g} to {values.max():g}); change the bound"
                )

    def _choose_atoms(self, distinct: Distinct) -> np.ndarray:
        if self.atoms == "auto":
            return find_atoms(distinct)
        if isinstance(self.atoms, str) and self.atoms != "none":
            raise ConfigError(
                f"atoms of 'rank' must be 'auto', 'none' or a list of values, got {self.atoms!r}"
            )
        kept = [] if isinstance(self.atoms, str) else self.atoms
        return np.isin(distinct.values, np.asarray(kept, dtype=np.float64))

    def _prepare(self) -> None:
        """Derive from the knots what forward and inverse look up."""
        dz, dx = np.diff(self.z), np.diff(self.x)
        with np.errstate(over="ignore"):
            self._slope = np.where(dz > 0, dx / np.where(dz > 0, dz, 1.0), 0.0)
        self.draws = bool((dx == 0).any())
        flat = np.flatnonzero(dx == 0)
        self._atom_x, self._atom_low, self._atom_high = self.x[flat], self.z[flat], self.z[flat + 1]
        # one latent value per distinct x: atoms are entered at the middle of their interval, the
        # ends of runs a little inside, so that rounding cannot carry them over a gap
        gap = np.flatnonzero((dz == 0) & (dx > 0))
        z = self.z.copy()
        z[gap] -= _NUDGE
        z[gap + 1] += _NUDGE
        z[flat] = (self._atom_low + self._atom_high) / 2
        single = np.ones(self.x.size, dtype=bool)
        single[flat + 1] = False
        self._single_x, self._single_z = self.x[single], z[single]

    def load(self, state: Mapping[str, Any]) -> None:
        super().load(state)
        self._prepare()

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        z = np.asarray(np.interp(values, self._single_x, self._single_z))
        if self.draws:
            spread = rng.random(values.shape)
            index = np.minimum(np.searchsorted(self._atom_x, values), self._atom_x.size - 1)
            hit = self._atom_x[index] == values
            atom = index[hit]
            z[hit] = spread_normal(self._atom_low[atom], self._atom_high[atom], spread[hit])
        return z[:, None]

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        z = np.clip(latent[:, 0], self.z[0], self.z[-1])
        index = np.minimum(np.searchsorted(self.z, z, side="right") - 1, self.z.size - 2)
        with np.errstate(over="ignore"):
            x = self.x[index] + (z - self.z[index]) * self._slope[index]
        return np.clip(x, self.x[0], self.x[-1])

    def resolved(self) -> dict[str, Any]:
        return {"name": self.name, **self.options(), "tails": dict(self.limited), "low": self.bound}

    def describe(self) -> str:
        tails = ", ".join(f"{side} {what}" for side, what in self.limited.items())
        atoms = describe_atoms(self.z, self.x)
        return (
            f"rank to normal, {atoms}; tails: {tails}, generated values in"
            f" [{self.x[0]:g}, {self.x[-1]:g}]"
        )


def spread_normal(low: np.ndarray, high: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return normal values restricted to (low, high), one per uniform number in [0, 1)."""
    from scipy.special import ndtr, ndtri

    # In the upper half work with 1 - p, where the floats are dense: mirror, draw, mirror back.
    flip = low > 0
    a, b = np.where(flip, -high, low), np.where(flip, -low, high)
    p_a, p_b = ndtr(a), ndtr(b)
    p = p_a + (_INSIDE + (1 - 2 * _INSIDE) * uniform) * (p_b - p_a)
    z = ndtri(p)
    return np.where(flip, -z, z)


@dataclass(frozen=True)
class Distinct:
    """The distinct values of a column and how often each occurs, both (u,), values increasing."""

    values: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Distinct:
        return cls(*np.unique(values, return_counts=True))

    @property
    def n(self) -> int:
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
    order = np.argsort(np.where(atoms, -counts, 0), kind="stable")
    kept = atoms.copy()
    kept[order[MAX_ATOMS:]] = False
    return kept


def build_knots(distinct: Distinct, atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return knots (z, x), both non-decreasing; equal x: an atom, equal z: a gap.

    z is the normal quantile of the mid-rank for values inside a run, of the edge of the interval
    where a run meets an atom. At most about `N_KNOTS` + 4 knots per atom; in the tails every
    event has its own.
    """
    # a single value between atoms is too short to be a line
    atoms = atoms | (np.append(True, atoms[:-1]) & np.append(atoms[1:], True))
    after_atom, before_atom = np.append(False, atoms[:-1]), np.append(atoms[1:], False)
    cumulative = np.append(0.0, np.cumsum(distinct.counts) / distinct.n)
    begin, end = cumulative[:-1], cumulative[1:]
    middle = np.where(after_atom, begin, np.where(before_atom, end, (begin + end) / 2))
    z_run = _normal_quantile(middle)
    run_index = np.flatnonzero(_thin(z_run, after_atom | before_atom) & ~atoms)
    atom_index = np.flatnonzero(atoms)
    index = np.concatenate([run_index, atom_index, atom_index])
    z_edges = _normal_quantile(np.concatenate([begin[atom_index], end[atom_index]]))
    z = np.concatenate([z_run[run_index], z_edges])
    order = np.lexsort((z, index))
    return z[order], distinct.values[index[order]]


def _normal_quantile(share: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri

    return np.asarray(ndtri(np.clip(share, 1e-16, 1 - 1e-16)))


def _thin(z: np.ndarray, beside_atom: np.ndarray) -> np.ndarray:
    """Return a mask that keeps about `N_KNOTS` values, evenly in z, and both ends of each run."""
    span = max(float(z[-1] - z[0]), 1e-9)
    cell = np.floor((z - z[0]) * (N_KNOTS / span))
    kept = beside_atom | np.append(True, np.diff(cell) != 0)
    kept[-1] = True
    return kept


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
