"""Scores of several folds as one, and when the first few say that a trial is not worth the rest."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from ..evaluation.metrics import Result

CLEARLY = 2.0
"""Standard errors above the start from which a trial is clearly worse, as for `flowbdt compare`."""


def over_folds(results: Sequence[Result]) -> Result:
    """Return the mean score of some folds, with its error.

    Two things say how far the mean may be off: the errors of the single scores, which know the
    noise of judge and held-out events, and the scatter between folds, which also knows that models
    differ, but knows it badly if folds are few. The larger of the two is taken. Models of two folds
    share most of their events, so that even this may be too small: no estimate from the folds alone
    is free of bias.

    Parameters
    ----------
    results : scores of one metric, one per fold; of a single one that very score is returned

    References
    ----------
    Bengio, Grandvalet, "No unbiased estimator of the variance of K-fold cross-validation", Journal
    of Machine Learning Research 5 (2004) 1089.
    """
    if len(results) == 1:
        return results[0]
    values, k = [r.value for r in results], len(results)
    single = math.sqrt(sum(r.error**2 for r in results)) / k
    scatter = statistics.stdev(values) / math.sqrt(k)
    name, unit, n = results[0].name, results[0].unit, sum(r.n for r in results)
    return Result(name, sum(values) / k, max(single, scatter), n, unit=unit)


def clearly_worse(found: Sequence[Result], start: Sequence[Result]) -> str | None:
    """Return why a trial is not trained on more folds; None if it is.

    Parameters
    ----------
    found : scores on the folds that are done
    start : those of the start on all folds; empty if there is none to compare with

    Notes
    -----
    Both saw the same held-out events, so the error of the difference, taken as if they had not, is
    rather too large: what is given up here is worse indeed.
    """
    if not start:
        return None
    mine, other = over_folds(found), over_folds(start[: len(found)])
    excess, error = mine.value - other.value, math.hypot(mine.error, other.error)
    if excess <= CLEARLY * error:
        return None
    return (
        f"after {len(found)} of {len(start)} folds {mine.name} is {mine.value:.4g},"
        f" {excess:.2g} ± {error:.2g} above the start's"
    )


def scores_from(content: Sequence[dict[str, Any]]) -> list[Result]:
    """Rebuild scores from JSON."""
    return [Result.from_json(one) for one in content]
