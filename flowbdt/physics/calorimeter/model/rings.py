"""Rings given the energies of the layers: each layer divided from half to half."""

from __future__ import annotations

from collections.abc import Mapping
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
from .layer_plan import (
    FEWEST,
    KNOWN,
    KNOWN_SPLITS,
    Divisions,
    Known,
    LayerPlan,
    first_shares,
    of_whole,
)

LARGER = 2
"""Segments above a segment whose share of energy is a feature."""


class Rings(Divisions):
    """Energies of the rings of every layer, given incident and layer energies."""

    def fit(
        self, known: Known, rings: list[np.ndarray], threshold: float, seed: int, n_threads: int
    ) -> Self:
        """Learn from the energies of rings, (n, rings) for every layer by position, MeV."""
        self.plan, self.threshold = known.plan, threshold
        segments = {position: summed(rings[position]) for position in self.plan.order}
        for group, members in enumerate(self.plan.groups):
            for number, split in enumerate(splits(self.plan.layer(members[0]).n_r)):
                key = seeding.derive(seed, "rings", group, number)
                parts = [self._rows(known, segments, position, split) for position in members]
                x, y = (np.concatenate(both) for both in zip(*parts, strict=True))
                if len(y) < FEWEST:
                    continue
                if len(y) > self.most_rows:
                    kept = np.random.default_rng(key).permutation(len(y))[: self.most_rows]
                    x, y = x[kept], y[kept]
                model = ConditionalDistribution(self.settings)
                self.models[group, split] = model.fit(x, y, seed=key, n_threads=n_threads)
        return self

    def _rows(
        self, known: Known, segments: Mapping[int, Segments], position: int, split: Split
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return features and shares where there is something to divide."""
        own = segments[position]
        whole = own[split.whole]
        used = whole > 0
        x = _features(known, segments, position, split)[used]
        return x, share(own[split.parts[0]][used], whole[used], self.threshold)

    def sample(self, known: Known, uniform: np.ndarray) -> list[np.ndarray]:
        """Return energies of rings by position of the layer, from uniform numbers (n, n_splits)."""
        segments: dict[int, Segments] = {}
        column = 0
        for position in self.plan.order:
            n = self.plan.layer(position).n_r
            own = segments[position] = {(0, n): known.layers[:, position]}
            for split in splits(n):
                used = own[split.whole] > 0
                shares = uniform[:, column].copy()
                column += 1
                model = self.models.get((self.plan.group(position), split))
                if model is not None and used.any():
                    x = _features(known, segments, position, split)[used]
                    shares[used] = model.sample(x, shares[used])
                divide(own, split, shares, self.threshold)
        return [cells(segments[i], self.plan.layer(i).n_r) for i in range(len(segments))]

    @staticmethod
    def n_numbers(plan: LayerPlan) -> int:
        """Uniform numbers that a shower takes."""
        return sum(layer.n_r - 1 for layer in plan.geometry.layers)


def _features(
    known: Known, segments: Mapping[int, Segments], position: int, split: Split
) -> np.ndarray:
    own, n = segments[position], known.plan.layer(position).n_r
    energy = own[split.whole]
    columns = [log_energy(energy), *of_whole(own, split, ancestors(n)[split.whole], LARGER)]
    before = known.plan.known(position)
    for one in before:
        columns += first_shares(segments[one], known.plan.layer(one).n_r)
    wanted = KNOWN_SPLITS * (KNOWN - len(before))
    columns += [np.full(energy.shape, np.nan)] * wanted
    return np.column_stack([known.features(position), *columns])
