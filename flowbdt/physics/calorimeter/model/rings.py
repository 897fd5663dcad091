"""Energies of the rings: that of each layer divided from half to half."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np

from .... import seeding
from . import energy_division as division
from .energy_division import Divisions, LayerPlan, Segments, ShowerEnergies, Split, splits

LARGER = 2
"""Segments above a segment whose share of energy is a feature."""


class Rings(Divisions):
    """Distributions of the ring energies of every layer under incident and layer energies."""

    def fit(
        self,
        energies: ShowerEnergies,
        rings: list[np.ndarray],
        threshold: float,
        seed: int,
        n_threads: int,
    ) -> Self:
        """Learn from the energies of rings, (n, rings) for every layer by position, MeV."""
        self.plan, self.threshold = energies.plan, threshold
        segments = {position: division.summed(rings[position]) for position in self.plan.order}
        for group, members in enumerate(self.plan.groups):
            for number, split in enumerate(splits(self.plan.layer(members[0]).n_r)):
                key = seeding.derive(seed, "rings", group, number)
                rows = [self._rows(energies, segments, position, split) for position in members]
                x, y = (np.concatenate(both) for both in zip(*rows, strict=True))
                if len(y) > self.most_rows:
                    kept = np.random.default_rng(key).permutation(len(y))[: self.most_rows]
                    x, y = x[kept], y[kept]
                self.learn(group, split, x, y, key, n_threads)
        return self

    def _rows(
        self,
        energies: ShowerEnergies,
        segments: Mapping[int, Segments],
        position: int,
        split: Split,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return features and shares of the segments that are not empty."""
        left, whole = (segments[position][one] for one in (split.halves[0], split.whole))
        used = whole > 0
        x = _features(energies, segments, position, split)[used]
        return x, division.share(left[used], whole[used], self.threshold)

    def sample(self, energies: ShowerEnergies, uniform: np.ndarray) -> list[np.ndarray]:
        """Return energies of rings by position of the layer, from uniform numbers (n, n_splits)."""
        segments: dict[int, Segments] = {}
        column = 0
        for position in self.plan.order:
            n = self.plan.layer(position).n_r
            segments[position] = {(0, n): energies.layers[:, position]}
            for split in splits(n):
                used = segments[position][split.whole] > 0
                shares = uniform[:, column].copy()
                column += 1
                model = self.models.get((self.plan.group(position), split))
                if model is not None and used.any():
                    x = _features(energies, segments, position, split)[used]
                    shares[used] = model.sample(x, shares[used])
                division.divide(segments[position], split, shares, self.threshold)
        return [division.cells(segments[i], self.plan.layer(i).n_r) for i in range(len(segments))]

    n_features = 1 + LARGER + division.KNOWN * division.KNOWN_SPLITS

    def kinds(self, plan: LayerPlan, group: int) -> set[tuple[int, ...]]:
        return {tuple(split) for split in splits(plan.layer(plan.groups[group][0]).n_r)}

    @staticmethod
    def n_numbers(plan: LayerPlan) -> int:
        """Return the number of uniform numbers that a shower takes."""
        return sum(layer.n_r - 1 for layer in plan.geometry.layers)


def _features(
    energies: ShowerEnergies, segments: Mapping[int, Segments], position: int, split: Split
) -> np.ndarray:
    layer, n = segments[position], energies.plan.layer(position).n_r
    energy = layer[split.whole]
    columns = [
        division.log_energy(energy),
        *division.of_whole(layer, split, division.ancestors(n)[split.whole], LARGER),
    ]
    before = energies.plan.known(position)
    for one in before:
        columns += division.first_shares(segments[one], energies.plan.layer(one).n_r)
    columns += [np.full(energy.shape, np.nan)] * (
        division.KNOWN_SPLITS * (division.KNOWN - len(before))
    )
    return np.column_stack([energies.features(position), *columns])
