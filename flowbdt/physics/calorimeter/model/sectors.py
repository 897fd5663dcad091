"""Voxels of the rings: the energy of each divided from half to half, around the shower's axis.

The detector looks the same after a rotation by one sector and in a mirror. So a ring is divided in
a frame that begins at a random sector and runs in a random direction, and the trees learn from all
segments of all rings together: halves of a ring are one kind of division whatever their angle.

The rings of a shower lean to the same side more often than by chance. The leaning of ring r, the
mean of exp(i alpha) over its energy, is modelled as ``loading_r a + noise_r`` with one complex
standard normal number a per shower, its axis: factor analysis with a single factor, where loadings
and noise depend on the incident energy. The axes of training showers are drawn from their
distribution under the rings, those of new showers from the normal distribution.

References
----------
Rubin, Thayer, Psychometrika 47 (1982) 69 (the EM algorithm for factor analysis); missing rings are
left out of the sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from .... import seeding
from . import energy_division as division
from .energy_division import Divisions, LayerPlan, Segments, ShowerEnergies, Split, splits

LARGER = 1
ITERATIONS = 30

MOST_WINDOWS = 20
"""Windows of incident energy in which axes are fitted, one per energy if these are few."""


@dataclass(frozen=True)
class Frames:
    """First sector and direction of every ring, each (n, rings)."""

    first: np.ndarray  # int
    mirrored: np.ndarray  # bool, True: against the direction of alpha
    n_alpha: int

    @classmethod
    def of(cls, uniform: np.ndarray, n_alpha: int) -> Frames:
        """Return frames from uniform numbers (n, 2 rings)."""
        first, side = np.split(uniform, 2, axis=1)
        return cls((first * n_alpha).astype(np.int64), side < 0.5, n_alpha)

    def sectors(self) -> np.ndarray:
        """Return the sector of each place in the frame, (n, n_alpha, rings)."""
        place = np.arange(self.n_alpha)[None, :, None]
        step = np.where(self.mirrored[:, None, :], -1 - place, place)
        return np.asarray((self.first[:, None, :] + step) % self.n_alpha)

    def direction(self, split: Split) -> np.ndarray:
        """Return the direction from the right half to the left one, (n, rings) complex."""
        width = 2 * np.pi / self.n_alpha
        middles = [0.5 * (low + high) * width for low, high in split.halves]
        away = np.exp(1j * middles[0]) - np.exp(1j * middles[1])
        away /= abs(away)
        # alpha begins at -pi
        turned = np.exp(1j * (self.first * width - np.pi))
        return np.asarray(np.where(self.mirrored, np.conj(away), away) * turned)


class Sectors(Divisions):
    """Distributions of the voxels of rings that have sectors, under the energies of the rings."""

    def fit(
        self,
        energies: ShowerEnergies,
        voxels: Mapping[int, np.ndarray],
        axes: np.ndarray,
        threshold: float,
        seed: int,
        n_threads: int,
    ) -> Self:
        """Learn from voxels (n, sectors, rings) by position of the layer, MeV, and axes (n,)."""
        self.plan, self.threshold = energies.plan, threshold
        for group, members in enumerate(self.plan.groups):
            n_alpha = self.plan.layer(members[0]).n_alpha
            kinds: dict[tuple[int, int], list[Split]] = {}
            for split in splits(n_alpha):
                kinds.setdefault(split.kind, []).append(split)
            for number, (kind, alike) in enumerate(kinds.items()):
                key = seeding.derive(seed, "sectors", group, number)
                x, y = self._rows(
                    energies, voxels, axes, members, alike, np.random.default_rng(key)
                )
                self.learn(group, kind, x, y, key, n_threads)
        return self

    def _rows(
        self,
        energies: ShowerEnergies,
        voxels: Mapping[int, np.ndarray],
        axes: np.ndarray,
        members: tuple[int, ...],
        alike: list[Split],
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return features and shares of one kind of split, of all its rings in all layers."""
        blocks = []
        for position in members:
            n, n_alpha, n_r = voxels[position].shape
            frames = Frames.of(rng.random((n, 2 * n_r)), n_alpha)
            ordered = np.take_along_axis(voxels[position], frames.sectors(), axis=1)
            segments = division.summed(np.moveaxis(ordered, 1, -1))
            most = max(self.most_rows // (len(members) * len(alike)), 1)
            for split in alike:
                rows = np.argwhere(segments[split.whole] > 0)
                if len(rows) > most:
                    rows = rows[np.sort(rng.permutation(len(rows))[:most])]
                x = _features(energies, position, segments, split, frames, axes, rows)
                left, whole = (segments[one][*rows.T] for one in (split.halves[0], split.whole))
                blocks.append((x, division.share(left, whole, self.threshold)))
        x, y = (np.concatenate(both) for both in zip(*blocks, strict=True))
        return x, y

    def sample(
        self,
        energies: ShowerEnergies,
        position: int,
        rings: np.ndarray,
        axes: np.ndarray,
        uniform: np.ndarray,
    ) -> np.ndarray:
        """Return the voxels (n, sectors, rings) of a layer from the energies of its rings (n, r).

        There are complex axes (n,) and uniform numbers (n, rings (n_alpha + 1)).
        """
        n_alpha, n_r = self.plan.layer(position).n_alpha, rings.shape[1]
        frames = Frames.of(uniform[:, : 2 * n_r], n_alpha)
        segments: Segments = {(0, n_alpha): rings}
        for number, split in enumerate(splits(n_alpha)):
            shares = uniform[:, (2 + number) * n_r : (3 + number) * n_r].copy()
            rows = np.argwhere(segments[split.whole] > 0)
            model = self.models.get((self.plan.group(position), split.kind))
            if model is not None and len(rows):
                x = _features(energies, position, segments, split, frames, axes, rows)
                at = tuple(rows.T)
                shares[at] = model.sample(x, shares[at])
            division.divide(segments, split, shares, self.threshold)
        ordered = np.moveaxis(division.cells(segments, n_alpha), -1, 1)
        result = np.empty_like(ordered)
        np.put_along_axis(result, frames.sectors(), ordered, axis=1)
        return result

    n_features = 4 + LARGER

    def kinds(self, plan: LayerPlan, group: int) -> set[tuple[int, ...]]:
        return {split.kind for split in splits(plan.layer(plan.groups[group][0]).n_alpha)}

    @staticmethod
    def n_numbers(plan: LayerPlan, position: int) -> int:
        """Return the number of uniform numbers that a layer of a shower takes."""
        layer = plan.layer(position)
        return layer.n_r * (layer.n_alpha + 1) if layer.n_alpha > 1 else 0


def _features(
    energies: ShowerEnergies,
    position: int,
    segments: Segments,
    split: Split,
    frames: Frames,
    axes: np.ndarray,
    rows: np.ndarray,
) -> np.ndarray:
    """Return features (k, f) of the segments of ``rows``, (k, 2): shower and ring."""
    shower, ring = at = tuple(rows.T)
    n_alpha = frames.n_alpha
    larger = division.ancestors(n_alpha)[split.whole][:LARGER]
    chosen = {key: segments[key][at] for key in (split.whole, (0, n_alpha), *larger)}
    towards = (np.conj(axes)[shower] * frames.direction(split)[at]).real
    return np.column_stack(
        [
            energies.features(position).astype(np.float32)[shower],
            division.log_energy(chosen[split.whole]),
            division.log_energy(chosen[0, n_alpha]),
            ring,
            towards,
            *division.of_whole(chosen, split, larger, LARGER),
        ]
    ).astype(np.float32)


def windows(energies: np.ndarray) -> np.ndarray:
    """Return the window of each energy, (n,) int: one per different energy if these are few."""
    different, number = np.unique(energies, return_inverse=True)
    if len(different) <= 2 * MOST_WINDOWS:
        return np.asarray(number)
    edges = np.quantile(energies, np.linspace(0, 1, MOST_WINDOWS + 1)[1:-1])
    return np.searchsorted(edges, energies, side="right")


def leaning(sectors: np.ndarray) -> np.ndarray:
    """Return the mean of exp(i alpha) of rings (n, r), or NaN, from energies (n, sectors, r)."""
    n = sectors.shape[1]
    direction = np.exp(1j * np.pi * (2 * np.arange(n) + 1 - n) / n)
    total = sectors.sum(axis=1)
    moment = np.einsum("nar,a->nr", sectors, direction)
    return np.where(total > 0, moment / np.where(total > 0, total, 1.0), np.nan)


def draw_axes(leanings: np.ndarray, energies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a complex axis of mean square 1 for each training shower, from leanings (n, r)."""
    result = np.zeros(len(energies), dtype=np.complex128)
    noise = standard_complex(rng.standard_normal((len(energies), 2)))
    window = windows(energies)
    for number in np.unique(window):
        rows = np.flatnonzero(window == number)
        mean, precision = _fit(leanings[rows])
        result[rows] = mean + noise[rows] / np.sqrt(precision)
    return result


def standard_complex(normal: np.ndarray) -> np.ndarray:
    """Return complex normal numbers (n,) of mean square 1 from real ones (n, 2)."""
    return np.asarray((normal[:, 0] + 1j * normal[:, 1]) / np.sqrt(2))


def _fit(leanings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and precision of every shower's axis after some EM iterations."""
    known = ~np.isnan(leanings)
    d = np.where(known, leanings, 0.0)
    count = np.maximum(known.sum(axis=0), 1)
    power = (np.abs(d) ** 2).sum(axis=0) / count
    loading = 0.3 * np.sqrt(power)
    noise = np.maximum(power - loading**2, 1e-6)
    for _ in range(ITERATIONS):
        precision = 1 + known @ (loading**2 / noise)
        mean = (d @ (loading / noise)) / precision
        second = np.abs(mean) ** 2 + 1 / precision
        product = (d * np.conj(mean)[:, None]).real.sum(axis=0)
        weight = np.maximum(known.T @ second, 1e-9)
        loading = product / weight
        rest = power * count - 2 * loading * product + loading**2 * weight
        noise = np.maximum(rest / count, 1e-6)
    return mean, precision
