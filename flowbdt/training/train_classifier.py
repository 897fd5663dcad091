"""One training job: learn the classifier that draws a discrete column."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..seeding import derive
from ..tables.conditions import ColumnScaling
from ..tables.transforms import TableTransform
from ..trees.classifiers import ValueClassifier
from .run_directory import RunDirectory
from .task_files import planned_arrays, planned_transform


def classifier_inputs(
    transform: TableTransform,
    scaling: ColumnScaling,
    x: np.ndarray,
    cond: np.ndarray | None,
    codes: np.ndarray,
) -> np.ndarray:
    """Return what classifiers see of events (n, d): numeric columns, conditions, earlier codes.

    ``scaling`` is that of the columns; conditions (n, c) are scaled already, ``codes`` (n, q)
    are those of the columns that were drawn before. The result is (n, p), float32; zeros where
    there is nothing to see.
    """
    numeric = transform.numeric_places
    parts = [scaling.forward(x)[:, numeric], *([] if cond is None else [cond]), codes]
    inputs = np.hstack(parts).astype(np.float32)
    return inputs if inputs.shape[1] else np.zeros((len(x), 1), dtype=np.float32)


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
    x = transform.numeric_columns(np.asarray(arrays["z"], dtype=np.float64)[rows])
    for j in range(k):
        transform.enter_kinds(x, codes, j)
    inputs = classifier_inputs(
        transform,
        ColumnScaling(*(np.array(task["scaling"][name]) for name in ("centre", "scale"))),
        x,
        None if cond is None else np.asarray(cond)[rows],
        codes[:, :k],
    )
    classifier = ValueClassifier.fit(
        inputs,
        codes[:, k],
        len(transform.skeleton.values[k]),
        None if weight is None else np.asarray(weight, dtype=np.float64)[rows],
        seed=derive(task["seed"], "classifier", k),
        n_threads=n_threads,
        grows=not task.get("from_mixture"),
    )
    return classifier.to_bytes(), {**classifier.summary, "rows": len(rows)}
