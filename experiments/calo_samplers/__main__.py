"""Which sampler makes the best showers for a number of evaluations of a network?

    python -m experiments.calo_samplers [--smoke] [--data FOLDER] [--network FILE] [-o FOLDER]

Samplers and schedules at equal numbers of evaluations of one network of calorimeter voxels, DDPM
and Restart at many, and showers of trees that the network finishes. FOLDER has
``calochallenge/dataset_1_photons_1.hdf5``; without it toys are used. FILE is of ``flowbdt showers
train-network``; without it one is trained. What is finished is kept in the output folder. Needs
torch; figures need matplotlib.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from experiments import common
from experiments.calo_samplers import figure
from experiments.calochallenge.toys import SMOKE
from experiments.samplers import settings
from flowbdt import integrate, seeding
from flowbdt.evaluation.metrics.base import Result
from flowbdt.flow.parametrisations import FlowMatching
from flowbdt.flow.schedules import SCHEDULES
from flowbdt.flow.solvers import SOLVERS
from flowbdt.networks import Trainer, TrainingConfig
from flowbdt.networks.hybrid import stretch
from flowbdt.networks.shower_network import ShowerNetwork, shower_trainer, train_shower_network
from flowbdt.networks.voxel_coordinates import conditions
from flowbdt.physics import read_showers, toy_showers
from flowbdt.physics.calorimeter.model import ShowerModel
from flowbdt.physics.calorimeter.model.energy_division import ShowerEnergies
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

LINE = FlowMatching()
BUDGETS = (5, 10, 20, 50)
MANY = {"DDPM": (100, 200), "UniPC-2": (100,), "Restart (Heun)": (100,)}
RESTART_STEPS = 18
WARM = ((0.5, 3), (0.5, 7), (0.75, 3), (0.75, 7), (0.9, 3))
"""Times up to which noise is added to a shower of the trees, and evaluations from there."""

NETWORK: dict[str, Any] = {"name": "table_mlp", "width": 384, "n_layers": 3}
TRAINING: dict[str, Any] = {"n_steps": 1200, "batch_size": 256, "ema": 0.995}
TURNS = 8

SMOKE_NAMES = ("Euler = DDIM", "UniPC-2", "DDPM")
TREES = "trees alone"
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


def trained(train: Showers, options: Any) -> ShowerNetwork:
    """Return the network of the file, or a new one."""
    if options.network is not None:
        return ShowerNetwork.load(options.network, options.device)
    backbone, training = NETWORK, {**TRAINING, "device": options.device, "seed": options.seed}
    if options.smoke:
        backbone, training = {**NETWORK, "width": 16}, {**training, "n_steps": 5}
    config = TrainingConfig(**training)
    trainer: Trainer = shower_trainer(train, backbone, "edm", config)
    flow = SMOKE["flow"] if options.smoke else {}
    return train_shower_network(train, trainer, flow=flow, turns=1 if options.smoke else TURNS)


class Study:
    """Showers to be like, the network, and energies of layers that all contenders share."""

    def __init__(self, options: Any) -> None:
        self.options, (self.train, self.test) = options, load(options)
        self.network = trained(self.train, options)
        self.energies = self.test.energies
        self.layers = self.network.energies.sample(self.energies, options.seed)
        self.cond = conditions(self.energies, self.layers)

    def shower_of(self, spec: dict[str, Any], grid: np.ndarray, start: Any = None) -> Showers:
        """Return showers by a solver on a grid, from noise or from points of its first time."""
        rng, field = np.random.default_rng(11 + self.options.seed), self.network.field
        x0 = rng.standard_normal(self.test.voxels.shape)
        if start is not None:
            x0 = grid[0] * start + (1.0 - grid[0]) * x0
        solver = SOLVERS.build(spec["solver"])
        x = integrate(solver, field, x0, grid, self.cond, rng=rng).x
        return self.network.coordinates.inverse(x, self.energies, self.layers)

    def of_trees(self) -> Showers:
        """Return showers of the tree model at the same energies."""
        if self.options.trees is not None:
            model = ShowerModel.load(self.options.trees)
        else:
            given: dict[str, Any] = SMOKE if self.options.smoke else {}
            model = ShowerModel(**given, random_state=self.options.seed).fit(self.train)
        rng = seeding.stream(self.options.seed, "hybrid-showers")
        voxels = model.voxels(ShowerEnergies(model.plan_, self.energies, self.layers), rng)
        return Showers(self.energies, voxels, model.geometry_)

    def contenders(self) -> list[tuple[str, dict[str, Any], int]]:
        """Return sampler, its settings and its number of steps, for every budget."""
        found = []
        every = (self.options.samplers or ";".join(settings.SAMPLERS)).split(";")
        for name in SMOKE_NAMES if self.options.smoke else every:
            budgets = (5,) if self.options.smoke else (*BUDGETS, *MANY.get(name, ()))
            spec = settings.SAMPLERS[name]
            steps = {settings.steps_for(spec, budget, LINE) for budget in budgets}
            steps |= {RESTART_STEPS} if name == "Restart (Heun)" else set()
            found += [(name, spec, n) for n in sorted(n for n in steps if n is not None)]
        return found

    def scored(self, made: Showers, auc: bool) -> Line:
        """Return score -> [value, error], against the showers to be like."""
        n = min(made.n, self.test.n)
        real, made, smoke = self.test.take(slice(0, n)), made.take(slice(0, n)), self.options.smoke
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


def run(study: Study) -> list[Line]:
    """Return a line for the floor, every sampler, the trees, and every hybrid."""
    options = study.options
    lines: dict[str, Line] = common.kept(options.output, {})
    judged = (options.auc or "").split(";")

    def add(name: str, make: Any, asked: int, **about: Any) -> None:
        if name in lines and (name not in judged or "auc_high" in lines[name]):
            return
        start = time.process_time()
        made = make()
        cost = 1e3 * (time.process_time() - start) / made.n
        line = {"contender": name, "evaluations": asked, "ms_per_shower": cost, **about}
        lines[name] = {**line, **study.scored(made, name in judged)}
        print({k: lines[name].get(k) for k in ("contender", "evaluations", *figure.SCORES)})
        common.keep(lines, options.output)

    add(figure.FLOOR, lambda: study.train.take(slice(0, study.test.n)), 0)
    if not options.no_trees:
        start = study.of_trees()
        add(TREES, lambda: start, 0)
        x = study.network.coordinates.forward(start, np.random.default_rng(12))
        for at, n in WARM[: 1 if options.smoke else None]:
            grid, spec = stretch("uniform", n, at, 1.0), {"solver": "unipc"}
            make = lambda g=grid, s=spec: study.shower_of(s, g, x)  # noqa: E731
            hybrid = "trees, noise, UniPC"
            add(f"trees, noise to t = {at:g}, UniPC {n}", make, n, sampler=hybrid)
    for name, spec, n in study.contenders():
        grid = SCHEDULES.build(spec["spacing"])(n)
        asked = common.n_evaluations({**spec, "n_steps": n})
        about = {"sampler": name, "settings": {**spec, "n_steps": n}}
        add(f"{name}, {n} steps", lambda s=spec, g=grid: study.shower_of(s, g), asked, **about)
    return list(lines.values())


def table(lines: list[Line]) -> str:
    """Return lines as a Markdown table, in the order of evaluations."""
    scales = {"separation": 1e3, "fpd": 1e3, "sparsity": 1e3}
    rows = []
    for line in sorted(lines, key=lambda one: one["evaluations"]):
        row = {"contender": line["contender"], "evaluations": str(line["evaluations"])}
        row["ms"] = f"{line['ms_per_shower']:.2f}"
        for name, label in figure.SCORES.items():
            scale = scales.get(name, 1.0)
            pair = line.get(name)
            row[label] = f"{scale * pair[0]:.4g} ± {scale * pair[1]:.2g}" if pair else ""
        rows.append(row)
    return common.markdown(rows)


def main() -> None:
    """Run what is missing, print the table, end in JSON."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--network", metavar="FILE", help="trained before")
    parser.add_argument("--showers", type=int, default=2000, help="to judge (%(default)s)")
    parser.add_argument("--auc", metavar="NAMES", help="contenders for classifiers, with ; between")
    parser.add_argument("--samplers", metavar="NAMES", help="some of them, with ; between")
    parser.add_argument("--trees", metavar="FILE", help="ShowerModel trained before")
    parser.add_argument("--no-trees", action="store_true", help="the network alone")
    parser.add_argument("--device", default="cpu", help="of the network (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    study = Study(options)
    lines = run(study)
    print(table(lines))
    if options.output is not None:
        figure.draw(lines, options.output / "calo_samplers.png")
    parameters = sum(value.numel() for value in study.network.denoiser.parameters())
    figures = {"contenders": lines, "parameters": parameters, "trained": study.train.n}
    common.finish({**figures, "judged": study.test.n}, options.output, "calo_samplers")


if __name__ == "__main__":
    main()
