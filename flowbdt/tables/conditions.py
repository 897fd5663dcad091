"""Scaling of numbers before they become float32, and the ranges of the conditions of a model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self, get_args

import numpy as np

from ..errors import ConfigError, DataWarning, FormatError, InputError
from ..registry import unknown

MOST_ROWS = 20_000
"""Rows, evenly spaced, that decide about the scaling of a column."""

LARGEST_SINGLE = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class ColumnScaling:
    """Centre and scale (p,), float64, of columns that trees read as float32.

    At 1.7e9, the time of today in seconds, two float32 are 128 apart, and they end at 1e-45 and
    3e38. Where that would make different numbers of the training equal, a column is centred and
    scaled first; elsewhere the centre is 0 and the scale 1, and nothing changes.
    """

    centre: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, *tables: np.ndarray) -> Self:
        """Find the scaling of the columns of tables (n, ...), side by side; NaN is missing."""
        columns = (column for table in tables for column in table.T)
        found = np.array([_centre_and_scale(column) for column in columns]).reshape(-1, 2)
        return cls(found[:, 0], found[:, 1])

    @classmethod
    def none(cls, n_columns: int) -> Self:
        """Return the scaling that changes nothing: that of models before format 4."""
        return cls(np.zeros(n_columns), np.ones(n_columns))

    def __getitem__(self, columns: slice) -> Self:
        return type(self)(self.centre[columns], self.scale[columns])

    @cached_property
    def changes(self) -> bool:
        """True if any column is scaled."""
        return bool(self.centre.any() or (self.scale != 1).any())

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return ``(x - centre) / scale`` (n, p), float64, within the range of float32."""
        if self.changes:
            with np.errstate(over="ignore"):
                x = (x - self.centre) / self.scale
        return np.minimum(np.maximum(x, -LARGEST_SINGLE), LARGEST_SINGLE)

    def inverse(self, scaled: np.ndarray) -> np.ndarray:
        """Return what `forward` scaled, but for rounding."""
        return np.asarray(self.centre + self.scale * scaled)


