"""Charts: latent points of the values of a column, with the volume that a density needs.

What generation restores has limits, and steps from knot to knot. A chart has the same latent points
without limits, and with a smooth slope. Of a value that has an interval of the latent axis, which
is a probability and no density, it has a point drawn in the interval.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LEVELS = 64
"""Knots of a smooth map of ranks, at equal shares of the rows; nearer to the ends at halves of the
share before, as long as `FEWEST` rows are beyond. With more of them slopes are noise."""

FEWEST = 4

_INSIDE = 1e-5
"""Share of an atom's interval left free at each end, so that rounding cannot leave it."""


class Chart(ABC):
    """The points of a column; ``draws`` if some of them are drawn."""

    draws: bool = False

    @abstractmethod
    def points(self, values: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return latent points (n, k) of values (n,), and the logs of their volumes (n,).

        The density, or probability, of a value is that of its point times the volume, in the mean
        over ``uniform`` (n,) in [0, 1). The log is -inf where no value can be.
        """

    @abstractmethod
    def values(self, latent: np.ndarray) -> np.ndarray:
        """Return the values (n,) of latent points (n, k)."""

    def edge(self, values: np.ndarray) -> np.ndarray:
        """Return the least latent points (n,) that have values above those given (n,)."""
        return self.points(values, np.zeros(len(values)))[0][:, 0]


@dataclass(frozen=True, eq=False)
class Smooth(Chart):
    """The chart of a function with an inverse and the log of its slope."""

    forward: Callable[[np.ndarray], np.ndarray]
    log_slope: Callable[[np.ndarray], np.ndarray]
    inverse: Callable[[np.ndarray], np.ndarray]

    def points(self, values: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.forward(values)[:, None], self.log_slope(values)

    def values(self, latent: np.ndarray) -> np.ndarray:
        return self.inverse(latent[:, 0])


@dataclass(frozen=True, eq=False)
class Chained(Chart):
    """Charts one after the other, of which only the last may draw."""

    charts: tuple[Chart, ...]

    @property
    def draws(self) -> bool:  # type: ignore[override]
        return self.charts[-1].draws

    def points(self, values: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        latent, log_volume = values[:, None], np.zeros(len(values))
        for chart in self.charts:
            latent, more = chart.points(latent[:, 0], uniform)
            log_volume = log_volume + more
        return latent, log_volume

    def values(self, latent: np.ndarray) -> np.ndarray:
        for chart in reversed(self.charts):
            latent = chart.values(latent)[:, None]
        return latent[:, 0]


@dataclass(frozen=True, eq=False)
class Spline:
    """A smooth rising map of x to z through knots (k,), linear beyond them.

    Rational quadratic with positive slopes at the knots, so that it rises everywhere and has an
    inverse in closed form.

    Source: Gregory, Delbourgo 1982, IMA J. Numer. Anal. 2, 123; the slopes are their geometric
    means.
    """

    x: np.ndarray
    z: np.ndarray
    slopes: np.ndarray

    @classmethod
    def through(cls, x: np.ndarray, z: np.ndarray) -> Spline:
        """Return the map through two knots or more, both rising."""
        width, steep = np.diff(x), np.log(np.diff(z)) - np.log(np.diff(x))
        inner = (width[1:] * steep[:-1] + width[:-1] * steep[1:]) / (width[1:] + width[:-1])
        return cls(x, z, np.exp(np.concatenate([steep[:1], inner, steep[-1:]])))

    def _part(self, at: np.ndarray, knots: np.ndarray) -> tuple[np.ndarray, ...]:
        i = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
        width, height = self.x[i + 1] - self.x[i], self.z[i + 1] - self.z[i]
        return self.x[i], self.z[i], width, height, self.slopes[i], self.slopes[i + 1]

    def _beyond(self, at: np.ndarray, knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how far points lie beyond the first or last knot (n,), and the slope there."""
        low, high = np.minimum(at - knots[0], 0.0), np.maximum(at - knots[-1], 0.0)
        return low + high, np.where(low < 0, self.slopes[0], self.slopes[-1])

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return z (n,) and the logs of the slopes (n,)."""
        away, end = self._beyond(x, self.x)
        x0, z0, width, height, d0, d1 = self._part(x - away, self.x)
        s, t = height / width, (x - away - x0) / width
        below = s + (d0 + d1 - 2 * s) * t * (1 - t)
        z = z0 + height * (s * t**2 + d0 * t * (1 - t)) / below
        rise = d1 * t**2 + 2 * s * t * (1 - t) + d0 * (1 - t) ** 2
        log_slope = 2 * np.log(s / below) + np.log(rise)
        return z + end * away, np.where(away == 0, log_slope, np.log(end))

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """Return x (n,)."""
        away, end = self._beyond(z, self.z)
        x0, z0, width, height, d0, d1 = self._part(z - away, self.z)
        s, up = height / width, z - away - z0
        bend = up * (d0 + d1 - 2 * s)
        a, b, c = height * (s - d0) + bend, height * d0 - bend, -s * up
        root = np.sqrt(np.maximum(b**2 - 4 * a * c, 0.0))
        return np.asarray(x0 + width * 2 * c / (-b - root) + away / end)


@dataclass(frozen=True, eq=False)
class Pieces(Chart):
    """The chart of ranks: atoms, and a spline for each smooth run between them.

    ``atoms`` (a,) rise, with intervals ``low``, ``high`` (a,). Run i, if any, is before atom i;
    it reaches to the atoms beside it.
    """

    atoms: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: tuple[Spline | None, ...]

    @classmethod
    def of_knots(cls, z: np.ndarray, x: np.ndarray) -> Pieces:
        """Return the chart of non-decreasing knots; equal x: an atom, equal z: a gap."""
        flat = np.flatnonzero(np.diff(x) == 0)
        atoms, low, high = x[flat], z[flat], z[flat + 1]
        runs: list[Spline | None] = []
        starts, stops = np.append(0, flat + 2), np.append(flat, len(x))
        for i, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            before = None if i == 0 else (atoms[i - 1], high[i - 1])
            after = None if i == len(flat) else (atoms[i], low[i])
            runs.append(_run(x[start:stop], z[start:stop], before, after))
        return cls(atoms, low, high, tuple(runs))

    @property
    def draws(self) -> bool:  # type: ignore[override]
        return len(self.atoms) > 0

    def points(self, values: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z, log_volume = np.zeros(len(values)), np.full(len(values), -np.inf)
        place = np.searchsorted(self.atoms, values)
        hit = np.append(self.atoms, np.nan)[place] == values
        for i, run in enumerate(self.runs):
            mine = (place == i) & ~hit
            if run is not None and mine.any():
                z[mine], log_volume[mine] = run.forward(values[mine])
        atom = place[hit]
        z[hit], log_volume[hit] = drawn_within(self.low[atom], self.high[atom], uniform[hit])
        return z[:, None], log_volume

    def values(self, latent: np.ndarray) -> np.ndarray:
        z = latent[:, 0]
        place = np.searchsorted(self.high, z)
        inside = np.append(self.low, np.inf)[place] <= z
        values = np.append(self.atoms, np.nan)[place]
        for i, run in enumerate(self.runs):
            mine = (place == i) & ~inside
            if mine.any():
                if run is not None:
                    values[mine] = run.inverse(z[mine])
                else:  # beyond the outermost atom, or between two that touch
                    values[mine] = self.atoms[min(i, len(self.atoms) - 1)]
        return values

    def edge(self, values: np.ndarray) -> np.ndarray:
        place = np.searchsorted(self.atoms, values, side="right")
        z = np.append(self.low, np.inf)[place]  # of the next atom, unless a run is before it
        for i, run in enumerate(self.runs):
            mine = place == i
            if run is not None and mine.any():
                z[mine] = run.forward(values[mine])[0]
        return z


def _run(
    x: np.ndarray,
    z: np.ndarray,
    before: tuple[float, float] | None,
    after: tuple[float, float] | None,
) -> Spline | None:
    """Return the map of a run with knots (k,) from the atom before to the one after it, if any."""
    from scipy.special import ndtr, ndtri

    if not len(x):
        return None
    if len(x) > 2:  # open ends are extended by ranks, which splines do by themselves
        cut = slice(int(before is None), len(x) - int(after is None))
        x, z = x[cut], z[cut]
    few = 2 * FEWEST
    edges = [ndtr(z[0]) * few, ndtr(-z[-1]) * few]
    tails = [0.5 ** np.arange(np.log2(LEVELS), max(np.log2(1 / max(e, 1e-12)), 1)) for e in edges]
    shares = np.concatenate([tails[0], np.arange(1, LEVELS) / LEVELS])
    levels = np.unique(np.concatenate([ndtri(shares), -ndtri(tails[1])]))
    inside = (levels > z[0]) & (levels < z[-1])
    levels = levels[inside] if inside.sum() > 1 else np.array([z[0], z[-1]])
    knots = np.interp(levels, z, x)
    ends = [np.reshape([] if one is None else one, (-1, 2)) for one in (before, after)]
    xs, zs = np.vstack([ends[0], np.column_stack([knots, levels]), ends[1]]).T
    rises = np.append(True, (np.diff(xs) > 0) & (np.diff(zs) > 1e-12))
    xs, zs = xs[rises], zs[rises]
    return Spline.through(xs, zs) if len(xs) > 1 else None


@dataclass(frozen=True, eq=False)
class Cells(Chart):
    """The chart of values that have an interval each, told by a function of values.

    On a lattice of some ``step`` the probability is one per unit of the column: of integers it is
    that of a value, and numbers that are rounded count as others do.
    """

    interval: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    inverse: Callable[[np.ndarray], np.ndarray]
    step: float = 1.0
    draws: bool = True

    def points(self, values: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z, log_volume = drawn_within(*self.interval(values), uniform)
        return z[:, None], log_volume - np.log(self.step)

    def values(self, latent: np.ndarray) -> np.ndarray:
        return self.inverse(latent)


@dataclass(frozen=True)
class Turn(Chart):
    """The chart of an angle: a point in the plane, its radius drawn as that of a normal one."""

    low: float
    period: float
    draws = True

    def points(self, values: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        angle = (2 * np.pi / self.period) * (values - self.low)
        square = -2 * np.log1p(-uniform)
        point = np.sqrt(square)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        inside = (values >= self.low) & (values <= self.low + self.period)
        log_volume = square / 2 + np.log(2 * np.pi / self.period)
        return point, np.where(inside, log_volume, -np.inf)

    def values(self, latent: np.ndarray) -> np.ndarray:
        turns = np.remainder(np.arctan2(latent[:, 1], latent[:, 0]) / (2 * np.pi), 1.0)
        return np.asarray(self.low + self.period * turns)


def drawn_within(
    low: np.ndarray, high: np.ndarray, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return standard normal points in intervals (n,), and the logs of their volumes (n,)."""
    z, share = spread_normal(low, high, uniform)
    with np.errstate(divide="ignore"):
        log_volume = np.log(np.maximum(share, 0.0)) + 0.5 * z**2 + 0.5 * np.log(2 * np.pi)
    return np.where(share > 0, z, 0.0), np.where(share > 0, log_volume, -np.inf)


def spread_normal(
    low: np.ndarray, high: np.ndarray, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return normal values in (low, high), one per uniform number in [0, 1), and their share."""
    from scipy.special import ndtr, ndtri

    # In the upper half work with 1 - p, where the floats are dense: mirror, draw, mirror back.
    flip = low > 0
    a, b = np.where(flip, -high, low), np.where(flip, -low, high)
    p_a, p_b = ndtr(a), ndtr(b)
    p = p_a + (_INSIDE + (1 - 2 * _INSIDE) * uniform) * (p_b - p_a)
    z = ndtri(p)
    return np.where(flip, -z, z), p_b - p_a
