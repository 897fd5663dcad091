"""Normal scores of columns, per incident energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.refinement.columns import Columns

KNOTS = np.arange(-2.4, 2.41, 0.2)
"""Normal quantiles at which a column's distribution is kept where it is smoothed."""
NEIGHBOURS = 2
"""Energies on each side that help to smooth: a parabola in log E through five of them."""
FEWEST = 40
"""Showers below which an energy neither helps nor is smoothed."""


@dataclass(frozen=True)
class Known:
    """One column at one energy: sorted training values without zeros, their share, smooth knots."""

    values: np.ndarray
    zeros: float
    knots: np.ndarray | None


class NormalScores:
    """Each column's rank among training showers of the same incident energy, as a normal quantile.

    What a shower of 256 MeV and one of 4 TeV have in common is then a number of the same scale, so
    all energies teach one model. Repeated values (empty layers, counts of voxels) share their ranks
    at random and come back exactly; columns of an empty layer get a random score.

    Parameters
    ----------
    columns, energies : of the training showers
    smooth : first letters of columns whose quantiles are smoothed over neighbouring energies: as
        many showers as a few energies have decide then, not those of one
    """

    def __init__(self, columns: Columns, energies: np.ndarray, smooth: str = "") -> None:
        self.names = list(columns)
        self.energies = np.unique(energies)
        self._known: dict[tuple[str, float], Known] = {}
        for name in self.names:
            parts = [columns[name][energies == energy] for energy in self.energies]
            found = [_known(part[~np.isnan(part)], name) for part in parts]
            if name[0] in smooth:
                found = _smoothed(found, name)
            self._known.update(
                {(name, e): one for e, one in zip(self.energies, found, strict=True)}
            )

    def forward(
        self, columns: Columns, energies: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Return scores (n, number of columns), float64."""
        from scipy.special import ndtri

        scores = rng.standard_normal((len(energies), len(self.names)))
        position = rng.random(scores.shape)
        for j, name in enumerate(self.names):
            for energy in self.energies:
                known, values = self._known[name, energy], columns[name]
                rows = np.flatnonzero((energies == energy) & ~np.isnan(values))
                if len(known.values) or known.zeros:
                    p = _ranks(known, values[rows], position[rows, j])
                    scores[rows, j] = ndtri(np.clip(p, 1e-4, 1 - 1e-4))
        return scores

    def inverse(self, scores: np.ndarray, energies: np.ndarray) -> Columns:
        """Return columns; values never leave the range of the training showers."""
        columns = {name: np.zeros(len(energies)) for name in self.names}
        for j, name in enumerate(self.names):
            for energy in self.energies:
                known = self._known[name, energy]
                rows = np.flatnonzero(energies == energy)
                columns[name][rows] = _quantiles(known, scores[rows, j], name)
        return columns


def _known(values: np.ndarray, name: str) -> Known:
    if name[0] in "xy" and len(values):  # no direction is special
        values = np.concatenate([values, -values])
    zeros = float((values == 0).mean()) if name[0] == "f" and len(values) else 0.0
    return Known(np.sort(values[values != 0] if zeros else values), zeros, None)


def _smoothed(found: list[Known], name: str) -> list[Known]:
    """Return the same with knots: at each energy a parabola through the neighbours' quantiles."""
    from scipy.special import ndtr

    sizes = np.array([len(one.values) for one in found])
    usable = np.flatnonzero(sizes >= FEWEST)
    quantiles = {i: _bend(np.quantile(found[i].values, ndtr(KNOTS)), name) for i in usable}
    result = list(found)
    for i in usable:
        near = [j for j in usable if abs(j - i) <= NEIGHBOURS]
        if len(near) < 4:
            continue
        fit = np.polyfit(
            np.array(near) - i, [quantiles[j] for j in near], 2, w=np.sqrt(sizes[near])
        )
        knots = np.maximum.accumulate(fit[-1])
        result[i] = Known(found[i].values, found[i].zeros, knots)
    return result


def _bend(values: np.ndarray, name: str) -> np.ndarray:
    """Return positive columns as logarithms, in which energies are alike."""
    return np.log(np.maximum(values, 1e-9)) if name[0] in "tfrw" else values


def _unbend(values: np.ndarray, name: str) -> np.ndarray:
    return np.exp(values) if name[0] in "tfrw" else values


def _ranks(known: Known, values: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return the share of known values below; within the share of equal ones as ``position``."""
    n = max(len(known.values), 1)
    low = np.searchsorted(known.values, values, side="left").astype(float)
    high = np.searchsorted(known.values, values, side="right").astype(float)
    new = high == low
    low, high = np.where(new, low - 0.5, low), np.where(new, high + 0.5, high)
    low, high = np.clip(low, 0, None), np.clip(high, None, n)
    share = (low + (high - low) * position) / n
    above = known.zeros + (1 - known.zeros) * share
    return np.where((values == 0) & (known.zeros > 0), known.zeros * position, above)


def _quantiles(known: Known, scores: np.ndarray, name: str) -> np.ndarray:
    """Return the values at normal quantiles ``scores``; counts and zeros come out exactly."""
    from scipy.special import ndtr, ndtri

    if len(known.values) == 0:
        return np.zeros(len(scores))
    p = ndtr(scores)
    share = (p - known.zeros) / max(1 - known.zeros, 1e-12)
    inner = np.clip(share, 0.0, 1.0)
    values = known.values
    if name[0] == "n":
        result = values[np.clip((inner * len(values)).astype(int), 0, len(values) - 1)]
    elif known.knots is None:
        result = np.interp(inner, (np.arange(len(values)) + 0.5) / len(values), values)
    else:
        z = ndtri(np.clip(inner, 1e-4, 1 - 1e-4))
        result = _unbend(_line(z, known.knots), name)
    result = np.clip(result, values[0], values[-1])
    return np.where(share < 0, 0.0, result)


def _line(z: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return knots between `KNOTS` linearly, and beyond them with the outermost slope."""
    result = np.interp(z, KNOTS, knots)
    step = KNOTS[1] - KNOTS[0]
    below, above = z < KNOTS[0], z > KNOTS[-1]
    result[below] += (z[below] - KNOTS[0]) * (knots[1] - knots[0]) / step
    result[above] += (z[above] - KNOTS[-1]) * (knots[-1] - knots[-2]) / step
    return result
