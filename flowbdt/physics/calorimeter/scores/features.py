"""The high-level features of the CaloChallenge: energies, centres, widths, sparsity per layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ....errors import InputError
from ..geometry import Geometry, Layer
from ..shower_files import Showers

TINY = 1e-16
"""Added to the energy of a layer before a division, as the official code does."""


@dataclass(frozen=True)
class Features:
    """Features of n showers; L layers, A of them with more than one sector.

    Parameters
    ----------
    geometry : Geometry
    e_inc, e_tot : ndarray (n,), float64, MeV
    e_layer : ndarray (n, L), MeV
    sparsity : ndarray (n, L), share of voxels without energy
    r, width_r : ndarray (n, L), mm, centre of energy and width in the radius
    eta, phi, width_eta, width_phi : ndarray (n, A), mm, the same in r cos(alpha), r sin(alpha)
    """

    geometry: Geometry
    e_inc: np.ndarray
    e_tot: np.ndarray
    e_layer: np.ndarray
    sparsity: np.ndarray
    r: np.ndarray
    width_r: np.ndarray
    eta: np.ndarray
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
    def concatenate(parts: Iterable[Features]) -> Features:
        """Return the features of all parts, in order. Raises InputError if there is none."""
        found = list(parts)
        if not found:
            raise InputError("there must be at least one shower, got none")
        joined = {
            name: np.concatenate([part.arrays()[name] for part in found])
            for name in found[0].arrays()
        }
        return Features(found[0].geometry, **joined)


def high_level_features(showers: Iterable[Showers], threshold: float | None = None) -> Features:
    """Return the official high-level features, block by block.

    With E the energies of a layer's voxels and x = r, r cos(alpha) or r sin(alpha) their
    positions: centre ``C = sum(x E) / (sum(E) + 1e-16)``, width ``sqrt(max(0, sum(x^2 E) /
    (sum(E) + 1e-16) - C^2))``, sparsity ``1 - mean(E > 0)``. A layer without energy has centre
    and width exactly 0.

    Parameters
    ----------
    showers : Showers or ShowerFile (a few MB in memory at a time)
    threshold : MeV; voxels below it count as 0. None: the official value (1 MeV in dataset 1);
        0: none

    Raises
    ------
    InputError
        If there is no shower.

    References
    ----------
    CaloChallenge/homepage, code/HighLevelFeatures.py and XMLHandler.py (the definitions).
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
    energy = np.stack([part.sum(axis=1) for part in voxels], axis=1)
    radial = [_moments(part, one.radii) for part, one in zip(voxels, layers, strict=True)]
    eta = [_moments(voxels[i], positions(layers[i])[0]) for i in angled]
    phi = [_moments(voxels[i], positions(layers[i])[1]) for i in angled]
    columns = [_stacked(found, showers.n) for found in (radial, eta, phi)]
    centres, widths = zip(*columns, strict=True)
    return Features(
        geometry=showers.geometry,
        e_inc=showers.energies,
        e_tot=energy.sum(axis=1),
        e_layer=energy,
        sparsity=np.stack([1.0 - (part > 0).mean(axis=1) for part in voxels], axis=1),
        r=centres[0],
        width_r=widths[0],
        eta=centres[1],
        phi=centres[2],
        width_eta=widths[1],
        width_phi=widths[2],
    )


def _moments(energy: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return centre and width, (n,) each, of energies (n, v) at positions (v,)."""
    total = energy.sum(axis=1) + TINY
    centre = energy @ position / total
    spread = energy @ position**2 / total - centre**2
    return centre, np.sqrt(np.clip(spread, 0.0, None))


def _stacked(found: list[tuple[np.ndarray, np.ndarray]], n: int) -> tuple[np.ndarray, np.ndarray]:
    if not found:
        return np.empty((n, 0)), np.empty((n, 0))
    centres, widths = zip(*found, strict=True)
    return np.stack(centres, axis=1), np.stack(widths, axis=1)


def positions(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Return eta and phi positions of a layer's voxels, (n_voxels,) each, mm."""
    return layer.radii * np.cos(layer.angles), layer.radii * np.sin(layer.angles)
