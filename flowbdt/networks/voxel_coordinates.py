"""Voxels as numbers of about width one, given incident and layer energies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..atomic_files import stored_array
from ..errors import FormatError, InputError
from ..physics.calorimeter.geometry import SIZES, Geometry, geometry
from ..physics.calorimeter.shower_files import Showers

SOFTEST = float(np.log(2.0))
"""log(1 + E / threshold) of the softest voxel; what is empty is spread evenly below, as far as its
negative."""

EMPTY = 1e-5
"""Added to the shares of layers in the incident energy, so that an empty one has a logarithm."""

MOST_NODES = 20


@dataclass(frozen=True, eq=False)
class VoxelCoordinates:
    """``log(1 + E / threshold)`` of voxels, less mean and over width of their ring.

    Empty voxels lie at random below the softest one. Mean and width of every ring are those at
    the incident energy, between energies interpolated.
    """

    detector: str  # a geometry of the challenge
    threshold: float  # MeV: voxels below are empty
    nodes: np.ndarray  # (k,) log of incident energies, rising
    mean: np.ndarray  # (k, rings)
    width: np.ndarray

    @property
    def geometry(self) -> Geometry:
        """The layers and their voxels."""
        return geometry(self.detector)

    @classmethod
    def of(cls, showers: Showers, rng: np.random.Generator) -> Self:
        """Learn from showers. Raises InputError if their geometry is none of the challenge."""
        shape = showers.geometry
        if shape.name not in SIZES or geometry(shape.name) != shape:
            raise InputError(
                f"a shower network knows the geometries {', '.join(SIZES)}, got {shape.name!r} with"
                f" {shape.n_voxels} voxels"
            )
        log, ring = np.log(showers.energies), rings_of(shape)
        known = np.unique(log)
        if len(known) > 2 * MOST_NODES:
            known = np.quantile(log, (np.arange(MOST_NODES) + 0.5) / MOST_NODES)
        nearest = np.abs(log[:, None] - known).argmin(axis=1)
        u, size = _spread(showers.voxels, shape.min_energy, rng), np.bincount(ring)
        mean, width = np.zeros((2, len(known), len(size)))
        for node in range(len(known)):
            rows = u[nearest == node]
            first, second = (
                np.bincount(ring, (rows**power).mean(axis=0)) / size for power in (1, 2)
            )
            mean[node], width[node] = first, np.sqrt(np.maximum(second - first**2, 0)) + 1e-3
        return cls(shape.name, shape.min_energy, known, mean, width)

    def forward(self, showers: Showers, rng: np.random.Generator) -> np.ndarray:
        """Return coordinates (n, voxels) float32 of showers above the threshold."""
        mean, width = self._scale(showers.energies)
        u = _spread(showers.voxels, self.threshold, rng)
        return ((u - mean) / width).astype(np.float32)

    def inverse(self, x: np.ndarray, energies: np.ndarray, layers: np.ndarray) -> Showers:
        """Return showers of coordinates (n, voxels) at layer energies (n, layers), MeV.

        Voxels are empty or hold at least the threshold, and add up to the energies of layers; a
        layer with less than the threshold has all of it in one voxel.
        """
        mean, width = self._scale(energies)
        u, shape = np.asarray(x, np.float64) * width + mean, self.geometry
        voxels = np.where(u < SOFTEST, 0.0, self.threshold * np.expm1(np.minimum(u, 30.0)))
        for i, layer in enumerate(shape.layers):
            part, energy = voxels[:, layer.voxels], layers[:, i]
            alone = (part.sum(axis=1) == 0) & (energy > 0)  # its fullest voxel gets everything
            part[alone, u[alone, layer.voxels].argmax(axis=1)] = 1.0
            part = _summing(part, energy)
            # what the threshold takes is shared by the others, so none of them falls below
            softest = np.minimum(self.threshold, part.max(axis=1))[:, None]
            voxels[:, layer.voxels] = _summing(np.where(part < softest, 0.0, part), energy)
        return Showers(energies, voxels.astype(np.float32), shape)

    def _scale(self, energies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and width of each voxel at each energy, (n, voxels)."""
        at, ring = np.log(energies), rings_of(self.geometry)
        mean, width = (
            np.column_stack([np.interp(at, self.nodes, column) for column in table.T])[:, ring]
            for table in (self.mean, self.width)
        )
        return mean, width

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what was learned."""
        return {"nodes": self.nodes, "mean": self.mean, "width": self.width}

    @classmethod
    def restore(cls, detector: str, threshold: float, arrays: Mapping[str, Any]) -> Self:
        """Take back what `arrays` returned. Raises FormatError."""
        nodes = stored_array(arrays, "nodes", (None,), low=-600, high=600)
        shape = (len(nodes), int(rings_of(geometry(detector)).max()) + 1)
        mean, width = (
            stored_array(arrays, name, shape, low=low, high=600)
            for name, low in (("mean", -600), ("width", 1e-3))
        )
        if not len(nodes) or not (np.diff(nodes) > 0).all() or len(arrays) != 3:
            raise FormatError("the coordinates of its voxels are damaged")
        return cls(detector, threshold, nodes, mean, width)


def rings_of(shape: Geometry) -> np.ndarray:
    """Return the number of each voxel's ring, (n_voxels,), counted through all layers."""
    return np.unique(shape.map[:, 0] * 1000 + shape.map[:, 2], return_inverse=True)[1]


def _spread(voxels: np.ndarray, threshold: float, rng: np.random.Generator) -> np.ndarray:
    empty = rng.uniform(-SOFTEST, SOFTEST, voxels.shape)
    return np.where(voxels > 0, np.log1p(voxels / threshold), empty)


def _summing(part: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Return rows (n, k) scaled to sums (n,); rows of zeros stay."""
    total = part.sum(axis=1)
    return part * (energy / np.where(total > 0, total, 1.0))[:, None]


def conditions(energies: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Return log incident energy and log share of every layer in it, (n, 1 + layers)."""
    return np.column_stack([np.log(energies), np.log(layers / energies[:, None] + EMPTY)])


def known_energies(cond: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return incident (n,) and layer energies (n, layers), MeV: the inverse of `conditions`."""
    energies = np.exp(cond[:, 0])
    shares = np.exp(cond[:, 1:]) - EMPTY
    return energies, energies[:, None] * np.where(shares < 1e-9 * EMPTY, 0.0, shares)


def turned(showers: Showers, rng: np.random.Generator) -> Showers:
    """Return showers turned and mirrored about the axis at random: physics does not know angles."""
    voxels, n = showers.voxels.copy(), showers.n
    shift, mirror = rng.random(n), rng.random(n) < 0.5
    for layer in showers.geometry.layers:
        part = voxels[:, layer.voxels].reshape(n, layer.n_alpha, layer.n_r)
        step = np.arange(layer.n_alpha) + (shift * layer.n_alpha).astype(int)[:, None]
        order = np.where(mirror[:, None], -step, step) % layer.n_alpha
        part = np.take_along_axis(part, order[..., None], axis=1)
        voxels[:, layer.voxels] = part.reshape(n, -1)
    return Showers(showers.energies, voxels, showers.geometry)
