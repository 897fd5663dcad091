"""Can boosted trees make showers of hundreds of voxels, on a CPU and in minutes?

    python -m experiments.calochallenge [photons|pions|large] [--smoke] [--data FOLDER] [-o FOLDER]

FOLDER of ``--data`` has ``calochallenge/dataset_1_photons_1.hdf5`` or has it directly (pions
likewise); without it, and for ``large`` (the 6,480 voxels of dataset 2), toys of the study serve.
Half of the showers, by a hash of the row number, train; the other half judges. ``--left-out``
trains once more without one energy and generates it; ``--recipe`` runs CaloForest's recipe, cut to
20 times and four repetitions, on three energies, beside our showers of the same energies.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common
from experiments.calochallenge import judge, published, recipe
from experiments.calochallenge.toys import toy_showers
from flowbdt.datasets.calochallenge import Showers, read_showers
from flowbdt.datasets.calogeometry import geometry
from flowbdt.errors import DataWarning
from flowbdt.showers import ShowerModel
from flowbdt.showers.energies import LayerEnergies
from flowbdt.split import split_mask

GEOMETRIES = {"photons": "photons", "pions": "pions", "large": "dataset_2"}

TOYS = {"photons": 4000, "pions": 4000, "large": 1000}

SMOKE: dict[str, Any] = {
    "flow": {
        "preset": "fast",
        "n_steps": 3,
        "preconditioner": "gaussian",
        "booster": {"n_estimators": 2, "max_depth": 2},
    },
    "rings": {"location_trees": 2, "cdf_trees": 1, "depth": 2},
    "sectors": {"cdf_trees": 1, "depth": 3},
    "most_rows": 3000,
}

SHOWN = (
    *("separation_etot", "separation_mean", "auc_high", "auc_low"),
    *("train_cpu_s", "peak_mib", "n_parameters", "ms_bulk", "ms_one"),
)

Figures = dict[str, Any]


def load(options: argparse.Namespace) -> tuple[Showers, bool]:
    """Return the showers, above the official threshold, and whether they come from a file."""
    shape = geometry(GEOMETRIES[options.kind])
    if options.data is not None and options.kind != "large":
        name = f"dataset_1_{options.kind}_1.hdf5"
        for path in (options.data / "calochallenge" / name, options.data / name):
            if path.exists():
                return read_showers(path).above(), True
        raise SystemExit(f"{options.data} has no {name}; the public file is on Zenodo, 8099322")
    return toy_showers(shape, 300 if options.smoke else TOYS[options.kind], 1).above(), False


def trained(train: Showers, smoke: bool, seed: int) -> tuple[ShowerModel, Figures]:
    """Train; return the model and what that cost."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    model = ShowerModel(**(SMOKE if smoke else {}), random_state=seed).fit(train)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    cost = {"train_cpu_s": seconds, "peak_mib": peak / 1024, "n_parameters": model.n_parameters_}
    return model, cost


def generated(model: ShowerModel, energies: np.ndarray, seed: int) -> tuple[Showers, Figures]:
    """Generate, in bulk and one by one; return the showers and CPU milliseconds per shower."""
    model.sample(energies[:50], random_state=seed)  # what is loaded only once
    start = time.process_time()
    new = model.sample(energies, random_state=seed)
    bulk = time.process_time()
    sampler = model.sampler(random_state=seed)
    sampler.one(energies[0])
    first = time.process_time()
    for energy in energies[:100]:
        sampler.one(energy)
    last = time.process_time()
    shown = min(len(energies), 100)
    cost = {"ms_bulk": 1e3 * (bulk - start) / len(energies), "ms_one": 1e3 * (last - first) / shown}
    return new, cost


