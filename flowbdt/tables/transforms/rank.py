"""Rank-to-normal: the empirical distribution of a column, mapped to a standard normal.

A column is cut into smooth runs and *atoms* (values repeated too often to be chance: spikes,
hard limits). Each has an interval of the cumulative distribution, hence of the normal latent
value z. A run is piecewise linear in z between order statistics, as few as its rows ask for; an
atom is flat. A gap between a run and its neighbour has no interval, so nothing is generated in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ConfigError, InputError, plural
from .base import LARGEST, REACH, TRANSFORMS, ColumnTransform, check_number, check_tails
from .charts import FEWEST, Pieces, spread_normal

N_KNOTS = 1000
"""Most knots for the smooth part of a column, evenly in z."""
N_LEVELS = (8, 16, 32, 64, 128, 256)
"""Fewer knots, at equal shares of the rows, towards the ends at halves of the share before as long
as `FEWEST` rows are beyond. A knot for every few rows would give their chance accumulations and
gaps to all that is generated, where a judge sees them: on a smooth column alone 5,000 rows do."""
MAX_ATOMS = 500
"""Repeated values kept exactly; if there are more, the most frequent ones."""
ATOM_SHARE = 0.005
"""A value held by this share of the rows (and by 10 rows) can be an atom wherever it stands."""
SPIKE_SHARE = 0.0005
"""A value held by this share (and by 10 rows) can be one if its neighbours are 5 times rarer."""
CHANCE = 1e-3
"""Chance of one atom more in a column without any."""
TO_LIMIT = 1.0
"""Distance in z that the last interval before a limit is longer than its share of the rows."""
LEFT = 0.05
"""Part of a row's weight that stays as it was in `Rank.reweighted`."""
_NUDGE = 1e-11
"""Distance in z of the end of a smooth run from the gap beside it, in `Rank.forward`."""


