"""Voxels as numbers of about width one: shares of their layers' energies, without bounds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from scipy.special import expit, logit

from ..errors import InputError
from ..physics.calorimeter.geometry import SIZES, Geometry, geometry
from ..physics.calorimeter.shower_files import Showers

SMALLEST = 1e-6
"""Added to shares, so that an empty voxel has a logit; as published."""

EMPTY = 1e-5
"""Added to the shares of layers in the incident energy, so that an empty one has a logarithm."""


@dataclass(frozen=True)
class VoxelCoordinates:
    """The logit of a voxel's share in its layer's energy, standardised by one mean and width.

    Amram, Pedro 2023, arXiv 2308.03876, section on pre-processing; there the share is that in the
    incident energy, here layer energies come first and are conditions.
    """

    detector: str  # a geometry of the challenge
    threshold: float  # MeV: voxels below are empty
    mean: float
    width: float

    @property
    def geometry(self) -> Geometry:
        """The layers and their voxels."""
        return geometry(self.detector)

    @classmethod
    def of(cls, showers: Showers) -> Self:
        """Learn from showers. Raises InputError if their geometry is none of the challenge."""
        name = showers.geometry.name
        if name not in SIZES or geometry(name) != showers.geometry:
            raise InputError(
                f"a shower network knows the geometries {', '.join(SIZES)}, got {name!r} with"
                f" {showers.geometry.n_voxels} voxels"
            )
        u = _logits(showers)
        return cls(name, showers.geometry.min_energy, float(u.mean()), float(u.std()))

    def forward(self, showers: Showers) -> np.ndarray:
        """Return coordinates (n, voxels) float32 of showers above the threshold."""
        return ((_logits(showers) - self.mean) / self.width).astype(np.float32)

    def inverse(self, x: np.ndarray, energies: np.ndarray, layers: np.ndarray) -> Showers:
        """Return showers of coordinates (n, voxels) at layer energies (n, layers), MeV.

        Voxels are empty or hold at least the threshold, and add up to the energies of layers; a
        layer with less than the threshold has all of it in one voxel.
        """
        shares, shape = expit(np.asarray(x, np.float64) * self.width + self.mean), self.geometry
        voxels = np.empty(shares.shape)
        for i, layer in enumerate(shape.layers):
            part, energy = shares[:, layer.voxels], layers[:, i]
            part = _summing(np.maximum(part - SMALLEST, 1e-9 * part), energy)
            # what the threshold takes is shared by the others, so none of them falls below
            softest = np.minimum(self.threshold, part.max(axis=1))[:, None]
            voxels[:, layer.voxels] = _summing(np.where(part < softest, 0.0, part), energy)
        return Showers(energies, voxels.astype(np.float32), shape)

    def to_json(self) -> dict[str, Any]:
        """Return what was learned."""
        return asdict(self)


def _logits(showers: Showers) -> np.ndarray:
    shares = np.zeros(showers.voxels.shape)
    for layer in showers.geometry.layers:
        part = showers.voxels[:, layer.voxels].astype(np.float64)
        total = part.sum(axis=1, keepdims=True)
        shares[:, layer.voxels] = part / np.where(total > 0, total, 1.0)
    return np.asarray(logit(SMALLEST + (1.0 - 2.0 * SMALLEST) * shares))


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
