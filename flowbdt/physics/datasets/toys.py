"""Toy tables from known distributions, and toy showers, from a seed."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from ... import seeding
from ...errors import InputError
from ...tables.event_table import EventTable
from ..calorimeter.geometry import Geometry, Layer
from ..calorimeter.geometry import geometry as named_geometry
from ..calorimeter.shower_files import Showers
from . import DATASETS, Dataset

ENERGIES = 256.0 * 2.0 ** np.arange(15)
"""The incident energies of dataset 1, MeV."""


class Toy(Dataset):
    """A table from a known distribution, ``n_events`` for each split, all independent."""

    source = "drawn by flowbdt from a known law"
    licence = "MIT, as flowbdt"
    splits = ("train", "validation", "test")

    def __init__(self, n_events: int = 10_000, seed: int = 0) -> None:
        self.n_events, self.seed = n_events, seed

    def _load(self, split: str) -> EventTable:
        if self.n_events < 1:
            raise InputError(f"n_events must be at least 1, got {self.n_events}")
        if split == "all":
            return EventTable.concatenate([self._load(each) for each in self.splits])
        rng = seeding.stream(self.seed, f"toy-{self.name}", self.splits.index(split))
        return self._draw(rng)

    @abstractmethod
    def _draw(self, rng: np.random.Generator) -> EventTable:
        """Return ``n_events`` events."""


@DATASETS.register("gaussian")
class Gaussian(Toy):
    """A correlated normal distribution in three columns; `mean` (3,) and `cov` (3, 3) are exact."""

    name = "gaussian"
    columns = ("energy", "momentum", "angle")
    units = {"energy": "GeV", "momentum": "GeV", "angle": "rad"}  # noqa: RUF012
    mean = np.array([50.0, 20.0, 0.3])
    cov = np.array([[25.0, 6.0, -0.2], [6.0, 4.0, 0.05], [-0.2, 0.05, 0.04]])

    def _draw(self, rng: np.random.Generator) -> EventTable:
        normal = rng.standard_normal((self.n_events, 3))
        x = self.mean + normal @ np.linalg.cholesky(self.cov).T
        return EventTable.of(x, self.columns, units=self.units)


@DATASETS.register("mixture")
class TwoPeaks(Toy):
    """A narrow peak beside a broad one; `fractions`, `means` and `covs` are exact."""

    name = "mixture"
    columns = ("mass", "width")
    units = {"mass": "GeV", "width": "GeV"}  # noqa: RUF012
    fractions = np.array([0.3, 0.7])
    means = np.array([[80.4, 2.0], [173.0, 6.0]])
    covs = np.array([[[16.0, 1.2], [1.2, 0.25]], [[100.0, -8.0], [-8.0, 1.0]]])

    def _draw(self, rng: np.random.Generator) -> EventTable:
        which = (rng.random(self.n_events) >= self.fractions[0]).astype(np.int64)
        normal = rng.standard_normal((self.n_events, 2))
        factors = np.linalg.cholesky(self.covs)[which]
        x = self.means[which] + np.einsum("nij,nj->ni", factors, normal)
        return EventTable.of(x, self.columns, units=self.units)


@DATASETS.register("moons")
class Moons(Toy):
    """Two interleaved half circles of unit radius, smeared by a normal of width `width`."""

    name = "moons"
    columns = ("x", "y")
    units = {}  # noqa: RUF012
    width = 0.05

    def _draw(self, rng: np.random.Generator) -> EventTable:
        angle = rng.uniform(0.0, np.pi, self.n_events)
        side = np.where(rng.random(self.n_events) < 0.5, 1.0, -1.0)
        centre = np.where(side > 0, 0.0, 1.0), np.where(side > 0, 0.0, 0.5)
        x = np.stack([centre[0] + side * np.cos(angle), centre[1] + side * np.sin(angle)], axis=1)
        x += self.width * rng.standard_normal((self.n_events, 2))
        return EventTable.of(x, self.columns)


@DATASETS.register("mixed")
class Mixed(Toy):
    """All kinds of columns: skewed, angle, integer, category, many exact zeros, constant.

    ``energy`` is log-normal (median 30 GeV), ``phi`` uniform, ``n_hits`` Poisson with a mean that
    grows with the energy, ``particle`` a text, ``isolation`` exactly 0 for 30% of the events and
    exponential with mean 2 GeV for the others, ``field`` always 3.8 T.
    """

    name = "mixed"
    columns = ("energy", "phi", "n_hits", "particle", "isolation", "field")
    units = {"energy": "GeV", "phi": "rad", "isolation": "GeV", "field": "T"}  # noqa: RUF012
    particles = ("electron", "photon", "pion")
    zero_fraction = 0.3

    def _draw(self, rng: np.random.Generator) -> EventTable:
        import pandas as pd

        n = self.n_events
        energy = 30.0 * np.exp(0.6 * rng.standard_normal(n))
        isolation = np.where(rng.random(n) < self.zero_fraction, 0.0, rng.exponential(2.0, n))
        frame = pd.DataFrame(
            {
                "energy": energy.astype(np.float32),
                "phi": rng.uniform(-np.pi, np.pi, n).astype(np.float32),
                "n_hits": rng.poisson(5.0 * np.log1p(energy)),
                # An ordered list: the codes are the same even if a small table lacks a kind.
                "particle": pd.Categorical.from_codes(
                    rng.choice(3, n, p=[0.2, 0.3, 0.5]), categories=pd.Index(self.particles)
                ),
                "isolation": isolation.astype(np.float32),
                "field": np.full(n, 3.8, dtype=np.float32),
            }
        )
        return EventTable.of(frame, units=self.units)


def toy_showers(
    geometry: Geometry | str, n: int = 1000, seed: int = 0, cheap: bool = False
) -> Showers:
    """Return toy showers: random spots of energy in a longitudinal and a radial profile.

    Showers of one seed form pairs, detailed and ``cheap``: row by row they share energy and depth.
    Detailed ones have a wider core with a halo, a displaced axis and larger fluctuations. Dataset 1
    gets its 15 energies, others 1 GeV to 1 TeV; voxels, float32, below 1 keV are 0.

    Raises InputError if n is less than 1.
    """
    shape = named_geometry(geometry) if isinstance(geometry, str) else geometry
    if n < 1:
        raise InputError(f"the number of showers must be at least 1, got {n}")
    shared = seeding.stream(seed, "toy-showers")
    if shape.dataset == 1:
        energies = shared.choice(ENERGIES, n)
    else:
        energies = 1000.0 * 1000.0 ** shared.random(n)
    depth = shared.uniform(0.8, 1.2, n)
    rng = seeding.stream(seed, "toy-showers-own", int(cheap))
    layer_energy = _layer_energies(shape, energies, depth, 0.05 if cheap else 0.2, rng)
    voxels = np.empty((n, shape.n_voxels), dtype=np.float32)
    axis = rng.uniform(-np.pi, np.pi, n)
    push = np.zeros(n) if cheap else 0.5 * rng.random(n)
    for position, layer in enumerate(shape.layers):
        energy = layer_energy[:, position]
        mean = _profile(layer, axis, push, 0.0 if cheap else 0.1)
        spots = rng.standard_gamma(mean * (2.0 + np.sqrt(energy))[:, None])
        share = spots / np.maximum(spots.sum(axis=1, keepdims=True), 1e-30)
        voxels[:, layer.voxels] = energy[:, None] * share
    voxels[voxels < 1e-3] = 0
    return Showers.of(energies, voxels, shape)


def _layer_energies(
    geometry: Geometry,
    energies: np.ndarray,
    depth: np.ndarray,
    spread: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the energy of each layer (n, L), MeV: a gamma profile with fluctuations."""
    n_layers = len(geometry.layers)
    at = (np.arange(n_layers) + 0.5) / n_layers * 10.0
    peak = (2.0 + 0.3 * np.log(energies / 256.0)) * depth
    profile = np.exp(peak[:, None] * np.log(at) - at)
    profile *= np.exp(spread * rng.standard_normal((len(energies), n_layers)))
    response = np.exp(0.3 / (energies / 256.0) ** 0.25 * rng.standard_normal(len(energies)) / 2)
    return (energies * response)[:, None] * profile / profile.sum(axis=1, keepdims=True)


def _profile(layer: Layer, axis: np.ndarray, push: np.ndarray, halo: float) -> np.ndarray:
    """Return the mean share of each voxel (n, v): exp(-r / core) in the plane, plus a halo."""
    edges = np.array(layer.r_edges)
    core = (0.06 if halo else 0.04) * edges[-1]
    rings = (1 - halo) * _ring(edges / core) + halo * _ring(edges / (4 * core))
    sectors = np.tile(rings, layer.n_alpha) / layer.n_alpha
    turn = 1 + push[:, None] * np.cos(layer.angles - axis[:, None]) if layer.n_alpha > 1 else 1.0
    return np.asarray(sectors * turn * np.ones((len(axis), 1)))


def _ring(x: np.ndarray) -> np.ndarray:
    """Return the share of exp(-x), in the plane, between neighbouring radii."""
    inside = 1 - (1 + x) * np.exp(-x)
    return np.diff(inside) / inside[-1]
