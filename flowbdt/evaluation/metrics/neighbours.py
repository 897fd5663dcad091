"""Nearest neighbours: copies of training events; precision, recall, density and coverage."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ...errors import InputError
from ...seeding import stream
from .base import METRICS, Metric, Result, auc_error, checked_events, placements, same_width

BLOCK = 16_000_000
"""Distances in memory at a time: 128 MB."""


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
    real, weight_real = checked_events(real, weight_real, 2, "real", signed=True)
    generated, weight_generated = checked_events(
        generated, weight_generated, 2, "generated", signed=True
    )
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
    Metric(
        memorisation,
        "memorisation",
        0.5,
        "memorisation (0.5: none)",
        {"max_events": 2000},
        signed=True,
    )
)


def neighbour_scores(reference: np.ndarray, generated: np.ndarray, k: int = 5) -> list[Result]:
    """Return precision, recall, density and coverage from distances to the k nearest neighbours.

    A ball around every event of a sample (n, d) reaches to its k-th nearest neighbour in that
    sample. Precision: share of generated events in the ball of any reference event. Recall: share
    of reference events in the ball of any generated one. Density: mean number of reference balls
    that a generated event is in, over k. Coverage: share of reference balls with a generated event.

    Errors are those of a mean over the events that are counted, with the balls as they are. For two
    samples of one distribution, density is 1 in the mean and coverage as in `expected_coverage`.
    Time goes with the square of the number of events, memory is 128 MB beyond the samples.

    Raises InputError if columns differ, or a sample has no k neighbours.

    References
    ----------
    T. Kynkäänniemi et al., arXiv:1904.06991, section 2 (precision, recall); M. F. Naeem et al.,
    arXiv:2002.09797, equations 3 to 5 (density, coverage); CaloChallenge/homepage,
    code/evaluate.py (k = 5, inputs).
    """
    real, _ = checked_events(reference, None, 2, "reference")
    new, _ = checked_events(generated, None, 2, "generated")
    same_width(real, new)
    if k < 1 or min(len(real), len(new)) <= k:
        raise InputError(
            f"k must be at least 1 and less than the number of events, got k = {k} for {len(real)}"
            f" reference and {len(new)} generated ones"
        )
    radius_real, radius_new = _radii(real, k), _radii(new, k)
    inside = np.zeros(len(new))
    recalled, covered = np.zeros(len(real)), np.zeros(len(real))
    for rows, squares in _squares(real, new):
        in_real = squares < radius_real[rows, None]
        inside += in_real.sum(axis=0)
        covered[rows] = in_real.any(axis=1)
        recalled[rows] = (squares < radius_new).any(axis=1)
    settings: dict[str, float] = {"k": k, "reference": len(real), "generated": len(new)}
    parts = {"precision": inside > 0, "recall": recalled, "density": inside / k}
    results = [_mean(name, values, settings) for name, values in parts.items()]
    expected = {"expected_floor": expected_coverage(len(real), len(new), k)}
    return [*results, _mean("coverage", covered, settings | expected)]


def expected_coverage(n: int, m: int, k: int) -> float:
    """Return the mean coverage of n events by m others of the same distribution.

    An event is not covered if its k nearest among the n - 1 and m others are all of its sample:
    ``1 - C(n - 1, k) / C(n + m - 1, k)``.
    """
    own = np.arange(n - k, n, dtype=np.float64)
    return float(1.0 - np.prod(own / (own + m)))


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """Return the squared distance of each event to its k-th neighbour, itself not counted."""
    result = np.empty(len(x))
    for rows, squares in _squares(x, x):
        squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = -1.0
        result[rows] = np.partition(squares, k, axis=1)[:, k]
    return result


def _squares(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows of x and their squared distances to all of y; not below 0, where rounding went."""
    size = max(1, BLOCK // len(y))
    middle = x.mean(axis=0)  # distances stay, less is lost to rounding
    x, y = x - middle, y - middle
    norms = (x**2).sum(axis=1), (y**2).sum(axis=1)
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        squares = x[rows] @ (-2.0 * y.T)
        squares += norms[0][rows, None]
        squares += norms[1]
        yield rows, np.maximum(squares, 0.0, out=squares)


def _mean(name: str, values: np.ndarray, settings: dict[str, float]) -> Result:
    """Return a mean; its error is never zero: at least that of one event on the other side."""
    value, n = float(np.mean(values)), len(values)
    error = max(float(np.std(values)), math.sqrt(1.0 / n)) / math.sqrt(n)
    return Result(name, value, error, n, settings=dict(settings))