def _centre_and_scale(values: np.ndarray) -> tuple[float, float]:
    """Return the first centre that keeps nearly as many values (n,) apart as the best one does."""
    distinct = np.unique(values[:: -(-len(values) // MOST_ROWS) or 1])
    distinct = distinct[~np.isnan(distinct)]
    most, best = -1.0, (0.0, 1.0)
    for i in (None, len(distinct) // 2, 0, -1):
        if most >= 0.99 * (len(distinct) - 1):
            break
        centre = 0.0 if i is None else float(distinct[i])
        with np.errstate(over="ignore"):
            away = distinct - centre
            for scale in _scales(away) if np.isfinite(away).all() else ():
                narrow = np.clip(away / scale, -LARGEST_SINGLE, LARGEST_SINGLE).astype(np.float32)
                kept = float(np.count_nonzero(narrow[1:] > narrow[:-1]))
                if kept > 1.01 * most:
                    most, best = kept, (centre, scale)
    return best


def _scales(away: np.ndarray) -> list[float]:
    """Return 1 where float32 has room for all of ``away`` and more, else powers of two.

    The first leaves room for all, the second for most: beyond it values become the largest number.
    """
    size = np.abs(away[away != 0])
    if not len(size) or (np.median(size) > 2.0**-60 and size.max() < 2.0**100):
        return [1.0]
    most, all_ = np.round(np.log2(np.median(size))), np.ceil(np.log2(size.max())) - 100
    return [float(2.0 ** min(exponent, 1023.0)) for exponent in (max(most, all_), most)]


Outside = Literal["warn", "raise", "clip"]
"""Options for conditions outside of the training range."""

MARGIN = 0.1
"""Share of the width of the training range by which a condition may lie beyond it."""


@dataclass(frozen=True, eq=False)
class ConditionRanges:
    """Least and largest value (c,) of each condition in training, float64.

    NaN where there is no range: for categories, and in models before format 4. ``unseen`` are the
    codes of ``categories`` that no training row has, NaN where none lacks the condition.
    """

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    unseen: Sequence[Sequence[float] | np.ndarray] = ()
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    known: bool = True
    what: str = "conditions"
    needed: Mapping[str, Sequence[str]] = field(default_factory=dict)  # for columns, by condition

    @classmethod
    def of(cls, cond: np.ndarray, names: Sequence[str], categories: Mapping[str, Any]) -> Self:
        """Return the ranges of conditions (n, c); NaN is missing."""
        numeric = np.array([name not in categories for name in names], dtype=bool)
        known = numeric & ~np.isnan(cond).all(axis=0)
        low, high = np.full((2, len(names)), np.nan)
        low[known], high[known] = np.nanmin(cond[:, known], 0), np.nanmax(cond[:, known], 0)
        unseen = []
        for name, values in zip(names, cond.T, strict=True):
            codes = np.arange(len(categories.get(name, ())), dtype=np.float64)
            gaps = [] if np.isnan(values).any() else [np.nan]
            unseen.append([*np.setdiff1d(codes, values).tolist(), *gaps])
        return cls(tuple(names), low, high, unseen, categories)

    @property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Values (c,) below and above which a condition is far from training."""
        with np.errstate(over="ignore"):
            margin = MARGIN * (self.high - self.low)
        # of a constant, rounding is no distance
        margin = np.where(margin > 0, margin, 1e-6 * np.abs(self.low))
        return self.low - margin, self.high + margin

    def clip(self, cond: np.ndarray) -> np.ndarray:
        """Return conditions (n, c) moved into the range of the training."""
        low, high = np.nan_to_num(self.low, nan=-np.inf), np.nan_to_num(self.high, nan=np.inf)
        return np.minimum(np.maximum(cond, low), high)

    def count_far(self, cond: np.ndarray) -> np.ndarray:
        """Return how many rows of (n, c) are far from training, (c,), then have each unseen value.

        (c + k,) for k values in ``unseen`` of all conditions.
        """
        low, high = self.limits
        far = ((cond < low) | (cond > high)).sum(axis=0)
        pairs = zip(cond.T, self.unseen, strict=False)  # none in models of before
        unseen = [_rows_with(code, values).sum() for values, codes in pairs for code in codes]
        return np.array([*far, *unseen], dtype=np.int64)

    def check(self, outside: str) -> None:
        """Refuse an unknown option, and one that needs ranges that an old model file lacks."""
        if outside not in get_args(Outside):
            raise unknown("option of outside", outside, get_args(Outside))
        if outside != "warn" and self.names and not self.known:
            raise ConfigError(
                f"outside={outside!r} needs the training ranges of the conditions, which a model of"
                " an earlier version does not have: fit it again"
            )

    def report(self, far: np.ndarray, n_rows: int, outside: str) -> None:
        """Warn of, or with 'raise' refuse, what `count_far` counted in ``n_rows`` events.

        With 'clip' numbers are moved, and only values that no training row has are left to tell.
        """
        if outside == "clip":
            far = np.concatenate([np.zeros_like(far[: len(self.names)]), far[len(self.names) :]])
        if not far.any():
            return
        parts = [
            (repr(name), f"trained from {low:.6g} to {high:.6g}")
            for name, low, high in zip(self.names, self.low, self.high, strict=True)
        ]
        for name, codes in self._unseen_by_name():
            parts += [(f"{name!r} {self._said(name, c)}", "never in training") for c in codes]
        listed = "; ".join(
            f"{what} in {count} of {n_rows} events ({why})"
            for (what, why), count in zip(parts, far, strict=True)
            if count
        )
        text = (
            f"{self.what} far outside of training: {listed}. Trees are constant there and know"
            " nothing of such events"
        )
        values = [(name, code) for name, codes in self._unseen_by_name() for code in codes]
        for (name, code), count in zip(values, far[len(self.names) :], strict=True):
            if count and np.isnan(code) and name in self.needed:
                text += f"; without {name!r} events lack {', '.join(map(repr, self.needed[name]))}"
        if outside == "raise":
            raise InputError(f"{text}; leave these rows out, or train with such conditions")
        clip = "outside='clip' (--outside clip) moves numbers to the nearest trained value, "
        moves = outside != "clip" and self.what == "conditions"
        warnings.warn(
            f"{text}. {clip if moves else ''}outside='raise' refuses them",
            DataWarning,
            stacklevel=3,
        )

    def _unseen_by_name(self) -> Iterable[tuple[str, Sequence[float] | np.ndarray]]:
        return zip(self.names, self.unseen, strict=False)

    def _said(self, name: str, code: float) -> str:
        """Return what is told of an unseen value."""
        if np.isnan(code):
            return "missing"
        texts = self.categories.get(name)
        return f"= {code:g}" if texts is None else f"= {texts[int(code)]!r}"


def _rows_with(code: float, values: np.ndarray) -> np.ndarray:
    """Return where values (n,) have a code, NaN for missing ones."""
    return np.isnan(values) if np.isnan(code) else values == code


def stored(scaling: ColumnScaling, ranges: ConditionRanges) -> dict[str, list[Any]]:
    """Return numbers for a plan; `stored_scaling` reads them."""
    arrays = {
        "centre": scaling.centre, "scale": scaling.scale, "low": ranges.low, "high": ranges.high
    }  # fmt: skip
    numbers = {k: _without_nan(a.tolist()) for k, a in arrays.items()}
    unseen = [_without_nan(codes) for codes in ranges.unseen]
    return {**numbers, "unseen": unseen} if unseen else numbers


def _without_nan(values: Iterable[float]) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values]


def stored_scaling(columns: Mapping[str, Any]) -> tuple[ColumnScaling, ConditionRanges]:
    """Return scaling of columns and conditions, and ranges, from the ``columns`` of a plan.

    Models before format 4 have none. ``columns`` from packed arrays have no texts of categories.
    Raises FormatError if the numbers are damaged.
    """
    names = tuple(columns["conditions"])
    n_all, n_cond = len(columns["names"]) + len(names), len(names)
    sizes = {"centre": n_all, "scale": n_all, "low": n_cond, "high": n_cond}
    content = columns.get("scaling")
    if content is None:
        nothing = np.full(n_cond, np.nan)
        return ColumnScaling.none(n_all), ConditionRanges(names, nothing, nothing, known=False)
    try:
        arrays = {k: np.array(content[k], dtype=np.float64) for k in sizes}
        if any(arrays[k].shape != (size,) for k, size in sizes.items()):
            raise ValueError("another number of columns")
        if not np.isfinite(arrays["centre"]).all() or not (arrays["scale"] > 0).all():
            raise ValueError("a scale that is not above 0")
        unseen = [np.array([*codes], np.float64) for codes in content.get("unseen") or ()]
        categories = columns.get("categories")
        for name, codes in zip(names, unseen, strict=bool(unseen)):
            known = np.inf if categories is None else len(categories.get(name, ()))
            if not (np.isnan(codes) | (codes >= 0) & (codes < known)).all():
                raise ValueError("an unknown category")
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"the scaling of the conditions of this model is damaged: {error}"
        ) from None
    scaling = ColumnScaling(arrays["centre"], arrays["scale"])
    ranges = ConditionRanges(names, arrays["low"], arrays["high"], unseen, categories or {})
    return scaling, ranges
