"""What both studies share: showers to be like, a network, and how its showers are judged."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowbdt import integrate, seeding
from flowbdt.evaluation.metrics.base import Result
from flowbdt.flow.solvers import SOLVERS
from flowbdt.networks.shower_network import ShowerNetwork
from flowbdt.networks.voxel_coordinates import conditions
from flowbdt.physics import read_showers, toy_showers
from flowbdt.physics.calorimeter.scores.features import high_level_features
from flowbdt.physics.calorimeter.scores.histograms import separations
from flowbdt.physics.calorimeter.scores.shower_judges import (
    fast_auc,
    high_level_inputs,
    low_level_inputs,
    shower_fpd,
)
from flowbdt.physics.calorimeter.shower_files import Showers
from flowbdt.trees.boosted_trees import make_classifier

Line = dict[str, Any]


def load(options: Any) -> tuple[Showers, Showers]:
    """Return showers to train and to judge."""
    if options.data is None:
        showers = toy_showers("photons", 240 if options.smoke else 4000, seed=1)
    else:
        showers = read_showers(options.data / "calochallenge" / "dataset_1_photons_1.hdf5")
    half = seeding.split_mask(showers.n, 0.5)
    train, test = showers.above().take(half), showers.above().take(~half)
    return train, test.take(slice(0, options.showers))


class Judge:
    """Held-out showers, the energies of layers that all contenders share, and their scores."""

    def __init__(self, test: Showers, layers: np.ndarray, smoke: bool = False) -> None:
        self.test, self.energies, self.layers, self.smoke = test, test.energies, layers, smoke
        self.cond = conditions(self.energies, self.layers)

    def shower_of(
        self,
        network: ShowerNetwork,
        spec: dict[str, Any],
        grid: np.ndarray,
        start: Any = None,
        seed: int = 1,
    ) -> Showers:
        """Return showers by a solver on a grid, from noise or from points of its first time."""
        rng = np.random.default_rng(11 + seed)
        x0 = rng.standard_normal(self.test.voxels.shape)
        if start is not None:
            x0 = grid[0] * start + (1.0 - grid[0]) * x0
        solver = SOLVERS.build(spec["solver"])
        x = integrate(solver, network.field, x0, grid, self.cond, rng=rng).x
        return network.coordinates.inverse(x, self.energies, self.layers)

    def scored(self, made: Showers, auc: bool) -> Line:
        """Return score -> [value, error], against the showers to be like."""
        n = min(made.n, self.test.n)
        real, made, smoke = self.test.take(slice(0, n)), made.take(slice(0, n)), self.smoke
        each = separations(real, made, n_bootstrap=2 if smoke else 10, seed=1)
        of_real, of_made = high_level_features(real), high_level_features(made)
        mean = np.mean([[r.value, r.error] for r in each], axis=0)
        by_name = {str(r.column): [float(r.value), float(r.error)] for r in each}
        batches: Any = {"min_samples": n // 3, "max_samples": n, "n_batches": 4 if smoke else 10}
        line: Line = {"separation": mean.tolist(), **by_name}
        line["fpd"] = _pair(shower_fpd(of_real, of_made, **batches))
        if auc and not smoke:
            inputs = {"high": [high_level_inputs(one) for one in (of_real, of_made)]}
            inputs["low"] = [low_level_inputs(one) for one in (real, made)]
            few: Any = {"n_model_seeds": 1, "n_split_seeds": 1}
            for level, (one, other) in inputs.items():
                judged = fast_auc(one, other, level, make_classifier, **few)
                line[f"auc_{level}"] = _pair(judged)
        return line


def _pair(result: Result) -> list[float]:
    return [float(result.value), float(result.error)]
