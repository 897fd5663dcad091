"""Train one step: read a task, learn the velocity at its time, write model, then report."""

from __future__ import annotations

import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits  # comes with scikit-learn

from .. import atomic_files
from ..errors import FormatError, RunError
from ..flow import closed_form
from ..flow.couplings import COUPLINGS
from ..flow.paths import PATHS
from ..flow.step_inputs import StepInputs, step_inputs
from ..seeding import derive
from ..tables.transforms import JointTransform
from ..trees.boosted_trees import BoostedTrees
from . import run_directory
from .noisy_pairs import Events, Interval, NoisyPairs, TorchcfmPairs, torchcfm_matcher
from .run_directory import RunDirectory

VALID_REPEATS = 5
"""At most this many noise draws per validation event: its loss is an average, not a model. They
stay the same while a step is trained, also when the training noise is redrawn."""


def run_task(folder: str | Path, step: int, n_threads: int = 1) -> dict[str, Any]:
    """Train one step of a planned run and return its report.

    Needs nothing but the run directory. The model is written first, the report, which makes the
    step count as done, last.

    Parameters
    ----------
    folder : path of the run directory
    step : number of the task
    n_threads : threads for XGBoost; does not change the result

    Raises
    ------
    FormatError
        If task or tables are missing, damaged, or do not belong together.
    RunError
        If the result cannot be written.
    """
    run = RunDirectory(folder)
    task = run.task(step)
    run_directory.check_format(task, run_directory.task_name(step))
    start, cpu = time.perf_counter(), time.process_time()
    # matrix products on one thread: they are small, and add in one order only
    with threadpool_limits(1, user_api="blas"):
        train, valid = training_pairs(run, task)
        model = BoostedTrees(task["booster"]).fit(
            train,
            valid,
            seed=derive(task["seed"], "booster", step),
            n_threads=n_threads,
            refresh=task["noise"]["refresh"] if task["noise"]["name"] == "fresh" else 0,
        )
        without_trees = None if valid is None else _root_mean_square(valid)
    content = model.to_bytes()
    run.file("steps").mkdir(exist_ok=True)  # a job's scratch folder has its inputs only
    atomic_files.write_bytes(run.file(run_directory.model_name(step)), content)
    report = {
        "format": run_directory.FORMAT,
        "step": step,
        "time": task["time"],
        "task_digest": task["digest"],
        "model_sha256": atomic_files.digest_bytes(content),
        **model.summary,
        "valid_rmse_without_trees": without_trees,
        "rows": train.n_rows,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "worker": _worker(),
    }
    _check_finite(report, step)
    run.write_json(run_directory.report_name(step), report)
    return report


def _worker() -> dict[str, Any]:
    """Return who trained a step, when, and with which machine code for sums.

    The last decides the last bits: on another type of processor a step may come out otherwise.
    """
    libraries = {
        f"{info['internal_api']} {info['architecture']}"
        for info in threadpool_info()
        if info["user_api"] == "blas" and "architecture" in info
    }
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "finished": time.time(),
        "sums": ", ".join(sorted(libraries)),
    }


def _root_mean_square(source: NoisyPairs) -> float:
    """Return the loss on validation events if the trees said nothing."""
    total = weight = 0.0
    for batch in source:
        share = np.ones(len(batch.target)) if batch.weight is None else batch.weight
        # no inner product: BLAS adds in an order that depends on where the numbers lie in memory
        total += float(np.sum(share * np.mean(batch.target.astype(np.float64) ** 2, axis=1)))
        weight += float(share.sum())
    return float(np.sqrt(total / weight))


def _check_finite(report: dict[str, Any], step: int) -> None:
    if not np.isfinite(report["train_rmse"]):
        raise RunError(
            f"step {step} learned non-finite velocities; lower booster.learning_rate (below 1)"
        )


def training_pairs(run: RunDirectory, task: dict[str, Any]) -> tuple[NoisyPairs, NoisyPairs | None]:
    """Return what a task learns from and is validated on, in events that never mix."""
    needed = {k: sha for k, sha in task["events"].items() if k not in run_directory.REAL}
    arrays = {name: _checked_array(run, name, sha) for name, sha in needed.items()}
    valid = arrays.pop("valid")
    inputs = _inputs(run, task)
    valid, counted = np.asarray(valid), _counted(arrays, len(valid))
    rows = np.flatnonzero(~valid & counted)
    train = _pairs(task, Events(rows=rows, **arrays), inputs, "train", task["noise"]["n_repeats"])
    if not valid.any():
        return train, None
    repeats = valid_repeats(task["noise"])
    rows = np.flatnonzero(valid & counted)
    return train, _pairs(task, Events(rows=rows, **arrays), inputs, "valid", repeats)


def valid_repeats(noise: dict[str, Any]) -> int:
    """Return how many noise draws each validation event gets."""
    fresh = noise["name"] == "fresh"
    return VALID_REPEATS if fresh else min(int(noise["n_repeats"]), VALID_REPEATS)


def _counted(arrays: dict[str, np.ndarray], n_rows: int) -> np.ndarray:
    """Return which rows have a weight above 0; the others teach nothing."""
    weight = arrays.get("weight")
    return np.ones(n_rows, dtype=bool) if weight is None else np.asarray(weight) > 0


def _inputs(run: RunDirectory, task: dict[str, Any]) -> StepInputs:
    content = {name: run.read(name) for name in task["fitted"]}
    for name, sha256 in task["fitted"].items():
        if atomic_files.digest_bytes(content[name]) != sha256:
            raise FormatError(
                f"{run.path}: {name} is not the one this run was planned with; plan the run anew"
                " in an empty folder"
            )
    joint = run_directory.parse_json(content["transform.json"], "transform.json")["joint"]
    return step_inputs(
        closed_form.from_bytes(content["preconditioner.npz"]),
        JointTransform.from_json(joint),
        task,
        task["time"],
        task["next_time"],
        task["format"],
    )


def _checked_array(run: RunDirectory, name: str, sha256: str) -> np.ndarray:
    array = run.array(name)
    if array is None or atomic_files.digest_array(array) != sha256:
        raise FormatError(
            f"{run.path}: table/{name}.npy is missing or not the one this run was planned with;"
            " plan the run anew in an empty folder"
        )
    return array


def _pairs(
    task: dict[str, Any],
    events: Events,
    inputs: StepInputs,
    purpose: str,
    n_repeats: int,
) -> NoisyPairs:
    interval = Interval(
        task["step"], task["time"], task["next_time"], task["noise"]["target"] == "mean"
    )
    arguments = (events, PATHS.build(task["path"]), COUPLINGS.build(task["coupling"]), interval)
    keywords = {
        "inputs": inputs,
        "n_repeats": n_repeats,
        "seed": task["seed"],
        "purpose": purpose,
    }
    if task["noise"]["flow_matcher"] == "numpy":
        # the validation loss is that of single events: what training minimises on average
        candidates = task["noise"]["candidates"] if purpose == "train" else 0
        return NoisyPairs(*arguments, candidates=candidates, **keywords)
    matcher = torchcfm_matcher(task["path"], task["coupling"])
    return TorchcfmPairs(*arguments, matcher=matcher, **keywords)
