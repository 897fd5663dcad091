"""The high-level features of the CaloChallenge: energies, centres, widths, sparsity per layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ....errors import InputError
from ..geometry import Geometry
from ..shower_files import Showers

TINY = 1e-16
"""Added to the energy of a layer before a division, as the official code does."""


@dataclass(frozen=True)
class Features:
    """Features of n showers; L layers, A of them with more than one sector."""

    geometry: Geometry
    e_inc: np.ndarray  # (n,), float64, MeV
    e_tot: np.ndarray
    e_layer: np.ndarray  # (n, L), MeV
    sparsity: np.ndarray  # (n, L), share of voxels without energy
    r: np.ndarray  # (n, L), mm, centre of energy and width in the radius
    width_r: np.ndarray
    eta: np.ndarray  # (n, A), mm, the same in r cos(alpha) and r sin(alpha)
    phi: np.ndarray
    width_eta: np.ndarray
    width_phi: np.ndarray

    @property
    def n(self) -> int:
        """Number of showers."""
        return len(self.e_inc)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all features by name, without the geometry."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "geometry"}

    def take(self, rows: Any) -> Features:
        """Return the features of some rows."""
        return Features(self.geometry, **{k: v[rows] for k, v in self.arrays().items()})

    def layers_of(self, name: str) -> tuple[int, ...]:
        """Return the detector's numbers of the layers that the columns of a feature belong to."""
        numbers = self.geometry.numbers
        if getattr(self, name).shape[1:] == (len(numbers),):
            return numbers
        return tuple(numbers[i] for i in self.geometry.with_angles)

    @staticmethod
    def concatenate(blocks: Iterable[Features]) -> Features:
        """Return the features of all blocks, in order. Raises InputError if there is none."""
        arrays = [(block.geometry, block.arrays()) for block in blocks]
        if not arrays:
            raise InputError("there must be at least one shower, got none")
        geometry, first = arrays[0]
        joined = {name: np.concatenate([block[name] for _, block in arrays]) for name in first}
        return Features(geometry, **joined)


def high_level_features(showers: Iterable[Showers], threshold: float | None = None) -> Features:
    """Return the official high-level features of showers, or of a file block by block.

    With E the energies of a layer's voxels and x = r, r cos(alpha) or r sin(alpha) their
    positions: centre ``C = sum(x E) / (sum(E) + 1e-16)``, width ``sqrt(max(0, sum(x^2 E) /
    (sum(E) + 1e-16) - C^2))``, sparsity ``1 - mean(E > 0)``. A layer without energy has centre
    and width exactly 0. Voxels below ``threshold`` [MeV] count as 0; None: the official value.

    Raises InputError if there is no shower. The definitions: CaloChallenge/homepage,
    code/HighLevelFeatures.py and XMLHandler.py.
    """
    return Features.concatenate(_of_block(block.above(threshold)) for block in blocks(showers))


def blocks(showers: Iterable[Showers]) -> Iterator[Showers]:
    """Yield the blocks of showers. Raises InputError for anything else."""
    for block in showers:
        if not isinstance(block, Showers):
            raise InputError(
                "showers must be Showers or a ShowerFile of flowbdt.physics, got blocks of"
                f" {type(block).__name__}"
            )
        yield block


def _of_block(showers: Showers) -> Features:
    layers, angled = showers.geometry.layers, showers.geometry.with_angles
    voxels = [np.asarray(showers.voxels[:, one.voxels], dtype=np.float64) for one in layers]
    energy = np.stack([layer.sum(axis=1) for layer in voxels], axis=1)
    radial = _moments(voxels, [one.radii for one in layers], showers.n)
    # eta and phi of the layers that have sectors
    turned, places = [voxels[i] for i in angled], [layers[i].positions for i in angled]
    flat = [_moments(turned, [place[axis] for place in places], showers.n) for axis in (0, 1)]
    return Features(
        showers.geometry,
        showers.energies,
        energy.sum(axis=1),
        energy,
        np.stack([1.0 - (layer > 0).mean(axis=1) for layer in voxels], axis=1),
        *radial,
        *(centres for centres, _ in flat),
        *(widths for _, widths in flat),
    )


def _moments(
    voxels: Sequence[np.ndarray], positions: Sequence[np.ndarray], n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return centres and widths of layers, (n, layers) each, from energies (n, v) of each."""
    centres, widths = np.empty((2, n, len(voxels)))
    for i, (energy, position) in enumerate(zip(voxels, positions, strict=True)):
        total = energy.sum(axis=1) + TINY
        centres[:, i] = energy @ position / total
        spread = energy @ position**2 / total - centres[:, i] ** 2
        widths[:, i] = np.sqrt(np.clip(spread, 0.0, None))
    return centres, widths
