"""Can boosted trees make showers of hundreds of voxels, on a CPU and in minutes?

    python -m experiments.calochallenge [photons|pions|large] [--smoke] [--data FOLDER] [-o FOLDER]

FOLDER of ``--data`` has ``calochallenge/dataset_1_photons_1.hdf5`` or has it directly (pions
likewise; ``large`` are the 6,480 voxels of dataset 2); without it toys of the study serve.
Half of the showers, by a hash of the row number, train; the other half judges. ``--left-out``
trains the first stage once more without one energy; ``--recipe`` runs CaloForest's recipe (in the
interpreter of ``--peers-python``) and the plain recipe of flow matching with trees on three
energies; ``--official EPOCHS`` trains the official classifier network. What is finished is kept in
the folder of ``-o``, and a study that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import copy
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common
from experiments.calochallenge import judge, official, published, recipe, tables
from experiments.calochallenge.comparison import CALOFOREST, FLOWBDT, OURS, Comparison, few_energies
from experiments.calochallenge.toys import SMOKE, toy_showers
from flowbdt.errors import DataWarning
from flowbdt.physics.calorimeter.geometry import geometry
from flowbdt.physics.calorimeter.model import ShowerModel
from flowbdt.physics.calorimeter.model.layer_energies import LayerEnergies
from flowbdt.physics.calorimeter.report import write_shower_report
from flowbdt.physics.calorimeter.scores.evaluate_showers import evaluate_showers
from flowbdt.physics.calorimeter.scores.histograms import official_separation
from flowbdt.physics.calorimeter.shower_files import Showers, read_showers, write_showers
from flowbdt.seeding import split_mask

GEOMETRIES = {"photons": "photons", "pions": "pions", "large": "dataset_2"}

FILES = {kind: f"dataset_1_{kind}_1.hdf5" for kind in GEOMETRIES} | {"large": "dataset_2_1.hdf5"}

TOYS = {"photons": 4000, "pions": 4000, "large": 1000}

EVERY = "without rejection"
"""The showers of the same stages, all of them kept."""

Figures = dict[str, Any]


def load(options: argparse.Namespace) -> tuple[Showers, bool]:
    """Return the showers, above the official threshold, and whether they come from a file."""
    shape = geometry(GEOMETRIES[options.kind])
    if options.data is not None:
        name = FILES[options.kind]
        for path in (options.data / "calochallenge" / name, options.data / name):
            if path.exists():
                rows = slice(0, 300 if options.smoke else options.showers)
                return read_showers(path, rows=rows).above(), True
        raise SystemExit(f"{options.data} has no {name}; 'flowbdt data list' tells where it is")
    return toy_showers(shape, 300 if options.smoke else TOYS[options.kind], 1).above(), False


def trained(train: Showers, smoke: bool, seed: int, rejection: bool) -> tuple[ShowerModel, Figures]:
    """Train; return the model and what that cost."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    settings = SMOKE if smoke else {}
    model = ShowerModel(**settings, rejection=rejection, random_state=seed).fit(train)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    cost = {"train_cpu_s": seconds, "peak_mib": peak / 1024, "n_parameters": model.n_parameters_}
    if model.ratio_ is not None:
        cost["acceptance"] = model.ratio_.acceptance
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
        result = official_separation(*counts, n_bootstrap=2)
        floor = float(result.settings.get("expected_floor", 0.0))
        figures[f"{one:g}"] = {"separation": float(result.value), "expected_floor": floor}
    return figures


