"""What an event costs: compiled, by XGBoost in the same flow, and by the reference recipe.

    python benchmarks/generation.py [--quick] [--columns 12,368] [--model FILE]

One core, microseconds of CPU time per event, in batches of 1, 100 and 10,000, everything in turns
within one run so that other load meets all of them. The flow has 16 evaluations of 100 vector-leaf
trees of depth 6, on 12 and on 368 columns, trees alone and with a mixture in closed form (40 full
covariances on 12 columns, 10 of low rank on 368). One step model is trained, on the bundled jets or
on a made-up table of 368 columns, and stands 16 times in memory for all steps: its cost does not
depend on time. Reference recipe: trees of depth 4 without closed form, 20 steps of Dormand-Prince,
each of 120 evaluations by the nearest of 30 step models. The floors are what this machine needs for
six comparisons per tree and for reading one leaf of each, at the rates of large numpy operations on
arrays in the cache. ``--model`` measures the events of a saved model as well.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np
from threadpoolctl import threadpool_limits

from flowbdt import store
from flowbdt.compiled.engine import CompiledFlow
from flowbdt.compiled.program import program
from flowbdt.config import BOOSTER_DEFAULTS
from flowbdt.datasets import bundled
from flowbdt.fields import FunctionField
from flowbdt.generation import Flow
from flowbdt.inputs import StepInputs
from flowbdt.paths import PATHS
from flowbdt.preconditioners import PRECONDITIONERS
from flowbdt.regressors.base import Batch
from flowbdt.regressors.trees import forests
from flowbdt.regressors.xgb import BoostedTrees
from flowbdt.solvers import SOLVERS, integrate
from flowbdt.stepmodel import StepModel
from flowbdt.transforms import JointTransform, TableTransform

N_STEPS, N_TREES, DEPTH = 16, 100, 6
REFERENCE = {"steps": 20, "times": 30, "depth": 4}
BATCHES = (1, 100, 10_000)
FORMS: dict[int, dict[str, Any]] = {
    12: {"name": "mixture", "n_components": 40},
    368: {"name": "mixture", "n_components": 10},
}


class OneBatch:
    """Rows that are all there at once."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.n_rows, self.n_outputs = batch, *batch.target.shape

    def __iter__(self) -> Any:
        yield self.batch


class Way(NamedTuple):
    """One way to make events: points (n, m) -> points; the least time it has taken."""

    name: str
    run: Callable[[np.ndarray], Any]
    largest: int


def latent(columns: int, rows: int) -> np.ndarray:
    """Return latent training rows: bundled jets, or voxels that depend on few numbers."""
    if columns == 12:
        jets = bundled().load("train")
        table = jets.take(slice(0, min(rows, jets.n)))
        return TableTransform({"joint": "standardise"}).fit(table).forward(table)
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(rows, 8)) @ rng.normal(size=(8, columns))
    x = np.tanh(mixed) + 0.3 * rng.normal(size=(rows, columns))
    return (x - x.mean(axis=0)) / x.std(axis=0)


def trained(z: np.ndarray, form: dict[str, Any], depth: int) -> tuple[StepInputs, bytes]:
    """Return the inputs and the trees of the step at t = 0.5."""
    fitted = PRECONDITIONERS.build(form).fit(z, seed=1)
    inputs = StepInputs(
        fitted.at(PATHS.build("linear"), 0.5), JointTransform("none").fit(z), ["latent"]
    )
    x0 = np.random.default_rng(1).normal(size=z.shape)
    seen, velocity = inputs(0.5 * (z + x0), None)
    booster = {
        **BOOSTER_DEFAULTS,
        "n_estimators": N_TREES,
        "max_depth": depth,
        "reg_lambda": 0.0,
        "min_child_weight": 0.0,
        "max_bin": 64 if z.shape[1] <= 64 else 16,
        "split_outputs": 0 if z.shape[1] <= 64 else 1,
    }
    batch = Batch(seen, (z - x0 - velocity).astype(np.float32), None)
    trees = BoostedTrees(booster).fit(OneBatch(batch), None, seed=1, n_threads=1)
    return inputs, trees.to_bytes()


def by_xgboost(content: bytes, inputs: StepInputs, solver: str, steps: int, times: int) -> Any:
    """Return a flow by XGBoost: as many boosters in memory as there are times."""
    boosters = [BoostedTrees.from_bytes(content) for _ in range(times)]
    for booster in boosters:
        booster.set_threads(1)
    models = [StepModel(inputs, booster) for booster in boosters]

    def velocity(t: float, x: np.ndarray, cond: Any) -> np.ndarray:
        return models[min(round(t * times), times - 1)](x, cond)

    built, boundaries = SOLVERS.build(solver), np.linspace(0.0, 1.0, steps + 1)
    return lambda x: integrate(built, FunctionField(velocity), x, boundaries)


def compiled(content: bytes, inputs: StepInputs) -> Callable[[np.ndarray], np.ndarray]:
    """Return the same flow compiled."""
    found = program(SOLVERS.build("adams_bashforth_2"), np.linspace(0.0, 1.0, N_STEPS + 1), None)
    trees = forests(content)[0]
    shape = trees[0].feature.shape
    if shape != (N_TREES, 2**DEPTH):
        raise SystemExit(f"expected {N_TREES} trees of depth {DEPTH}, got {shape}")
    steps = np.arange(N_STEPS)
    flow = CompiledFlow(found, steps, [inputs] * N_STEPS, [trees] * N_STEPS)
    nothing = np.zeros((1, 0))

    def run(x: np.ndarray) -> np.ndarray:
        if len(x) > 1:
            return flow.run(x, None)
        one = x.copy()
        flow.step_one(one, nothing)
        return one

    return run


