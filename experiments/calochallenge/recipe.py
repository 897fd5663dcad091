"""The recipe of CaloForest, to time and to run cut down: min-max on raw MeV, a model per energy.

From the description of arXiv 2408.16046, section 4.3 and table 9: noise at t = 1, data at t = 0,
one XGBoost model per time and incident energy with a tree per voxel and round, every shower
repeated K times with other noise, Euler steps, clipping to the range of the training showers.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb

from flowbdt.physics.calorimeter.shower_files import Showers

PUBLISHED = {"n_times": 100, "n_repeats": 20}
BOOSTER = {"max_depth": 7, "learning_rate": 1.5, "reg_lambda": 1.0, "tree_method": "hist"}
ROUNDS = 20
PARAMETERS_PER_TREE = 347.6
"""Of the published photon model: 3,837,598,845 parameters, 11.04 million trees."""

CUT: dict[str, Any] = {
    "n_t": 20,
    "duplicate_K": 4,
    "diffusion_type": "flow",
    "multi_output": False,
    "eps": 0.0,
    "xgb_hypers": {
        "n_estimators": ROUNDS,
        "max_depth": 7,
        "learning_rate": 1.5,
        "reg_lambda": 1.0,
        "max_bin": 64,
        "n_jobs": 1,
    },
}
"""Published settings but for 20 times in place of 100, K = 4 for 20, and 64 bins for 256."""

SMOKE: dict[str, Any] = {
    **CUT,
    "n_t": 3,
    "duplicate_K": 1,
    "xgb_hypers": {**CUT["xgb_hypers"], "n_estimators": 1},
}

DRIVER = Path(__file__).with_name("peer.py")


def scaled(voxels: np.ndarray) -> np.ndarray:
    """Return voxels between -1 and 1; constant ones as -1."""
    low, high = voxels.min(axis=0), voxels.max(axis=0)
    return 2 * (voxels - low) / np.where(high > low, high - low, 1.0) - 1


def fit_once(x: np.ndarray, t: float, n_repeats: int, outputs: slice, seed: int) -> float:
    """Fit one time of one energy, for some of the outputs; return its CPU seconds."""
    data = np.repeat(x, n_repeats, axis=0)
    noise = np.random.default_rng(seed).standard_normal(data.shape)
    start = time.process_time()
    table = xgb.QuantileDMatrix((1 - t) * data + t * noise, (noise - data)[:, outputs], nthread=1)
    xgb.train({**BOOSTER, "nthread": 1}, table, ROUNDS)
    return time.process_time() - start


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
        x = scaled(train.voxels[train.energies == energy].astype(np.float64))
        first = min(number * 100, x.shape[1] - n_outputs)
        t = (number + 0.5) / n_fits
        outputs = slice(first, first + n_outputs)
        seconds.append(fit_once(x, t, PUBLISHED["n_repeats"], outputs, number))
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


def caloforest(
    train: Showers, energies: np.ndarray, python: Path, settings: dict[str, Any]
) -> tuple[Showers, dict[str, Any]]:
    """Train forest_diffusion_mo on showers, generate one per energy; return them and the cost.

    Parameters
    ----------
    energies : ndarray (n,), MeV, all of them among those of ``train``
    python : interpreter of an environment that has forest_diffusion_mo
    settings : of ``ForestModel``

    Raises
    ------
    SystemExit
        If the package fails; with its last words.
    """
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        job: dict[str, Any] = {"settings": settings}
        job |= {key: str(place / f"{key}.npy") for key in ("rows", "labels", "wanted", "out")}
        job["figures"] = str(place / "figures.json")
        np.save(job["rows"], train.voxels)
        np.save(job["labels"], train.energies)
        np.save(job["wanted"], energies)
        (place / "job.json").write_text(json.dumps(job))
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        done = subprocess.run(
            [str(python), str(DRIVER), "job.json"],
            cwd=place,
            env={**os.environ, **limits},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"forest_diffusion_mo failed in {python}: {done.stderr[-1500:]}")
        voxels = np.maximum(np.load(job["out"]), 0).astype(np.float32)
        figures = json.loads(Path(job["figures"]).read_text())
    return Showers.of(energies, voxels, train.geometry).above(), figures
