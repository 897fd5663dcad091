"""The same question for showers: voxels by a small network, by trees, and by both.

Layer energies are drawn once, by the first stage of `ShowerModel`; everything that is compared
divides the same ones. The network has at most 50,000 parameters and sees 2,000 showers: a size for
one CPU, not that of published networks.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common
from experiments.calochallenge.toys import SMOKE, toy_showers
from flowbdt import integrate, seeding
from flowbdt.evaluation.metrics.classifier import MakeClassifier, make_mlp
from flowbdt.flow.solvers import SOLVERS
from flowbdt.networks.hybrid import stretch
from flowbdt.physics.calorimeter.geometry import geometry
from flowbdt.physics.calorimeter.model import ShowerModel
from flowbdt.physics.calorimeter.model.energy_division import ShowerEnergies
from flowbdt.physics.calorimeter.scores.features import high_level_features
from flowbdt.physics.calorimeter.scores.histograms import separations
from flowbdt.physics.calorimeter.scores.shower_judges import (
    fast_auc,
    high_level_inputs,
    low_level_inputs,
)
from flowbdt.physics.calorimeter.shower_files import Showers, read_showers
from flowbdt.trees.boosted_trees import make_classifier

TRAINED, JUDGED = 2000, 3000
MOST_PARAMETERS = 50_000
ALONE = (5, 10, 20, 40)
WARM = ((0.3, 4), (0.5, 2), (0.5, 4), (0.5, 8), (0.75, 2), (0.75, 4), (0.9, 2))
"""Times up to which noise is added to the trees' shower, and steps of the network from there."""

SMOKE_NETWORK: dict[str, Any] = {"width": 8, "n_heads": 2, "n_layers": 1}
SHOWN = ("separation_mean", "auc_high_gb", "auc_high_mlp", "auc_low_gb", "auc_low_mlp")


def load(data: Path | None, smoke: bool) -> tuple[Showers, Showers]:
    """Return showers to train and to judge; toys without a file."""
    n = (120, 120) if smoke else (TRAINED, JUDGED)
    if data is None:
        showers = toy_showers(geometry("photons"), sum(n), 1).above()
    else:
        showers = read_showers(data / "calochallenge" / "dataset_1_photons_1.hdf5").above()
    rows = np.random.default_rng(7).permutation(showers.n)[: sum(n)]
    return showers.take(rows[: n[0]]), showers.take(rows[n[0] :])


class Network:
    """The network with its coordinates; it makes voxels for given layer energies."""

    def __init__(self, train: Showers, options: Any) -> None:
        import torch

        from experiments.restart_hybrid import rings
        from flowbdt.networks import NetworkField, Trainer, TrainingConfig

        torch.set_num_threads(1)
        torch.manual_seed(options.seed)
        rng = np.random.default_rng(options.seed)
        self.rings, self.coordinates = rings, rings.VoxelCoordinates(train.geometry)
        self.coordinates.fit(train, rng)
        several = [rings.turned(train, rng) for _ in range(1 if options.smoke else 10)]
        x = np.vstack([self.coordinates.forward(one, rng) for one in several])
        layers = train.geometry.layer_energies(train.voxels)
        cond = np.tile(rings.conditions(train.energies, layers), (len(several), 1))
        backbone = rings.for_geometry(train.geometry, **(SMOKE_NETWORK if options.smoke else {}))
        self.n_parameters = backbone.n_parameters()
        if self.n_parameters > MOST_PARAMETERS:
            raise SystemExit(f"{self.n_parameters} parameters, more than {MOST_PARAMETERS}")
        steps, batch = (5, 60) if options.smoke else (options.shower_batches, 128)
        config = TrainingConfig(
            n_steps=steps,
            batch_size=batch,
            learning_rate=3e-3,
            ema=0.998,
            seed=options.seed,
            device="cpu",
        )
        trainer = Trainer(backbone, "edm", config).fit(x, cond)
        self.field = NetworkField(trainer.network(), batch_size=500)

    def refine(
        self, energies: np.ndarray, layers: np.ndarray, start: Showers | None, at: float, n: int
    ) -> Showers:
        """Return showers from noise (start None), or from given ones after noise up to ``at``."""
        rng = np.random.default_rng(11)
        x = rng.normal(size=(len(energies), self.coordinates.geometry.n_voxels))
        if start is not None:
            x = at * self.coordinates.forward(start, rng) + (1.0 - at) * x
        grid = stretch("uniform", n, at if start is not None else 0.0, 1.0)
        cond = self.rings.conditions(energies, layers)
        end = integrate(SOLVERS.build("unipc"), self.field, x, grid, cond).x
        return self.coordinates.inverse(end, energies, layers)