class Study:
    """One run: its showers, its trained model, and the parts that are finished."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        showers, self.real_file = load(options)
        half = split_mask(showers.n, 0.5)
        self.train, self.test = showers.take(half), showers.take(~half)
        self.setting = {"kind": options.kind, "seed": options.seed, "smoke": options.smoke}
        self.setting |= {"showers": showers.n, "from_file": self.real_file}
        self.setting |= {"rejection": True} if options.rejection else {}
        self.parts: Figures = common.kept(options.output, {"setting": self.setting})
        if self.parts["setting"] != self.setting:
            raise SystemExit(
                f"{options.output} is of another study, {self.parts['setting']}: name a new folder"
            )

    def part(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return a part, computed now unless it is kept."""
        if name not in self.parts:
            self.parts[name] = compute()
            common.keep(self.parts, self.options.output)
        return self.parts[name]

    def model(self) -> ShowerModel:
        """Train, or load what was trained."""
        file = None if self.options.output is None else self.options.output / "model.npz"
        if file is not None and file.exists() and "training" in self.parts:
            return ShowerModel.load(file)
        options = self.options
        model, cost = trained(self.train, options.smoke, options.seed, options.rejection)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            model.save(file)
        self.part("training", lambda: cost)
        return model

    def judge(self, model: ShowerModel) -> dict[str, Figures]:
        """Generate, judge beside the floor, write the report."""
        folder, smoke = self.options.output, self.options.smoke
        new, speed = generated(model, self.test.energies, 100 + self.options.seed)
        found = evaluate_showers(self.test, new, judge.protocol(smoke), self.train)
        if folder is not None:
            write_showers(folder / "generated.hdf5", new)
            origin = "showers of the file" if self.real_file else "toys of the study"
            title = f"Showers: {self.options.kind}"
            if not smoke:
                notes = [f"{origin}, half to train"]
                write_shower_report(found, folder, title=title, notes=notes)
        ours = {**judge.figures(found.results), **speed, "showers": self.train.n}
        figures = {"ours": ours, "floor": judge.figures(found.results, floors=True)}
        if model.ratio_ is not None:
            stages = copy.copy(model)
            stages.ratio_ = None
            every, speed = generated(stages, self.test.energies, 100 + self.options.seed)
            figures[EVERY] = {**judge.judged(self.test, every, smoke), **speed}
        return figures

    def recipes(self, model: ShowerModel) -> dict[str, Figures]:
        """Return ours, the recipes and the floor on three energies."""
        train, test = few_energies(self.train, self.test)
        rings = self.options.recipe == "rings"
        given = (train, test, rings, self.options.peers_python, self.options.smoke)
        folder = None if self.options.output is None else self.options.output / "recipes"
        return Comparison(*given).run(model, folder)

    def official(self, model: ShowerModel) -> Figures:
        """Return what the official network finds."""
        new = model.sample(self.test.energies, random_state=100 + self.options.seed)
        return official.judged(self.test, new, self.options.official, self.options.smoke)

    def run(self) -> dict[str, Figures]:
        """Return the figures of all parts."""
        options = self.options
        model = self.model()
        figures: dict[str, Figures] = dict(self.part("judged", lambda: self.judge(model)))
        figures["ours"] = {**figures["ours"], **self.parts["training"]}
        if self.train.geometry.dataset == 1:
            outputs = 1 if options.smoke else options.outputs
            full = self.part("full", lambda: recipe.extrapolated(self.train, outputs))
            figures["caloforest_recipe"] = {**full, "extrapolated": True}
        if options.recipe:
            found = self.part("recipes", lambda: self.recipes(model))
            whole = {f"full_{k}": v for k, v in figures.get("caloforest_recipe", {}).items()}
            figures |= {"ours_few": found[OURS], "floor_few": found["floor"]}
            figures["flowbdt_recipe"] = found[FLOWBDT]
            if CALOFOREST in found:
                figures["caloforest_recipe"] = {**found[CALOFOREST], **whole}
        if options.official:
            figures["official"] = self.part("official", lambda: self.official(model))
        if options.left_out:
            left = (self.train, self.test, options.left_out, options.smoke)
            figures["left_out"] = self.part("left_out", lambda: interpolation(*left))
        return figures


def table(figures: dict[str, Figures], kind: str, real_file: bool) -> str:
    """Return what was measured, and the published submissions where the showers are from a file."""
    whole = [name for name in ("ours", EVERY, "floor") if name in figures]
    parts = [tables.measured({name: figures[name] for name in whole})]
    few = {
        OURS: "ours_few",
        CALOFOREST: "caloforest_recipe",
        FLOWBDT: "flowbdt_recipe",
        "floor": "floor_few",
    }
    if "ours_few" in figures:
        shown = {name: figures[key] for name, key in few.items() if "auc_low" in figures[key]}
        parts.append("Three energies:\n\n" + tables.measured(shown))
    if real_file and kind in published.TABLES:
        parts.append(tables.submissions(kind))
    return "\n\n".join(parts)


def main() -> None:
    """Run, print the tables, end in JSON."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("kind", nargs="?", default="photons", choices=sorted(GEOMETRIES))
    parser.add_argument("--seed", type=int, default=1, help="of training (%(default)s)")
    parser.add_argument("--showers", type=int, help="of the file, the first ones; all by default")
    parser.add_argument("--outputs", type=int, default=4, help="voxels of a timed fit")
    parser.add_argument(
        "--recipe",
        nargs="?",
        const="rings",
        choices=("rings", "voxels"),
        help="recipes of others, on energies of rings (%(const)s), or on voxels: many hours",
    )
    parser.add_argument(
        "--peers-python", type=Path, metavar="FILE", help="interpreter with forest_diffusion_mo"
    )
    parser.add_argument(
        "--official", type=int, default=0, metavar="EPOCHS", help="of the official network"
    )
    parser.add_argument("--rejection", action="store_true", help="of unlike showers, and without")
    parser.add_argument("--left-out", type=float, metavar="MEV", help="energy to interpolate")
    options = parser.parse_args()
    warnings.simplefilter("ignore", DataWarning)
    study = Study(options)
    figures = study.run()
    text = table(figures, options.kind, study.real_file)
    print(text)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        Path(options.output / "tables.md").write_text(text + "\n")
    common.finish(figures, options.output, "calochallenge")


if __name__ == "__main__":
    main()
