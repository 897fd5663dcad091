"""Ways to get the features of a detailed shower from a cheap one; the voxels follow for all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from experiments.refinement.columns import Columns, pack, unpack
from experiments.refinement.library import Library
from experiments.refinement.scores import NormalScores
from experiments.refinement.voxels import move
from flowbdt import EventTable, seeding
from flowbdt.physics import Showers
from flowbdt.physics.calorimeter.scores.features import high_level_features
from flowbdt.physics.refinement import refine

SMOOTH = "tf"
"""Columns of energies: their quantiles are smoothed over neighbouring energies."""

COPIES = 4
"""Training pairs are taken so often, each time mirrored at random in both coordinates, cheap and
detailed on their own, and with the ranks of equal values drawn anew."""

SETTINGS: dict[str, Any] = {
    "preconditioner": {"name": "mixture", "n_components": 15},
    "transforms": "standard",
    "rejection": False,
    "booster": {"n_estimators": 20, "max_depth": 4, "early_stopping_rounds": 5},
    "noise": {"candidates": 0, "n_repeats": 2},
}
"""Scores are near to jointly normal and the pairs few: a small mixture and small trees."""

SMOKE: dict[str, Any] = {
    "n_steps": 2,
    "noise": {"candidates": 0, "n_repeats": 1},
    "booster": {"n_estimators": 2},
}


class Prepared:
    """Training pairs as normal scores, and the library of their detailed showers."""

    def __init__(self, cheap: Showers, detailed: Showers, seed: int) -> None:
        self.geometry = cheap.geometry
        self.library = Library(detailed)
        columns = [_columns(part) for part in (cheap, detailed)]
        self._cheap = NormalScores(columns[0], cheap.energies)
        self._detailed = NormalScores(columns[1], cheap.energies, SMOOTH)
        found = []
        for copy in range(COPIES):
            rng = seeding.stream(seed, "refinement-ranks", 0, copy)
            scores = [
                known.forward(part, cheap.energies, rng)
                for known, part in zip((self._cheap, self._detailed), columns, strict=True)
            ]
            found.append([_mirrored(part, self._detailed.names, rng) for part in scores])
        self.names = self._detailed.names
        self.energies = np.tile(cheap.energies, COPIES)
        self.cheap_scores = np.concatenate([one[0] for one in found])
        self.detailed_scores = np.concatenate([one[1] for one in found])

    def scores(self, cheap: Showers, seed: int) -> np.ndarray:
        """Return the scores of other cheap showers (n, columns)."""
        rng = seeding.stream(seed, "refinement-ranks", 1)
        return self._cheap.forward(_columns(cheap), cheap.energies, rng)

    def showers(self, scores: np.ndarray, energies: np.ndarray) -> Showers:
        """Return showers that have the features of the scores."""
        wanted = unpack(self._detailed.inverse(scores, energies), energies, self.geometry)
        return Showers.of(energies, move(self.library(wanted), wanted), self.geometry)


def _columns(showers: Showers) -> Columns:
    return pack(high_level_features(showers))


def _mirrored(scores: np.ndarray, names: list[str], rng: np.random.Generator) -> np.ndarray:
    """Return scores with the signs of x, of y, drawn anew per shower: no side is special."""
    result = scores.copy()
    for letter in "xy":
        sign = rng.choice([-1.0, 1.0], len(scores))
        for j, name in enumerate(names):
            if name[0] == letter:
                result[:, j] *= sign
    return result


def ranks(prepared: Prepared, cheap: Showers, seed: int, settings: dict[str, Any]) -> Showers:
    """Keep the rank of every feature, column by column: a classical map of quantiles, no flow."""
    return prepared.showers(prepared.scores(cheap, seed), cheap.energies)


def resampled(prepared: Prepared, cheap: Showers, seed: int, settings: dict[str, Any]) -> Showers:
    """Draw detailed training showers of the same energy: what a perfect memory would score.

    No refinement, as the cheap shower decides nothing; it shows what the size of the training half
    costs against a floor of two independent samples.
    """
    known, rng = prepared.library.showers, seeding.stream(seed, "refinement-resampled")
    rows = np.empty(cheap.n, dtype=np.int64)
    for energy in np.unique(cheap.energies):
        which = cheap.energies == energy
        rows[which] = rng.choice(np.flatnonzero(known.energies == energy), which.sum())
    return known.take(rows)


def _refined(
    method: str, prepared: Prepared, cheap: Showers, seed: int, settings: dict[str, Any]
) -> Showers:
    """Refine scores by a flow that learns from pairs of them at the same energies."""

    def scores(values: np.ndarray, energies: np.ndarray) -> EventTable:
        return EventTable.of(values, prepared.names, cond={"log2 E": np.log2(energies)})

    found = refine(
        scores(prepared.cheap_scores, prepared.energies),
        scores(prepared.detailed_scores, prepared.energies),
        method,
        new=scores(prepared.scores(cheap, seed), cheap.energies),
        flow={**SETTINGS, **settings},
        random_state=seed,
    )
    return prepared.showers(found.x, cheap.energies)


METHODS: dict[str, Callable[[Prepared, Showers, int, dict[str, Any]], Showers]] = {
    "resampled": resampled,
    "ranks": ranks,
    "from_cheap": partial(_refined, "pairs"),
    "from_noise": partial(_refined, "conditions"),
}
