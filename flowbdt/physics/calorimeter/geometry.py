"""Geometries of the CaloChallenge: layer, angle and radius of each voxel.

The flat order of a shower is that of the challenge: radius fastest, then the angle alpha, then the
layer. Distances are in mm, energies in MeV.

References
----------
C. Krause et al., "CaloChallenge 2022", arXiv:2410.21611. Dataset 1 has the binning files of the
challenge; datasets 2 and 3 are regular and made here from their numbers of bins.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np

from ...errors import FormatError, InputError
from ...registry import unknown

SILICON_THRESHOLD = 0.5e-3 / 0.033
"""Smallest energy that counts in datasets 2 and 3, MeV: 0.5 keV in silicon, sampling 0.033."""


@dataclass(frozen=True)
class Layer:
    """The voxels of one layer."""

    number: int  # as the detector counts: dataset 1 has layers 0, 1, 2, 3, 12
    r_edges: tuple[float, ...]  # of the rings, mm, increasing, at least two
    n_alpha: int  # sectors between -pi and pi
    first: int  # number of its first voxel in a shower

    @property
    def n_r(self) -> int:
        """Number of rings."""
        return len(self.r_edges) - 1

    @cached_property
    def n_voxels(self) -> int:
        """Number of voxels: rings times sectors."""
        return self.n_r * self.n_alpha

    @property
    def voxels(self) -> slice:
        """The range of its voxels in a shower."""
        return slice(self.first, self.first + self.n_voxels)

    @cached_property
    def radii(self) -> np.ndarray:
        """Middle of the ring of each voxel, (n_voxels,) float64, mm."""
        edges = np.array(self.r_edges)
        return np.tile((edges[:-1] + edges[1:]) * 0.5, self.n_alpha)

    @cached_property
    def angles(self) -> np.ndarray:
        """Middle of the sector of each voxel, (n_voxels,) float64, rad; 0 with one sector."""
        edges = np.linspace(-np.pi, np.pi, self.n_alpha + 1)
        return np.repeat((edges[:-1] + edges[1:]) * 0.5, self.n_r)

    @cached_property
    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Eta and phi positions of the voxels, (n_voxels,) each, mm."""
        return self.radii * np.cos(self.angles), self.radii * np.sin(self.angles)


@dataclass(frozen=True)
class Geometry:
    """All layers that have voxels, in the order of a shower."""

    name: str  # such as "photons"
    particle: str  # as in the binning file
    dataset: int  # 1, 2 or 3: decides the ranges of the official histograms
    layers: tuple[Layer, ...]
    min_energy: float  # MeV: the official evaluation sets voxels below it to 0

    @cached_property
    def n_voxels(self) -> int:
        """Number of voxels of a shower."""
        return sum(layer.n_voxels for layer in self.layers)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The detector's numbers of the layers."""
        return tuple(layer.number for layer in self.layers)

    @cached_property
    def with_angles(self) -> tuple[int, ...]:
        """Positions in `layers` of those with more than one sector: these have eta and phi."""
        return tuple(i for i, layer in enumerate(self.layers) if layer.n_alpha > 1)

    @cached_property
    def map(self) -> np.ndarray:
        """Position of the layer, of the sector, of the ring: (n_voxels, 3) int64."""
        layers = []
        for position, layer in enumerate(self.layers):
            alpha, ring = np.divmod(np.arange(layer.n_voxels), layer.n_r)
            layers.append(np.column_stack([np.full(layer.n_voxels, position), alpha, ring]))
        return np.concatenate(layers)

    def voxel(self, layer: int, alpha: int, ring: int) -> int:
        """Return a voxel from positions of its layer, sector and ring. Raises InputError."""
        if not 0 <= layer < len(self.layers):
            raise InputError(f"{self.name} has layers 0 to {len(self.layers) - 1}, got {layer}")
        one = self.layers[layer]
        if not (0 <= alpha < one.n_alpha and 0 <= ring < one.n_r):
            raise InputError(
                f"layer {layer} of {self.name} has sectors 0 to {one.n_alpha - 1} and rings 0 to"
                f" {one.n_r - 1}, got sector {alpha} and ring {ring}"
            )
        return one.first + alpha * one.n_r + ring

    def layer_energies(self, voxels: np.ndarray) -> np.ndarray:
        """Return the energy of each layer, (n, layers) float64, MeV, from voxels (n, n_voxels)."""
        return np.stack(
            [voxels[:, one.voxels].sum(axis=1, dtype=np.float64) for one in self.layers], axis=1
        )

    def names(self) -> tuple[str, ...]:
        """Return a column name for each voxel: layer number, sector, ring (``l1_a0_r3``)."""
        numbers = self.numbers
        return tuple(f"l{numbers[i]}_a{alpha}_r{ring}" for i, alpha, ring in self.map)

    def check(self, voxels: np.ndarray, what: str = "showers") -> None:
        """Raise InputError unless ``voxels`` has the shape (n, n_voxels)."""
        if voxels.ndim != 2 or voxels.shape[1] != self.n_voxels:
            raise InputError(
                f"{what} of {self.name} must have the shape (n, {self.n_voxels}), got"
                f" {voxels.shape}; known geometries: {_sizes()}"
            )


