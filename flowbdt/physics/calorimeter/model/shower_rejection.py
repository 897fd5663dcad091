"""Which generated showers are kept: a boosted classifier compares them with simulated ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .... import seeding
from ....errors import DataWarning, plural
from ....trees.density_ratio import DensityRatio
from ..scores.features import high_level_features
from ..scores.shower_judges import high_level_inputs
from ..shower_files import Showers

GENERATED_PER_SHOWER = 4

MOST_ATTEMPTS = 200
"""Attempts per shower; at an acceptance of 0.1 one shower in a billion needs more."""

SOFT = 1e6
"""Ring energies e are seen as log10(1 + SOFT e / incident energy)."""


def rejection_inputs(showers: Showers) -> np.ndarray:
    """Return what the classifier sees, (n, k) float32.

    The high-level features of the challenge, which begin with the incident energy, and of every
    ring its energy and its number of voxels that are not empty.
    """
    energy, filled = [], []
    for layer in showers.geometry.layers:
        voxels = showers.voxels[:, layer.voxels].reshape(-1, layer.n_alpha, layer.n_r)
        energy.append(voxels.sum(axis=1, dtype=np.float64))
        filled.append((voxels > 0).sum(axis=1))
    shares = np.hstack(energy) / showers.energies[:, None]
    of_rings = [np.log10(1 + SOFT * shares), *filled]
    features = high_level_features(showers, 0.0)
    return np.column_stack([high_level_inputs(features), *of_rings]).astype(np.float32)


def learn_ratio(
    real: Showers, generated: Callable[[int], Iterable[Showers]], seed: int, n_threads: int
) -> DensityRatio:
    """Learn from training showers and from those that ``generated`` makes with a seed, in blocks.

    Their incident energies are those of the training, over and over. Others than those of the
    classifier match what is kept, see `DensityRatio.matched`.
    """
    options: dict[str, Any] = {"seed": seed, "n_threads": n_threads}
    seen, new, others = (
        np.vstack([rejection_inputs(block) for block in blocks])
        for blocks in ([real], generated(seed), generated(seeding.derive(seed, "matching")))
    )
    ratio = DensityRatio.fit(seen, new, None, conditional=True, **options)
    return ratio.matched(seen, others, None, **options)


def attempt_seed(seed: int, block: int, attempt: int) -> int:
    """Return the seed of an attempt at the showers of a block that are still missing."""
    return seeding.derive(seed, "shower-attempt", block, attempt)


def accept_numbers(seed: int) -> np.random.Generator:
    """Return the random numbers that decide about the showers of an attempt, one after another."""
    return seeding.stream(seed, "shower-accept")


def warn_of_unlike(n: int) -> None:
    """Say that showers were kept although all attempts were rejected."""
    warnings.warn(
        f"{MOST_ATTEMPTS} attempts were rejected for {plural(n, 'shower')}, the last one kept all"
        " the same: the model does not describe showers of these incident energies",
        DataWarning,
        stacklevel=2,
    )
