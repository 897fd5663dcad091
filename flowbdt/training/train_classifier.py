"""One training job: learn the classifier that draws a discrete column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..seeding import derive
from ..tables.conditions import LARGEST_SINGLE, ColumnScaling
from ..tables.transforms import TableTransform
from ..trees.classifiers import ValueClassifier
from .run_directory import RunDirectory
from .task_files import planned_arrays, planned_transform


def classifier_inputs(
    transform: TableTransform,
    scaling: ColumnScaling,
    x: np.ndarray,
    known: np.ndarray,
    codes: np.ndarray,
) -> np.ndarray:
    """Return what classifiers see of events (n, d): numeric columns, what is known, earlier codes.

    ``scaling`` is that of the columns, ``known`` (n, k) of `known_inputs`, ``codes`` (n, q) are
    those of the columns that were drawn before. The result is (n, p), float32; zeros where there
    is nothing to see.
    """
    parts = [scaling.forward(x)[:, transform.numeric_places], known, codes]
    inputs = np.hstack(parts).astype(np.float32)
    return inputs if inputs.shape[1] else np.zeros((len(x), 1), dtype=np.float32)


def known_inputs(
    transform: TableTransform,
    x: np.ndarray,
    scaled: np.ndarray | None,
    cond: np.ndarray | None,
) -> np.ndarray:
    """Return conditions (n, c), scaled, and the learned columns of events (n, d), together (n, k).

    A small difference of two large numbers is a learned column, which trees that see these numbers
    in bins cannot form. ``cond`` (n, c) is in the units of the table.
    """
    learned = transform.coordinates.forward(transform.by_name(x, cond), len(x))
    learned = np.where(np.abs(learned) < LARGEST_SINGLE, learned, np.nan)
    return np.hstack([np.empty((len(x), 0)) if scaled is None else scaled, learned])


def _scaling(numbers: Mapping[str, Any]) -> ColumnScaling:
    return ColumnScaling(*(np.array(numbers[name]) for name in ("centre", "scale")))


def train_classifier(
    run: RunDirectory, task: dict[str, Any], n_threads: int
) -> tuple[bytes, dict[str, Any]]:
    """Return the classifier of a task, learned from the rows of the run, and what was learned.

    Every row counts: validation rows of the steps, too, as the number of trees is found by
    cross-validation. Raises FormatError as `planned_arrays`.
    """
    arrays, transform = planned_arrays(run, task), planned_transform(run, task)
    weight, cond = arrays.get("weight"), arrays.get("cond")
    rows = np.arange(len(arrays["codes"])) if weight is None else np.flatnonzero(weight > 0)
    codes = np.asarray(arrays["codes"])[rows].astype(np.int64)
    k = task["column"]
    scaled = None if cond is None else np.asarray(cond)[rows]
    if scaled is not None and "conditions" in task:
        cond = _scaling(task["conditions"]).inverse(scaled.astype(np.float64))
    x = transform.numeric_columns(np.asarray(arrays["z"], dtype=np.float64)[rows], cond)
    if "shown" in arrays:  # the flow knows of one value only; a constant tells trees nothing
        x = np.zeros_like(x)
    for j in range(k):
        transform.enter_kinds(x, codes, j)
    known = known_inputs(transform, x, scaled, cond)
    inputs = classifier_inputs(transform, _scaling(task["scaling"]), x, known, codes[:, :k])
    classifier = ValueClassifier.fit(
        inputs,
        codes[:, k],
        len(transform.skeleton.values[k]),
        None if weight is None else np.asarray(weight, dtype=np.float64)[rows],
        seed=derive(task["seed"], "classifier", k),
        n_threads=n_threads,
        grows=not task.get("from_mixture"),
        rate=task.get("rate"),
    )
    return classifier.to_bytes(), {**classifier.summary, "rows": len(rows)}
