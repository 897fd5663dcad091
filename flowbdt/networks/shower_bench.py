"""Samplers of a shower network, scored by the shapes of its showers."""

from __future__ import annotations

import numpy as np

from ..evaluation.score_samplers import FieldBench
from ..physics.calorimeter.scores.features import Features, high_level_features
from ..physics.calorimeter.shower_files import Showers
from ..tables.event_table import EventTable
from .shower_network import SAMPLER, ShowerNetwork
from .voxel_coordinates import conditions

SHAPES = ("eta", "phi", "width_eta", "width_phi", "sparsity", "r", "width_r")
"""Features that layer energies do not decide."""


class ShowerBench(FieldBench):
    """Showers at the incident and layer energies of real ones, as their centres and widths.

    ``network`` is a `ShowerNetwork`, ``real`` are held-out showers; for ``metric``, ``seed`` and
    ``n_threads`` see `FieldBench`.
    """

    def __init__(
        self,
        network: ShowerNetwork,
        real: Showers,
        metric: str,
        *,
        seed: int = 0,
        n_threads: int = 1,
    ) -> None:
        real = real.above()
        real.geometry.check(np.empty((0, network.coordinates.geometry.n_voxels)))
        self.network, self.energies = network, real.energies
        self.layers = real.geometry.layer_energies(real.voxels)
        cond = conditions(self.energies, self.layers)
        grid = network.sampler_grid()
        given = (network.field, SAMPLER, grid, real.geometry.n_voxels, _shapes(real), cond, metric)
        super().__init__(*given, seed=seed, n_threads=n_threads)

    def columns_of(self, x: np.ndarray, seed: int, rows: np.ndarray) -> np.ndarray:
        showers = self.network.coordinates.inverse(x, self.energies[rows], self.layers[rows])
        return _shapes(showers).x

    def as_table(self, columns: np.ndarray) -> EventTable:
        return EventTable.of(columns, self.real.names)


def _shapes(showers: Showers) -> EventTable:
    features: Features = high_level_features(showers)
    names = [f"{name}_{layer}" for name in SHAPES for layer in features.layers_of(name)]
    return EventTable.of(np.column_stack([getattr(features, name) for name in SHAPES]), names)