def study(options: Any) -> dict[str, Any]:
    """Train both, generate, judge; return all figures."""
    train, test = load(options.data, options.smoke)
    began = time.process_time()
    trees = ShowerModel(**(SMOKE if options.smoke else {}), random_state=options.seed)
    trees.fit(train)
    half = time.process_time()
    network = Network(train, options)
    seconds = {"trees": half - began, "network": time.process_time() - half}
    about = {"parameters": network.n_parameters, "training_cpu_seconds": seconds}
    about |= {"trained": train.n, "judged": test.n}
    print(about, flush=True)
    lines = [{"contender": "floor: training showers", **_scores(test, train, options.smoke)}]
    for name, made, evaluations, cost in _contenders(trees, network, test.energies, options):
        line = {"contender": name, "network": evaluations, "ms_per_shower": cost}
        lines.append({**line, **_scores(test, made, options.smoke)})
        print({k: v for k, v in lines[-1].items() if k in ("contender", *SHOWN)}, flush=True)
    print(f"\n{table(lines)}\n")
    return {**about, "contenders": lines}


def _contenders(trees: ShowerModel, network: Network, energies: np.ndarray, options: Any) -> Any:
    """Yield name, showers, evaluations of the network, CPU milliseconds per shower."""
    began = time.process_time()
    layers = trees.energies_.sample(energies, options.seed)
    rng = seeding.stream(options.seed, "hybrid-showers")
    voxels = trees.voxels(ShowerEnergies(trees.plan_, energies, layers), rng)
    start = Showers(energies, voxels, trees.geometry_)
    of_trees = 1e3 * (time.process_time() - began) / len(energies)
    yield "trees alone", start, 0, of_trees
    runs: list[tuple[str, Showers | None, float, int]]
    runs = [("network alone, UniPC {1}", None, 0.0, n) for n in ALONE]
    runs += [("trees, noise to t = {0:g}, UniPC {1}", start, at, n) for at, n in WARM]
    for name, first, at, n in runs[:: 4 if options.smoke else 1]:
        began = time.process_time()
        made = network.refine(energies, layers, first, at, n)
        cost = 1e3 * (time.process_time() - began) / len(energies)
        yield name.format(at, n), made, n, cost + of_trees * (first is not None)


def _scores(real: Showers, made: Showers, smoke: bool) -> dict[str, float]:
    """Return the official separations and the AUC of two judges at both levels."""
    n = min(real.n, made.n)
    both = (real.take(slice(0, n)), made.take(slice(0, n)))
    values = {str(r.column): float(r.value) for r in separations(*both, n_bootstrap=2)}
    found = {"separation_etot": values["etot_einc"]}
    found["separation_mean"] = float(np.mean(list(values.values())))
    high = [high_level_inputs(high_level_features(part)) for part in both]
    inputs = {"high": high, "low": [low_level_inputs(part) for part in both]}
    judges: dict[str, MakeClassifier] = {"gb": make_classifier, "mlp": make_mlp}
    for level, name in () if smoke else itertools.product(inputs, judges):
        columns, judge = inputs[level], judges[name]
        auc = fast_auc(columns[0], columns[1], level, judge, n_model_seeds=1, n_split_seeds=3)
        found[f"auc_{level}_{name}"] = float(auc.value)
        found[f"auc_{level}_{name}_error"] = float(auc.error)
    return found


def table(lines: list[dict[str, Any]]) -> str:
    """Return lines as a Markdown table."""
    rows = []
    for line in lines:
        row = {"contender": line["contender"], "network": str(line.get("network", ""))}
        row["ms per shower"] = f"{line['ms_per_shower']:.2f}" if "ms_per_shower" in line else ""
        row["separation of Etot x10^3"] = f"{1e3 * line['separation_etot']:.2f}"
        for name in SHOWN:
            if name in line:
                error = line.get(f"{name}_error")
                scale = 1e3 if name == "separation_mean" else 1.0
                text = f"{scale * line[name]:.4g}"
                row[name] = text if error is None else f"{text} ± {error:.2g}"
        rows.append(row)
    return common.markdown(rows)
