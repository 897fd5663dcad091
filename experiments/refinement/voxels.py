"""From given features to a shower: the layers of detailed showers, moved until they fit.

Layer by layer, a start is scaled to the wanted energy; its voxels above the threshold stay, and
what they have above it is multiplied by the smallest smooth factor, ``exp(polynomial of second
degree in r and position)``, that gives the layer its centre and width: among all showers with these
features the one closest to the start in relative entropy (I. Csiszar, Ann. Probab. 3 (1975) 146,
I-projection). Of several starts the one that comes out nearest is taken. The number of voxels is
that of the start: forced to be the wanted one, many voxels would lie at the very threshold.
"""

from __future__ import annotations

import numpy as np

from flowbdt.physics.calorimeter.geometry import Layer
from flowbdt.physics.calorimeter.scores.features import Features

ITERATIONS = 25
RIDGE = 1e-3
"""Keeps factors finite where no shower has the features exactly."""


def move(starts: np.ndarray, wanted: Features) -> np.ndarray:
    """Return voxels (n, v), float32, MeV, with the wanted features, from starts (k, n, v).

    Energies of layers come out exactly, centres and widths as far as the kept voxels can have them.
    """
    geometry = wanted.geometry
    voxels = np.zeros(starts.shape[1:])
    for i, layer in enumerate(geometry.layers):
        rows = np.flatnonzero(wanted.e_layer[:, i] >= geometry.min_energy)
        energy, moments = _targets(wanted.take(rows), i)
        best, distance = np.zeros((len(rows), layer.n_voxels)), np.full(len(rows), np.inf)
        for start in starts:
            part = np.maximum(start[rows, layer.voxels], 1e-9)
            for found in _layer(layer, part, energy, moments, geometry.min_energy):
                off = _distance(layer, found, moments)
                better = off < distance
                best[better], distance[better] = found[better], off[better]
        voxels[np.ix_(rows, np.arange(layer.n_voxels) + layer.first)] = best
    return voxels.astype(np.float32)


def _distance(layer: Layer, voxels: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Return how far centres and widths are from the wanted ones, over the mean radius."""
    found = voxels @ _powers(layer) / np.maximum(voxels.sum(axis=1, keepdims=True), 1e-12)
    widths = [np.sqrt(np.maximum(m[:, 2] - m[:, 1] ** 2, 0.0)) for m in (found, moments)]
    off = np.abs(found[:, 1] - moments[:, 1]) + np.abs(widths[0] - widths[1])
    off += np.abs(found[:, 3:5] - moments[:, 3:5]).sum(axis=1)
    return off / np.sqrt(np.maximum(moments[:, 2], 1e-12))


def _targets(wanted: Features, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Return energies (n,) and mean moments (n, k) of a layer."""
    layer = wanted.geometry.layers[i]
    r, w = wanted.r[:, i], wanted.width_r[:, i]
    moments = [np.ones(len(r)), r, r**2 + w**2]
    if layer.n_alpha > 1:
        k = wanted.geometry.with_angles.index(i)
        eta, phi = wanted.eta[:, k], wanted.phi[:, k]
        difference = wanted.width_eta[:, k] ** 2 - wanted.width_phi[:, k] ** 2
        moments += [eta, phi, difference + eta**2 - phi**2]
    return wanted.e_layer[:, i], np.stack(moments, axis=1)


def _layer(
    layer: Layer,
    start: np.ndarray,
    energy: np.ndarray,
    moments: np.ndarray,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels (n, v) of one layer, MeV: moved, and as they were, but for the energy."""
    powers = _powers(layer)
    start = start / start.sum(axis=1, keepdims=True)
    own = energy[:, None] * start - threshold
    kept = own >= 0
    kept[np.arange(len(start)), start.argmax(axis=1)] = True
    # every kept voxel has the threshold at least; the tilt moves what is above
    floor = threshold * kept
    above = np.maximum(energy - floor.sum(axis=1), 0.0)[:, None]
    rest = energy[:, None] * moments - floor @ powers
    excess = np.where(kept, np.maximum(own, 1e-6 * start), 0.0)
    excess /= np.maximum(excess.sum(axis=1, keepdims=True), 1e-12)
    tilted = tilt(excess, powers, rest / np.maximum(above, 1e-6 * energy[:, None]))
    return floor + above * tilted, floor + above * excess


def _powers(layer: Layer) -> np.ndarray:
    """Return what is averaged (v, k): 1, r, r^2 and, with sectors, x, y, x^2 - y^2."""
    r, alpha = layer.radii, layer.angles
    columns = [np.ones(len(r)), r, r**2]
    if layer.n_alpha > 1:
        columns += [r * np.cos(alpha), r * np.sin(alpha), r**2 * np.cos(2 * alpha)]
    return np.stack(columns, axis=1)


def tilt(start: np.ndarray, powers: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Return ``start * exp(powers @ lambda)``, rows summing to 1, with the mean moments wanted.

    Newton's method on the convex dual, damped; where the moments cannot be had, close to them.

    Parameters
    ----------
    start : ndarray (n, v), not negative, rows summing to 1
    powers : ndarray (v, k), the first column 1
    moments : ndarray (n, k), wanted means of the columns
    """
    centre = start @ powers
    spread = np.sqrt(np.maximum(start @ powers**2 - centre**2, 1e-12))[:, None, 1:]
    basis = (powers[None, :, 1:] - centre[:, None, 1:]) / spread
    target = (moments - centre)[:, 1:] / spread[:, 0]
    factor = np.zeros(target.shape)
    unit = RIDGE * np.eye(target.shape[1])
    logarithm = np.where(start > 0, np.log(np.maximum(start, 1e-300)), -np.inf)
    for _ in range(ITERATIONS):
        weight = _normalised(logarithm + np.einsum("nvk,nk->nv", basis, factor))
        mean = np.einsum("nv,nvk->nk", weight, basis)
        square = np.einsum("nv,nvk,nvl->nkl", weight, basis, basis, optimize=True)
        hessian = square - mean[:, :, None] * mean[:, None, :] + unit
        step = np.linalg.solve(hessian, (target - mean - RIDGE * factor)[:, :, None])[:, :, 0]
        largest = np.abs(np.einsum("nvk,nk->nv", basis, step) * (weight > 1e-6)).max(axis=1)
        factor += step * np.minimum(1.0, 2.0 / np.maximum(largest, 1e-12))[:, None]
        if np.abs(step).max() < 1e-6:
            break
    return _normalised(logarithm + np.einsum("nvk,nk->nv", basis, factor))


def _normalised(logarithm: np.ndarray) -> np.ndarray:
    weight = np.exp(logarithm - logarithm.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)
