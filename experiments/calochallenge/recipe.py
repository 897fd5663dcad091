"""The recipe of CaloForest, to time and to compare: min-max on raw MeV, a model per energy.

Written from the description of arXiv 2408.16046, section 4.3 and table 9: noise at t = 1, data at
t = 0, one XGBoost model per time and incident energy with a tree per voxel and round, every shower
repeated K times with other noise, Euler steps, clipping to the range of the training showers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xgboost as xgb

from flowbdt.datasets.calochallenge import Showers

PUBLISHED = {"n_times": 100, "n_repeats": 20}
BOOSTER = {"max_depth": 7, "learning_rate": 1.5, "reg_lambda": 1.0, "tree_method": "hist"}
ROUNDS = 20
PARAMETERS_PER_TREE = 347.6
"""Of the published photon model: 3,837,598,845 parameters, 11.04 million trees."""


@dataclass(frozen=True)
class Scaled:
    """Showers of one energy with every voxel between -1 and 1."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, voxels: np.ndarray) -> Scaled:
        """Learn the range of every voxel."""
        return cls(voxels.min(axis=0), voxels.max(axis=0))

    def forward(self, voxels: np.ndarray) -> np.ndarray:
        """Return voxels between -1 and 1."""
        width = np.where(self.high > self.low, self.high - self.low, 1.0)
        return 2 * (voxels - self.low) / width - 1

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """Return MeV, within the range that was learned."""
        return np.clip(self.low + (x + 1) / 2 * (self.high - self.low), self.low, self.high)


def fit_once(
    x: np.ndarray, t: float, n_repeats: int, outputs: slice, seed: int
) -> tuple[xgb.Booster, float]:
    """Fit one time of one energy, for some of the outputs; return it and its CPU seconds."""
    data = np.repeat(x, n_repeats, axis=0)
    noise = np.random.default_rng(seed).standard_normal(data.shape)
    start = time.process_time()
    table = xgb.QuantileDMatrix((1 - t) * data + t * noise, (noise - data)[:, outputs], nthread=1)
    booster = xgb.train({**BOOSTER, "nthread": 1}, table, ROUNDS)
    return booster, time.process_time() - start


def extrapolated(train: Showers, n_outputs: int, n_fits: int = 3) -> dict[str, float]:
    """Return CPU seconds and parameters of the whole recipe from a few fits of some outputs.

    Parameters
    ----------
    n_outputs : voxels for which trees are grown in each of the timed fits
    n_fits : how many, at different energies and times
    """
    energies = np.unique(train.energies)
    chosen = energies[np.linspace(0, len(energies) - 1, n_fits).astype(int)]
    seconds = []
    for number, energy in enumerate(chosen):
        voxels = train.voxels[train.energies == energy].astype(np.float64)
        x = Scaled.of(voxels).forward(voxels)
        first = min(number * 100, x.shape[1] - n_outputs)
        t = (number + 0.5) / n_fits
        outputs = slice(first, first + n_outputs)
        seconds.append(fit_once(x, t, PUBLISHED["n_repeats"], outputs, number)[1])
    fits = len(energies) * PUBLISHED["n_times"]
    trees = fits * ROUNDS * train.voxels.shape[1]
    whole = float(np.mean(seconds)) * train.voxels.shape[1] / n_outputs
    return {
        "train_cpu_s": whole * fits,
        "n_parameters": trees * PARAMETERS_PER_TREE,
        "timed_fits": n_fits,
        "timed_outputs": n_outputs,
        "cpu_s_per_fit": whole,
    }


def generate(
    train: Showers, energies: Sequence[float], n_times: int, n_repeats: int, seed: int
) -> Showers:
    """Return as many showers of each energy as there are to train on, by the recipe cut down."""
    parts, rng = [], np.random.default_rng(seed)
    for energy in energies:
        voxels = train.voxels[train.energies == energy].astype(np.float64)
        scale = Scaled.of(voxels)
        x = scale.forward(voxels)
        y = rng.standard_normal(x.shape)
        for step in range(n_times, 0, -1):
            whole = slice(0, x.shape[1])
            booster, _ = fit_once(x, step / n_times, n_repeats, whole, seed)
            y -= booster.inplace_predict(y).reshape(y.shape) / n_times
        parts.append(scale.inverse(y))
    counts = [int((train.energies == energy).sum()) for energy in energies]
    new = np.vstack(parts).astype(np.float32)
    return Showers.of(np.repeat(energies, counts), np.maximum(new, 0), train.geometry)