def stack_layers(layers: Sequence[tuple[int, Sequence[float], int]]) -> tuple[Layer, ...]:
    """Return layers from (number, r_edges, n_alpha), without those of a single edge."""
    result: list[Layer] = []
    first = 0
    for number, edges, n_alpha in layers:
        if len(edges) > 1:
            result.append(Layer(number, tuple(float(edge) for edge in edges), n_alpha, first))
            first += result[-1].n_voxels
    return tuple(result)


def read_binning(
    path: str | Path, name: str | None = None, dataset: int = 1, min_energy: float = 1.0
) -> Geometry:
    """Read a binning file (XML) of the challenge: one ``Bin`` of ``Layer`` entries.

    They have id, r_edges [mm] and n_bin_alpha. ``name`` None takes the particle's; ``dataset`` and
    ``min_energy`` are as in `Geometry`. Raises FormatError if the file is not XML, has no layers
    with voxels, or edges that do not increase.
    """
    try:
        root = ElementTree.parse(path).getroot()
        (particle,) = root.findall("Bin")
        layers = stack_layers([_layer(entry) for entry in particle.findall("Layer")])
    except (OSError, ElementTree.ParseError, ValueError, KeyError) as error:
        raise FormatError(
            f"{path} is not a binning file: it must have one Bin with Layer entries of id, r_edges"
            f" and n_bin_alpha ({type(error).__name__}: {error})"
        ) from error
    if not layers:
        raise FormatError(f"{path} has no layer with voxels: all have a single edge")
    kind = particle.attrib.get("name", "unknown")
    return Geometry(name or kind, kind, dataset, layers, min_energy)


def _layer(entry: ElementTree.Element) -> tuple[int, list[float], int]:
    edges = [float(text) for text in entry.attrib["r_edges"].split(",")]
    n_alpha = int(entry.attrib["n_bin_alpha"])
    if any(b <= a for a, b in pairwise(edges)) or n_alpha < 1:
        raise ValueError(f"layer {entry.attrib['id']} has edges {edges}, {n_alpha} sectors")
    return int(entry.attrib["id"]), edges, n_alpha


def _regular(name: str, dataset: int, n_alpha: int, n_r: int) -> Geometry:
    """Return 45 equal layers with rings of equal width up to 41.85 mm."""
    edges = [round(41.85 * i / n_r, 6) for i in range(n_r + 1)]
    layers = stack_layers([(number, edges, n_alpha) for number in range(45)])
    return Geometry(name, "electron", dataset, layers, SILICON_THRESHOLD)


SIZES = {"photons": 368, "pions": 533, "dataset_2": 6_480, "dataset_3": 40_500}
"""Numbers of voxels of the known geometries, which identify that of a file."""


def geometry(name: str) -> Geometry:
    """Return a geometry of the challenge: "photons", "pions", "dataset_2" or "dataset_3".

    Raises InputError for another name.

    Examples
    --------
    >>> photons = geometry("photons")
    >>> photons.n_voxels, photons.numbers
    (368, (0, 1, 2, 3, 12))
    >>> photons.voxel(layer=1, alpha=2, ring=5)
    45
    """
    if name in ("photons", "pions"):
        file = resources.files("flowbdt.physics") / "data" / f"binning_dataset_1_{name}.xml"
        with resources.as_file(file) as path:
            return read_binning(path, name)
    if name == "dataset_2":
        return _regular(name, 2, n_alpha=16, n_r=9)
    if name == "dataset_3":
        return _regular(name, 3, n_alpha=50, n_r=18)
    raise InputError(str(unknown("geometry", name, SIZES)))


def geometry_of(n_voxels: int) -> Geometry:
    """Return the geometry with this number of voxels. Raises InputError if there is none."""
    for name, size in SIZES.items():
        if size == n_voxels:
            return geometry(name)
    raise InputError(
        f"no geometry of the challenge has {n_voxels} voxels; known: {_sizes()}; pass another one"
        " as read_binning(file)"
    )


def _sizes() -> str:
    return ", ".join(f"{name} ({size})" for name, size in SIZES.items())
