"""Showers for any geometry: a few lines of physics, enough to try every part of the code."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowbdt.physics.calorimeter.geometry import Geometry
from flowbdt.physics.calorimeter.shower_files import Showers

SMOKE: dict[str, Any] = {
    "flow": {
        "preset": "fast",
        "n_steps": 3,
        "preconditioner": "gaussian",
        "booster": {"n_estimators": 2, "max_depth": 2},
    },
    "rings": {"location_trees": 2, "cdf_trees": 1, "depth": 2},
    "sectors": {"cdf_trees": 1, "depth": 3},
    "most_rows": 3000,
}
"""Settings of a shower model that is trained in a moment."""


def toy_showers(geometry: Geometry, n: int, seed: int) -> Showers:
    """Return showers: a random depth, deposits spread in depth, radius and angle.

    Incident energies are the fifteen of dataset 1, or log-uniform from 1 GeV to 1 TeV elsewhere.
    """
    rng = np.random.default_rng(seed)
    if geometry.dataset == 1:
        energies = 2.0 ** rng.integers(8, 17, n)
    else:
        energies = 1e3 * 10 ** rng.uniform(0, 2, n)
    n_layers = len(geometry.layers)
    middle = n_layers * (0.15 + 0.05 * np.log10(energies / 256)) + 0.4 * rng.normal(size=n)
    depth = (np.arange(n_layers) - middle[:, None]) / (0.8 + 0.1 * n_layers)
    profile = np.exp(-0.5 * depth**2)
    profile /= profile.sum(axis=1, keepdims=True)
    spot = 10 * geometry.min_energy
    parts = []
    for position, layer in enumerate(geometry.layers):
        edges = np.array(layer.r_edges)
        scale = 0.1 * edges[-1]
        ring = np.tile(np.exp(-edges[:-1] / scale) - np.exp(-edges[1:] / scale), layer.n_alpha)
        rate = (energies * profile[:, position])[:, None] * ring / (ring.sum() * spot)
        parts.append(rng.gamma(np.maximum(rng.poisson(rate), 1e-9), spot))
    return Showers.of(energies, np.hstack(parts).astype(np.float32), geometry)
