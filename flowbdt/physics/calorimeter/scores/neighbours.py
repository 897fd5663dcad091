"""Precision, recall, density and coverage of showers: what lies near what, in blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ....errors import InputError
from ....evaluation.metrics.base import Result, checked_events, same_width
from ..shower_files import Showers

EMPTY = 0.1
"""MeV that stand for an empty voxel, so that it has a logarithm."""

BLOCK = 16_000_000
"""Distances in memory at a time: 128 MB."""


def neighbour_inputs(showers: Showers, threshold: float | None = None) -> np.ndarray:
    """Return log10 of the voxels (n, voxels), those below ``threshold`` [MeV] as 0.1 MeV."""
    voxels = showers.above(threshold).voxels
    return np.log10(np.where(voxels > 0, voxels, EMPTY), dtype=np.float64)


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
