"""What does each ingredient of the default model gain?

    python -m experiments.ablation [--smoke] [--data FOLDER] [--seeds 3] [-o FOLDER]

Every variant is the default model with one thing changed. FOLDER has ``jetnet/t_hlv12.h5`` and
``real/magic04.data``; without it the bundled jets are used alone.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common
from flowbdt import EventTable, FlowBDT, evaluate
from flowbdt.datasets import HLV_RELATIONS, JetNetHLV, bundled

VARIANTS: dict[str, dict[str, Any]] = {
    "balanced": {},
    "no closed form": {"preconditioner": "none"},
    "one Gaussian": {"preconditioner": "gaussian"},
    "40 Gaussians": {"preconditioner": {"name": "mixture", "n_components": 40}},
    "no trees": {"booster": {"n_estimators": 1, "learning_rate": 1e-9}, "n_repeats": 1},
    "single-event targets": {"candidates": 0},
    "fresh noise, single-event targets": {"candidates": 0, "noise": "fresh", "n_repeats": 2},
    "fresh noise, averaged targets": {"noise": "fresh", "n_repeats": 2},
    "trees see the latent point only": {"inputs": ["latent"]},
    "no end point as input": {"inputs": ["latent", "columns"]},
    "8 steps": {"n_steps": 8},
    "steps finer near the data": {"spacing": {"name": "power", "exponent": 1.5}},
    "Heun, 8 steps": {"solver": "heun", "n_steps": 8},
}

SMOKE = {"booster": {"n_estimators": 3, "max_depth": 2}, "n_repeats": 1, "candidates": 50}

MAGIC_COLUMNS = [
    "fLength",
    "fWidth",
    "fSize",
    "fConc",
    "fConc1",
    "fAsym",
    "fM3Long",
    "fM3Trans",
    "fAlpha",
    "fDist",
]


def magic(folder: Path) -> tuple[EventTable, EventTable]:
    """Return MAGIC's ten image parameters, odd rows to train and even rows to judge."""
    x = np.loadtxt(folder / "real" / "magic04.data", delimiter=",", usecols=range(10))
    table = EventTable.of(x, MAGIC_COLUMNS)
    return table.take(slice(1, None, 2)), table.take(slice(0, None, 2))


def tables(data: Path | None, smoke: bool) -> dict[str, tuple[EventTable, EventTable, list[str]]]:
    """Return per data set: training events, test events, relations."""
    jets = bundled() if data is None else JetNetHLV(data / "jetnet")
    found = {"jets": (jets.load("train"), jets.load("test"), list(HLV_RELATIONS))}
    if data is not None:
        found["magic"] = (*magic(data), [])
    if smoke:
        rows = slice(0, 400)
        return {k: (a.take(rows), b.take(rows), r) for k, (a, b, r) in found.items()}
    return found


def one(
    train: EventTable, test: EventTable, settings: dict[str, Any], seed: int, smoke: bool
) -> dict[str, float]:
    """Train, generate and judge one variant once."""
    model = FlowBDT(**settings, random_state=seed, executor={"name": "serial", "n_threads": 1})
    start = time.process_time()
    model.fit(train)
    trained = time.process_time()
    new = model.sample(test.n, random_state=100 + seed)
    made = time.process_time()
    metrics = ["separation", "correlation_max"] if smoke else None
    scores = evaluate(
        test,
        new,
        training=train,
        quick=True,
        seed=seed,
        metrics=metrics or ["auc_gb", "auc_mlp", "separation", "correlation_max"],
    )
    values = {r.name: r.value for r in scores.results if r.column is None}
    floors = {f"floor_{r.name}": r.floor for r in scores.results if r.column is None}
    return {
        **values,
        **floors,
        "train_cpu_s": trained - start,
        "us_per_event": 1e6 * (made - trained) / test.n,
    }


def summary(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean over seeds and, for more than one, its standard error."""
    result: dict[str, float] = {}
    for name in runs[0]:
        values = np.array([run[name] for run in runs], dtype=float)
        result[name] = float(values.mean())
        if len(values) > 1:
            result[f"{name}_error"] = float(values.std(ddof=1) / np.sqrt(len(values)))
    return result


def row(data: str, variant: str, scores: dict[str, float]) -> dict[str, str]:
    """Return one line of the table."""
    cells = {"data": data, "variant": variant}
    for name, digits in [("auc_gb", 4), ("auc_mlp", 4), ("separation", 3), ("train_cpu_s", 0)]:
        if name in scores:
            error = scores.get(f"{name}_error")
            text = f"{scores[name]:.{digits}f}"
            cells[name] = text if error is None else f"{text} ± {error:.{digits}f}"
    cells["us_per_event"] = f"{scores['us_per_event']:.1f}"
    return cells


def main() -> None:
    """Run every variant on every table."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="repetitions (%(default)s)")
    parser.add_argument("--variants", help="some of them, comma-separated")
    options = parser.parse_args()
    wanted = options.variants.split(",") if options.variants else list(VARIANTS)
    figures: dict[str, Any] = {}
    rows = []
    for data, (train, test, relations) in tables(options.data, options.smoke).items():
        for variant in wanted:
            settings = {"relations": relations, **VARIANTS[variant]}
            if options.smoke:
                settings |= {**SMOKE, "preconditioner": "gaussian"}
            seeds = range(1, 2 if options.smoke else options.seeds + 1)
            runs = [one(train, test, settings, seed, options.smoke) for seed in seeds]
            scores = summary(runs)
            figures.setdefault(data, {})[variant] = scores
            rows.append(row(data, variant, scores))
            print(" ".join(rows[-1].values()), flush=True)
    print(common.markdown(rows))
    common.finish(figures, options.output, "ablation")


if __name__ == "__main__":
    main()
