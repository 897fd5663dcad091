"""What tuning finds, judged on events that it never saw: settings of a model, and samplers.

    python benchmarks/tuning.py [--quick] [--data FOLDER] [--parts model,sampler]
        [--budget 3600] [--keep FOLDER]

Model: `tune` on the training events within a budget of CPU seconds; then its winner and the
settings it started from are fitted anew, each in a process of its own, and judged on the test
events. A study in ``--keep`` that was interrupted goes on. Sampler: a run of 64 times learns from
8,000 events, `tune_sampler` sees the other training events, and what it finds is held against the
default at as many evaluations on the test events, for eight draws of noise. The last line is a JSON
object.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, in_fresh_process, table

from flowbdt import EventTable, evaluate
from flowbdt.config import RunConfig
from flowbdt.evaluation import score_samplers
from flowbdt.evaluation.differences import differences, with_paired_separations
from flowbdt.evaluation.differences import text as compared
from flowbdt.generation.fit_run import fit_run
from flowbdt.generation.trained_flow import Flow
from flowbdt.physics import HLV_RELATIONS, JetNetHLV, bundled
from flowbdt.training import run_directory
from flowbdt.training.plan import Inputs
from flowbdt.tuning import TunedSampler, tune, tune_sampler

BASE = RunConfig(relations=list(HLV_RELATIONS), random_state=1)
QUICK = ["auc_gb", "separation"]


def fitted(folder: str, config: RunConfig, train: EventTable, n: int) -> dict[str, Any]:
    """Fit and generate in this process; return what it took, and the events."""
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted benchmark: it is timed whole
    start = time.process_time()
    run = fit_run(Inputs(train, config, 1), folder)
    trained = time.process_time()
    flow = Flow(run, 1)
    list(flow.sample_blocks(1, seed=1))  # machine code is loaded, or made, before the clock starts
    loaded = time.process_time()
    made = EventTable.concatenate(list(flow.sample_blocks(n, seed=5)))
    us = 1e6 * (time.process_time() - loaded) / n
    return {"train_cpu_s": trained - start, "us_per_event": us, "events": made}


def model_part(
    train: EventTable, test: EventTable, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Search settings, print what was found, and hold it against the start on the test events."""
    base = replace(BASE, preset="fast") if options.quick else BASE
    tuned = tune(
        train, folder / "study", base=base, budget_s=options.budget, resume=True,
        executor={"name": "serial", "n_threads": 1}, on_trial=lambda report: None,
    )  # fmt: skip
    print(tuned.text(["auc_gb", "train_s"]), flush=True)
    configs = {"start": base, "tuned": RunConfig.from_yaml(tuned.run.file("config.yaml"))}
    found = {
        name: in_fresh_process(fitted, str(folder / f"fit-{name}"), config, train, test.n)
        for name, config in configs.items()
    }
    samples = {name: one.pop("events") for name, one in found.items()}
    how: dict[str, Any] = {"quick": True, "metrics": QUICK} if options.quick else {}
    scores = {n: evaluate(test, made, training=train, **how) for n, made in samples.items()}
    paired = with_paired_separations(differences(scores), test, samples, 0)
    print(compared(scores, paired), flush=True)
    print(table([{"settings": name, **one} for name, one in found.items()]), flush=True)
    return {"fits": found, "differences": [d.to_json() for d in paired]}


def sampler_part(
    train: EventTable, test: EventTable, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Search samplers for a run of many times, and judge them on the test events."""
    learned = min(8_000, train.n // 3)
    times, budgets, trials = (16, [4], 8) if options.quick else (64, [8, 16, 32], 45)
    config = replace(BASE, preset="fast", n_steps=times)
    events = Inputs(train.take(slice(0, learned)), config, 1)
    run = fit_run(events, folder / "many-times", resume=True)
    others = train.take(slice(learned, None))
    results = tune_sampler(run.path, others, evaluations=budgets, n_trials=trials, seed=1)
    score_samplers.MOST_EVENTS = test.n
    rows = [_on_test(run, test, found, 2 if options.quick else 8) for found in results]
    print(table(rows), flush=True)
    return {"samplers": rows}


def _on_test(
    run: run_directory.RunDirectory, test: EventTable, found: TunedSampler, draws: int
) -> dict[str, Any]:
    """Return the separations x100 of default and found sampler: means over draws of noise."""
    plain, gain = [], []
    for seed in range(200, 200 + draws):
        one = score_samplers.Bench(run, test, "separation", seed=seed, n_threads=1)
        scores, difference = one.separations([found.start, found.sampler])
        plain.append(scores)
        gain.append((difference.value, difference.error))
    values, gained = np.array(plain), np.array(gain)
    return {
        "evaluations": found.evaluations,
        "default": found.start["solver"],
        "found": found.sampler["solver"],
        "separation": float(values[:, 0].mean()),
        "with the found": float(values[:, 1].mean()),
        "difference": float(gained[:, 0].mean()),
        "error, draws": float(gained[:, 0].std(ddof=1) / np.sqrt(draws)),
        "error of one draw": float(gained[:, 1].mean()),
    }


def main() -> None:
    """Search, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="minutes; not for the record")
    parser.add_argument("--data", type=Path, help="folder with t_hlv12.h5; else bundled jets")
    parser.add_argument("--parts", default="model,sampler", help="%(default)s")
    parser.add_argument("--budget", type=float, default=3600.0, help="CPU seconds (%(default)s)")
    parser.add_argument("--keep", type=Path, help="folder to work in; else a temporary one")
    options = parser.parse_args()
    jets = bundled() if options.data is None else JetNetHLV(options.data)
    train, test = jets.load("train"), jets.load("test")
    if options.quick:
        train, test = train.take(slice(0, 3_000)), test.take(slice(0, 3_000))
        options.budget = min(options.budget, 60.0)
    parts = {"model": model_part, "sampler": sampler_part}
    if unknown := set(options.parts.split(",")) - set(parts):
        parser.error(f"--parts: {', '.join(sorted(unknown))} is none of {', '.join(parts)}")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if options.keep is None else options.keep
        for name in options.parts.split(","):
            figures |= parts[name](train, test, folder, options)
    finish(figures)


if __name__ == "__main__":
    main()
