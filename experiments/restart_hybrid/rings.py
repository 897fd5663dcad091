"""Showers for a small network: coordinates of voxels, and attention among rings."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from flowbdt.networks.backbones import BACKBONES, Backbone, SetAttention, check_condition
from flowbdt.physics.calorimeter.geometry import Geometry
from flowbdt.physics.calorimeter.shower_files import Showers

EMPTY = float(np.log(2.0))
"""log(1 + E / threshold) of the softest voxel; what is empty is spread evenly below, as far as its
negative."""


class VoxelCoordinates:
    """Voxels as numbers of about width one, given incident and layer energies.

    ``log(1 + E / threshold)``, empty voxels at random below that of the softest one; mean and
    width of every ring at every incident energy are taken off, between energies interpolated.

    Parameters
    ----------
    geometry : Geometry
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry, self.threshold = geometry, geometry.min_energy
        rings = geometry.map[:, 0] * 1000 + geometry.map[:, 2]
        self.ring = np.unique(rings, return_inverse=True)[1]

    def fit(self, showers: Showers, rng: np.random.Generator) -> Self:
        """Learn mean and width of every ring at every incident energy."""
        u, known = self._spread(showers.voxels, rng), np.unique(showers.energies)
        self.log_energy, shape = np.log(known), (len(known), self.ring.max() + 1)
        self.mean, self.width = np.zeros(shape), np.ones(shape)
        for i, energy in enumerate(known):
            rows = u[showers.energies == energy]
            for ring in range(shape[1]):
                values = rows[:, self.ring == ring]
                self.mean[i, ring], self.width[i, ring] = values.mean(), values.std() + 1e-3
        return self

    def forward(self, showers: Showers, rng: np.random.Generator) -> np.ndarray:
        """Return coordinates (n, voxels)."""
        mean, width = self._scale(showers.energies)
        return (self._spread(showers.voxels, rng) - mean) / width

    def inverse(self, x: np.ndarray, energies: np.ndarray, layers: np.ndarray) -> Showers:
        """Return showers of coordinates (n, voxels), scaled to layer energies (n, layers)."""
        mean, width = self._scale(energies)
        u = x * width + mean
        voxels = np.where(u < EMPTY, 0.0, self.threshold * np.expm1(np.minimum(u, 30.0)))
        for i, layer in enumerate(self.geometry.layers):
            part = voxels[:, layer.voxels]
            voxels[:, layer.voxels] = self._scaled(part, u[:, layer.voxels], layers[:, i])
        return Showers(energies, voxels.astype(np.float32), self.geometry)

    def _scaled(self, part: np.ndarray, u: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """Return voxels of a layer that add up to its energy, none below the threshold."""
        alone = (part.sum(axis=1) == 0) & (energy > 0)  # its fullest voxel gets everything
        part[alone, u[alone].argmax(axis=1)] = 1.0
        part = _summing(part, energy)
        # what rounding down leaves is shared by the others, so none of them falls below
        softest = np.minimum(self.threshold, part.max(axis=1))[:, None]
        return _summing(np.where(part < softest, 0.0, part), energy)

    def _spread(self, voxels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        empty = rng.uniform(-EMPTY, EMPTY, voxels.shape)
        return np.where(voxels > 0, np.log1p(voxels / self.threshold), empty)

    def _scale(self, energies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = np.log(energies)
        found = [
            np.column_stack([np.interp(at, self.log_energy, column) for column in table.T])
            for table in (self.mean, self.width)
        ]
        return found[0][:, self.ring], found[1][:, self.ring]


def _summing(part: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Return rows (n, k) scaled to sums (n,); rows of zeros stay."""
    total = part.sum(axis=1)
    return part * (energy / np.where(total > 0, total, 1.0))[:, None]


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


def conditions(energies: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Return log incident energy and log share of every layer in it, (n, 1 + layers)."""
    shares = np.log(layers / energies[:, None] + 1e-5)
    return np.column_stack([np.log(energies), shares])


@BACKBONES.register("ring_attention")
class RingAttention(Backbone):
    """Attention among the rings of all layers; a ring is seen with its sectors.

    Every ring knows which one it is, and the share of its layer.

    Parameters
    ----------
    rings, sectors : per layer, how many
    width, n_heads, n_layers : see `SetAttention`
    n_known : numbers by which rings tell themselves apart
    """

    def __init__(
        self,
        rings: list[int],
        sectors: list[int],
        width: int = 40,
        n_heads: int = 4,
        n_layers: int = 3,
        n_known: int = 8,
    ) -> None:
        super().__init__()
        self.rings, self.sectors, self.width = list(rings), list(sectors), width
        self.n_heads, self.n_layers, self.n_known = n_heads, n_layers, n_known
        self.n_conditions = 1 + len(self.rings)
        most = max(self.sectors)
        self.known = nn.Parameter(0.5 * torch.randn(sum(self.rings), n_known))
        self.attention = SetAttention(
            most + n_known + 1, self.n_conditions, width, n_heads, n_layers
        )
        of_ring = np.repeat(np.arange(len(self.rings)), self.rings)
        self.register_buffer("layer", torch.from_numpy(of_ring), persistent=False)

    def forward(self, x: Tensor, noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """Return the prediction (n, voxels)."""
        check_condition(cond, self.n_conditions)
        assert cond is not None
        n, most, parts, first = len(x), max(self.sectors), list[Tensor](), 0
        for n_r, n_alpha in zip(self.rings, self.sectors, strict=True):
            layer = x[:, first : first + n_r * n_alpha].reshape(n, n_alpha, n_r).transpose(1, 2)
            parts.append(nn.functional.pad(layer, (0, most - n_alpha)))
            first += n_r * n_alpha
        share = cond[:, 1:][:, self.layer, None]  # type: ignore[index]
        seen = torch.cat([torch.cat(parts, dim=1), self.known.expand(n, -1, -1), share], dim=2)
        answer, first, found = self.attention(seen, noise, cond), 0, []
        for n_r, n_alpha in zip(self.rings, self.sectors, strict=True):
            layer = answer[:, first : first + n_r, :n_alpha]
            found.append(layer.transpose(1, 2).flatten(1))
            first += n_r
        return torch.cat(found, dim=1)


def for_geometry(geometry: Geometry, **settings: Any) -> RingAttention:
    """Return the network of a geometry."""
    layers = geometry.layers
    return RingAttention([one.n_r for one in layers], [one.n_alpha for one in layers], **settings)