@TRANSFORMS.register("rank")
@dataclass(eq=False)
class Rank(ColumnTransform):
    """Map a column to a standard normal through its empirical distribution, piecewise linearly.

    `forward` spreads an atom (see `find_atoms`) over its interval with random numbers, `inverse`
    gives the value back exactly. Values between an atom and a run come back as the end of the run.

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
        # rare latent values beyond the training rows must not pile up at a limit
        if self.limited["low"] == "extend":
            z, x = extend_low(z, x, reach, self.bound)
        elif x[1] > x[0]:
            z[0] -= TO_LIMIT
        if self.limited["high"] == "extend":
            z, x = extend_high(z, x, reach, self.high)
        elif x[-1] > x[-2]:
            z[-1] += TO_LIMIT
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
        # what lies between a run and an atom belongs to the end of the run
        starts, ends = np.isin(gap + 1, flat), np.isin(gap - 1, flat)
        above, below = gap[ends & ~starts], gap[starts & ~ends]
        beside = np.nextafter(self.x[above], np.inf), np.nextafter(self.x[below + 1], -np.inf)
        x = np.concatenate([np.delete(self.x, flat + 1), *beside])
        z = np.concatenate([np.delete(z, flat + 1), z[above + 1], z[below]])
        order = np.argsort(x, kind="stable")
        self._exponent = -int(np.frexp(np.abs(x).max())[1])  # no quotient may overflow
        self._single_x, self._single_z = np.ldexp(x[order], self._exponent), z[order]

    def load(self, state: Mapping[str, Any]) -> None:
        super().load(state)
        self._prepare()

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        with np.errstate(over="ignore"):
            scaled = np.ldexp(values, self._exponent)
        z = np.asarray(np.interp(scaled, self._single_x, self._single_z))
        if self.draws:
            spread = rng.random(values.shape)
            index = np.minimum(np.searchsorted(self._atom_x, values), self._atom_x.size - 1)
            hit = self._atom_x[index] == values
            atom = index[hit]
            z[hit], _ = spread_normal(self._atom_low[atom], self._atom_high[atom], spread[hit])
        return z[:, None]

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        z = np.clip(latent[:, 0], self.z[0], self.z[-1])
        index = np.minimum(np.searchsorted(self.z, z, side="right") - 1, self.z.size - 2)
        with np.errstate(over="ignore"):
            x = self.x[index] + (z - self.z[index]) * self._slope[index]
        return np.clip(x, self.x[0], self.x[-1])

    def chart(self) -> Pieces:
        return Pieces.of_knots(self.z, self.x)

    def reweighted(self, latent: np.ndarray, weight: np.ndarray) -> Callable[..., np.ndarray]:
        """Take over the distribution that latent values (n,) have with weights (n,) of mean 1.

        Values of the column stay at their knots, which move. Returns the function that moves latent
        values (k,) accordingly.
        """
        from scipy.special import ndtri

        order, old = np.argsort(latent, kind="stable"), self.z.copy()
        weight = weight[order].astype(np.float64)
        rows, share = latent[order], (1 - LEFT) * weight / weight.mean() + LEFT
        inside = (old > rows[0]) & (old < rows[-1])
        if not inside.any():
            return np.asarray
        known = old[inside]
        before, after = (
            ndtri(np.interp(known, rows, (np.cumsum(w) - 0.5 * w) / w.sum()))
            for w in (np.ones(len(rows)), share)
        )
        moved = old + np.interp(old, known, after - before)
        steps = np.maximum(np.diff(moved), LEFT * np.diff(old))  # no gap that was not there
        self.z = moved[0] + np.concatenate([[0.0], np.cumsum(steps)])
        self._prepare()
        return lambda z: np.interp(z, old, self.z)

    def resolved(self) -> dict[str, Any]:
        return {"name": self.name, **self.options(), "tails": dict(self.limited), "low": self.bound}

    def describe(self) -> str:
        tails = ", ".join(f"{side} {what}" for side, what in self.limited.items())
        atoms = describe_atoms(self.z, self.x)
        return (
            f"rank to normal, {atoms}; tails: {tails}, generated values in"
            f" [{self.x[0]:g}, {self.x[-1]:g}]"
        )


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
    """Return a mask (u,) of the values that are atoms: the spikes, or all.

    All where there are few distinct values for the number of rows, also if the spikes are left out:
    many rows at one value do not make the others repeated ones.
    """
    spikes, counts = find_spikes(distinct), distinct.counts
    few = counts.size <= MAX_ATOMS and 10 * counts.size <= distinct.n
    n_rest = int((~spikes).sum())
    discrete = n_rest <= spikes.sum() or 3 * n_rest <= counts[~spikes].sum()
    return np.ones_like(spikes) if few and discrete else spikes


def find_spikes(distinct: Distinct) -> np.ndarray:
    """Return a mask (u,) of the values that are repeated far more often than by coincidence.

    These are values held by a large share of the rows, or that stand out from their neighbours, or
    extremes (a hard limit). A smooth density makes coincidences too: as many as rows are near, per
    distance of the points that the resolution of the column leaves. So a repeated value needs three
    times their number, and more than Poisson fluctuations among all rows make. Derived here.
    """
    counts, n = distinct.counts, distinct.n
    candidate = counts >= max(10, SPIKE_SHARE * n)
    candidate[[0, -1]] |= counts[[0, -1]] >= 3
    index = np.flatnonzero(candidate)
    if not index.size or counts.size < 2:
        return candidate
    expected, typical = _coincidences(distinct, index)
    from scipy.special import pdtrc

    count = counts[index]
    evident = (count >= 3 * expected) & (pdtrc(count - 2.0, expected) * n < CHANCE)
    stands_out = (count >= max(10, ATOM_SHARE * n)) | (count >= 5 * typical)
    candidate[index] = evident & stands_out
    return _most_frequent(candidate, counts)


def _coincidences(distinct: Distinct, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of rows that share an indexed value by chance, and its neighbours' median.

    The former from the 8 values on the denser side, the latter from 15 on either side.
    """
    counts, last = distinct.counts, distinct.values.size - 1
    values = distinct.values / np.abs(distinct.values).max()  # only ratios of distances matter
    resolution = least_gap(values)
    expected, near = np.zeros(index.size), []
    for side in (-1, 1):
        around = index[:, None] + side * np.arange(1, 16)
        inside = (around >= 0) & (around <= last)
        near.append(np.where(inside, counts[np.clip(around, 0, last)], np.nan))
        end = np.clip(index + 8 * side, 0, last)
        span = np.abs(values[end] - values[index])
        gap = resolution[np.minimum(index, last - 1)]
        rows = np.nansum(near[-1][:, :8], axis=1)
        expected = np.maximum(expected, rows * gap / np.where(span > 0, span, np.inf))
    return expected, np.nanmedian(np.hstack(near), axis=1)


def least_gap(values: np.ndarray) -> np.ndarray:
    """Return for each gap between rising values (u,) the least of the 31 nearest ones, (u - 1,)."""
    gaps = np.pad(np.diff(values), 15, constant_values=np.inf)
    return np.lib.stride_tricks.sliding_window_view(gaps, 31).min(axis=1)


