"""Voxels given the energies of the rings: each ring divided from half to half around the axis.

The detector looks the same after a turn by one sector and in a mirror. So a ring is divided in a
frame of its own that starts at a random sector and goes round either way, and the trees learn from
all parts of all rings together: halves of a ring are one kind of division whatever their angle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from .... import seeding
from ....trees.share_distribution import ConditionalDistribution
from .energy_division import (
    Segments,
    Split,
    ancestors,
    cells,
    divide,
    log_energy,
    share,
    splits,
    summed,
)
from .layer_plan import FEWEST, Divisions, Known, LayerPlan, of_whole

LARGER = 1


@dataclass(frozen=True)
class Frames:
    """Where each ring of each shower begins, and which way round it is counted.

    Parameters
    ----------
    first : ndarray (n, rings), int, the first sector
    mirrored : ndarray (n, rings), bool, True: against the direction of alpha
    n_alpha : int
    """

    first: np.ndarray
    mirrored: np.ndarray
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
        """Return the direction from the right part to the left one, (n, rings) complex."""
        width = 2 * np.pi / self.n_alpha
        middles = [0.5 * (low + high) * width for low, high in split.parts]
        away = np.exp(1j * middles[0]) - np.exp(1j * middles[1])
        away /= abs(away)
        # alpha begins at -pi
        turned = np.exp(1j * (self.first * width - np.pi))
        return np.asarray(np.where(self.mirrored, np.conj(away), away) * turned)


class Sectors(Divisions):
    """Energies of the voxels of rings with several sectors, given the energies of the rings."""

    def fit(
        self,
        known: Known,
        voxels: Mapping[int, np.ndarray],
        axes: np.ndarray,
        threshold: float,
        seed: int,
        n_threads: int,
    ) -> Self:
        """Learn from voxels (n, sectors, rings) by position of the layer, MeV, and axes (n,)."""
        self.plan, self.threshold = known.plan, threshold
        for group, members in enumerate(self.plan.groups):
            n_alpha = self.plan.layer(members[0]).n_alpha
            kinds: dict[tuple[int, int], list[Split]] = {}
            for split in splits(n_alpha):
                kinds.setdefault(split.kind, []).append(split)
            for number, (kind, found) in enumerate(kinds.items()):
                key = seeding.derive(seed, "sectors", group, number)
                x, y = self._rows(known, voxels, axes, members, found, np.random.default_rng(key))
                if len(y) >= FEWEST:
                    model = ConditionalDistribution(self.settings)
                    self.models[group, kind] = model.fit(x, y, seed=key, n_threads=n_threads)
        return self

    def _rows(
        self,
        known: Known,
        voxels: Mapping[int, np.ndarray],
        axes: np.ndarray,
        members: tuple[int, ...],
        found: list[Split],
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return features and shares of one kind of split, of all its rings in all layers."""
        parts = []
        for position in members:
            cells_ = voxels[position]
            n, n_alpha, n_r = cells_.shape
            frames = Frames.of(rng.random((n, 2 * n_r)), n_alpha)
            ordered = np.take_along_axis(cells_, frames.sectors(), axis=1)
            segments = summed(np.moveaxis(ordered, 1, -1))
            most = max(self.most_rows // (len(members) * len(found)), 1)
            for split in found:
                rows = np.argwhere(segments[split.whole] > 0)
                if len(rows) > most:
                    rows = rows[np.sort(rng.permutation(len(rows))[:most])]
                x = _features(known, position, segments, split, frames, axes, rows)
                left, whole = (
                    segments[one][tuple(rows.T)] for one in (split.parts[0], split.whole)
                )
                parts.append((x, share(left, whole, self.threshold)))
        x, y = (np.concatenate(both) for both in zip(*parts, strict=True))
        return x, y

    def sample(
        self, known: Known, position: int, rings: np.ndarray, axes: np.ndarray, uniform: np.ndarray
    ) -> np.ndarray:
        """Return the voxels of a layer, (n, sectors, rings), from the energies of its rings (n, r).

        Parameters
        ----------
        axes : ndarray (n,) complex
        uniform : ndarray (n, rings (n_alpha + 1))
        """
        n_alpha, n_r = self.plan.layer(position).n_alpha, rings.shape[1]
        frames = Frames.of(uniform[:, : 2 * n_r], n_alpha)
        segments: Segments = {(0, n_alpha): rings}
        for number, split in enumerate(splits(n_alpha)):
            shares = uniform[:, (2 + number) * n_r : (3 + number) * n_r].copy()
            rows = np.argwhere(segments[split.whole] > 0)
            model = self.models.get((self.plan.group(position), split.kind))
            if model is not None and len(rows):
                x = _features(known, position, segments, split, frames, axes, rows)
                at = tuple(rows.T)
                shares[at] = model.sample(x, shares[at])
            divide(segments, split, shares, self.threshold)
        ordered = np.moveaxis(cells(segments, n_alpha), -1, 1)
        result = np.empty_like(ordered)
        np.put_along_axis(result, frames.sectors(), ordered, axis=1)
        return result

    @staticmethod
    def n_numbers(plan: LayerPlan, position: int) -> int:
        """Uniform numbers that a layer of a shower takes."""
        layer = plan.layer(position)
        return layer.n_r * (layer.n_alpha + 1) if layer.n_alpha > 1 else 0


def _features(
    known: Known,
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
    larger = ancestors(n_alpha)[split.whole][:LARGER]
    chosen = {key: segments[key][at] for key in (split.whole, (0, n_alpha), *larger)}
    towards = (np.conj(axes)[shower] * frames.direction(split)[at]).real
    return np.column_stack(
        [
            known.features(position).astype(np.float32)[shower],
            log_energy(chosen[split.whole]),
            log_energy(chosen[0, n_alpha]),
            ring,
            towards,
            *of_whole(chosen, split, larger, LARGER),
        ]
    ).astype(np.float32)
