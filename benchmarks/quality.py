"""How well a classifier tells generated jets from real ones: this package beside the reference.

    python benchmarks/quality.py [--quick] [--data FOLDER] [--models reference,balanced,neural]
                                 [--repeats 100]

FOLDER holds ``t_hlv12.h5`` with 50,000 jets: 25,000 to train, 25,000 to judge. Without it the
sample inside the package serves: 25,000 to train, 15,000 to judge. The *reference recipe* is the
one of arXiv 2404.18219, section 3, run by the same code: all 12 columns, min-max scaling with
clipping, 20 Euler steps, trees of depth 4, 100 of them, eta 0.1, lambda 0.1, alpha 0.2, each jet
used ``--repeats`` times (20; ``--quick``: 5). Training is measured in CPU seconds of one thread in
a process of its own; generation likewise, model files in memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import common

from flowbdt import EventTable, FlowBDT, Relation, evaluate
from flowbdt.config import PRESETS
from flowbdt.evaluation.metrics import relation_deviation
from flowbdt.physics import HLV_RELATIONS, JetNetHLV, bundled

SERIAL = {"name": "serial", "n_threads": 1}

MODELS: dict[str, dict[str, Any]] = {
    "reference": {
        "n_steps": 20,
        "solver": "euler",
        "noise": {"name": "repeats", "n_repeats": 20, "candidates": 0},
        "preconditioner": "none",
        "rejection": False,
        "inputs": ["latent"],
        "transforms": {"*": {"name": "minmax", "clip": True}, "joint": "none"},
        "booster": {
            "max_depth": 4,
            "n_estimators": 100,
            "learning_rate": 0.1,
            "reg_lambda": 0.1,
            "reg_alpha": 0.2,
            "max_bin": 256,
            "early_stopping_rounds": 0,
        },
    },
    **{name: {"preset": name, "relations": list(HLV_RELATIONS)} for name in PRESETS},
}


def load(folder: str | None) -> tuple[EventTable, EventTable]:
    """Return training and test jets."""
    data = bundled() if folder is None else JetNetHLV(folder)
    return data.load("train"), data.load("test")


def build(name: str, repeats: int) -> FlowBDT:
    """Return the unfitted model called ``name``."""
    settings = dict(MODELS[name])
    if name == "reference":
        settings["noise"] = {**settings["noise"], "n_repeats": repeats}
    return FlowBDT(**settings, executor=SERIAL, random_state=1)


def train(name: str, repeats: int, folder: str | None, path: str) -> dict[str, float]:
    """Fit and save one model; return CPU seconds and peak memory above the loaded data."""
    table, _ = load(folder)
    warm = {"n_steps": 1, "noise": {"n_repeats": 1}, "booster": {"n_estimators": 1}}
    FlowBDT(**warm).fit(table.take(slice(0, 100)))
    model = build(name, repeats)
    cost = common.measured(model.fit, table)
    model.save(path)
    return {"train_cpu_s": cost["cpu_s"], "peak_mib": cost["peak_mib"]}


def generate(path: str, n_events: int) -> dict[str, Any]:
    """Generate events; the step models are loaded before the clock starts."""
    model = FlowBDT.load(path)
    model.sample(1, random_state=0)
    start = time.process_time()
    events = model.sample(n_events, random_state=2)
    return {
        "events": events,
        "us_per_event": 1e6 * (time.process_time() - start) / n_events,
        "evaluations": model.n_evaluations_ / model.acceptance_,
    }


def judge(real: EventTable, new: EventTable, training: EventTable, quick: bool) -> dict[str, float]:
    """Return the scores and their floors."""
    scores = evaluate(
        real,
        new,
        training=training,
        quick=quick,
        metrics=["auc_gb", "auc_mlp", "separation", "correlation_max"],
    )
    figures: dict[str, Any] = {}
    for name, key in [
        ("auc_gb", "auc_gb"),
        ("auc_mlp", "auc_mlp"),
        ("separation", "separation_x100"),
        ("correlation_max", "max_correlation_error"),
    ]:
        result = scores.get(name)
        figures |= {key: result.value, f"{key}_error": result.error, f"floor_{key}": result.floor}
    return figures


def relations_broken(events: EventTable) -> float:
    """Return the largest relative deviation from the exact relations of the table."""
    columns = {name: events.column(name) for name in events.names}
    return max(relation_deviation(columns, Relation.parse(r)).value for r in HLV_RELATIONS)


def run_neural(
    quick: bool, folder: str | None, n_steps: int | None
) -> tuple[dict[str, float], dict[str, Any]]:
    """Train the neural yardstick and generate with it, in its own number of steps or another."""
    from neural import N_BATCHES, N_STEPS, NeuralFlow

    n_steps = n_steps or N_STEPS

    table, real = load(folder)
    flow = NeuralFlow(HLV_RELATIONS, n_batches=N_BATCHES // 10 if quick else N_BATCHES)
    cost = common.measured(flow.fit, table)
    start = time.process_time()
    x = flow.sample(real.n, random_state=2, n_steps=n_steps)
    seconds = time.process_time() - start
    figures = {"train_cpu_s": cost["cpu_s"], "peak_mib": cost["peak_mib"]}
    return figures, {
        "events": EventTable.of(x, table.names),
        "us_per_event": 1e6 * seconds / real.n,
        "evaluations": 2 * n_steps,
    }


def run(name: str, quick: bool, repeats: int, folder: str | None) -> dict[str, Any]:
    """Train, generate and judge one model."""
    training, real = load(folder)
    if name.startswith("neural"):
        steps = int(name.removeprefix("neural-")) if "-" in name else None
        figures, new = common.in_fresh_process(run_neural, quick, folder, steps)
    else:
        with tempfile.TemporaryDirectory() as place:
            path = str(Path(place) / "model.flowbdt")
            figures = common.in_fresh_process(train, name, repeats, folder, path)
            new = common.in_fresh_process(generate, path, real.n)
    figures |= {"us_per_event": new["us_per_event"], "evaluations": new["evaluations"]}
    figures |= judge(real, new["events"], training, quick)
    figures["relations"] = relations_broken(new["events"])
    print(common.table([{"model": name} | figures]), flush=True)  # the others take their time
    return figures


def main() -> None:
    """Print the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="K = 5, fewer classifiers")
    parser.add_argument("--repeats", type=int, metavar="K", help="of the reference recipe")
    parser.add_argument("--data", metavar="FOLDER", help="folder with t_hlv12.h5")
    parser.add_argument(
        "--models",
        default="reference,fast,balanced",
        help=f"any of {', '.join([*MODELS, 'neural'])}, or neural-8 for 8 steps (%(default)s)",
    )
    options = parser.parse_args()
    repeats = options.repeats or (5 if options.quick else 20)
    names = options.models.split(",")
    figures = {name: run(name, options.quick, repeats, options.data) for name in names}
    first = next(iter(figures.values()))
    rows = [
        {"model": name} | {k: v for k, v in f.items() if not k.startswith("floor")}
        for name, f in figures.items()
    ]
    rows.append({"model": "floor"} | {k[6:]: v for k, v in first.items() if k.startswith("floor")})
    print(common.table(rows))
    common.finish(figures)


if __name__ == "__main__":
    main()
