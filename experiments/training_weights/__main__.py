"""Which loss weight trains a network fastest, and does the answer depend on the observable?

    python -m experiments.training_weights [--smoke] [--data FOLDER] [--weights P2] [-o FOLDER]

Quality of generated events against the epochs of training, for every loss weight, two learning
rates and three seeds. Everything else is the same: network, noise levels, batches, sampler. FOLDER
has ``jetnet/t_hlv12.h5``; without it the jets inside the package are used. Finished trainings are
kept in the output folder. Needs torch.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np

from experiments import common
from experiments.training_weights.figures import draw
from flowbdt import EventTable, TableTransform
from flowbdt.evaluation.metrics import Result, classifier_auc, separation_power, wasserstein
from flowbdt.physics import HLV_RELATIONS
from flowbdt.trees.boosted_trees import make_classifier

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
EPOCHS = (5, 10, 20, 40)
WIDTH, BATCH, EVENTS = 64, 512, 10_000
SEEDS = (1, 2, 3)
SHOWN = ("auc_gb", "separation", "wasserstein")


class Study:
    """Events, their latent space, and how a network is trained and judged."""

    def __init__(self, train: EventTable, test: EventTable, options: Any) -> None:
        self.train, self.test, self.smoke = train, test, options.smoke
        self.transform = TableTransform("auto", HLV_RELATIONS).fit(train)
        self.z = self.transform.forward(train).astype(np.float32)
        self.x0 = np.random.default_rng(5).normal(size=(test.n, self.z.shape[1]))
        self.epochs = (1, 2) if self.smoke else options.epochs
        self.batch: int = 100 if self.smoke else BATCH
        self.width: int = 16 if self.smoke else options.width
        self.floor = self.scores(train.x[: test.n])

    def run(self, weight: Any, rate: float, seed: int) -> list[dict[str, Any]]:
        """Return scores after each number of epochs, of one training."""
        import torch

        from flowbdt.networks import NetworkField, Objective, Trainer, TrainingConfig
        from flowbdt.networks.backbones import TableMLP

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
        backbone = TableMLP(self.z.shape[1], width=self.width)
        trainer, lines, seconds = Trainer(backbone, Objective(weight=weight), config), [], 0.0
        for epoch in self.epochs:
            began = time.process_time()
            trainer.fit(self.z, stop_at=epoch * steps)
            seconds += time.process_time() - began
            scores = self.scores(self.generated(NetworkField(trainer.network())))
            lines.append({"epoch": epoch, "cpu_seconds": seconds, **scores})
        return lines

    def generated(self, field: Any) -> np.ndarray:
        """Return events (n, 12), from the same noise for every network."""
        return self.transform.inverse(common.by_unipc(field, self.x0, 20))

    def scores(self, x: np.ndarray) -> dict[str, list[float]]:
        """Return score -> value and error; separations also of every column."""
        real, found, away = self.test.x, {}, []
        for i, name in enumerate(self.test.names):
            found[f"separation {name}"] = separation_power(real[:, i], x[:, i], n_bootstrap=20)
            away.append(wasserstein(real[:, i], x[:, i], n_bootstrap=20))
        result = {name: [one.value, one.error] for name, one in found.items()}
        result["separation"] = _mean(list(found.values()))
        result["wasserstein"] = _mean(away)
        if not self.smoke:
            auc = classifier_auc(real, x, make_classifier, n_model_seeds=1, n_split_seeds=1)
            result["auc_gb"] = [auc.value, auc.error]
        return result


def _mean(parts: list[Result]) -> list[float]:
    """Return the mean of scores of columns, and its error as of independent columns."""
    values, errors = (
        np.array([getattr(one, name) for one in parts]) for name in ("value", "error")
    )
    return [float(values.mean()), float(np.sqrt((errors**2).sum()) / len(parts))]


def against(runs: list[dict[str, Any]], other: str = "edm") -> str:
    """Return differences from a weight, both trained with the same seeds, after the last epoch."""
    last = {(run["weight"], run["rate"], run["seed"]): run["lines"][-1] for run in runs}
    rows = []
    for name, rate in dict.fromkeys(key[:2] for key in last):
        row = {"weight": name, "learning rate": f"{rate:g}"}
        pairs = [
            (line, last[other, rate, seed])
            for (weight, r, seed), line in last.items()
            if (weight, r) == (name, rate) and (other, rate, seed) in last
        ]
        for score in (n for n in SHOWN if pairs and n in pairs[0][0]):
            found = np.array([one[score][0] - two[score][0] for one, two in pairs])
            error = found.std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.nan
            row[score] = f"{found.mean():+.4f} ± {error:.4f}"
        if pairs and name != other:
            rows.append(row)
    return common.markdown(rows) if rows else ""


def table(runs: list[dict[str, Any]], floor: dict[str, list[float]]) -> str:
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
        rows.append(row)
    row = {"weight": "floor: training events", "learning rate": "", "epochs": "", "seeds": ""}
    rows.append(row | {n: f"{floor[n][0]:.4g} ± {floor[n][1]:.2g}" for n in SHOWN if n in floor})
    return common.markdown(rows)


def main() -> None:
    """Train and judge what was asked for and is not done yet."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", help="names, separated by semicolons; all by default")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many (%(default)s)")
    parser.add_argument("--events", type=int, default=EVENTS, help="to judge (%(default)s)")
    parser.add_argument("--width", type=int, default=WIDTH, help="of the network (%(default)s)")
    parser.add_argument("--epochs", type=int, nargs="+", default=EPOCHS, help="%(default)s")
    options = parser.parse_args()
    train, test = common.jets(options.data)
    if options.smoke:
        train, test = (t.take(slice(0, 300)) for t in (train, test))
    study = Study(train, test.take(slice(0, options.events)), options)
    runs = trained(study, options)
    print(f"\n{table(runs, study.floor)}\n\n{against(runs)}\n")
    if options.output is not None:
        draw(runs, study.floor, options.output)
    common.finish({"runs": runs, "floor": study.floor}, options.output, "training_weights")


def trained(study: Study, options: Any) -> list[dict[str, Any]]:
    """Return all runs; those that were asked for and are not kept are done."""
    names = options.weights.split(";") if options.weights else list(WEIGHTS)
    names = names[:3] if options.smoke else names
    rates, seeds = (RATES[:1], SEEDS[:1]) if options.smoke else (RATES, SEEDS[: options.seeds])
    runs: list[dict[str, Any]] = common.kept(options.output, [])
    done = {(run["weight"], run["rate"], run["seed"]) for run in runs}
    for seed, rate, name in itertools.product(seeds, rates, names):
        if (name, rate, seed) in done:
            continue
        lines = study.run(WEIGHTS[name], rate, seed)
        runs.append({"weight": name, "rate": rate, "seed": seed, "lines": lines})
        print(name, rate, seed, {n: lines[-1].get(n) for n in SHOWN}, flush=True)
        common.keep(runs, options.output)
    return runs


if __name__ == "__main__":
    main()
