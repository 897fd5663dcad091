"""The curve of a classifier test: what is recognised at each share of mistakes, with an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import effective_size

POINTS = 101
"""Shares of mistakes, from 0 to 1, at which a curve is kept."""


@dataclass(frozen=True)
class Curve:
    """A mean curve over splits and seeds.

    Parameters
    ----------
    recognised : ndarray (p,), share of the generated events that the judge calls generated where it
        calls ``mistakes`` of the real ones so, too
    error : ndarray (p,), its standard error
    """

    recognised: np.ndarray
    error: np.ndarray

    @property
    def mistakes(self) -> np.ndarray:
        """Share of the real events (p,), equally spaced from 0 to 1."""
        return np.linspace(0.0, 1.0, len(self.recognised))

    def at(self, mistakes: float) -> tuple[float, float]:
        """Return what is recognised at a share of mistakes, and its error."""
        parts = (np.interp(mistakes, self.mistakes, y) for y in (self.recognised, self.error))
        return next(parts), next(parts)

    @classmethod
    def of(cls, settings: Mapping[str, Any], key: str = "roc") -> Curve | None:
        """Return the curve that the settings of a result keep; None if they keep none.

        ``key`` is "roc", or "floor_roc" for that of the floor.
        """
        kept = settings.get(key)
        if not kept:
            return None
        return cls(np.asarray(kept["recognised"], float), np.asarray(kept["error"], float))

    def to_json(self) -> dict[str, list[float]]:
        """Return the curve as settings keep it, four decimals."""
        return {
            "recognised": self.recognised.round(4).tolist(),
            "error": self.error.round(4).tolist(),
        }


def recognised(scores: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the share of class 1 above the cuts that leave 0, 1/100 ... 1 of class 0 above (p,).

    Parameters
    ----------
    scores, weight : ndarray (n,)
    y : ndarray (n,) of 0 and 1
    """
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(y, scores, sample_weight=weight)
    return np.interp(np.linspace(0.0, 1.0, POINTS), false, true)


def _slope(curve: np.ndarray, t: np.ndarray, reach: float = 0.05) -> np.ndarray:
    """Return the slope over twice ``reach``: single points would show the noise of few events."""
    low, high = np.maximum(t - reach, 0.0), np.minimum(t + reach, 1.0)
    return (np.interp(high, t, curve) - np.interp(low, t, curve)) / (high - low)


def mean_curve(curves: np.ndarray, y: np.ndarray, weight: np.ndarray, test_share: float) -> Curve:
    """Return the mean of curves (splits, models, p) and its standard error.

    Parameters
    ----------
    curves : ndarray (s, m, p), one per split and model seed, from `recognised`
    y, weight : ndarray (n,), of all events, of which each split tests ``test_share``

    Notes
    -----
    The variance of a share R at a fixed share t of mistakes is R (1 - R) / n_1 + R'(t)^2 t (1 - t)
    / n_0 with n the effective numbers tested of each class. Splits overlap, so that their errors
    are correlated by ``test_share``; the spread over model seeds is added, as for the area.

    References
    ----------
    Hsieh, Turnbull, "Nonparametric and semiparametric estimation of the ROC curve", Annals of
    Statistics 24 (1996) 25, theorem 2.2.
    """
    s, m, p = curves.shape
    mean, t = curves.mean(axis=(0, 1)), np.linspace(0.0, 1.0, p)
    real, generated = (test_share * effective_size(weight[y == c]) for c in (0, 1))
    sampling = mean * (1 - mean) / generated + _slope(mean, t) ** 2 * t * (1 - t) / real
    models = curves.var(axis=1, ddof=1).mean(axis=0) / (s * m) if m > 1 else 0.0
    return Curve(mean, np.sqrt(sampling * (1 + (s - 1) * test_share) / s + models))
