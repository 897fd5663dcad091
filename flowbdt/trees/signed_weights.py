"""Non-negative event weights of the density that signed ones stand for.

Simulation at next-to-leading order and unfolded sources (sPlot) give weights of both signs, but no
booster learns from a negative one. The density of the events at x is that of |w| times the mean
sign there, which a boosted classifier of the sign learns.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..errors import DataWarning
from ..seeding import derive, row_uniform
from ..tables import checks
from ..tables.conditions import ColumnScaling
from ..tables.event_table import EventTable
from .classifiers import ValueClassifier, probabilities

GROUPS, FEW_VALUES, SWEEPS, MOST_CHANGE = 10, 20, 3, 5.0
"""Trees that stop early leave the mean sign too near to that of all events. So groups of events, by
the sign that was found and by each column of few values, get the sum of their signed weights, in
turn, and never more than so often what they had."""

FOLDS = 5
"""The sign of an event does not count in its own weight: classifiers are grown on other folds."""


class PositiveWeights(NamedTuple):
    """Weights (n,), and the shares of |w| that is negative and that was clipped.

    Clipped is where the mean sign was found below 0, which no density has: the weight is 0 there.
    """

    weight: np.ndarray
    negative: float
    clipped: float


def positive_weights(
    x: np.ndarray, weight: np.ndarray, *, seed: int = 0, n_threads: int = 0
) -> PositiveWeights:
    """Return non-negative weights of the density that signed weights stand for.

    The mean sign at x of events of weight |w| is 2 p(x) - 1, p the probability that a weight is
    positive, so that |w| (2 p - 1) has the density of w. Weights that have no negative ones come
    back as they are.

    Parameters
    ----------
    x : array (n, d), all that the density depends on: columns and conditions, categories as codes,
        NaN where unknown
    weight : array (n,), of a positive sum
    seed : of the folds and of the classifiers
    n_threads : 0 for all of this process; the result does not depend on it

    Returns
    -------
    PositiveWeights, of the same sum as ``weight``

    Raises
    ------
    InputError if a weight is not finite, all are negative, or their sum is not positive.

    References
    ----------
    The mean weight of a phase space point: B. Nachman, J. Thaler, "Neural resampler for Monte Carlo
    reweighting with preserved uncertainties", arXiv:2007.11586, section 2; by trees and sign here.
    """
    x = np.asarray(x, dtype=np.float64)
    weight = checks.weights(weight, len(x), signed=True)
    if not (weight < 0).any():
        return PositiveWeights(weight, 0.0, 0.0)
    size, positive = np.abs(checks.relative(weight)), (weight > 0).astype(np.int64)
    fold = (row_uniform(len(x), derive(seed, "sign-folds")) * FOLDS).astype(int)
    x = ColumnScaling.fit(x).forward(x).astype(np.float32)
    mean_sign, used = np.zeros(len(x)), np.flatnonzero(size)
    for k in np.unique(fold[used]):
        held, rest = used[fold[used] == k], used[fold[used] != k]
        rest = held if not len(rest) else rest
        classifier = ValueClassifier.fit(
            *(x[rest], positive[rest], 2, size[rest]),
            seed=derive(seed, "sign", int(k)),
            n_threads=n_threads,
        )
        log_odds = classifier.trees(x[held]).reshape(len(held), 2) + classifier.log_frequencies
        mean_sign[held] = 2.0 * probabilities(log_odds, None)[:, 1] - 1.0
    kept = size * np.clip(mean_sign, 0.0, None)
    kept = _calibrated(kept, np.sign(weight) * size, mean_sign, x)
    if not kept.any():  # no trees, and more negative than positive in all folds
        kept = size
    shares = size[weight < 0].sum(), size[mean_sign < 0].sum()
    negative, clipped = (float(share / size.sum()) for share in shares)
    return PositiveWeights(kept * (weight.sum() / kept.sum()), negative, clipped)


def _calibrated(
    kept: np.ndarray, signed: np.ndarray, mean_sign: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Return weights (n,) with the sums of the signed ones in groups of events."""
    edges = np.quantile(mean_sign, np.arange(1, GROUPS) / GROUPS)
    groups = [np.searchsorted(edges, mean_sign, side="right")]
    for column in x.T:
        values, places = np.unique(column, return_inverse=True)
        if 1 < len(values) <= FEW_VALUES:
            groups.append(places)
    for group in SWEEPS * groups:
        found, wanted = (np.bincount(group, w) for w in (kept, signed))
        ratio = np.divide(wanted, found, out=np.ones(len(found)), where=found > 0)
        kept = kept * ratio.clip(1 / MOST_CHANGE, MOST_CHANGE)[group]
    return kept


def with_positive_weights(table: EventTable, *, seed: int = 0, n_threads: int = 0) -> EventTable:
    """Return a table with `positive_weights`; a DataWarning says so where some were negative."""
    if table.weight is None or not (table.weight < 0).any():
        return table
    seen = table.x if table.cond is None else np.hstack([table.x, table.cond])
    found = positive_weights(seen, table.weight, seed=seed, n_threads=n_threads)
    warnings.warn(
        f"{found.negative:.1%} of the size of all weights is negative: non-negative weights of the"
        " same density take their place, from a classifier of the sign. Where it found a negative"
        f" density they are 0: {found.clipped:.2%} of the size of all weights",
        DataWarning,
        stacklevel=2,
    )
    return replace(table, weight=found.weight)
