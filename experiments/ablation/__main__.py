"""What does each ingredient of the default model gain, and what does quality cost?

    python -m experiments.ablation [--smoke] [--data FOLDER] [--seeds 3] [-o FOLDER]

FOLDER of ``--data`` has ``jetnet/t_hlv12.h5`` and ``real/magic04.data``; without it the bundled
jets are used, and no MAGIC. The electron pairs of CMS come with the package. Every run is kept in
``runs.json`` of the output folder, and one that is there already is not repeated, so that the study
can be stopped and taken up again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common
from experiments.ablation.figures import draw
from experiments.ablation.variants import SMOKE, VARIANTS, Variant
from flowbdt import EventTable, FlowBDT, evaluate
from flowbdt.physics import HLV_RELATIONS, ZToEE

MAGIC_COLUMNS = (
    *("fLength", "fWidth", "fSize", "fConc", "fConc1"),
    *("fAsym", "fM3Long", "fM3Trans", "fAlpha", "fDist"),
)

METRICS = ["auc_gb", "auc_mlp", "separation", "correlation_max", "memorisation"]


def magic(folder: Path) -> tuple[EventTable, EventTable]:
    """Return MAGIC's ten image parameters, odd rows to train and even rows to judge."""
    x = np.loadtxt(folder / "real" / "magic04.data", delimiter=",", usecols=range(10))
    table = EventTable.of(x, MAGIC_COLUMNS)
    return table.take(slice(1, None, 2)), table.take(slice(0, None, 2))


Data = tuple[EventTable, EventTable, Variant]
"""Events to train and to judge, and settings of all variants."""


def tables(data: Path | None, smoke: bool) -> dict[str, Data]:
    """Return the data sets by name."""
    pairs = ZToEE()
    known = {"particles": pairs.particles, "observables": list(pairs.observables)}
    found: dict[str, Data] = {
        "jets": (*common.jets(data), {"relations": list(HLV_RELATIONS)}),
        "z_to_ee": (pairs.load("train"), pairs.load("test"), {**known, "require": pairs.require}),
    }
    if data is not None:
        found["magic"] = (*magic(data), {})
    if smoke:
        rows = slice(0, 300)
        return {k: (a.take(rows), b.take(rows), r) for k, (a, b, r) in found.items()}
    return found


def one(
    train: EventTable, test: EventTable, settings: Variant, seed: int, smoke: bool
) -> dict[str, float]:
    """Train, generate and judge one variant once."""
    settings = dict(settings)
    train = train.take(slice(0, round(settings.pop("share", 1.0) * train.n)))
    model = FlowBDT(**settings, random_state=seed, executor={"name": "serial", "n_threads": 1})
    start = time.process_time()
    model.fit(train)
    trained = time.process_time()
    new = model.sample(test.n, random_state=100 + seed)
    made = time.process_time()
    metrics = ["separation", "correlation_max"] if smoke else METRICS
    known: Any = {name: settings.get(name) for name in ("particles", "observables")}
    scores = evaluate(test, new, training=train, quick=True, metrics=metrics, **known)
    tables_wide = [r for r in scores.results if r.column is None]
    return {
        **{r.name: float(r.value) for r in tables_wide},
        **{f"floor_{r.name}": float(r.floor) for r in tables_wide if r.floor is not None},
        "train_cpu_s": trained - start,
        "us_per_event": 1e6 * (made - trained) / test.n,
        "evaluations": model.n_evaluations_ / model.acceptance_,
    }


def summary(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean over seeds and, for more than one, its standard error."""
    result: dict[str, float] = {"seeds": len(runs)}
    for name in runs[0]:
        values = np.array([run[name] for run in runs], dtype=float)
        result[name] = float(values.mean())
        if len(values) > 1:
            result[f"{name}_error"] = float(values.std(ddof=1) / np.sqrt(len(values)))
    return result


def row(data: str, variant: str, scores: dict[str, float]) -> dict[str, str]:
    """Return one line of the table."""
    cells = {"data": data, "variant": variant, "seeds": str(scores["seeds"])}
    shown = [("auc_gb", 4), ("auc_mlp", 4), ("separation", 3), ("correlation_max", 3)]
    for name, digits in [*shown, ("train_cpu_s", 0), ("us_per_event", 0)]:
        if name in scores:
            text, error = f"{scores[name]:.{digits}f}", scores.get(f"{name}_error")
            cells[name] = text if error is None else f"{text} ± {error:.{digits}f}"
    return cells


def wanted(options: argparse.Namespace) -> list[str]:
    """Return the names of the variants to run. Raises SystemExit for an unknown one."""
    names = options.variants.split(",") if options.variants else list(VARIANTS)
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise SystemExit(f"unknown variants {unknown}; known: {', '.join(VARIANTS)}")
    return names


def jobs(options: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Yield data set, variant and seed; all variants of a seed before the next seed."""
    names = ["jets"] if options.data is None else ["jets", "magic"]
    for seed in range(1, 2 if options.smoke else options.seeds + 1):
        for data in options.tables.split(",") if options.tables else names:
            yield from ((data, variant, seed) for variant in wanted(options))


def study(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Do what is not done yet; return all runs, by data set, variant and seed."""
    runs: dict[str, dict[str, float]] = common.kept(options.output, {})
    events = tables(options.data, options.smoke)
    for data, variant, seed in jobs(options):
        key = f"{data} | {variant} | {seed}"
        if key in runs:
            continue
        train, test, known = events[data]
        settings = {**known, **VARIANTS[variant]}
        if options.smoke:
            settings |= SMOKE
        runs[key] = one(train, test, settings, seed, options.smoke)
        print(key, json.dumps(runs[key]), flush=True)
        common.keep(runs, options.output)
    return runs


def summaries(runs: dict[str, dict[str, float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return data set -> variant -> means and errors over the seeds."""
    groups: dict[str, dict[str, list[dict[str, float]]]] = {}
    for key, scores in runs.items():
        data, variant, _ = key.split(" | ")
        groups.setdefault(data, {}).setdefault(variant, []).append(scores)
    return {d: {v: summary(r) for v, r in found.items()} for d, found in groups.items()}


def main() -> None:
    """Run, print the table, draw."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="repetitions (%(default)s)")
    parser.add_argument("--variants", help="some of them, comma-separated")
    parser.add_argument("--tables", help="of jets, magic, z_to_ee, comma-separated")
    options = parser.parse_args()
    figures = summaries(study(options))
    lines = [row(d, v, scores) for d, found in figures.items() for v, scores in found.items()]
    print(common.markdown(lines))
    if options.output is not None and not options.smoke:
        draw(figures, options.output)
    common.finish(figures, options.output, "ablation")


if __name__ == "__main__":
    main()
