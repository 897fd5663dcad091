"""The plain recipe of flow matching with trees: all columns at once, no layers, no zeros."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from experiments.ablation.variants import REFERENCE as RECIPE
from flowbdt.atomic_files import parse_json
from flowbdt.model import FlowBDT
from flowbdt.physics.calorimeter.shower_files import Showers
from flowbdt.training import run_directory
from flowbdt.trees.share_distribution import flow_parameters

REFERENCE: dict[str, Any] = {
    **RECIPE,
    "n_steps": 10,
    "noise": {**RECIPE["noise"], "n_repeats": 2},
    "booster": {**RECIPE["booster"], "max_bin": 64, "split_outputs": 8},
}
"""The recipe of arXiv 2404.18219 with 10 times in place of 20, K = 2 and 64 bins; a tree has all
columns in its leaves, and seeks its splits on 8 of them, drawn anew for each tree."""

SMOKE: dict[str, Any] = {
    **REFERENCE,
    "n_steps": 2,
    "booster": {**REFERENCE["booster"], "n_estimators": 1},
}


def generated(
    train: Showers, energies: np.ndarray, settings: dict[str, Any]
) -> tuple[Showers, dict[str, float]]:
    """Train on all voxels given the logarithm of the incident energy; return showers and costs."""
    start = time.process_time()
    model = FlowBDT(**settings, random_state=1)
    model.fit(train.voxels.astype(np.float64), cond=np.log(train.energies)[:, None])
    end = time.process_time()
    voxels = np.asarray(model.sample(cond=np.log(energies)[:, None], random_state=2))
    bulk = time.process_time() - end
    new = Showers.of(energies, np.maximum(voxels, 0).astype(np.float32), train.geometry)
    archive = run_directory.Archive("recipe", model.archive_)
    names = parse_json(archive.read("manifest.json"), "manifest.json")["models"]
    cost = {
        "train_cpu_s": end - start,
        "ms_bulk": 1e3 * bulk / len(energies),
        "n_parameters": sum(flow_parameters(archive.read(name)) for name in names),
    }
    return new.above(), cost
