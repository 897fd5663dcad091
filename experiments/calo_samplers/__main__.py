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
from experiments.calo_samplers.judge import Judge, Line, load
from experiments.calochallenge.toys import SMOKE
from experiments.samplers import settings
from flowbdt import seeding
from flowbdt.flow.parametrisations import FlowMatching
from flowbdt.flow.schedules import SCHEDULES
from flowbdt.networks import Trainer, TrainingConfig
from flowbdt.networks.hybrid import stretch
from flowbdt.networks.shower_network import ShowerNetwork, shower_trainer, train_shower_network
from flowbdt.physics.calorimeter.model import ShowerModel
from flowbdt.physics.calorimeter.model.energy_division import ShowerEnergies
from flowbdt.physics.calorimeter.shower_files import Showers

LINE = FlowMatching()
BUDGETS = (5, 10, 20, 50)
MANY = {"DDPM": (100, 200), "UniPC-2": (100,), "Restart (Heun)": (46, 100)}
"""Further budgets; Restart with 46 evaluations has 18 steps."""

WARM = ((0.5, 3), (0.5, 7), (0.75, 3), (0.75, 7), (0.9, 3))
"""Times up to which noise is added to a shower of the trees, and evaluations from there."""

NETWORK: dict[str, Any] = {"name": "table_mlp", "width": 384, "n_layers": 3}
TRAINING: dict[str, Any] = {"n_steps": 1200, "batch_size": 256, "ema": 0.995}
TURNS = 8

SMOKE_NAMES = ("Euler = DDIM", "UniPC-2", "DDPM")
TREES = "trees alone"


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


class Study(Judge):
    """The network, and showers of trees at the same energies."""

    def __init__(self, options: Any) -> None:
        self.options, (self.train, test) = options, load(options)
        self.network = trained(self.train, options)
        super().__init__(
            test, self.network.energies.sample(test.energies, options.seed), options.smoke
        )

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
        asked = (5,) if self.options.smoke else self.options.budgets
        for name in SMOKE_NAMES if self.options.smoke else every:
            budgets = asked or (*BUDGETS, *MANY.get(name, ()))
            spec = settings.SAMPLERS[name]
            steps = {settings.steps_for(spec, budget, LINE) for budget in budgets}
            found += [(name, spec, n) for n in sorted(n for n in steps if n is not None)]
        return found


def run(study: Study) -> list[Line]:
    """Return a line for the floor, every sampler, the trees, and every hybrid."""
    options, net, seed = study.options, study.network, study.options.seed
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
            make = lambda g=grid, s=spec: study.shower_of(net, s, g, x, seed)  # noqa: E731
            hybrid = "trees, noise, UniPC"
            add(f"trees, noise to t = {at:g}, UniPC {n}", make, n, sampler=hybrid)
    for name, spec, n in study.contenders():
        grid = SCHEDULES.build(spec["spacing"])(n)
        asked = common.n_evaluations({**spec, "n_steps": n})
        about = {"sampler": name, "settings": {**spec, "n_steps": n}}
        made = lambda s=spec, g=grid: study.shower_of(net, s, g, seed=seed)  # noqa: E731
        add(f"{name}, {n} steps", made, asked, **about)
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
    parser.add_argument("--budgets", type=int, nargs="*", help="evaluations, the same for all")
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
