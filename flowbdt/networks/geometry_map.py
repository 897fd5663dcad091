"""Irregular calorimeter layers, a regular cylinder, and linear maps between them.

Layers differ in their rings in r, and have one or more bins in alpha. The cylinder has all layers
along z, the finest alpha binning, and the union of all ring edges; a ring's energy is split among
the finer rings in proportion to their areas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..physics.calorimeter.geometry import geometry as named_geometry


@dataclass(frozen=True)
class Layers:
    """Rings and alpha bins of all layers; voxels lie layer by layer, r fastest, then alpha."""

    edges: tuple[tuple[float, ...], ...]  # of the rings of each layer, mm, rising
    n_alpha: tuple[int, ...]  # bins of each layer; 1, or one number for all others

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(tuple(map(float, e)) for e in self.edges))
        object.__setattr__(self, "n_alpha", tuple(map(int, self.n_alpha)))
        divided = {n for n in self.n_alpha if n != 1}
        rising = all(len(e) > 1 and (np.diff(e) > 0).all() for e in self.edges)
        if len(self.edges) != len(self.n_alpha) or len(divided) > 1 or not rising:
            raise ConfigError(
                "layers need rising ring edges and a number of alpha bins each, which is 1 or the"
                f" same for all, got {len(self.edges)} layers and alpha bins {self.n_alpha}"
            )

    @property
    def union(self) -> np.ndarray:
        """All ring edges, rising."""
        return np.unique(np.concatenate([np.asarray(e) for e in self.edges]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers, alpha bins and rings of the cylinder."""
        return len(self.edges), max(self.n_alpha), len(self.union) - 1

    @property
    def n_voxels(self) -> int:
        """Number of voxels of all layers."""
        return sum((len(e) - 1) * n for e, n in zip(self.edges, self.n_alpha, strict=True))

    def split(self, layer: int) -> np.ndarray:
        """Return the shares (n_fine, n_rings) of the fine rings in each ring's energy."""
        edges, fine = np.asarray(self.edges[layer]), self.union
        low = np.maximum(fine[:-1, None], edges[None, :-1])
        high = np.minimum(fine[1:, None], edges[None, 1:])
        area = np.where(high > low, high**2 - low**2, 0.0)
        return np.asarray(area / np.diff(edges**2))

    def merge(self, layer: int) -> np.ndarray:
        """Return the matrix (n_rings, n_fine) that adds up the fine rings of each ring."""
        return (self.split(layer) > 0).T.astype(float)


INVERSES = ("pseudo", "sum", "mean")


class GeometryMap(nn.Module):
    """Trained linear maps from each layer's rings to the cylinder's and back.

    They begin as the split by area, which conserves energy, and its inverse, both with normal
    numbers of width ``jitter``: 'pseudo', the pseudo-inverse as published, or 'sum', which
    conserves the energy of any picture inside the layer, not only of mapped ones. Layers with a
    single alpha bin are divided evenly over all bins on the way in and summed on the way out. With
    'mean' values are copied on the way in and averaged on the way out, which is for coordinates
    that do not add up, such as logarithms.

    Amram, Pedro 2023, arXiv 2308.03876, section on geometry latent mapping (GLaM).
    """

    def __init__(
        self, layers: Layers, jitter: float = 1e-5, inverse: str = "pseudo", seed: int = 0
    ) -> None:
        super().__init__()
        if inverse not in INVERSES:
            known = ", ".join(map(repr, INVERSES))
            raise ConfigError(f"inverse of the geometry map is one of {known}, not {inverse!r}")
        self.layers, rng = layers, np.random.default_rng(seed)
        numbers = range(len(layers.edges))
        split, merge = [layers.split(i) for i in numbers], [layers.merge(i) for i in numbers]
        back, self.copied = merge, inverse == "mean"
        if inverse == "pseudo":
            back = [np.linalg.pinv(s) for s in split]
        if self.copied:
            split, back = [m.T for m in merge], [m / m.sum(axis=1, keepdims=True) for m in merge]
        self.into = nn.ParameterList(_initial(matrix, jitter, rng) for matrix in split)
        self.back = nn.ParameterList(_initial(matrix, jitter, rng) for matrix in back)

    def forward(self, x: Tensor) -> Tensor:
        """Return the cylinder (n, 1, z, alpha, r) of voxels (n, n_voxels)."""
        n_alpha, first, planes = self.layers.shape[1], 0, []
        for bins, matrix in zip(self.layers.n_alpha, self.into, strict=True):
            n_rings = matrix.shape[1]
            voxels = x[:, first : first + bins * n_rings].reshape(-1, bins, n_rings)
            first += bins * n_rings
            plane = voxels @ matrix.T
            if bins != n_alpha:
                plane = plane.expand(-1, n_alpha, -1) / (1 if self.copied else n_alpha)
            planes.append(plane)
        return torch.stack(planes, dim=1)[:, None]

    def inverse(self, cylinder: Tensor) -> Tensor:
        """Return voxels (n, n_voxels) of a cylinder (n, 1, z, alpha, r)."""
        n_alpha, voxels = self.layers.shape[1], []
        for i, (bins, matrix) in enumerate(zip(self.layers.n_alpha, self.back, strict=True)):
            plane = cylinder[:, 0, i]
            if bins != n_alpha:
                plane = (torch.mean if self.copied else torch.sum)(plane, 1, keepdim=True)
            voxels.append((plane @ matrix.T).flatten(1))
        return torch.cat(voxels, dim=1)


def _initial(matrix: np.ndarray, jitter: float, rng: np.random.Generator) -> nn.Parameter:
    noisy = matrix + jitter * rng.standard_normal(matrix.shape)
    return nn.Parameter(torch.tensor(noisy, dtype=torch.float32))


def coordinates(layers: Layers | None, shape: Sequence[int], angle: bool) -> Tensor:
    """Return pictures of r, z and, with ``angle``, alpha, (2 or 3, z, alpha, r), from 0 to 1.

    r is the middle of a ring over the largest one, or its number if the edges are unknown; z the
    number of the layer over all layers.
    """
    n_z, n_alpha, n_r = shape
    edges = np.arange(n_r + 1.0) if layers is None else layers.union
    middle = 0.5 * (edges[1:] + edges[:-1])
    values = [np.broadcast_to(middle / middle[-1], shape)]
    values.append(np.broadcast_to((np.arange(n_z) / n_z)[:, None, None], shape))
    if angle:
        turn = np.arange(n_alpha) / max(n_alpha - 1, 1)
        values.append(np.broadcast_to(turn[:, None], shape))
    return torch.tensor(np.stack(values), dtype=torch.float32)


def _of_dataset_1(name: str) -> Layers:
    layers = named_geometry(name).layers
    return Layers(tuple(one.r_edges for one in layers), tuple(one.n_alpha for one in layers))


PHOTONS = _of_dataset_1("photons")
"""Dataset 1, photons: layers 0, 1, 2, 3, 12; 368 voxels."""

PIONS = _of_dataset_1("pions")
"""Dataset 1, pions: layers 0, 1, 2, 3, 12, 13, 14; 533 voxels."""
