"""Jets of 30 particles: in which representation do boosted trees generate them well?

    python -m experiments.jetnet_particles [--smoke] [--data FOLDER] [--seeds 3] [-o FOLDER]

FOLDER of ``--data`` has ``jetnet/t.hdf5`` and ``g.hdf5``; without it toy jets serve. Every run is
kept in ``runs.json`` of a folder for each kind of jets in the output folder, and one that is there
already is not repeated, so that the study can be stopped and taken up again.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common
from experiments.jetnet_particles.cone import widest_angle
from experiments.jetnet_particles.scores import Judge, observables, sum_rule
from experiments.jetnet_particles.toys import toy_jets
from experiments.jetnet_particles.variants import ONCE, VARIANTS, build
from flowbdt.errors import DataWarning
from flowbdt.evaluation.metrics import uncertain
from flowbdt.evaluation.report.figures import demo_figure
from flowbdt.physics.jets import Constituents

Runs = dict[str, dict[str, Any]]

SHOWN = {
    "w1_mass": ("W1 jet mass x10^3", 1e3),
    "w1_pt": ("W1 jet pT x10^3", 1e3),
    "w1_etarel": ("W1 eta_rel x10^3", 1e3),
    "w1_phirel": ("W1 phi_rel x10^3", 1e3),
    "w1_ptrel": ("W1 pT_rel x10^3", 1e3),
    "w1_particles": ("W1-P x10^3", 1e3),
    "w1_efp": ("W1-EFP x10^5", 1e5),
    "fpd": ("FPD x10^3", 1e3),
    "kpd": ("KPD x10^3", 1e3),
    "coverage": ("coverage", 1.0),
    "mmd": ("MMD x10^3", 1e3),
    "auc_gb": ("AUC, boosted trees on observables", 1.0),
    "auc_mlp": ("AUC, neural network on observables", 1.0),
}
FIGURE = ("mass", "pt", "tau2", "tau3", "d12", "d2")


def samples(options: argparse.Namespace, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return jets to train on and jets to compare with: the first and the second half."""
    if options.data is None:
        jets = toy_jets(600 if options.smoke else 20_000, seed=1)
    else:
        import h5py

        with h5py.File(options.data / "jetnet" / f"{kind}.hdf5") as file:
            jets = file["particle_features"][:].astype(np.float64)
    half = len(jets) // 2
    most = 200 if options.smoke else options.events
    return jets[:half][:most], jets[half:][:most]


