"""The runs: data, one model or solver judged once, and the file that remembers them."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common
from experiments.ablation.variants import SMOKE
from experiments.jetnet_hlv import settings
from flowbdt import EventTable, FlowBDT, Relation, evaluate
from flowbdt.atomic_files import write_array
from flowbdt.evaluation.metrics import relation_deviation, wasserstein
from flowbdt.physics import HLV_RELATIONS, JetNetHLV

SERIAL = {"name": "serial", "n_threads": 1}
R04_TRAIN_ROWS = 10_000
COLUMN_METRICS = ("separation", "wasserstein")
DRAWN = (settings.REFERENCE_NAME, settings.DEFAULT)
"""Models whose events are kept for the figures."""

Tables = dict[str, tuple[EventTable, EventTable]]
Run = dict[str, Any]


def tables(data: Path | None, smoke: bool) -> Tables:
    """Return training and test events of the jets, and of those of R = 0.4 where they are given."""
    found = {"jets": common.jets(data)}
    if data is not None and (data / "jetnet" / "r04").is_dir():
        small = JetNetHLV(data / "jetnet" / "r04", train_rows=R04_TRAIN_ROWS)
        found["r04"] = (small.load("train"), small.load("test"))
    if smoke:
        return {k: (a.take(slice(0, 300)), b.take(slice(0, 300))) for k, (a, b) in found.items()}
    return found


def judged(
    real: EventTable, new: EventTable, train: EventTable, metrics: list[str], quick: bool
) -> Run:
    """Return scores as [value, error, floor, error of the floor], whole table and per column.

    ``quick``: one seed of the classifiers instead of three; the other scores are cheap.
    """
    given: dict[str, dict[str, Any]] = {name: {} for name in metrics}
    for name in {"auc_gb", "auc_mlp"} & set(metrics):
        given[name] = {"n_model_seeds": 1} if quick else {}
    verdict = evaluate(real, new, training=train, metrics=given)
    result: Run = {"whole": {}, "columns": {}, "relations": consistency(new)}
    for r in verdict.results:
        place = result["whole"] if r.column is None else result["columns"].setdefault(r.name, {})
        place[r.name if r.column is None else r.column] = [r.value, r.error, r.floor, r.floor_error]
    return result


def consistency(events: EventTable) -> dict[str, dict[str, float]]:
    """Return per relation its largest and mean relative deviation, and the W1 between both sides.

    W1 in units of the column: generated ratio against the ratio of generated columns.
    """
    columns = {name: events.column(name) for name in events.names}
    found = {}
    for relation in map(Relation.parse, HLV_RELATIONS):
        broken = relation_deviation(columns, relation)
        with np.errstate(all="ignore"):
            computed = np.asarray(relation.evaluate(columns), dtype=np.float64)
        known = np.isfinite(computed)
        stored = columns[relation.target][known]
        w1 = wasserstein(stored, computed[known], raw=True, n_bootstrap=20)
        found[relation.target] = {
            "largest": broken.value,
            "mean": float(broken.settings["mean"]),
            "w1": w1.value,
            "w1_error": w1.error,
        }
    return found


def timed_sample(draw: Callable[[int], Any], n: int) -> tuple[Any, float]:
    """Return n events and the CPU microseconds of each; loading the model is not counted."""
    draw(1)
    start = time.process_time()
    draw(1)
    loaded = time.process_time()
    events = draw(n)
    return events, 1e6 * (time.process_time() - loaded - (loaded - start)) / n


class Study:
    """Does what is not done yet; every finished run is written at once.

    Parameters
    ----------
    options : of the command line
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.smoke = options, bool(options.smoke)
        self.folder: Path | None = options.output
        self.runs: dict[str, Run] = common.kept(self.folder, {})
        self.tables = tables(options.data, self.smoke)
        self.seeds = 1 if self.smoke else options.seeds

    def work(self) -> dict[str, Run]:
        """Do everything that is missing, the first seed of everything before the second."""
        for seed in range(1, self.seeds + 1):
            for data, name in self.wanted(once=False):
                self.do(f"{data} | {name} | {seed}", partial(self.model, data, name, seed))
            if not self.options.models and seed <= settings.SOLVER_SEEDS:
                self.solvers(seed)
        for data, name in self.wanted(once=True):
            self.do(f"{data} | {name} | 1", partial(self.model, data, name, 1))
        return self.runs

    def wanted(self, once: bool) -> Iterator[tuple[str, str]]:
        """Yield data set and model, of those that are trained once or of the others."""
        names = self.options.models.split(";") if self.options.models else self.names()
        known = [*settings.MODELS, settings.NEURAL]
        if unknown := [name for name in names if name not in known]:
            raise SystemExit(f"unknown models {unknown}; known: {', '.join(known)}")
        for name in names:
            if once == (name in settings.ONCE):
                yield "jets", name
        if "r04" in self.tables and settings.DEFAULT in names and not once:
            yield "r04", settings.DEFAULT

    def names(self) -> list[str]:
        """Return all models; of a smoke run only those that need no torch."""
        if self.smoke:
            return [settings.DEFAULT, settings.REFERENCE_NAME]
        return [*(n for n in settings.MODELS if n not in settings.ONCE), *settings.ONCE]

    def do(self, key: str, make: Callable[[], Run]) -> None:
        """Make a run unless it is there, and keep it."""
        if key in self.runs:
            return
        self.runs[key] = make()
        whole = {k: round(v[0], 4) for k, v in self.runs[key]["whole"].items()}
        print(key, json.dumps(whole), flush=True)
        common.keep(self.runs, self.folder)

    def model(self, data: str, name: str, seed: int) -> Run:
        """Train, generate and judge one model."""
        train, test = self.tables[data]
        fit = self.neural if name == settings.NEURAL else self.trees
        draw, cost = fit(name, seed, train)
        new, cost["us_per_event"] = timed_sample(draw, test.n)
        metrics = ["auc_gb", "auc_mlp", "correlation_max", "memorisation"]
        metrics = [*COLUMN_METRICS, *([] if self.smoke else metrics)]
        scores = judged(test, new, train, metrics, quick=name != settings.DEFAULT)
        if self.folder is not None and seed == 1 and name in DRAWN:
            (self.folder / "events").mkdir(parents=True, exist_ok=True)
            write_array(self.folder / "events" / f"{data}_{name}.npy", new.x.astype(np.float32))
        return {**cost, **scores}

    def trees(
        self, name: str, seed: int, train: EventTable
    ) -> tuple[Callable[[int], EventTable], Run]:
        """Train boosted trees; return what draws events, and the cost."""
        variant = {**settings.MODELS, **settings.OWN_GRID, "grid": settings.GRID}[name]
        small = SMOKE if self.smoke else {}
        model = FlowBDT(**{**variant, **small}, random_state=seed, executor=SERIAL)
        start = time.process_time()
        model.fit(train)
        cost = {
            "train_cpu_s": time.process_time() - start,
            "evaluations": model.n_evaluations_ / model.acceptance_,
            "acceptance": model.acceptance_,
        }
        self.fitted = model
        return lambda n: model.sample(n, random_state=100 + seed), cost

    def neural(
        self, name: str, seed: int, train: EventTable
    ) -> tuple[Callable[[int], EventTable], Run]:
        """Train the small neural flow of the benchmarks; needs torch."""
        sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
        from neural import N_STEPS, NeuralFlow

        flow = NeuralFlow(HLV_RELATIONS, seed=seed)
        start = time.process_time()
        flow.fit(train)
        cost = {"train_cpu_s": time.process_time() - start, "evaluations": 2.0 * N_STEPS}
        return lambda n: EventTable.of(flow.sample(n, 100 + seed), train.names), cost

    def solvers(self, seed: int) -> None:
        """Judge every solver: the nested ones on one set of step models, others on their own."""
        train, _ = self.tables["jets"]
        shared = list(settings.SOLVERS)[:: 7 if self.smoke else 1]
        own = [] if self.smoke else list(settings.OWN_GRID)
        missing = [n for n in (*shared, *own) if f"jets | {n} | {seed}" not in self.runs]
        if any(name in shared for name in missing):
            _, cost = self.trees("grid", seed, train)
            grid = self.fitted
        for name in missing:
            if name in own:
                draw, cost = self.trees(name, seed, train)
            else:
                spec = settings.SOLVERS[name]
                draw = _through(grid, spec, seed)
                cost = {**cost, "evaluations": float(common.n_evaluations(spec))}
            self.do(f"jets | {name} | {seed}", partial(self.solved, draw, cost))

    def solved(self, draw: Callable[[int], EventTable], cost: Run) -> Run:
        """Generate with one solver and judge."""
        train, test = self.tables["jets"]
        new, micros = timed_sample(draw, test.n)
        metrics = [*COLUMN_METRICS, *([] if self.smoke else ["auc_gb"])]
        return {**cost, "us_per_event": micros, **judged(test, new, train, metrics, quick=True)}


def _through(model: FlowBDT, spec: dict[str, Any], seed: int) -> Callable[[int], EventTable]:
    return lambda n: model.sample(n, sampler=spec, random_state=100 + seed)