def _most_frequent(atoms: np.ndarray, counts: np.ndarray) -> np.ndarray:
    order = np.argsort(np.where(atoms, -counts, 0), kind="stable")
    kept = atoms.copy()
    kept[order[MAX_ATOMS:]] = False
    return kept


def build_knots(distinct: Distinct, atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return knots (z, x), both non-decreasing; equal x: an atom, equal z: a gap.

    z is the normal quantile of the mid-rank for values inside a run, of the edge of the interval
    where a run meets an atom. At most about `N_KNOTS` + 4 knots per atom.
    """
    # a single value between atoms is too short to be a line
    atoms = atoms | (np.append(True, atoms[:-1]) & np.append(atoms[1:], True))
    after_atom, before_atom = np.append(False, atoms[:-1]), np.append(atoms[1:], False)
    cumulative = np.append(0.0, np.cumsum(distinct.counts) / distinct.n)
    begin, end = cumulative[:-1], cumulative[1:]
    middle = np.where(after_atom, begin, np.where(before_atom, end, (begin + end) / 2))
    z_run = _normal_quantile(middle)
    of_runs = _knots_of_runs(distinct, z_run, after_atom | before_atom)
    run_index = np.flatnonzero(of_runs & ~atoms)
    atom_index = np.flatnonzero(atoms)
    index = np.concatenate([run_index, atom_index, atom_index])
    z_edges = _normal_quantile(np.concatenate([begin[atom_index], end[atom_index]]))
    z = np.concatenate([z_run[run_index], z_edges])
    order = np.lexsort((z, index))
    return z[order], distinct.values[index[order]]


def _normal_quantile(share: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri

    return np.asarray(ndtri(np.clip(share, 1e-16, 1 - 1e-16)))


def _knots_of_runs(distinct: Distinct, z: np.ndarray, beside_atom: np.ndarray) -> np.ndarray:
    """Return a mask (u,) of the values that are knots: of `N_KNOTS` and `N_LEVELS` the likeliest.

    The log likelihood of all rows is taken, less one for every interval, since that is what rows
    gain on average by being those that set its knots (Akaike 1974, IEEE Trans. Autom. Control 19,
    716). Then edges and holes get knots of their own, see `_blocks`.
    """
    from scipy.special import ndtr

    below, x = ndtr(z) * distinct.n, distinct.values
    span = max(float(z[-1] - z[0]), 1e-9)
    cells = [np.floor((z - z[0]) * (N_KNOTS / span))]
    for k in N_LEVELS:
        tail = 0.5 ** np.arange(np.log2(k), np.log2(distinct.n / FEWEST))
        levels = np.unique([*np.arange(1, k) / k, *tail, *1 - tail])
        cells.append(np.searchsorted(levels * distinct.n, below))
    masks = [beside_atom | np.append(True, np.diff(cell) != 0) for cell in cells]
    for mask in masks:
        mask[-1] = True
    fine = np.flatnonzero(masks[0])
    best = max(masks, key=lambda m: _log_likelihood(np.diff(below[m]), np.diff(x[m])) - m.sum())
    kept = np.flatnonzero(best)
    for first, last in itertools.pairwise(kept):
        inside = fine[(fine > first) & (fine < last)]
        edges = np.array([first, *inside, last])
        best[edges[_blocks(below[edges], x[edges], np.log(distinct.n))]] = True
    return best


def _log_likelihood(rows: np.ndarray, width: np.ndarray) -> float:
    with np.errstate(over="ignore"):  # widths beyond all numbers
        return float(np.sum(rows * np.log(np.maximum(rows, 1e-9) / width)))


def _blocks(below: np.ndarray, x: np.ndarray, cost: float) -> list[int]:
    """Return which of rising edges x (k,), with as many rows below, part blocks of equal density.

    The likeliest, where each has to gain its cost. Source: Scargle et al. 2013, arXiv 1207.5578.
    """
    best, before = np.zeros(len(x)), [0] * len(x)
    for j in range(1, len(x)):
        rows = np.maximum(below[j] - below[:j], 1e-9)
        with np.errstate(over="ignore"):
            gain = best[:j] + rows * np.log(rows / (x[j] - x[:j])) - cost
        before[j] = int(np.argmax(gain))
        best[j] = gain[before[j]]
    parts, j = [], before[-1]
    while j > 0:
        parts.append(j)
        j = before[j]
    return parts


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
