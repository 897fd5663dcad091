"""Generation of voxels as machine code, with numba: the same showers, sooner."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .energy_division import LayerPlan, ShowerEnergies
from .rings import Rings
from .sectors import Sectors
from .voxel_arrays import N_BEND, Collector, ring_steps, sector_steps


class WorkingMemory(NamedTuple):
    """Working memory of one call."""

    x: np.ndarray
    curve: np.ndarray
    segments: np.ndarray


class CompiledVoxels:
    """Rings and sectors in flat arrays, for the voxels of `Rings` and `Sectors` up to rounding."""

    def __init__(self, plan: LayerPlan, rings: Rings, sectors: Sectors) -> None:
        collected = Collector()
        of_rings, of_sectors = (
            {key: collected.add(model) for key, model in stage.models.items()}
            for stage in (rings, sectors)
        )
        self.nodes = collected.finished()
        self.plan, self.threshold = plan, rings.threshold
        self.rings = ring_steps(plan, of_rings)
        self.sectors = {
            position: sector_steps(plan, position, of_sectors)
            for position, layer in enumerate(plan.geometry.layers)
            if layer.n_alpha > 1
        }
        bend = int(self.nodes.trees[:, N_BEND].max(initial=0))
        inputs = int(self.nodes.feature.max(initial=0)) + 1
        room = 64 + 2 * len(plan.geometry.layers)
        most = max([self.rings.n_segments, *(2 * len(s.cells) for s in self.sectors.values())])
        self._room = max(inputs, room), max(bend, 1), most

    def _memory(self) -> WorkingMemory:
        """Return new working memory, as calls may run at the same time."""
        inputs, bend, most = self._room
        return WorkingMemory(np.zeros(inputs, np.float32), np.zeros(bend), np.zeros(most))

    def sample(self, energies: ShowerEnergies, axes: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return voxels (n, voxels) float64 from complex axes (n,) and uniform numbers (n, k)."""
        from .voxel_loops import fill_rings, fill_sectors

        n, layers, memory = len(energies.incident), self.plan.geometry.layers, self._memory()
        features = energies.all_features().astype(np.float32)
        column, first = len(self.rings.steps), 0
        ring_numbers = np.ascontiguousarray(uniform[:, :column])
        rings = np.empty((n, len(self.rings.rings)))
        layer_energies = np.ascontiguousarray(energies.layers, dtype=np.float64)
        inputs = (features, layer_energies, ring_numbers, self.threshold)
        fill_rings(self.nodes, self.rings, *inputs, memory, rings)
        pairs = np.ascontiguousarray(np.column_stack([axes.real, axes.imag]))
        voxels = np.empty((n, self.plan.geometry.n_voxels))
        for position, layer in enumerate(layers):
            of_layer = np.ascontiguousarray(rings[:, first : first + layer.n_r])
            first += layer.n_r
            if layer.n_alpha == 1:
                voxels[:, layer.voxels] = of_layer
                continue
            count = layer.n_r * (layer.n_alpha + 1)
            numbers = np.ascontiguousarray(uniform[:, column : column + count])
            column += count
            divided = (features, pairs, of_layer, numbers, self.threshold)
            fill_sectors(self.nodes, self.sectors[position], *divided, memory, voxels)
        return voxels
