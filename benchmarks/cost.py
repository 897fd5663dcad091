"""How well `flowbdt.training.expected_cost` foresees memory and CPU time of a step, and where its
constants are from.

    python benchmarks/cost.py [--quick] [--fits [--data FOLDER]]

Every point is trained in a process of its own, on made-up rows whose making costs little. Printed:
measured and expected peak memory of the whole process, measured and expected CPU seconds, and the
constants that fit all measured times best (least squares of relative errors, none negative).
With ``--fits`` whole fits are compared with `flowbdt.generation.fit_cost` instead, on jets with
noise (12 columns) and exponentials of mixed normal numbers: parts, all, and the process's peak.
``--data`` (see ``mixed_tables.py``) adds real tables, in part with classifiers of discrete columns,
and one like HIGGS. Times are divided by how much slower than `REFERENCE_S` a fixed calculation is
before and after the fit.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
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
    (1_000_000, 12, "balanced"),
)
"""Rows, columns and preset of whole fits."""

TABLES = (
    (5_000, "adult", "balanced"),
    (5_000, "default", "balanced"),
    (5_000, "california", "balanced"),
    (5_000, "zee", "balanced"),
    (5_000, "magic", "balanced"),
    (16_000, "adult", "balanced"),
    (15_000, "default", "fast"),
    (15_000, "magic", "fast"),
    (100_000, "higgs", "fast"),
)
"""The same of real tables: constants are fitted to the first five."""

REFERENCE_S = 0.42
"""CPU time of `fixed_work` on an idle core of the machine to which the constants belong."""


def fixed_work() -> float:
    """Return the CPU seconds of a fixed calculation: products of matrices, exponentials."""
    start = common.time.process_time()
    square, numbers = np.random.default_rng(0).normal(size=(400, 400)), np.arange(2e6)
    for _ in range(60):
        square @ square
    for _ in range(10):
        np.exp(-1e-6 * numbers)
    return float(common.time.process_time() - start)


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


def like_higgs(n_rows: int) -> np.ndarray:
    """Return a table (n, 28): 24 positive mixtures of normal numbers, 4 columns of three values."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(n_rows, 10)) @ rng.normal(size=(10, 28))
    x = np.abs(0.5 * mixed + rng.normal(size=mixed.shape))
    x[:, 20:24] = rng.choice([0.0, 1.086, 2.173], size=(n_rows, 4), p=[0.5, 0.2, 0.3])
    return x


def rows_of(n_rows: int, what: int | str, data: str | None) -> Any:
    """Return a made-up table of so many columns, or the one of that name."""
    if isinstance(what, int):
        return made_up_table(n_rows, what)
    if what == "higgs":
        return like_higgs(n_rows)
    import mixed_tables

    return mixed_tables.read(what, Path(str(data)))[:n_rows]


def measured_fit(n_rows: int, what: int | str, preset: str, data: str | None) -> dict[str, Any]:
    """Return CPU seconds of a fit and its parts, peak memory, and what was expected."""
    import tempfile
    import warnings

    from flowbdt.config import ModelConfig
    from flowbdt.generation.fit_cost import fit_parts
    from flowbdt.generation.fit_run import fit_run
    from flowbdt.tables.event_table import EventTable
    from flowbdt.training import run_directory
    from flowbdt.training.plan import Inputs, fitted_transform

    started = common.time.process_time()
    warnings.simplefilter("ignore")  # of rare values: nothing is set by hand
    table = EventTable.of(rows_of(n_rows, what, data), missing=True)
    serial = {"name": "serial", "n_threads": 1}
    settled = Inputs(
        table, ModelConfig(preset=preset, random_state=1, executor=serial), 1
    ).settled()
    transform, label = fitted_transform(settled, np.ones(table.n, dtype=bool))
    first, skeleton = None if label is None else label.name, transform.skeleton
    plan = expected_cost.outline(settled, transform.n_latent, skeleton.n_values, first)
    del transform, label
    slow, start = fixed_work(), common.time.process_time()
    common.reset_peak()
    with tempfile.TemporaryDirectory() as folder:
        run = fit_run(settled, folder)
        whole = started + common.time.process_time() - start
        peak = common.peak_mib()
        slow = (slow + fixed_work()) / 2 / REFERENCE_S
        n_steps, took = len(run_directory.trained_times(run.plan())), []
        for step in range(run.n_steps()):
            report = run.report(step) or {}
            took.append(report["cpu_seconds"])
            peak = max(peak, report["peak_mib"])
        parts = {"steps": sum(took[:n_steps]), "classifiers": sum(took[n_steps:])}
        if run.plan()["rejection"]:
            parts["rejection"] = run.read_json(run_directory.REJECTION_REPORT)["cpu_seconds"]
    parts = {"closed form": whole - sum(parts.values()), **parts}
    expected, name = fit_parts(plan, n_steps), "" if isinstance(what, int) else f" {what}"
    return {
        "fit": f"{table.n:,} x {len(table.names)}{name}, {preset}",
        "slower": slow,
        **{f"{part}_s": seconds / slow for part, seconds in parts.items()},
        "all_s": whole / slow,
        **{f"expected {part.name}": part.seconds for part in expected},
        "expected_s": sum(part.seconds for part in expected),
        "most_s": sum(part.most for part in expected),
        "cpu_ratio": sum(part.seconds for part in expected) * slow / whole,
        "peak_mib": peak,
        "expected_mib": max(part.mib for part in expected),
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
    parser.add_argument("--data", metavar="FOLDER", help="whole fits of the real tables in it")
    parser.add_argument("--only", default="", help="those whose line contains this")
    arguments = parser.parse_args()
    if arguments.fits:
        chosen: Sequence[Any] = FITS[:1] if arguments.quick else FITS
        if arguments.data:
            chosen = TABLES
        chosen = [one for one in chosen if arguments.only in str(one)]
        fits = [common.in_fresh_process(measured_fit, *one, arguments.data) for one in chosen]
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
