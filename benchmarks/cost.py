"""How well `flowbdt.training.expected_cost` foresees memory and CPU time of a step, and where its
constants are from.

    python benchmarks/cost.py [--quick]

Every point is trained in a process of its own, on made-up rows whose making costs little. Printed:
measured and expected peak memory of the whole process, measured and expected CPU seconds, and the
constants that fit all measured times best (least squares of relative errors, none negative).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import common
import numpy as np

from flowbdt.config import BOOSTER_DEFAULTS, WIDE_BOOSTER
from flowbdt.training import expected_cost

N_ROUNDS = 10

POINTS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "25,000 x 9": ({}, (25_000, 27, 9)),
    "25,000 x 9, 5 copies": ({}, (125_000, 27, 9)),
    "25,000 x 9, a tree each": ({"multi_strategy": "one_output_per_tree"}, (25_000, 27, 9)),
    "100,000 x 12, depth 4": ({"max_depth": 4}, (100_000, 36, 12)),
    "10,000 x 30": ({}, (10_000, 90, 30)),
    "20,000 x 60, depth 5": ({"max_depth": 5}, (20_000, 60, 60)),
    "5,000 x 128, 32 bins": ({"max_bin": 32, "max_depth": 4}, (5_000, 128, 128)),
    "5,000 x 368, wide": (WIDE_BOOSTER, (5_000, 368, 368)),
    "50,000 x 100, wide": (WIDE_BOOSTER, (50_000, 100, 100)),
    "5,000 x 368, all outputs": ({"max_bin": 32, "max_depth": 4}, (5_000, 368, 368)),
    "5,000 x 368, split on 10": (
        {"max_bin": 32, "max_depth": 4, "split_outputs": 10},
        (5_000, 368, 368),
    ),
    "5,000 x 200, groups of 20": ({"max_depth": 4, "outputs_per_group": 20}, (5_000, 200, 200)),
}
QUICK = ("25,000 x 9", "5,000 x 128, 32 bins", "5,000 x 368, wide")


class MadeUp:
    """Rows with something to learn in every output, made batch by batch."""

    def __init__(self, n_rows: int, n_inputs: int, n_outputs: int) -> None:
        self.n_rows, self._n_inputs, self.n_outputs = n_rows, n_inputs, n_outputs

    def __iter__(self) -> Iterator[Any]:
        from flowbdt.trees.base import Batch

        for low in range(0, self.n_rows, 4096):
            rng = np.random.default_rng(low)
            n = min(4096, self.n_rows - low)
            x = rng.standard_normal((n, self._n_inputs), dtype=np.float32)
            y = np.sin(2 * x[:, np.arange(self.n_outputs) % self._n_inputs])
            y += rng.standard_normal(y.shape, dtype=np.float32)
            yield Batch(x, y, None)

    def redrawn(self, draw: int) -> MadeUp:
        return self  # there is no noise in it


def booster_of(changes: dict[str, Any]) -> dict[str, Any]:
    """Return booster settings with few rounds, all of which are grown."""
    return {
        **BOOSTER_DEFAULTS,
        "n_estimators": N_ROUNDS,
        "early_stopping_rounds": N_ROUNDS,
        **changes,
    }


def measure(changes: dict[str, Any], sizes: tuple[int, int, int]) -> dict[str, float]:
    """Return peak memory of the process (MiB) and CPU seconds of one fit."""
    import flowbdt.training.train_step  # noqa: F401  what a step has loaded
    from flowbdt.trees.boosted_trees import BoostedTrees

    BoostedTrees(booster_of({})).fit(MadeUp(100, 2, 2), None, seed=1, n_threads=1)
    common.reset_peak()
    valid = MadeUp(sizes[0] // 10, *sizes[1:])
    model = BoostedTrees(booster_of(changes))
    start = common.time.process_time()
    model.fit(MadeUp(*sizes), valid, seed=1, n_threads=1)
    return {"cpu_s": common.time.process_time() - start, "peak_mib": common.peak_mib()}


def row_of(name: str) -> dict[str, Any]:
    """Measure one point and set it beside what is expected."""
    changes, sizes = POINTS[name]
    found = common.in_fresh_process(measure, changes, sizes)
    expected = expected_cost.estimate(booster_of(changes), *sizes, sizes[0] // 10)
    return {
        "step": name,
        "peak_mib": found["peak_mib"],
        "expected_mib": expected.memory_mib,
        "memory_ratio": expected.memory_mib / found["peak_mib"],
        "cpu_s": found["cpu_s"],
        "expected_s": expected.cpu_seconds,
        "cpu_ratio": expected.cpu_seconds / found["cpu_s"],
    }


def fitted_constants(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return nanoseconds per unit of work that fit the measured times best."""
    from scipy.optimize import nnls

    units = []
    for row in rows:
        changes, sizes = POINTS[row["step"]]
        work = expected_cost.estimate(booster_of(changes), *sizes, sizes[0] // 10).work
        units.append([work[name] for name in expected_cost.NANOSECONDS])
    scaled = np.array(units) / np.array([[row["cpu_s"]] for row in rows])
    size = scaled.max(axis=0)
    constants, _ = nnls(scaled / size, np.ones(len(rows)))
    return {
        name: float(c)
        for name, c in zip(expected_cost.NANOSECONDS, 1e9 * constants / size, strict=True)
    }


def main() -> None:
    """Print the table and the constants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three points only")
    names = QUICK if parser.parse_args().quick else POINTS
    rows = [row_of(name) for name in names]
    print(f"one step of {N_ROUNDS} rounds: measured and expected")
    print(common.table(rows))
    constants = fitted_constants(rows)
    print(
        common.table(
            [
                {"nanoseconds": k, "fitted": v, "used": expected_cost.NANOSECONDS[k]}
                for k, v in constants.items()
            ]
        )
    )
    finish = {"points": rows, "fitted_nanoseconds": constants}
    common.finish(finish)


if __name__ == "__main__":
    main()
