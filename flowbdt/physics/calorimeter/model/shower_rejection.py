"""Which generated showers are kept: a boosted classifier compares them with simulated ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
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
    real: Showers, generated: Iterable[Showers], seed: int, n_threads: int
) -> DensityRatio:
    """Learn from training showers and from blocks of generated ones.

    The incident energies of the generated showers are those of the training, over and over.
    """
    new = np.vstack([rejection_inputs(block) for block in generated])
    options: dict[str, Any] = {"conditional": True, "seed": seed, "n_threads": n_threads}
    return DensityRatio.fit(rejection_inputs(real), new, None, **options)


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
