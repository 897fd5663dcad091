"""One training job: learn the velocity at one time, write the model, then its report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from .. import atomic_files
from ..errors import RunError, reading
from ..seeding import derive
from ..trees.boosted_trees import BoostedTrees, check_parameters
from . import run_directory
from .noise_draws import trees_per_draw, valid_repeats
from .noisy_pairs import LatentEvents, NoisyPairs
from .pair_variants import pairs_of_task
from .peak_memory import peak_mib, reset_peak
from .run_directory import RunDirectory
from .task_files import planned_arrays, planned_inputs, worker_description
from .threads import one_thread_of_blas
from .train_classifier import train_classifier


def run_task(folder: str | Path, step: int, n_threads: int = 1) -> dict[str, Any]:
    """Do one training job of a planned run and return its report; needs only the run directory.

    It learns the velocity at one time, or the classifier of one discrete column.

    The model is written first, the report, which makes the step count as done, last. The result
    does not depend on ``n_threads``, those of XGBoost. Raises FormatError if task or tables are
    missing, damaged, or do not belong together, RunError if the result cannot be written.
    """
    run = RunDirectory(folder)
    task = run.task(step)
    start, cpu = time.perf_counter(), time.process_time()
    reset_peak()
    # matrix products on one thread: they are small, and add in one order only
    with one_thread_of_blas():
        learn = train_classifier if "column" in task else train_velocity
        content, learned = learn(run, task, n_threads)
    run.file("steps").mkdir(exist_ok=True)  # a job's scratch folder has its inputs only
    atomic_files.write_bytes(run.file(run_directory.model_name(step)), content)
    report: dict[str, Any] = {
        "format": run_directory.FORMAT,
        "step": step,
        **{name: task[name] for name in ("time", "column", "name") if name in task},
        "task_digest": task["digest"],
        "model_sha256": atomic_files.digest_bytes(content),
        **learned,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": peak_mib(),
        "worker": worker_description(),
    }
    if not np.isfinite(report.get("train_rmse", 0.0)):
        raise RunError(
            f"step {step} learned non-finite velocities; lower booster.learning_rate (below 1)"
        )
    run.write_json(run_directory.report_name(step), report)
    return report


def train_velocity(
    run: RunDirectory, task: dict[str, Any], n_threads: int
) -> tuple[bytes, dict[str, Any]]:
    """Return the trees of one time, and what was learned."""
    with reading(f"{run.file(run_directory.task_name(task['step']))}"):
        check_parameters(task["booster"])
    train, valid = training_pairs(run, task)
    model = BoostedTrees(task["booster"]).fit(
        train,
        valid,
        seed=derive(task["seed"], "booster", task["step"]),
        n_threads=n_threads,
        refresh=trees_per_draw(task["noise"], int(task["booster"]["n_estimators"]), train.turns),
    )
    learned = {**model.summary, "rows": train.n_rows}
    return model.to_bytes(), learned


def training_pairs(run: RunDirectory, task: dict[str, Any]) -> tuple[NoisyPairs, NoisyPairs | None]:
    """Return the training and validation pairs of a task; no event is in both."""
    arrays, inputs = planned_arrays(run, task), planned_inputs(run, task)
    valid = np.asarray(arrays.pop("valid"))
    used = np.asarray(arrays.pop("shown", np.full(len(valid), True)))
    arrays.pop("codes", None)  # of columns that classifiers draw
    if (weight := arrays.get("weight")) is not None:
        used = used & (np.asarray(weight) > 0)
    train = LatentEvents(rows=np.flatnonzero(~valid & used), **arrays)
    pairs = pairs_of_task(task, train, inputs, "train", task["noise"]["n_repeats"])
    if not (valid & used).any():
        return pairs, None
    held_out = LatentEvents(rows=np.flatnonzero(valid & used), **arrays)
    repeats = valid_repeats(task["noise"], len(held_out.rows))
    return pairs, pairs_of_task(task, held_out, inputs, "valid", repeats)
