"""Detailed training showers as starts: per layer the one whose features are nearest."""

from __future__ import annotations

import numpy as np

from flowbdt.physics import Geometry, Showers
from flowbdt.physics.calorimeter.scores.features import Features, high_level_features

N_STARTS = 4
"""Layers tried as a start."""

COUNT_WEIGHT = 3.0
"""The number of voxels is not moved afterwards, so it weighs more."""


class Library:
    """Layers of detailed showers, each in all orientations that the sectors allow.

    No direction is special, so a shower turned by a sector or mirrored is another shower: 20 of
    each with 10 sectors.
    """

    def __init__(self, detailed: Showers) -> None:
        self.showers = detailed.above()
        self._orders = _orientations(detailed.geometry)
        turned = [
            high_level_features(
                Showers(detailed.energies, self.showers.voxels[:, order], detailed.geometry)
            )
            for order in self._orders
        ]
        self.features = Features.concatenate(turned)

    def __call__(self, wanted: Features) -> np.ndarray:
        """Return the nearest layers of the library, nearest first: (k, n, voxels).

        Neighbours are looked for among showers of the same incident energy.
        """
        starts = np.zeros((N_STARTS, wanted.n, wanted.geometry.n_voxels))
        known = self.features
        for i, layer in enumerate(wanted.geometry.layers):
            place = np.arange(layer.voxels.start, layer.voxels.stop)
            points, targets = _points(known, i), _points(wanted, i)
            for energy in np.unique(wanted.e_inc):
                rows = np.flatnonzero(wanted.e_inc == energy)
                usable = np.flatnonzero((known.e_inc == energy) & (known.e_layer[:, i] > 0))
                if len(usable):
                    nearest = usable[_nearest(points[usable], targets[rows])]
                    for start, numbers in zip(starts, nearest.T, strict=True):
                        start[np.ix_(rows, place)] = self._layers(numbers)[:, place]
        return starts

    def _layers(self, numbers: np.ndarray) -> np.ndarray:
        """Return turned showers by their numbers in the library."""
        turn, row = np.divmod(numbers, self.showers.n)
        return np.take_along_axis(
            self.showers.voxels[row].astype(np.float64), self._orders[turn], axis=1
        )


def _orientations(geometry: Geometry) -> np.ndarray:
    """Return, per turn and mirror image, which voxel each voxel is taken from: (k, voxels)."""
    most = max(layer.n_alpha for layer in geometry.layers)
    orders = []
    for mirror in (False, True):
        for turn in range(most):
            parts = []
            for layer in geometry.layers:
                alpha, ring = np.divmod(np.arange(layer.n_voxels), layer.n_r)
                alpha = (layer.n_alpha - 1 - alpha) if mirror else alpha
                parts.append(layer.first + (alpha + turn) % layer.n_alpha * layer.n_r + ring)
            orders.append(np.concatenate(parts))
    return np.array(orders)


def _points(features: Features, i: int) -> np.ndarray:
    """Return what decides which layers are near, (n, k)."""
    geometry = features.geometry
    columns = [
        np.log(np.maximum(features.e_layer[:, i], 1.0)),
        features.sparsity[:, i] * geometry.layers[i].n_voxels,
        features.r[:, i],
        features.width_r[:, i],
    ]
    if i in geometry.with_angles:
        k = geometry.with_angles.index(i)
        columns += [features.eta[:, k], features.phi[:, k]]
        columns += [features.width_eta[:, k] - features.width_phi[:, k]]
    return np.column_stack(columns)


def _nearest(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the numbers (n, k) of the points nearest to each target, in units of their spread."""
    from scipy.spatial import cKDTree

    unit = np.maximum(points.std(axis=0), 1e-9)
    unit[1] /= COUNT_WEIGHT
    ranks = np.minimum(np.arange(N_STARTS), len(points) - 1) + 1
    return np.asarray(cKDTree(points / unit).query(targets / unit, k=ranks)[1])
