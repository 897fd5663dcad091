"""Generation of voxels as machine code, where numba is installed: the same showers, sooner."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ....generation.compiled.engine import may_compile
from . import voxel_arrays
from .layer_plan import Known, LayerPlan
from .rings import Rings
from .sectors import Sectors


class Work(NamedTuple):
    """Working memory of one call."""

    x: np.ndarray
    curve: np.ndarray
    segments: np.ndarray


class CompiledVoxels:
    """Rings and sectors of a trained model in flat arrays.

    Equal to `Rings.sample` and `Sectors.sample` up to rounding.
    """

    def __init__(self, plan: LayerPlan, rings: Rings, sectors: Sectors) -> None:
        collected = voxel_arrays.Collector()
        of_rings, of_sectors = (collected.add_all(one.models) for one in (rings, sectors))
        self.nodes = collected.finished()
        self.plan, self.threshold = plan, rings.threshold
        self.way = voxel_arrays.ring_way(plan, of_rings)
        self.turning = {
            position: voxel_arrays.sector_way(plan, position, of_sectors)
            for position, layer in enumerate(plan.geometry.layers)
            if layer.n_alpha > 1
        }
        bend = int(self.nodes.trees[:, voxel_arrays.N_BEND].max(initial=0))
        inputs = int(self.nodes.feature.max(initial=0)) + 1
        room = 64 + 2 * len(plan.geometry.layers)
        most = max([self.way.n_segments, *(2 * len(w.cells) for w in self.turning.values())])
        self._room = max(inputs, room), max(bend, 1), most

    def _work(self) -> Work:
        """Return working memory: one for each call, as calls may run at the same time."""
        inputs, bend, most = self._room
        return Work(np.zeros(inputs, np.float32), np.zeros(bend), np.zeros(most))

    def sample(self, known: Known, axes: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return voxels (n, voxels) float64.

        Parameters
        ----------
        axes : ndarray (n,) complex
        uniform : ndarray (n, k): numbers of all rings, then those of each layer with sectors
        """
        from .voxel_loops import make_rings, make_sectors

        n, layers, work = len(known.energies), self.plan.geometry.layers, self._work()
        features = known.all_features().astype(np.float32)
        ring_numbers = np.ascontiguousarray(uniform[:, : len(self.way.steps)])
        rings = np.empty((n, len(self.way.rings)))
        energies = np.ascontiguousarray(known.layers, dtype=np.float64)
        given = (features, energies, ring_numbers, self.threshold)
        make_rings(self.nodes, self.way, *given, work, rings)
        pairs = np.ascontiguousarray(np.column_stack([axes.real, axes.imag]))
        voxels = np.empty((n, self.plan.geometry.n_voxels))
        column, first = len(self.way.steps), 0
        for position, layer in enumerate(layers):
            own = np.ascontiguousarray(rings[:, first : first + layer.n_r])
            first += layer.n_r
            if layer.n_alpha == 1:
                voxels[:, layer.voxels] = own
                continue
            count = layer.n_r * (layer.n_alpha + 1)
            numbers = np.ascontiguousarray(uniform[:, column : column + count])
            column += count
            of_layer = (features, pairs, own, numbers, self.threshold)
            make_sectors(self.nodes, self.turning[position], *of_layer, work, voxels)
        return voxels


def compiled_voxels(
    asked: bool | None, plan: LayerPlan, rings: Rings, sectors: Sectors
) -> CompiledVoxels | None:
    """Return the compiled way, or None without numba; None asks for it where it can be.

    Raises MissingExtra if it was asked for and numba is not installed.
    """
    return CompiledVoxels(plan, rings, sectors) if may_compile(asked) else None