def one(
    model: Any, seed: int, train: np.ndarray, judge: Judge, path: Path | None
) -> dict[str, Any]:
    """Train, generate and judge one variant once; keep its jets where a path is given."""
    start = time.process_time()

    def log(text: str) -> None:
        print(f"  {time.process_time() - start:.0f} s {text}", flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        model.fit(train, log)
    trained = time.process_time()
    jets, total = model.sample(len(judge.real), seed=100 + seed)
    made = time.process_time()
    if path is not None:
        np.save(path, jets.astype(np.float32))
    scores: dict[str, Any] = judge(jets)
    scores["sum_rule"] = sum_rule(jets, total) if total is not None else None
    scores["widest"] = float(widest_angle(Constituents.of(jets)).max())
    scores["train_cpu_s"] = trained - start
    scores["us_per_jet"] = 1e6 * (made - trained) / len(jets)
    return scores


def jobs(options: argparse.Namespace) -> list[tuple[str, int]]:
    """Return variants and seeds in order: what is repeated, then what is run once."""
    names = options.variants.split(";")
    seeds = range(1, 2 if options.smoke else options.seeds + 1)
    often = [(name, seed) for seed in seeds for name in names if name not in ONCE]
    return [("floor", 0), *often, *((name, 1) for name in names if name in ONCE)]


def study(options: argparse.Namespace, kind: str) -> Runs:
    """Do what is not done yet for one kind of jets; return all runs by variant and seed."""
    folder = options.output and options.output / kind.replace("/", "_")
    runs: Runs = common.kept(folder, {})
    train, test = samples(options, kind)
    judge = Judge(test, options.smoke)
    known: dict[str, Any] = {}
    for name, seed in jobs(options):
        key = f"{name} | {seed}"
        if key in runs:
            continue
        print(key, flush=True)
        path = None if folder is None or options.smoke else folder / f"{name} {seed}.npy"
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        if name == "floor":
            runs[key] = judge(train)
            runs[key]["widest"] = float(widest_angle(Constituents.of(test)).max())
        else:
            known = {k: m for k, m in known.items() if m.seed == seed}
            known[name] = build(name, seed, options.smoke, known)
            runs[key] = one(known[name], seed, train, judge, path)
        print(json.dumps(runs[key]), flush=True)
        common.keep(runs, folder)
    if folder is not None and not options.smoke:
        draw(options, judge, folder)
    return runs


def draw(options: argparse.Namespace, judge: Judge, folder: Path) -> None:
    """Write one figure for each variant of the first seed: observables with ratios."""
    for name in options.variants.split(";"):
        path = folder / f"{name} 1.npy"
        if path.exists():
            jets = np.load(path).astype(np.float64)
            target = folder / f"{name.replace(',', '').replace(' ', '_')}.png"
            demo_figure(judge.table, observables(jets), target, auc_text=name, columns=FIGURE)


def summary(runs: Runs) -> dict[str, dict[str, Any]]:
    """Return per variant the mean over seeds, and its error: the larger of spread and own."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for key, run in runs.items():
        groups.setdefault(key.split(" | ")[0], []).append(run)
    return {name: {"seeds": len(found), **_means(found)} for name, found in groups.items()}


def _means(found: list[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, first in found[0].items():
        values = [run[name] for run in found]
        if isinstance(first, list):
            pairs = np.array(values)
            spread = pairs[:, 0].std(ddof=1) / np.sqrt(len(pairs)) if len(pairs) > 1 else 0.0
            result[name] = [float(pairs[:, 0].mean()), float(max(spread, pairs[:, 1].mean()))]
        else:
            result[name] = None if first is None else float(np.max(values))
    return result


def table(scores: dict[str, dict[str, Any]]) -> str:
    """Return one line per score, one column per variant, the floor last."""
    order = [*(name for name in scores if name != "floor"), "floor"]
    lines = []
    for key, (label, factor) in SHOWN.items():
        if key not in scores["floor"]:
            continue
        line = {"score": label}
        for name in order:
            line[name] = uncertain(*(factor * v for v in scores[name][key]))
        lines.append(line)
    for key, label in (
        ("sum_rule", "sum rules, largest relative deviation"),
        ("widest", "largest angle of a particle to the jet axis"),
        ("train_cpu_s", "training, CPU s"),
        ("us_per_jet", "generation, CPU us per jet"),
        ("seeds", "seeds"),
    ):
        cells = {name: scores[name].get(key) for name in order}
        lines.append(
            {"score": label} | {n: "-" if v is None else f"{v:.3g}" for n, v in cells.items()}
        )
    return common.markdown(lines)


def main() -> None:
    """Run, print the table, draw."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="repetitions (%(default)s)")
    parser.add_argument("--variants", default=";".join(VARIANTS), help="which (%(default)s)")
    parser.add_argument("--jets", default="t;g", help="files, also r04/t;r04/g (%(default)s)")
    parser.add_argument("--events", type=int, default=25_000, help="to train on (%(default)s)")
    options = parser.parse_args()
    scores = {}
    for kind in ("toys",) if options.data is None else options.jets.split(";"):
        scores[kind] = summary(study(options, kind))
        print(f"{kind}\n{table(scores[kind])}")
    common.finish(scores, options.output, "jetnet_particles")


if __name__ == "__main__":
    main()
