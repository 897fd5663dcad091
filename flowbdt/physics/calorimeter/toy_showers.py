"""Toy showers in any geometry, for tests and first steps: no physics is claimed."""

from __future__ import annotations

import numpy as np

from ... import seeding
from ...errors import InputError
from .geometry import Geometry, Layer
from .geometry import geometry as named_geometry
from .shower_files import Showers

ENERGIES = 256.0 * 2.0 ** np.arange(15)
"""The incident energies of dataset 1, MeV."""


def toy_showers(
    geometry: Geometry | str, n: int = 1000, seed: int = 0, cheap: bool = False
) -> Showers:
    """Return toy showers: random spots of energy in a longitudinal and a radial profile.

    Showers of one seed form pairs, detailed and ``cheap``: row by row they share energy and depth.
    Detailed ones have a wider core with a halo, a displaced axis and larger fluctuations.

    Parameters
    ----------
    geometry : Geometry or its name; dataset 1 gets its 15 energies, others 1 GeV to 1 TeV
    n : int, showers
    seed : int

    Returns
    -------
    Showers, float32, voxels below 1 keV are 0

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
