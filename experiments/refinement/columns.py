"""Shower features as columns that are free of each other, and their normal scores per energy.

The official features depend on each other exactly: the mean squared radius of a layer is that of
its two coordinates, and a layer without energy has no centre. Free columns have none of this.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flowbdt.physics import Geometry
from flowbdt.physics.calorimeter.scores.features import Features

Columns = dict[str, np.ndarray]
"""By name, (n,) each; NaN where the layer is empty."""


def pack(features: Features) -> Columns:
    """Return the free columns of showers.

    ``t`` total over incident energy. Per layer l: ``f`` share of the energy that the layers after
    it in `order` and itself have (0 if empty; none for the last one), ``n`` voxels with energy,
    ``r`` and ``w`` centre and width in the radius [mm]; with sectors also the centre ``x``, ``y``
    in units of r, and the asymmetry ``a`` of the squared widths. 26 columns for photons.
    """
    geometry = features.geometry
    columns: Columns = {"t": features.e_tot / features.e_inc}
    rest = features.e_tot.copy()
    for i in order(geometry)[:-1]:
        columns[f"f{i}"] = features.e_layer[:, i] / np.maximum(rest, 1e-9)
        rest -= features.e_layer[:, i]
    for i, layer in enumerate(geometry.layers):
        empty = np.where(features.e_layer[:, i] > 0, 0.0, np.nan)
        columns[f"n{i}"] = np.rint((1 - features.sparsity[:, i]) * layer.n_voxels) + empty
        columns[f"r{i}"] = features.r[:, i] + empty
        columns[f"w{i}"] = features.width_r[:, i] + empty
    for k, i in enumerate(geometry.with_angles):
        squares = [features.width_eta[:, k] ** 2, features.width_phi[:, k] ** 2]
        total = squares[0] + squares[1]
        radius = columns[f"r{i}"]
        columns[f"x{i}"] = features.eta[:, k] / radius
        columns[f"y{i}"] = features.phi[:, k] / radius
        columns[f"a{i}"] = (squares[0] - squares[1]) / np.where(total > 0, total, 1.0) + 0 * radius
    return columns


def order(geometry: Geometry) -> list[int]:
    """Return the layers by number of voxels: the last one, the largest, gets what remains."""
    sizes = [layer.n_voxels for layer in geometry.layers]
    return [int(i) for i in np.argsort(sizes, kind="stable")]


def unpack(columns: Mapping[str, np.ndarray], energies: np.ndarray, geometry: Geometry) -> Features:
    """Return the official features of free columns; a layer below the threshold is empty."""
    layers = range(len(geometry.layers))
    energy = _layer_energies(columns, energies, geometry)
    filled = energy > 0
    n, r, w = (
        np.where(filled, np.nan_to_num(np.stack([columns[f"{name}{i}"] for i in layers], 1)), 0.0)
        for name in "nrw"
    )
    sizes = np.array([layer.n_voxels for layer in geometry.layers])
    angled = list(geometry.with_angles)
    x, y, a = (
        np.nan_to_num(np.stack([columns[f"{name}{i}"] for i in angled], axis=1)) for name in "xya"
    )
    outside = np.maximum(np.hypot(x, y), 1.0)  # no centre is further out than the mean radius
    x, y = x / outside * r[:, angled], y / outside * r[:, angled]
    total = np.clip(r[:, angled] ** 2 + w[:, angled] ** 2 - x**2 - y**2, 0.0, None)
    return Features(
        geometry=geometry,
        e_inc=energies,
        e_tot=energy.sum(axis=1),
        e_layer=energy,
        sparsity=1 - n / sizes,
        r=r,
        width_r=w,
        eta=x,
        phi=y,
        width_eta=np.sqrt(total * (1 + a) / 2),
        width_phi=np.sqrt(total * (1 - a) / 2),
    )


def _layer_energies(
    columns: Mapping[str, np.ndarray], energies: np.ndarray, geometry: Geometry
) -> np.ndarray:
    """Return layer energies (n, L), MeV; less than the threshold goes to the largest layer."""
    rest = columns["t"] * energies
    result = np.zeros((len(energies), len(geometry.layers)))
    *before, last = order(geometry)
    for i in before:
        part = np.clip(columns[f"f{i}"], 0.0, 1.0) * rest
        result[:, i] = np.where(part >= geometry.min_energy, part, 0.0)
        rest = rest - result[:, i]
    result[:, last] = np.where(rest >= geometry.min_energy, rest, 0.0)
    return result