def ways(columns: int, rows: int) -> list[Way]:
    """Return all ways to make events of so many columns."""
    z = latent(columns, rows)
    several = BATCHES[-1] if columns == 12 else 1000
    few = 2000 if columns == 12 else 200
    result = []
    for name, form in (("trees", {"name": "none"}), ("mixture and trees", FORMS[columns])):
        inputs, content = trained(z, form, DEPTH)
        result.append(Way(f"compiled, {name}", compiled(content, inputs), several))
        run = by_xgboost(content, inputs, "adams_bashforth_2", N_STEPS, N_STEPS)
        result.append(Way(f"XGBoost, {name}", run, several))
    inputs, content = trained(z, {"name": "none"}, REFERENCE["depth"])
    steps, times = REFERENCE["steps"], REFERENCE["times"]
    run = by_xgboost(content, inputs, "dormand_prince", steps, times)
    return [*result, Way("reference recipe", run, few)]


def clocked(run: Callable[[np.ndarray], Any], x: np.ndarray) -> float:
    """Return CPU microseconds per row of one call; small batches are called several times."""
    calls = max(1, min(50, 200 // len(x)))
    began = time.process_time()
    for _ in range(calls):
        run(x)
    return 1e6 * (time.process_time() - began) / (calls * len(x))


def measured(every: list[Way], columns: int, rounds: int) -> dict[str, dict[int, float]]:
    """Return the least microseconds per event of each way and batch, taken in turns."""
    rng, best = np.random.default_rng(2), {way.name: dict[int, float]() for way in every}
    points = rng.normal(size=(BATCHES[-1], columns))
    for way in every:
        way.run(points[:1])  # what is worked out once
        way.run(points[:100])
    for _ in range(rounds):
        for way in every:
            for batch in BATCHES:
                took = clocked(way.run, points[: min(batch, way.largest)])
                best[way.name][batch] = min(took, best[way.name].get(batch, np.inf))
    return best


def floors(columns: int) -> dict[str, float]:
    """Return microseconds per event that comparisons, and reading of leaves, need at least."""
    x, n = np.random.default_rng(0).normal(size=4096).astype(np.float32), 2000
    leaves, mask = np.ones(2**17, dtype=np.float32), np.empty(4096, dtype=bool)
    best = {"comparisons": np.inf, "leaves": np.inf}
    for _ in range(20):
        began = time.process_time()
        for _ in range(n):
            np.greater_equal(x, 0.5, out=mask)
        best["comparisons"] = min(best["comparisons"], (time.process_time() - began) / (n * x.size))
        began = time.process_time()
        for _ in range(50):
            leaves.max()
        best["leaves"] = min(best["leaves"], (time.process_time() - began) / (50 * leaves.size))
    visited = N_STEPS * N_TREES
    return {
        "floor: comparisons": 1e6 * visited * DEPTH * best["comparisons"],
        "floor: reading leaves": 1e6 * visited * columns * best["leaves"],
    }


def of_model(path: Path, n: int) -> dict[str, float]:
    """Return microseconds per event of a saved model, compiled and by XGBoost, all included."""
    result = {}
    for name, wanted in (("compiled", True), ("XGBoost", False)):
        flow = Flow(store.open_run(path), 1, compiled=wanted)
        next(iter(flow.sample_blocks(10, seed=1)))
        took = []
        for _ in range(3):
            began = time.process_time()
            for _ in flow.sample_blocks(n, seed=1):
                pass
            took.append(time.process_time() - began)
        result[f"us_model_{name}"] = 1e6 * min(took) / n
    return result


def figures(best: dict[str, dict[int, float]], columns: int) -> dict[str, float]:
    """Return the figures of the JSON line for one number of columns."""
    ours, mixed = best["compiled, trees"], best["compiled, mixture and trees"]
    theirs, large = best["XGBoost, trees"], BATCHES[-1]
    result = {
        f"speedup_bulk_{columns}": theirs[large] / ours[large],
        f"speedup_one_{columns}": theirs[1] / ours[1],
        f"speedup_reference_{columns}": best["reference recipe"][large] / ours[large],
    }
    if columns == 12:
        names = {"us_bulk_12": ours[large], "us_one_12": ours[1], "us_mixture_12": mixed[large]}
        return {**result, **names, "us_mixture_one_12": mixed[1]}
    return {**result, "ms_bulk_368": mixed[large] / 1e3, "ms_one_368": mixed[1] / 1e3}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the same models, fewer repetitions")
    parser.add_argument("--columns", default="12,368", help="which tables (%(default)s)")
    parser.add_argument("--model", type=Path, help="a saved model, for its own cost per event")
    options = parser.parse_args()
    result: dict[str, float] = {}
    with threadpool_limits(1):
        for columns in (int(number) for number in options.columns.split(",")):
            every = ways(columns, 3000 if columns == 12 else 1000)
            best = measured(every, columns, 2 if options.quick else 6)
            base = best["compiled, trees"]
            print(f"{columns} columns, us per event and, in brackets, relative to compiled trees")
            rows: list[dict[str, Any]] = [
                {"way": name}
                | {f"batch of {b}": f"{us:.4g} ({us / base[b]:.3g})" for b, us in took.items()}
                for name, took in best.items()
            ]
            rows += [{"way": n, f"batch of {BATCHES[-1]}": us} for n, us in floors(columns).items()]
            print(common.table(rows))
            result |= figures(best, columns)
        if options.model:
            result |= of_model(options.model, 20_000)
    common.finish(result)


if __name__ == "__main__":
    main()
