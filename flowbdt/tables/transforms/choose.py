"""The rules that choose a transform for a column where the specification is "auto".

In this order: constant; categories, truth values and integers with few distinct values;
integers; an angle that fills its period; spikes and hard limits (rank); positive over a wide range
(log); nearly normal (standard); the rest (rank). Only the training rows are looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import REACH
from .rank import Distinct, find_atoms

Choice = tuple[dict[str, Any], str]
"""A transform specification and the reason for it, in a few words."""

FEW_VALUES = 20
"""Integral columns with no more distinct values are treated as categories in order."""
MANY_VALUES = 5000
"""Float columns of integral values with more distinct ones are treated as real numbers."""
MIN_ROWS = 20
"""With fewer rows a column is only standardised: shape cannot be judged."""
WIDE_RANGE = 10.0
"""Largest over smallest value from which a logarithm is considered."""


def choose(values: np.ndarray, dtype: str = "float64", is_category: bool = False) -> Choice:
    """Choose the transform of the training values (n,) of a column, and say why.

    ``dtype`` is the numpy name of the type that the column came in; ``is_category`` is true for
    codes of texts.
    """
    if values.min() == values.max():
        return {"name": "constant"}, "one value"
    if is_category or dtype == "bool":
        return {"name": "categorical"}, "categories"
    if np.dtype(dtype).kind in "iu" or bool((values == np.rint(values)).all()):
        return _choose_integral(values, dtype)
    return choose_continuous(values)


def _choose_integral(values: np.ndarray, dtype: str) -> Choice:
    n_distinct = np.unique(values).size
    if n_distinct <= 2 or (n_distinct <= FEW_VALUES and 10 * n_distinct <= values.size):
        return {"name": "categorical"}, f"integral, {n_distinct} distinct values"
    if np.dtype(dtype).kind in "iu" or n_distinct <= MANY_VALUES:
        return {"name": "integer"}, "integral values"
    return choose_continuous(values)


def choose_continuous(values: np.ndarray) -> Choice:
    """Choose the transform of a column of real numbers; as `choose`."""
    if values.size < MIN_ROWS:
        return {"name": "standard"}, f"only {values.size} rows"
    distinct = Distinct.of(values)
    edges = hard_edges(values)
    if all(edges.values()) and values.size >= 1000:
        angle = _as_angle(values)
        if angle:
            return angle, "fills one turn evenly up to both ends: an angle in radians"
    n_atoms = int(find_atoms(distinct).sum())
    limited = {
        "low": edges["low"] or distinct.counts[0] > 1,
        "high": edges["high"] or distinct.counts[-1] > 1,
    }
    tails = {side: "limit" if limit else "extend" for side, limit in limited.items()}
    reasons = [f"{n_atoms} repeated value(s)"] if n_atoms else []
    reasons += [f"hard {side} limit" for side, hard in edges.items() if hard]
    if reasons:
        return {"name": "rank", "tails": tails}, ", ".join(reasons)
    skew, kurtosis = shape(values)
    if log_suits(values):
        decades = np.log10(values.max()) - np.log10(values.min())
        return {"name": "log", "low": 0.0}, f"positive, {decades:.1f} decades"
    stays_positive = values.min() <= 0 or values.min() > REACH * values.std()
    if abs(skew) < 1 and -1 < kurtosis < 3 and stays_positive:
        return {"name": "standard"}, "nearly normal"
    reason = f"skewness {skew:.2g}, excess kurtosis {kurtosis:.2g}"
    return {"name": "rank", "tails": tails}, reason


def shape(values: np.ndarray) -> tuple[float, float]:
    """Return skewness and excess kurtosis of a column (0, 0 for a normal distribution)."""
    centred = values / np.abs(values).max()
    centred = centred - centred.mean()
    spread = centred.std()
    if spread == 0:
        return 0.0, 0.0
    z = centred / spread
    return float(np.mean(z**3)), float(np.mean(z**4) - 3)


def hard_edges(values: np.ndarray) -> dict[str, bool]:
    """Return on which sides the density ends abruptly (a cut or a physical limit).

    With k values in the outermost part, the ratio (x_k - x_1) / (x_4k - x_1) is 1/4 where the
    density is flat up to its end, and near 0.6 to 0.8 in the tails of normal, exponential and
    log-normal distributions; below 0.35 counts as an edge (in trials, one soft tail in 30 or less
    at 500 rows, none at 25,000). Where a logarithm suits the column it must be an edge in the
    logarithm too: the lower end of a broad log-normal looks like one, but is none. Derived here.
    """
    k = int(np.clip(values.size // 50, 20, 400))
    if values.size < 10 * k:
        return {"low": False, "high": False}
    order = np.sort(values)
    scales = [order, np.log(order)] if log_suits(values) else [order]
    return {
        "low": all(_edge_ratio(scale, k) < 0.35 for scale in scales),
        "high": all(_edge_ratio(-scale[::-1], k) < 0.35 for scale in scales),
    }


def log_suits(values: np.ndarray) -> bool:
    """Return whether the values are positive over a wide range and not skewed in the logarithm."""
    if values.min() <= 0 or values.max() / WIDE_RANGE < values.min():
        return False
    skew, kurtosis = shape(values)
    log_skew, log_kurtosis = shape(np.log(values))
    return abs(log_skew) <= max(1.0, abs(skew) / 2) and log_kurtosis < max(6.0, kurtosis)


def _edge_ratio(order: np.ndarray, k: int) -> float:
    width = float(order[4 * k] - order[0])
    return float(order[k] - order[0]) / width if width > 0 else 1.0


def _as_angle(values: np.ndarray) -> dict[str, Any] | None:
    """Return the circular specification if the values fill [-pi, pi] or [0, 2 pi]."""
    turn, slack = 2 * np.pi, 1e-6
    for low in (-np.pi, 0.0):
        inside = values.min() >= low - slack and values.max() <= low + turn + slack
        if inside and values.max() - values.min() > 0.99 * turn:
            return {"name": "circular", "period": turn, "low": low}
    return None


def choose_integer_tails(values: np.ndarray, tails: dict[str, str]) -> dict[str, str]:
    """Replace "auto" tails of an integer column: where generated values stop at the extremes."""
    for side, extreme in (("low", values.min()), ("high", values.max())):
        if tails[side] == "auto":
            crowded = np.mean(values == extreme) >= 0.005
            limited = crowded or (side == "low" and extreme >= 0)
            tails[side] = "limit" if limited else "extend"
    return tails
