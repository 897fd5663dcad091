"""How well `flowbdt.training.expected_cost` foresees memory and CPU time of a step, and where its
constants are from.

    python benchmarks/cost.py [--quick] [--fits]

Every point is trained in a process of its own, on made-up rows whose making costs little. Printed:
measured and expected peak memory of the whole process, measured and expected CPU seconds, and the
constants that fit all measured times best (least squares of relative errors, none negative).
With ``--fits`` whole fits are compared with `flowbdt.generation.fit_cost` instead, on jets with
noise (12 columns) and exponentials of mixed normal numbers: parts, all, and the process's peak.
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


FITS = (
    (10_000, 12, "fast"),
    (10_000, 12, "balanced"),
    (25_000, 12, "fast"),
    (25_000, 12, "balanced"),
    (100_000, 12, "fast"),
    (10_000, 60, "fast"),
    (10_000, 60, "balanced"),
    (3_000, 166, "balanced"),
    (3_000, 368, "fast"),
)
"""Rows, columns and preset of whole fits."""


def made_up_table(n_rows: int, n_columns: int) -> np.ndarray:
    """Return a table (n, d): jets drawn again with noise of a tenth of their width, or mixtures."""
    from flowbdt.physics import bundled

    rng = np.random.default_rng(5)
    if n_columns == 12:
        jets = np.asarray(bundled().load("train").x)
        drawn = jets[rng.integers(0, len(jets), n_rows)] / jets.std(axis=0)
        drawn += 0.1 * rng.normal(size=drawn.shape)
        others = 0.3 * drawn[:, : 12 - drawn.shape[1]]
        return np.hstack([drawn, np.exp(others + rng.normal(size=others.shape))])
    factors = rng.normal(size=(n_rows, 8))
    factors[:, 0] = np.abs(factors[:, 0])
    factors[:, 1] = factors[:, 0] ** 2 + 0.5 * factors[:, 1]
    mixed = factors @ rng.normal(size=(8, n_columns))
    return np.asarray(np.exp(0.1 * mixed + 0.3 * rng.normal(size=mixed.shape)))


def measured_fit(n_rows: int, n_columns: int, preset: str) -> dict[str, Any]:
    """Return CPU seconds of a fit and its parts, peak memory, and what was expected."""
    import tempfile

    from flowbdt.config import ModelConfig
    from flowbdt.generation.fit_cost import fit_parts
    from flowbdt.generation.fit_run import fit_run
    from flowbdt.tables.event_table import EventTable
    from flowbdt.training import run_directory
    from flowbdt.training.plan import Inputs

    table = EventTable.of(made_up_table(n_rows, n_columns))
    serial = {"name": "serial", "n_threads": 1}
    with tempfile.TemporaryDirectory() as folder:
        config = ModelConfig(preset=preset, random_state=1, executor=serial)
        run = fit_run(Inputs(table, config, 1), folder)
        peak = common.peak_mib()
        reports = [run.report(step) for step in range(run.n_steps())]
        steps = sum(report["cpu_seconds"] for report in reports if report)
        rejection = 0.0
        if run.plan()["rejection"]:
            rejection = run.read_json(run_directory.REJECTION_REPORT)["cpu_seconds"]
        whole, parts = common.time.process_time(), fit_parts(run.plan(), len(reports))
    expected = sum(part.seconds for part in parts)
    return {
        "fit": f"{n_rows:,} x {n_columns}, {preset}",
        "steps_s": steps,
        "rejection_s": rejection,
        "cpu_s": whole,
        **{f"expected {part.name}": part.seconds for part in parts},
        "expected_s": expected,
        "most_s": sum(part.most for part in parts),
        "cpu_ratio": whole / expected,
        "peak_mib": peak,
        "expected_mib": max(part.mib for part in parts),
    }


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
    parser.add_argument("--fits", action="store_true", help="whole fits")
    arguments = parser.parse_args()
    if arguments.fits:
        chosen = FITS[:1] if arguments.quick else FITS
        fits = [common.in_fresh_process(measured_fit, *sizes) for sizes in chosen]
        print(common.table(fits))
        common.finish({"fits": fits})
        return
    names = QUICK if arguments.quick else POINTS
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
