"""Which loss weight trains a network fastest, and does the answer depend on the observable?

    python -m experiments.training_weights [--smoke] [--data FOLDER] [--weights edm,p2] [-o FOLDER]

Quality of generated events against the epochs of training, for every loss weight, two learning
rates and three seeds. Everything else is the same: network, noise levels, batches, sampler. FOLDER
has ``jetnet/t_hlv12.h5``; without it the jets inside the package are used. Finished trainings are
kept in the output folder. Needs torch.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common
from flowbdt import EventTable, TableTransform, evaluate, integrate
from flowbdt.datasets import HLV_RELATIONS, JetNetHLV, bundled
from flowbdt.schedules import SCHEDULES
from flowbdt.solvers import SOLVERS

WEIGHTS: dict[str, Any] = {
    "edm": "edm",
    "simple loss of DDPM": "noise",
    "flow matching": "velocity",
    "v": "v",
    "denoised point": "denoised",
    "Min-SNR-5": {"name": "min_snr", "gamma": 5.0},
    "EDM, capped at 5": {"name": "min_snr_edm", "gamma": 5.0},
    "soft Min-SNR": "soft_min_snr",
    "soft Min-SNR, on the denoised point": {"name": "soft_min_snr", "of": "denoised"},
    "P2": "p2",
    "learned uncertainty": "uncertainty",
}
"""Name -> weight; formulas in docs/mathematics.md."""

RATES = (1e-3, 4e-3)
EPOCHS = (5, 10, 20, 40, 80)
SEEDS = (1, 2, 3)
SHOWN = ("auc_gb", "separation", "wasserstein")


class Study:
    """Events, their latent space, and how a network is trained and judged."""

    def __init__(self, train: EventTable, test: EventTable, smoke: bool) -> None:
        self.train, self.test, self.smoke = train, test, smoke
        self.transform = TableTransform("auto", HLV_RELATIONS).fit(train)
        self.z = self.transform.forward(train).astype(np.float32)
        self.x0 = np.random.default_rng(5).normal(size=(test.n, self.z.shape[1]))
        self.epochs = (1, 2) if smoke else EPOCHS
        self.batch = 100 if smoke else 512

    def run(self, weight: Any, rate: float, seed: int) -> list[dict[str, Any]]:
        """Return scores after each number of epochs, of one training."""
        import torch

        from flowbdt.diffusion import NetworkField, Objective, Trainer, TrainingConfig
        from flowbdt.diffusion.backbones import TableMLP

        torch.set_num_threads(1)
        torch.manual_seed(seed)
        steps = len(self.z) // self.batch
        config = TrainingConfig(
            n_steps=steps * self.epochs[-1],
            batch_size=self.batch,
            learning_rate=rate,
            rate="constant",
            warmup=0.02,
            ema=0.99 if self.smoke else 0.998,
            seed=seed,
            device="cpu",
        )
        backbone = TableMLP(self.z.shape[1], width=16 if self.smoke else 128)
        trainer, lines, seconds = Trainer(backbone, Objective(weight=weight), config), [], 0.0
        for epoch in self.epochs:
            began = time.process_time()
            trainer.fit(self.z, stop_at=epoch * steps)
            seconds += time.process_time() - began
            scores = self.judge(NetworkField(trainer.network()), seed)
            lines.append({"epoch": epoch, "cpu_seconds": seconds, **scores})
        return lines

    def judge(self, field: Any, seed: int) -> dict[str, Any]:
        """Return score -> [value, error, floor, its error], also of every column."""
        grid = SCHEDULES.build({"name": "warped"})(20)
        x = self.transform.inverse(integrate(SOLVERS.build("unipc"), field, self.x0, grid).x)
        new = EventTable.of(x, list(self.train.names))
        names = SHOWN[1:] if self.smoke else SHOWN
        verdict = evaluate(
            self.test, new, training=self.train, quick=True, seed=seed, metrics=names
        )
        found = {}
        for r in verdict.results:
            label = r.name if r.column is None else f"{r.name} {r.column}"
            if r.column is None or r.name == "separation":
                found[label] = [float(v) for v in (r.value, r.error, r.floor, r.floor_error)]
        return found


def jets(data: Path | None) -> tuple[EventTable, EventTable]:
    """Return training and test events."""
    source = bundled() if data is None else JetNetHLV(data / "jetnet")
    return source.load("train"), source.load("test")


def table(runs: list[dict[str, Any]]) -> str:
    """Return means over seeds with their standard errors: a row per weight, rate and epoch."""
    groups: dict[tuple[str, float, int], list[dict[str, Any]]] = {}
    for run in runs:
        for line in run["lines"]:
            groups.setdefault((run["weight"], run["rate"], line["epoch"]), []).append(line)
    rows = []
    for (weight, rate, epoch), lines in groups.items():
        row = {"weight": weight, "learning rate": f"{rate:g}", "epochs": str(epoch)}
        row["seeds"] = str(len(lines))
        for name in (n for n in SHOWN if n in lines[0]):
            values = np.array([line[name][0] for line in lines])
            own = float(np.mean([line[name][1] for line in lines]))
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else own
            row[name] = f"{values.mean():.4g} ± {error:.2g}"
            row[f"floor {name}"] = f"{lines[0][name][2]:.4g}"
        rows.append(row)
    return common.markdown(rows)


def main() -> None:
    """Train and judge what was asked for and is not done yet."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", help="names, separated by semicolons; all by default")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many (%(default)s)")
    parser.add_argument("--events", type=int, help="to judge; all by default")
    options = parser.parse_args()
    train, test = jets(options.data)
    if options.smoke:
        train, test = (t.take(slice(0, 300)) for t in (train, test))
    study = Study(train, test.take(slice(0, options.events or test.n)), options.smoke)
    names = options.weights.split(";") if options.weights else list(WEIGHTS)
    names = names[:3] if options.smoke else names
    rates, seeds = (RATES[:1], SEEDS[:1]) if options.smoke else (RATES, SEEDS[: options.seeds])
    runs = common.kept(options.output, [])
    done = {(run["weight"], run["rate"], run["seed"]) for run in runs}
    for seed in seeds:
        for rate in rates:
            for name in names:
                if (name, rate, seed) in done:
                    continue
                lines = study.run(WEIGHTS[name], rate, seed)
                runs.append({"weight": name, "rate": rate, "seed": seed, "lines": lines})
                print(name, rate, seed, {n: lines[-1].get(n) for n in SHOWN}, flush=True)
                common.keep(runs, options.output)
    print(f"\n{table(runs)}\n")
    common.finish({"runs": runs}, options.output, "training_weights")


if __name__ == "__main__":
    main()
