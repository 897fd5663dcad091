"""Memorisation: a test whether generated events are copies of training events."""

from __future__ import annotations

import numpy as np

from ...errors import InputError
from ...seeding import stream
from .base import METRICS, Metric, Result, auc_error, checked_events, placements, same_width


def memorisation(
    real: np.ndarray,
    generated: np.ndarray,
    training: np.ndarray,
    *,
    weight_real: np.ndarray | None = None,
    weight_generated: np.ndarray | None = None,
    max_events: int = 5000,
    seed: int = 0,
) -> Result:
    """Return the probability that a generated event is nearer to training events than a real one.

    The probability that the distance of a generated event to its nearest training event is
    smaller than that of a held-out real event, ties counted half. 0.5: no
    memorisation; 1: copies; below 0.5: the generated events lie too far out.

    Parameters
    ----------
    real : ndarray (n, d), events the generator was not trained on
    training : ndarray (k, d), the events the generator was trained on, all of them
    max_events : events of each sample that are looked up among the k, drawn at random

    Returns
    -------
    Result; distances are Euclidean in columns divided by the standard deviation of the training
    events (constant columns left out); error as of an area under a ROC curve (DeLong).
    """
    real, weight_real = checked_events(real, weight_real, 2, "real")
    generated, weight_generated = checked_events(generated, weight_generated, 2, "generated")
    training, _ = checked_events(training, None, 2, "training")
    same_width(real, generated)
    same_width(real, training)
    if max_events < 2:
        raise InputError(f"max_events must be at least 2, got {max_events}")
    real, weight_real = _some(real, weight_real, max_events, seed, 0)
    generated, weight_generated = _some(generated, weight_generated, max_events, seed, 1)
    far, near = _nearest(training, real, generated)
    share = np.average(placements(far, near, weight_generated), weights=weight_real)
    error = auc_error(far, near, weight_real, weight_generated)
    settings = {"max_events": max_events, "training_events": len(training), "seed": seed}
    n = min(len(real), len(generated))
    return Result("memorisation", float(share), error, n, settings=settings)


def _some(
    x: np.ndarray, weight: np.ndarray, max_events: int, seed: int, key: int
) -> tuple[np.ndarray, np.ndarray]:
    if len(x) <= max_events:
        return x, weight
    rows = stream(seed, "metric-memorisation", key).permutation(len(x))[:max_events]
    return x[rows], weight[rows]


def _nearest(training: np.ndarray, *samples: np.ndarray) -> list[np.ndarray]:
    """Return for each sample the distances (n,) to the nearest training event."""
    from sklearn.neighbors import NearestNeighbors

    scale = training.std(axis=0)
    kept = scale > 1e-12 * np.abs(training).max(axis=0)
    if not kept.any():
        raise InputError("all columns of the training events are constant: no distances to compare")
    index = NearestNeighbors(n_neighbors=1).fit(training[:, kept] / scale[kept])
    return [index.kneighbors(x[:, kept] / scale[kept])[0][:, 0] for x in samples]


METRICS.register("memorisation")(
    Metric(memorisation, "memorisation", 0.5, "memorisation (0.5: none)", {"max_events": 2000})
)
