"""Generation of voxels by the core: the showers of `Rings` and `Sectors`, sooner."""

from __future__ import annotations

import ctypes
from typing import Self

import numpy as np

from ....generation.native.core import POINTER, SIZE, Content, Part, contiguous, function
from ....generation.packed.array_file import file_bytes
from .energy_division import LayerPlan, ShowerEnergies
from .rings import Rings
from .sectors import Sectors
from .voxel_arrays import voxel_arrays


class CompiledVoxels(Part):
    """Divisions into rings and sectors, for the voxels of `Rings` and `Sectors` up to rounding.

    ``content`` is a file of `voxel_arrays`.
    """

    KIND = "showers"

    def __init__(self, content: Content, threshold: float) -> None:
        super().__init__(content, "this model of showers")
        self.threshold = threshold
        self.n_known, self.n_layers, self.n_voxels, self.n_uniform = self.sizes
        kinds = [*[POINTER] * 5, ctypes.c_double, SIZE, POINTER]
        self._fill = function("flowbdt_fill_showers", *kinds)

    @classmethod
    def of(cls, plan: LayerPlan, rings: Rings, sectors: Sectors) -> Self:
        """Return those of a model. Raises ConfigError if trees are too deep for the core."""
        return cls(file_bytes(voxel_arrays(plan, rings, sectors)), rings.threshold)

    def sample(self, energies: ShowerEnergies, axes: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return voxels (n, voxels) float64 from complex axes (n,) and uniform numbers (n, k)."""
        return self.filled(energies.all_features(), energies.layers, axes, uniform)

    def filled(
        self, known: np.ndarray, layers: np.ndarray, axes: np.ndarray, uniform: np.ndarray
    ) -> np.ndarray:
        """Return the same from features (n, layers, f) and energies (n, layers) of layers."""
        n = len(layers)
        shape = (n, self.n_layers, self.n_known)
        inputs = (
            contiguous(known, shape, "features of layers", np.float32),
            contiguous(layers, shape[:2], "layer energies"),
            contiguous(axes, (n,), "axes", np.complex128),
            contiguous(uniform, (n, self.n_uniform), "uniform numbers"),
        )
        voxels = np.empty((n, self.n_voxels))
        places = (each.ctypes.data for each in inputs)
        self._fill(self.handle, *places, self.threshold, n, voxels.ctypes.data)
        return voxels
