"""How good are showers of a network after so many minutes of training, and with which weights?

    python -m experiments.calo_samplers.trainings --data FOLDER --minutes 10 30 60 -o FOLDER

One training per output folder, which goes on where it was stopped. Its checkpoint is kept at each
number of CPU minutes and at the end, and showers of its averaged weights are judged; ``--widths``
also judges power-function averages of the last one. Settings are those of ``flowbdt showers
train-network``, as JSON. Needs torch.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common
from experiments.calo_samplers.judge import Judge, Line, load
from experiments.calochallenge.toys import SMOKE
from flowbdt.atomic_files import write_json
from flowbdt.networks import Trainer, TrainingConfig
from flowbdt.networks.shower_network import (
    ShowerNetwork,
    shower_trainer,
    training_coordinates,
    training_inputs,
)
from flowbdt.physics.calorimeter.model.layer_energies import LayerEnergies
from flowbdt.physics.calorimeter.shower_files import Showers

EVERY = 200
"""Steps between two checkpoints."""

SMALL = {"n_steps": 4, "batch_size": 32, "device": "cpu", "snapshots": 2}


def trained(train: Showers, options: Any) -> None:
    """Train up to the last mark, keeping a checkpoint and the CPU seconds at every one."""
    folder, latest = options.output, options.output / "checkpoint.npz"
    lines: list[Line] = json.loads((folder / "cpu.json").read_text()) if latest.exists() else []
    if latest.exists():
        trainer = Trainer.resume(latest)
    else:
        settings = {**options.training, "seed": options.seed, **(SMALL if options.smoke else {})}
        config = TrainingConfig(**settings)
        trainer = shower_trainer(train, options.backbone, options.objective, config)
    lines = [line for line in lines if line["step"] <= trainer.step]
    before = lines[-1]["cpu"] if lines else 0.0
    marks = [m for m in options.minutes if not (folder / f"at_{m:g}.npz").exists()]
    n_steps = trainer.config.n_steps
    if trainer.step >= n_steps or (options.minutes and not marks):
        return
    _, x, cond = training_inputs(train, trainer.config.seed, options.turns)
    start = time.process_time()
    while trainer.step < n_steps and (marks or not options.minutes):
        trainer.fit(x, cond, folder=folder, stop_at=min(trainer.step + EVERY, n_steps))
        spent = before + time.process_time() - start
        loss = float(np.mean(trainer.losses[-EVERY:]))
        lines.append({"step": trainer.step, "cpu": spent, "loss": loss})
        write_json(folder / "cpu.json", lines)
        if marks and spent >= 60.0 * marks[0]:
            shutil.copy(latest, folder / f"at_{marks.pop(0):g}.npz")


def networks(train: Showers, options: Any) -> Iterator[tuple[str, ShowerNetwork, int]]:
    """Yield name, network and steps of every mark, of the end, and of every other average."""
    folder, base = options.output, None
    marks = [(f"{m:g} minutes", folder / f"at_{m:g}.npz", "ema") for m in options.minutes]
    last = folder / "checkpoint.npz"
    ends = [("end", last, "ema"), *((f"width {w:g}", last, w) for w in options.widths)]
    for name, path, weights in (*marks, *ends):
        if not path.exists():
            continue
        trainer = Trainer.resume(path)
        if base is None:
            base = _frame(train, trainer.config.seed, options)
        network = ShowerNetwork(*base, trainer.network(weights), str(trainer.data_digest))
        network.save(folder / f"network_{name.replace(' ', '_')}.npz")
        yield name, network, trainer.step


def _frame(train: Showers, seed: int, options: Any) -> tuple[LayerEnergies, Any]:
    """Return trees of the layer energies, trained or of another file, and the coordinates."""
    coordinates = training_coordinates(train, seed)
    if options.energies is not None:
        return ShowerNetwork.load(options.energies).energies, coordinates
    energies = LayerEnergies(SMOKE["flow"] if options.smoke else {})
    layers = train.geometry.layer_energies(train.voxels)
    energies.fit(train.energies, layers, coordinates.threshold, seed)
    return energies, coordinates


def judged(judge: Judge, network: ShowerNetwork, options: Any) -> Line:
    """Return score -> mean over draws, error of the showers, error of the draws."""
    sampler = {"n_steps": 2 if options.smoke else options.evaluations}
    grid, lines = network.sampler(sampler).boundaries, []
    for draw in range(options.draws):
        made = judge.shower_of(network, {"solver": "unipc"}, grid, seed=options.seed + draw)
        lines.append(judge.scored(made, options.auc and draw == 0))
    found: Line = {}
    for name in lines[0]:
        values = np.array([line[name] for line in lines if name in line])
        n = len(values)
        spread = float(values[:, 0].std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
        found[name] = [*values.mean(axis=0).tolist(), spread]
    return found


def run(options: Any) -> dict[str, Any]:
    """Train, and judge what was not judged yet."""
    train, test = load(options)
    trained(train, options)
    lines: dict[str, Line] = common.kept(options.output, {})
    judge = None
    for name, network, step in networks(train, options):
        if name in lines and lines[name]["step"] == step:
            continue
        if judge is None:
            layers = network.energies.sample(test.energies, options.seed)
            judge = Judge(test, layers, options.smoke)
        lines[name] = {"step": step, **judged(judge, network, options)}
        print(name, {k: lines[name].get(k) for k in ("step", "fpd", "separation")}, flush=True)
        common.keep(lines, options.output)
    seconds = json.loads((options.output / "cpu.json").read_text())
    return {"lines": lines, "steps": seconds, "judged": test.n, "trained": train.n}


def table(found: dict[str, Any]) -> str:
    """Return a Markdown table: error of the showers, in brackets that of the draws."""
    cpu = {line["step"]: line["cpu"] / 60.0 for line in found["steps"]}
    rows = []
    for name, line in found["lines"].items():
        row = {"weights": name, "steps": str(line["step"]), "minutes": f"{cpu[line['step']]:.1f}"}
        for score, scale in {"fpd": 1e3, "separation": 1e3, "auc_high": 1, "auc_low": 1}.items():
            if score in line:
                value, error, spread = (scale * number for number in line[score])
                row[score] = f"{value:.4g} ± {error:.2g} ({spread:.2g})"
        rows.append(row)
    return common.markdown(rows)


def options_of(arguments: list[str] | None = None) -> Any:
    """Return what the command line asks for."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, nargs="*", default=[], help="CPU, of the marks")
    parser.add_argument("--widths", type=float, nargs="*", default=[], help="of other averages")
    parser.add_argument("--backbone", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--training", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--objective", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--turns", type=int, default=8, help="copies of a shower (%(default)s)")
    parser.add_argument("--energies", type=Path, metavar="FILE", help="network with their trees")
    parser.add_argument("--showers", type=int, default=2000, help="to judge (%(default)s)")
    parser.add_argument("--evaluations", type=int, default=20, help="of UniPC (%(default)s)")
    parser.add_argument("--draws", type=int, default=2, help="to judge (%(default)s)")
    parser.add_argument("--auc", action="store_true", help="classifiers, on the first draw")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.output is None:
        parser.error("-o FOLDER is needed: the training is kept there")
    options.output.mkdir(parents=True, exist_ok=True)
    return options


def main() -> None:
    """Run what is missing, print the table, end in JSON."""
    options = options_of()
    found = run(options)
    print(table(found))
    common.finish(found, options.output, "trainings")


if __name__ == "__main__":
    main()
