"""One shower after the other, without the cost of a call for many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .... import seeding
from ....errors import InputError
from .layer_plan import Known

if TYPE_CHECKING:
    from .shower_model import ShowerModel


class ShowerSampler:
    """Showers one by one, the same as `ShowerModel.sample` gives for the seed and these energies.

    Made for simulations that ask for one particle at a time. Not safe to share between threads;
    give each its own, with a seed of its own.

    Parameters
    ----------
    model : a trained shower model
    seed : int
    """

    def __init__(self, model: ShowerModel, seed: int) -> None:
        self._model, self._seed = model, seed
        self._flow = model.energies_.model.sampler(random_state=seed)
        self._row = 0

    def one(self, energy: float) -> np.ndarray:
        """Return the voxels of the next shower, (voxels,) float32, MeV.

        Parameters
        ----------
        energy : incident energy, MeV

        Raises
        ------
        InputError
            If the energy is not positive and finite.
        """
        if not 0 < energy < np.inf:
            raise InputError(f"incident energies must be positive and finite, in MeV; got {energy}")
        self._next_streams()
        energies = np.array([float(energy)])
        total_z = self._total.standard_normal()
        rest = self._flow.one(cond=np.array([np.log(energies[0]), total_z]))
        z = np.concatenate([[total_z], np.asarray(rest, dtype=np.float64)])
        layers = self._model.energies_.decoded(energies, z[None, :])
        known = Known(self._model.plan_, energies, layers)
        self._row += 1
        voxels: np.ndarray = self._model.voxels(known, self._cells)[0]
        return voxels

    def _next_streams(self) -> None:
        """Go to the random numbers of the next block, where one begins."""
        block, place = divmod(self._row, seeding.BLOCK)
        if place == 0:
            self._total = seeding.stream(self._seed, "shower-total", block)
        block, place = divmod(self._row, self._model.block_rows)
        if place == 0:
            self._cells = seeding.stream(self._seed, "shower-voxels", block)
