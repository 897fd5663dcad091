"""Columns that are learned relative to a condition: their ratio to it, or their difference from it.

A detector's answer is narrow around what was put in: trees and a mixture of Gaussians describe the
answer far better than a column that runs along its condition over a hundred times its width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import ConfigError, InputError
from ...registry import unknown
from ..event_table import EventTable
from ..formulas.expressions import share_of
from ..formulas.particles import wrapped
from ..formulas.relations import written
from ..transforms.choose import hard_edges, is_smooth

KINDS = ("ratio", "difference", "angle")
"""The last is a difference on the circle, from -pi to pi."""

IN = " in "
"""Between a condition and another one that is the unit of the difference from it."""

EXAMPLE = "{sim_pt: ratio gen_pt, sim_phi: difference gen_phi}"

FEWEST, MOST = 300, 20_000
"""Training rows from which on pairings are chosen, and how many are looked at. In 20 samples of
350 rows of Z + jets, a calorimeter and an angle 18, 20 and 20 times as for all rows, no others."""

TURN_ROWS = 1_000
"""Rows from which on the ends of a turn must be sharp for an angle to be one."""

BINS = 16
"""Of the condition, of equal counts, in each of which the spread is taken."""

CLEARLY = 0.7
"""Largest spread of what is left, summed over bins, in units of that of the column: on Z + jets .6
for transverse momenta, .05 for angles, .78 and more for whatever gains nothing."""

EVERYWHERE = 0.85
"""The same in the mean of logarithms over bins: most of them gain, and not one wide bin only."""

NEAR_ZERO = 0.01
"""Least value of a denominator in units of its median."""

NARROW = 0.01
"""Least width of a denominator in units of its median: the ratio to one that hardly varies, such as
the time of an event, is nearly 1, where float32 has no digits left."""

BEYOND, FEW = 5e-4, 5
"""Share of rows that may leave the range of a column when neighbours swap what is left, and their
number more."""

REFLECTED = 0.1
"""The same where the range ends sharply, and what comes out beyond is reflected."""

EQUAL = 0.005
"""Share of rows equal to another column from which on a column stays as it is."""

ROOM = 1e-15

ROUNDED = 1e-3
"""Angles [rad] beyond the ends of a turn that are rounding, as in files of few digits: -3.1416."""


@dataclass(frozen=True)
class Relative:
    """A column that is learned as its ``kind`` of distance from a condition.

    ``centre`` is the middle of the range of an angle [rad]. No value lies below ``low`` or above
    ``high``, where the column ends sharply: a ratio is that of the distance from the low end, which
    is never negative, and what comes out beyond an end is reflected. ``unit`` is a condition that
    a difference is divided by: where the width of an answer is about known, one is left to learn.
    """

    column: str
    kind: str
    condition: str
    centre: float = 0.0
    low: float | None = None
    high: float | None = None
    unit: str | None = None

    @property
    def name(self) -> str:
        """Name of what is learned."""
        sign = "over" if self.kind == "ratio" else "minus"
        return f"{self.column} {sign} {self.condition}{IN + self.unit if self.unit else ''}"

    @property
    def texts(self) -> tuple[str, str]:
        """The learned column, and the relation that gives the column back, as expressions."""
        column, condition, name = map(written, (self.column, self.condition, self.name))
        if self.kind == "ratio":
            from_low = f"({column} - {self.low!r})" if self.low else column
            total = f"{name} * {condition}" + (f" + {self.low!r}" if self.low else "")
            return f"{name} = {from_low} / {condition}", f"{column} = {self._reflected(total)}"
        per, step = "", name
        if self.unit is not None:
            per, step = f" / {written(self.unit)}", f"{name} * {written(self.unit)}"
        if self.kind == "difference":
            total, learned = f"{step} + {condition}", f"{column} - {condition}"
            learned = f"({learned}){per}" if per else learned
            return f"{name} = {learned}", f"{column} = {self._reflected(total)}"
        back = f"{column} = deltaphi({step}, -{condition})"
        if self.centre:
            back = f"{column} = deltaphi({step} + {condition}, {self.centre!r}) + {self.centre!r}"
        return f"{name} = deltaphi({column}, {condition}){per}", back

    def _reflected(self, text: str) -> str:
        if self.low is not None:
            text = f"abs({text} - {self.low!r}) + {self.low!r}" if self.low else f"abs({text})"
        if self.high is not None:
            text = f"{self.high!r} - abs({self.high!r} - ({text}))"
            text = text if self.low is None else f"maximum({text}, {self.low!r})"
        return text

    def of(self, values: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Return what is learned (n,) of a column and its condition (n,)."""
        if self.kind == "ratio":
            return (values - (self.low or 0.0)) / known
        return values - known if self.kind == "difference" else wrapped(values - known)

    def total(self, learned: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Return the column (n,) again, not reflected at its ends."""
        if self.kind == "ratio":
            return learned * known + (self.low or 0.0)
        total = learned + known
        return total if self.kind == "difference" else wrapped(total - self.centre) + self.centre


def read_relative(spec: Any, table: EventTable) -> tuple[Relative, ...]:
    """Return what a mapping such as ``{"sim_pt": "ratio gen_pt"}`` says of a table.

    With ``"difference gen_phi in width"`` the condition ``width`` is the unit. A difference of two
    angles in radians that fill a turn is one on the circle. Raises ConfigError for what is unknown
    or cannot be meant, InputError if a ratio has zeros below, or a unit is not above 0.
    """
    check_relative(spec)
    found = []
    for column, text in spec.items():
        kind, condition = text.split(None, 1)
        where, unit = f"relative {column!r}: {text!r}", None
        if kind != "ratio" and condition not in table.cond_names and IN in condition:
            condition, unit = condition.split(IN, 1)
        if column not in table.names:
            raise ConfigError(f"{where}: {unknown('column', column, table.names)}")
        for name in (condition, *([unit] if unit is not None else [])):
            if not table.cond_names:
                raise ConfigError(f"{where}: the table has no conditions")
            if name not in table.cond_names:
                raise ConfigError(f"{where}: {unknown('condition', name, table.cond_names)}")
        for name in (column, condition, unit):
            if name is not None and (name in table.categories or "`" in name):
                raise ConfigError(f"{where}: {name!r} holds no numbers, or has a ` in its name")
        values, known = table.column(column), table.by_name()[condition]
        missing = np.isnan(known) & ~np.isnan(values)
        if missing.any():
            raise InputError(
                f"{where}: the condition is missing in {share_of(missing)} in which the column is"
                " known; fill it in, or leave this column as it is"
            )
        if kind == "ratio" and not (~(known <= 0)).all() and not (~(known >= 0)).all():
            wrong = (known == 0) | (np.sign(known) == -np.sign(np.nanmedian(known)))
            raise InputError(
                f"{where}: a ratio needs a condition that is nowhere 0 and has one sign, which is"
                f" not so in {share_of(wrong)} (first: row {int(np.argmax(wrong))}); say"
                f" 'difference {condition}', or remove these rows"
            )
        of_unit = None if unit is None else table.by_name()[unit]
        if of_unit is not None and not (of_unit > 0).all():
            wrong = ~(of_unit > 0)
            raise InputError(
                f"{where}: a unit must be above 0, which {unit!r} is not in {share_of(wrong)}"
                f" (first: row {int(np.argmax(wrong))})"
            )
        one = _angle(column, condition, values) if kind != "ratio" else None
        if kind == "angle" and one is None:
            raise ConfigError(
                f"{where}: an angle is in radians, from -pi to pi or from 0 to 2 pi, which"
                f" {column!r} is not ({np.nanmin(values):g} to {np.nanmax(values):g})"
            )
        if kind == "difference" and not (_fills_a_turn(values) and _fills_a_turn(known)):
            one = None
        one = one or _with_ends(kind, column, condition, values)
        found.append(replace(one, unit=unit))
    return tuple(found)


def check_relative(spec: Any) -> None:
    """Raise ConfigError unless a setting is None, 'auto' or a mapping of columns to such texts."""
    if spec is None or (isinstance(spec, str) and spec == "auto"):
        return
    if not isinstance(spec, Mapping):
        raise ConfigError(f"relative must be 'auto', None or a mapping {EXAMPLE}, got {spec!r}")
    for column, text in spec.items():
        parts = text.split(None, 1) if isinstance(text, str) else []
        if len(parts) < 2:
            raise ConfigError(
                f"relative {column!r} must be a text such as 'ratio gen_pt', got {text!r}"
            )
        if parts[0] not in KINDS:
            raise unknown(f"kind of relative {column!r}:", parts[0], KINDS)


def _angle(column: str, condition: str, values: np.ndarray) -> Relative | None:
    """Return the difference on the circle if values lie on one turn from -pi or 0."""
    low, high = np.nanmin(values), np.nanmax(values)
    for centre in (0.0, np.pi):
        if high >= centre + np.pi and high < centre + np.pi + 1e-6:  # the upper end is a value
            centre = high - np.pi + ROOM
        if centre - np.pi - ROUNDED <= low and high < centre + np.pi + ROUNDED:
            return Relative(column, "angle", condition, float(centre))
    return None


def _with_ends(kind: str, column: str, condition: str, values: np.ndarray) -> Relative:
    """Return a ratio or a difference that keeps the sharp ends of the values (n,) of a column.

    A difference keeps them positive, too.
    """
    known = values[~np.isnan(values)]
    is_hard = hard_edges(known)
    low = float(known.min()) if is_hard["low"] else None
    if low is None and kind == "difference" and known.min() >= 0:
        low = 0.0
    high = float(known.max()) if is_hard["high"] else None
    return Relative(column, kind, condition, low=low, high=high)


def _fills_a_turn(values: np.ndarray) -> bool:
    """Return whether values are those of an angle in radians with all directions."""
    known = values[~np.isnan(values)]
    if _angle("", "", known) is None or np.ptp(known) < 0.98 * 2 * np.pi:
        return False
    return known.size < TURN_ROWS or all(hard_edges(known).values())


# ---- by itself


def choose_relative(table: EventTable, skip: Collection[str] = ()) -> tuple[Relative, ...]:
    """Return the pairings of columns and conditions that leave clearly less to learn.

    ``table`` has training rows only, ``skip`` names columns to leave alone. In bins of a condition
    the spread is half of the range from 16% to 84%; that of the ratio counts in the unit of the
    column. None is taken for discrete columns, those with repeated values or parts equal to another
    column, where many rows would be reflected at a sharp end, nor for a denominator that comes near
    zero.
    """
    if table.n < FEWEST or table.cond is None:
        return ()
    columns, known = _numbers(table)
    conditions = {
        name: np.array_split(np.argsort(columns[name], kind="stable"), BINS)
        for name in table.cond_names
        if name in known
    }
    found = []
    for name, dtype in zip(table.names, table.dtypes, strict=True):
        values = columns[name]
        if name in skip or name not in known or np.dtype(dtype).kind != "f":
            continue
        if not is_smooth(values, dtype):
            continue
        best, least = None, CLEARLY
        for condition, bins in conditions.items():
            for one in _pairings(name, condition, columns):
                spread = _spread(one, values, columns[condition], bins)
                if spread < least * (0.95 if best else 1.0):
                    best, least = one, spread
        if best is not None and not _harms(best, columns, conditions[best.condition], table.names):
            found.append(best)
    return tuple(found)


def followed_conditions(table: EventTable, left: Collection[str]) -> tuple[Relative, ...]:
    """Return differences of columns from conditions that are clearly narrower than the columns.

    As for `choose_relative`, but over the whole range, not in bins of the condition: less is not
    left to learn then, but trees that tell real from generated events see the answer there.
    ``left`` names columns to leave alone.
    """
    if table.n < FEWEST:
        return ()
    (columns, known), found = _numbers(table), []
    conditions = [name for name in table.cond_names if name in known]
    for name in table.names:
        if name in left or name not in known or _fills_a_turn(columns[name]):
            continue
        pairs = [Relative(name, "difference", condition) for condition in conditions]
        widths = [_width(one.of(columns[name], columns[one.condition])) for one in pairs]
        if min(widths, default=np.inf) < CLEARLY * _width(columns[name]):
            found.append(pairs[int(np.argmin(widths))])
    return tuple(found)


def _numbers(table: EventTable) -> tuple[dict[str, np.ndarray], set[str]]:
    """Return columns and conditions of at most `MOST` rows, and which are numbers, none missing.

    Names with a backtick, which no expression can quote, are left out of the latter.
    """
    columns = table.take(slice(None, None, -(-table.n // MOST))).by_name()
    return columns, {
        name
        for name, values in columns.items()
        if name not in table.categories and "`" not in name and not np.isnan(values).any()
    }


def _pairings(column: str, condition: str, columns: Mapping[str, np.ndarray]) -> list[Relative]:
    """Return all that can be meant by two columns."""
    values, known = columns[column], columns[condition]
    if _fills_a_turn(values):
        angle = _angle(column, condition, values) if _fills_a_turn(known) else None
        return [] if angle is None else [angle]
    pairings = [_with_ends("difference", column, condition, values)]
    varies = _width(known) > NARROW * np.median(known)
    if varies and known.min() > NEAR_ZERO * np.median(known) > 0:
        pairings.insert(0, _with_ends("ratio", column, condition, values))
    return pairings


def _width(values: np.ndarray) -> float:
    return float(np.subtract(*np.quantile(values, [0.84, 0.16])))


def _spread(one: Relative, values: np.ndarray, known: np.ndarray, bins: list[np.ndarray]) -> float:
    """Return the spread of what is left in units of that of the column; infinite without a gain."""
    learned = replace(one, low=None).of(values, known)
    unit = [np.median(known[rows]) if one.kind == "ratio" else 1.0 for rows in bins]
    left = np.array([_width(learned[rows]) for rows in bins]) * unit
    whole = np.array([_width(values[rows]) for rows in bins])
    if not (whole > 0).all():
        return np.inf
    with np.errstate(divide="ignore"):
        everywhere = np.exp(np.log(left / whole).mean())
    return float(left.sum() / whole.sum()) if everywhere < EVERYWHERE else np.inf


def _harms(
    one: Relative,
    columns: Mapping[str, np.ndarray],
    bins: list[np.ndarray],
    names: Collection[str],
) -> bool:
    """Return whether a pairing loses what the column has: its range, or values of another one."""
    values, known = columns[one.column], columns[one.condition]
    order = np.concatenate(bins)
    swapped = one.total(np.roll(one.of(values, known)[order], 7), known[order])
    beyond = {"low": (swapped < values.min()).sum(), "high": (swapped > values.max()).sum()}
    lost = any(
        rows > FEW + (BEYOND if end is None else REFLECTED) * len(values)
        for rows, end in ((beyond["low"], one.low), (beyond["high"], one.high))
    )
    equal = [(values == columns[other]).mean() for other in names if other != one.column]
    return lost or max(equal, default=0.0) > EQUAL
