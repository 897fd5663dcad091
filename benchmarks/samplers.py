"""What samplers cost beside the field they ask: share of the library's own work.

    python benchmarks/samplers.py [--quick]

20,000 of the bundled jets of 12 columns go through 16 steps of every sampler. The field is one
step model as the presets make it, a mixture in closed form plus boosted trees; its
cost does not depend on time, so one model stands for all. As in generation the events go in blocks
of `flowbdt.seeding.BLOCK`, whose arrays stay in the cache. Time inside the field and time spent on
drawing noise are measured apart; what remains of the integration is the arithmetic of the sampler
and the library's bookkeeping. CPU seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import common
import numpy as np

from flowbdt import seeding
from flowbdt.config import BOOSTER_DEFAULTS, PRESETS
from flowbdt.flow.closed_form import PRECONDITIONERS
from flowbdt.flow.fields import FunctionField
from flowbdt.flow.paths import PATHS
from flowbdt.flow.solvers import SOLVERS, integrate
from flowbdt.flow.step_inputs import StepInputs
from flowbdt.generation.trained_flow import StepModel
from flowbdt.physics import bundled
from flowbdt.tables.transforms import JointTransform, TableTransform
from flowbdt.trees.base import Batch
from flowbdt.trees.boosted_trees import BoostedTrees

LIMIT = 0.03
"""Share of the field's cost that the library may add."""


class OneBatch:
    """Rows that are all there at once."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.n_rows, self.n_outputs = batch, *batch.target.shape

    def __iter__(self) -> Any:
        yield self.batch

    def redrawn(self, draw: int) -> OneBatch:
        return self  # its noise is part of the batch


class Model:
    """A step model that knows how many columns it has."""

    def __init__(self, step: StepModel, n_columns: int) -> None:
        self.step, self.n_columns = step, n_columns

    def __call__(self, x: np.ndarray, cond: None) -> np.ndarray:
        return self.step(x, cond)


def step_model(quick: bool) -> Model:
    """Return a step model of preset 'balanced' at t = 0.5, for the bundled jets."""
    jets = bundled()
    table = jets.load("train")
    table = table.take(slice(0, 1000 if quick else table.n))
    z = TableTransform("auto", ()).fit(table).forward(table).astype(np.float32)
    preset = PRESETS["balanced"]
    mixture = {"name": "mixture", "n_components": 5} if quick else preset["preconditioner"]
    fitted = PRECONDITIONERS.build(mixture).fit(z, seed=1)
    inputs = StepInputs(
        fitted.at(PATHS.build("linear"), 0.5),
        JointTransform("none").fit(z),
        ["latent", "end_point"],
    )
    few, rng = z[:5000], np.random.default_rng(0)
    x0 = rng.normal(size=few.shape)
    seen, velocity = inputs(0.5 * (few + x0), None)
    batch = Batch(seen, (few - x0 - velocity).astype(np.float32), None)
    booster = {**BOOSTER_DEFAULTS, **preset["booster"], "early_stopping_rounds": 0}
    booster["n_estimators"] = 5 if quick else booster["n_estimators"]
    trees = BoostedTrees(booster).fit(OneBatch(batch), None, seed=1, n_threads=1)
    return Model(StepModel(inputs, trees), z.shape[1])


class Clocked:
    """A callable that adds up its CPU seconds."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: Any) -> Any:
        began = time.process_time()
        value = self.function(*arguments)
        self.seconds += time.process_time() - began
        return value


class ClockedNoise:
    """A generator whose draws are measured."""

    def __init__(self, seed: int) -> None:
        self.standard_normal = Clocked(np.random.default_rng(seed).standard_normal)


def measure(name: Any, model: Model, n_rows: int, n_steps: int) -> dict[str, Any]:
    """Return cost of field, noise and library, per evaluation, for one sampler."""
    velocity = Clocked(lambda t, x, cond: model(x, cond))
    field = FunctionField(velocity, path=PATHS.build("linear"))
    x0 = np.random.default_rng(1).normal(size=(n_rows, model.n_columns))
    noise, calls = ClockedNoise(2), 0
    began = time.process_time()
    for _, low, high in seeding.block_ranges(n_rows):
        boundaries = np.linspace(0.0, 1.0, n_steps + 1)
        done = integrate(SOLVERS.build(name), field, x0[low:high], boundaries, rng=noise)
        calls += done.n_evaluations * (high - low)
    total = time.process_time() - began
    drawn, each = noise.standard_normal.seconds, 1e3 * n_rows / calls
    library = total - velocity.seconds - drawn
    return {
        "sampler": name,
        "evaluations": round(calls / n_rows),
        "field, ms": each * velocity.seconds,
        "noise, ms": each * drawn,
        "library, ms": each * library,
        "share": library / velocity.seconds,
    }


def main() -> None:
    """Measure every sampler."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps, a small model")
    parser.add_argument("--rows", type=int, default=20_000, help="events (%(default)s)")
    parser.add_argument("--samplers", help="some of them, comma-separated")
    options = parser.parse_args()
    n_steps = 4 if options.quick else 16
    model = step_model(options.quick)
    measure("euler", model, options.rows, 2)  # memory is touched for the first time
    names = options.samplers.split(",") if options.samplers else SOLVERS.names()
    rows = [measure(name, model, options.rows, n_steps) for name in names]
    print(common.table(rows))
    if not options.quick:  # a small model says nothing about shares
        above = [row["sampler"] for row in rows if row["share"] > LIMIT]
        print(f"above {LIMIT:.0%}: {', '.join(above) or 'none'}")
    common.finish({row["sampler"]: row["share"] for row in rows})


if __name__ == "__main__":
    main()