def interpolation(train: Showers, test: Showers, energy: float, smoke: bool) -> Figures:
    """Return separations of Etot/Einc at an energy that training never saw, and its neighbours.

    The total energy is decided by the first stage alone, and only this one is trained here.
    """
    known = np.unique(train.energies)
    at = int(np.searchsorted(known, energy))
    rest = train.take(train.energies != energy)
    layers = rest.geometry.layer_energies(rest.voxels)
    stage = LayerEnergies(SMOKE["flow"] if smoke else {})
    stage.fit(rest.energies, layers, rest.geometry.min_energy, 1)
    figures: Figures = {}
    for one in known[max(at - 1, 0) : at + 2]:
        both = [part.take(part.energies == one) for part in (train, test)]
        real = np.concatenate([part.voxels.sum(axis=1, dtype=np.float64) for part in both]) / one
        new = stage.sample(np.full(len(real), one), 2).sum(axis=1) / one
        edges = np.linspace(0.5, 1.5, 101)
        counts = [np.histogram(part, edges)[0] for part in (real, new)]
        result = judge.calo.official_separation(*counts, n_bootstrap=2)
        floor = float(result.settings.get("expected_floor", 0.0))
        figures[f"{one:g}"] = {"separation": float(result.value), "expected_floor": floor}
    return figures


def recipes(train: Showers, test: Showers, model: ShowerModel, smoke: bool) -> dict[str, Figures]:
    """Return figures of CaloForest's recipe cut down, and of ours, on three energies."""
    known = np.unique(train.energies)
    energies = known[np.linspace(0, len(known) - 1, 3).astype(int)]
    real = test.take(np.isin(test.energies, energies))
    settings = {"n_times": 2, "n_repeats": 1} if smoke else {"n_times": 20, "n_repeats": 4}
    start = time.process_time()
    theirs = recipe.generate(train, [float(e) for e in energies], **settings, seed=1)
    seconds = time.process_time() - start
    ours = model.sample(real.energies, random_state=3)
    repeats = 1 if smoke else 3
    return {
        "caloforest_recipe_cut": {
            **judge.judged(real, theirs, repeats),
            "train_and_generate_cpu_s": seconds,
        },
        "ours_same_energies": judge.judged(real, ours, repeats),
    }


def study(options: argparse.Namespace) -> tuple[dict[str, Figures], bool]:
    """Train, generate and judge; return all figures, and whether the showers are from a file."""
    showers, real_file = load(options)
    half = split_mask(showers.n, 0.5)
    train, test = showers.take(half), showers.take(~half)
    model, cost = trained(train, options.smoke, options.seed)
    new, speed = generated(model, test.energies, 100 + options.seed)
    repeats = 1 if options.smoke else 3
    figures: dict[str, Figures] = {
        "ours": {**judge.judged(test, new, repeats), **cost, **speed, "showers": train.n},
        "floor": judge.judged(test, train, repeats),
    }
    if showers.geometry.dataset == 1:
        outputs = 1 if options.smoke else options.outputs
        figures["caloforest_recipe"] = recipe.extrapolated(train, outputs)
    if options.recipe:
        figures |= recipes(train, test, model, options.smoke)
    if options.left_out:
        figures["left_out"] = interpolation(train, test, options.left_out, options.smoke)
    return figures, real_file


def table(figures: dict[str, Figures], kind: str, real_file: bool) -> str:
    """Return what was measured, and the published submissions where the showers are from a file."""
    rows = [
        {"sample": key, **{n: f"{value[n]:.4g}" for n in SHOWN if n in value}}
        for key, value in figures.items()
        if "train_cpu_s" in value or "auc_low" in value
    ]
    text = common.markdown([{"sample": "", **dict.fromkeys(SHOWN, "")} | row for row in rows])
    if real_file and kind in published.TABLES:
        stored = [
            dict(
                zip(
                    published.COLUMNS,
                    ("" if cell is None else str(cell) for cell in row),
                    strict=True,
                )
            )
            for row in published.TABLES[kind]
        ]
        text += "\n\nPublished, at 121,000 showers:\n\n" + common.markdown(stored)
    return text


def main() -> None:
    """Run, print the tables, end in JSON."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("kind", nargs="?", default="photons", choices=sorted(GEOMETRIES))
    parser.add_argument("--seed", type=int, default=1, help="of training (%(default)s)")
    parser.add_argument("--outputs", type=int, default=4, help="voxels of a timed fit")
    parser.add_argument("--recipe", action="store_true", help="CaloForest's recipe, cut down")
    parser.add_argument("--left-out", type=float, metavar="MEV", help="energy to interpolate")
    options = parser.parse_args()
    warnings.simplefilter("ignore", DataWarning)
    figures, real_file = study(options)
    text = table(figures, options.kind, real_file)
    print(text)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        Path(options.output / "tables.md").write_text(text + "\n")
    common.finish(figures, options.output, "calochallenge")


if __name__ == "__main__":
    main()
