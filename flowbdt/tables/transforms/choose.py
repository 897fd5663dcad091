"""The rules that choose a transform for a column where the specification is "auto".

In this order: constant; categories, truth values, numbers of few distinct values and codes;
numbers on a lattice (integers, multiples, a fixed number of decimals); an angle that fills its
period; spikes and hard edges (rank); positive over a wide range (log); nearly normal (standard);
the rest (rank). Only the training rows are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from ...errors import plural
from .base import REACH
from .rank import Distinct, find_atoms, find_spikes, least_gap
from .rounded_floats import PRINTED, number_type, single
from .smooth import location_and_scale

INTEGRAL = {"decimals": 0, "step": 1.0, "offset": 0.0}

Choice = tuple[dict[str, Any], str]
"""A transform specification and the reason for it, in a few words."""

FEW_VALUES = 20
"""Columns on a lattice with no more distinct values are treated as categories in order."""
MIN_ROWS = 20
"""With fewer rows a column is only standardised: shape cannot be judged."""
WIDE_RANGE = 10.0
"""Largest over smallest value from which a logarithm is considered."""
SPARSE = 100.0
"""Points per distinct value up to which values can be multiples of a step."""
HOLES = 0.3
"""Empty lattice points that should be occupied, per distinct value, from which on values are codes:
below 0.1 for smooth densities, 1 and more for identifiers, zip codes or every second number."""
UNLIKELY = 20.0
"""The same where neighbours have many rows: minus the logarithm of the chance of all holes."""
BEYOND = 18.0
"""Rows that a smooth density would have beyond the extreme value where it counts as an edge."""

DISCRETE = ("constant", "categorical", "integer")
"""Transforms of columns that no function of others gives back."""

SPIKE = 0.2
"""Share of rows with one value from which on a column keeps its ranks, see `straightened`."""


def choose(
    values: np.ndarray,
    dtype: str = "float64",
    is_category: bool = False,
    every: np.ndarray | None = None,
) -> Choice:
    """Choose the transform of the training values (n,) of a column, and say why.

    ``dtype`` is the numpy name of the type that the column came in, or one of `rounded_floats`;
    ``is_category`` is true for codes of texts. All of ``every`` (m,) are on a lattice that is
    found: by default the values, else with those of rows that were set aside.
    """
    if values.min() == values.max():
        return {"name": "constant"}, "one value"
    if is_category or dtype == "bool":
        return {"name": "categorical"}, "categories"
    kind_of_type = number_type(dtype)
    if dtype in PRINTED:  # on a lattice as floats, not as printed
        values, every = single(values), None if every is None else single(every)
    distinct = Distinct.of(values)
    lattice = find_lattice(distinct if every is None else Distinct.of(every), kind_of_type)
    if lattice is None and kind_of_type.kind == "f":
        return choose_continuous(values, distinct=distinct)
    kind = _in_words(lattice)
    n_distinct = distinct.values.size
    if n_distinct <= 2 or (n_distinct <= FEW_VALUES and 10 * n_distinct <= values.size):
        return {"name": "categorical"}, f"{kind}, {n_distinct} of them"
    if are_codes(distinct):
        return {"name": "categorical"}, f"{kind}, {n_distinct} of them, repeated and with gaps"
    if lattice is None:
        return choose_continuous(values, distinct=distinct)
    return {"name": "integer", **({} if lattice == INTEGRAL else lattice)}, kind


def _in_words(lattice: dict[str, float] | None) -> str:
    if lattice is None or lattice == INTEGRAL:
        return "integral values"
    divisor = lattice.get("divisor", 1) * 10 ** lattice["decimals"]
    step, offset = lattice["step"] / divisor, lattice["offset"] / divisor
    return f"multiples of {step:.12g}" + (f" plus {offset:.12g}" if offset else "")


def find_lattice(column: Distinct, dtype: np.dtype) -> dict[str, float] | None:
    """Return the options of `Integer` if all values are integral, decimals or multiples of a step.

    Values that the type cannot tell from their neighbours are real numbers, as are those with a
    fixed number of digits instead of decimals.
    """
    digits = 53 if dtype.kind != "f" else np.finfo(dtype).nmant + 1
    distinct, n_rows = column.values, column.n
    largest = np.abs(distinct).max()
    for decimals in range(1 if dtype.kind in "iu" or n_rows < MIN_ROWS else 15):
        if largest * 10.0**decimals >= 2.0 ** (digits - (4 if decimals else 0)):
            break
        if all(_has_decimals(each, decimals, dtype).all() for each in (distinct[:100], distinct)):
            if decimals and _has_decimals(distinct, decimals - 1, dtype).mean() > 0.7:
                return None  # few need the last decimal
            lattice = _with_step(distinct, decimals, dtype)
            if lattice is not None:
                return lattice
            break
    return find_multiples(distinct, dtype) if n_rows >= MIN_ROWS else None


def _printed(values: np.ndarray, decimals: int, dtype: np.dtype) -> np.ndarray:
    printed = np.rint(values * 10.0**decimals) / 10.0**decimals
    return printed.astype(dtype).astype(np.float64) if dtype.kind == "f" else printed


def _has_decimals(values: np.ndarray, decimals: int, dtype: np.dtype) -> np.ndarray:
    """Return which values are decimals, but for two units of the type's last place."""
    near = 2 * np.spacing(np.abs(values).astype(dtype)) if decimals else 0.0
    return np.abs(_printed(values, decimals, dtype) - values) <= near


def _with_step(distinct: np.ndarray, decimals: int, dtype: np.dtype) -> dict[str, float] | None:
    """Return decimals, step and offset of a lattice, the latter in units of the last decimal."""
    units = np.rint(distinct * 10.0**decimals).astype(np.int64)
    step = int(np.gcd.reduce(np.diff(units))) if units.size >= 8 else 1
    if (_printed(distinct, decimals, dtype) == distinct).all():
        return {"decimals": decimals, "step": float(step), "offset": float(units[0] % step)}
    size = float(dtype.type(step / 10.0**decimals))  # not as printed, but as k times 0.1 gives them
    if ((units // step * size).astype(dtype) == distinct).all():
        return {"decimals": 0, "step": size, "offset": 0.0}
    return None


def find_multiples(distinct: np.ndarray, dtype: np.dtype) -> dict[str, float] | None:
    """Return the options of `Integer` if all values are multiples of the least gap between them.

    They must lie on that lattice within a thousandth of a step or the rounding of the type, and
    occupy a hundredth of it: real numbers have far smaller gaps, and lie on none. Derived here.
    """
    floats = dtype if dtype.kind == "f" else np.dtype(np.float64)
    rounding = float(np.spacing(np.abs(distinct).max().astype(floats)))
    with np.errstate(over="ignore"):
        gaps, span = np.diff(distinct), distinct[-1] - distinct[0]
    step = gaps.min()
    if distinct.size < 8 or step < 16 * rounding or span > SPARSE * distinct.size * step:
        return None
    for reach in (4.0, 64.0, np.inf):  # of longer gaps a first guess miscounts the steps
        near = gaps[gaps < reach * step]
        step = near.sum() / np.rint(near / step).sum()
    number = np.append(0.0, np.cumsum(np.rint(gaps / step)))
    centred = number - number.mean()
    step = centred @ (distinct - distinct[0]) / (centred @ centred)
    tolerance = 1e-3 * step + 2 * rounding
    few_between = 0.7 + 1 / np.sqrt(distinct.size)  # as of numbers with a fixed number of digits
    if any(np.bincount((number % m).astype(int)).max() > few_between * number.size for m in (2, 5)):
        return None
    best, most = None, -1.0
    off = np.abs(distinct - distinct.mean() - step * centred).max()
    error = (8 * rounding + 2 * off) / number[-1]
    for offset, step_of_k, divisor in _candidates(distinct, number, step, error, floats):
        k = np.rint((distinct[0] * divisor - offset) / step_of_k) + number
        there = (offset + step_of_k * k) / divisor
        exact = float((there.astype(floats) == distinct).mean())
        if exact > most + 0.05 and np.abs(there - distinct).max() <= tolerance:
            best, most = (offset, step_of_k, divisor), exact
    if best is None:
        return None
    fraction = {"divisor": best[2]} if best[2] > 1 else {}
    return {"decimals": 0, "step": best[1], "offset": best[0], **fraction}


def _candidates(
    distinct: np.ndarray, number: np.ndarray, step: float, error: float, dtype: np.dtype
) -> Iterator[tuple[float, float, int]]:
    """Yield offsets, steps and divisors near a step that was found, the usual ones first."""
    near_zero = round(distinct[0] / step) + number[-1]
    for limit in (10, 100, 1000, 10_000):
        ratio = Fraction(step).limit_denominator(limit)
        if ratio.denominator > 1 and abs(float(ratio) - step) <= error:
            yield 0.0, float(ratio.numerator), ratio.denominator
            break
    printed = (float(f"{step:.{digits}g}") for digits in range(1, 17))
    usual = next((each for each in printed if abs(each - step) <= error), step)
    for offset, k in ((0.0, near_zero), (float(distinct[0]), number[-1])):
        yield offset, usual, 1
        last = dtype.type((distinct[-1] - offset) / k if k else step)
        for places in (0, -1, 1, -2, 2):  # the unit of its last place decides which values are met
            yield offset, float(last + places * np.spacing(last)), 1
        yield offset, step, 1


def are_codes(distinct: Distinct) -> bool:
    """Return whether values repeat but leave holes where a smooth density had none.

    A point between two neighbours of c rows or more is expected to be occupied with probability
    1 - exp(1 - c) or more; many such holes tell, or a few that are too unlikely. The distance of
    the points is the least that is near; around spikes nothing is expected. Where values are rarer,
    ranges without any tell: minutes after 59 in times such as 1230. Derived here.
    """
    spikes, values = find_spikes(distinct), distinct.values
    if 2 * spikes.sum() >= values.size:
        return True
    counts, point = np.where(spikes, 0, distinct.counts), least_gap(values)
    fewer = np.minimum(counts[1:], counts[:-1])
    empty = np.diff(values) / point - 1
    expected = (empty * -np.expm1(-np.maximum(fewer - 1.0, 0.0))).sum()
    unlikely = (empty * np.maximum(fewer - 5.0, 0.0)).sum()
    if expected > HOLES * values.size or unlikely > UNLIKELY:
        return True
    repeated = distinct.n > 1.05 * values.size
    return repeated and have_forbidden_ranges(values, counts, point)


def have_forbidden_ranges(values: np.ndarray, counts: np.ndarray, point: np.ndarray) -> bool:
    """Return whether rising values end abruptly on both sides of many gaps, as 959 and 1000 do.

    Of each side the 8 next values tell how many rows the gap would have (at the density of the
    thinner side; 10 come by chance once in 400,000 gaps), and where their rows lie: halfway on
    average at an abrupt end, farther from the gap at a soft one. Derived here.
    """
    n_near, at_least, halfway = 8, 10.0, 0.57
    if values.size <= n_near + 1:
        return False
    density, distance = [], []
    for x, n in ((values, counts), (-values[::-1], counts[::-1])):  # the values below each gap
        rows, moment = (np.append(0.0, np.cumsum(each)) for each in (n, n * (x - x[0])))
        last = np.arange(n_near, x.size - 1)
        width = x[last] - x[last - n_near]
        inner = rows[last] - rows[last - n_near + 1]
        mean = (moment[last] - moment[last - n_near + 1]) / np.maximum(inner, 1)
        missing = np.full(n_near, np.nan)
        density.append(np.append(missing, (inner + n[last]) / width))
        distance.append(np.append(missing, (x[last] - x[0] - mean) / width))
    thinner = np.minimum(density[0], density[1][::-1])
    gap = (np.diff(values) - point) * thinner > at_least
    enough = gap.sum() > 4 + 4e-4 * values.size
    return bool(enough and (distance[0] + distance[1][::-1])[gap].mean() < 2 * halfway)


def choose_continuous(
    values: np.ndarray, unit: float = 1.0, distinct: Distinct | None = None
) -> Choice:
    """Choose the transform of a column of real numbers, in a unit of so many; as `choose`."""
    if values.size < MIN_ROWS:
        return {"name": "standard"}, f"only {values.size} rows"
    distinct = distinct or Distinct.of(values)
    atoms = find_atoms(distinct)
    edges = hard_edges(values[~np.isin(values, distinct.values[atoms])] if atoms.any() else values)
    if all(edges.values()) and values.size >= 1000:
        angle = _as_angle(values, unit)
        if angle:
            return angle, "fills one turn evenly up to both ends: an angle in radians"
    n_atoms = int(atoms.sum())
    limited = {
        "low": edges["low"] or distinct.counts[0] > 1,
        "high": edges["high"] or distinct.counts[-1] > 1,
    }
    tails = {side: "limit" if limit else "extend" for side, limit in limited.items()}
    reasons = [plural(n_atoms, "repeated value")] if n_atoms else []
    reasons += [f"hard {side} limit" for side, hard in edges.items() if hard]
    if reasons:
        return {"name": "rank", "tails": tails}, ", ".join(reasons)
    skew, kurtosis = shape(values)
    if log_suits(values):
        decades = np.log10(values.max()) - np.log10(values.min())
        return {"name": "log", "low": 0.0}, f"positive, {decades:.1f} decades"
    stays_positive = values.min() <= 0 or values.min() > REACH * location_and_scale(values)[1]
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


def hard_edges(values: np.ndarray, beyond: float = 0.0) -> dict[str, bool]:
    """Return on which sides the density ends abruptly (a cut or a physical limit).

    With the outermost k values as a sample of a density like exp(a d) in the distance d from the
    extreme value, k / (exp(a w) - 1) rows are expected beyond it, w the distance of the last. That
    is about 1 in a soft tail, and very many at a cut. a is larger than the `BEYOND` rows allow if
    the mean distance is. A third of the values must say so too, if less surely: a small peak at the
    end of a column has as many rows near its end as far from it, but soft sides. In trials at 2000
    (15,000) rows 2 (0) of 1000 normal tails count as edges, none of steeper or heavier ones, 1 in
    100 of those that end as x^4 does, most of those that end as x does; of a normal cut at 2.5
    standard deviations 82 (100) of 100, at 3 two (93). Where a logarithm suits the column it must
    be an edge in the logarithm too: the lower end of a broad log-normal looks like one.
    ``beyond`` asks for more rows, by the share of the k.
    Truncated tails in general: Aban, Meerschaert, Panorska, J. Am. Stat. Assoc. 101 (2006) 270.
    """
    k = int(np.clip(values.size // 10, 20, 200))
    if values.size < 10 * k:
        return {"low": False, "high": False}
    rows = max(BEYOND, beyond * k)
    order = np.sort(values) / np.abs(values).max()
    scales = [order, np.log(order)] if log_suits(values) else [order]
    return {
        "low": all(_is_cut(scale[: k + 1] - scale[0], rows) for scale in scales),
        "high": all(_is_cut(scale[-1] - scale[: -k - 2 : -1], rows) for scale in scales),
    }


def ends_at(end: float, values: np.ndarray) -> bool:
    """Return whether values (n,), none below ``end``, have a density that ends abruptly there."""
    k = int(np.clip(values.size // 10, 20, 200))
    if values.size < 10 * k:
        return False
    nearest = np.sort(values - end)[:k]
    return _is_cut(np.append(0.0, nearest))


def _is_cut(distance: np.ndarray, beyond: float = BEYOND) -> bool:
    """Return whether distances (k + 1,) from the extreme value, rising from 0, show an edge."""
    n_near = distance.size - 1
    third = n_near // 3
    return _is_flat(distance, n_near, beyond) and (
        third < 30 or _is_flat(distance, third, np.sqrt(third))
    )


def _is_flat(distance: np.ndarray, n_near: int, beyond: float) -> bool:
    """Return whether the nearest ones leave room for that many rows beyond the extreme value."""
    steepest = np.log1p(n_near / beyond)
    mean = 1 / -np.expm1(-steepest) - 1 / steepest
    return bool(distance[1:n_near].mean() < mean * distance[n_near])


def log_suits(values: np.ndarray) -> bool:
    """Return whether the values are positive over a wide range and not skewed in the logarithm."""
    if values.min() <= 0 or values.max() / WIDE_RANGE < values.min():
        return False
    skew, kurtosis = shape(values)
    log_skew, log_kurtosis = shape(np.log(values))
    return abs(log_skew) <= max(1.0, abs(skew) / 2) and log_kurtosis < max(6.0, kurtosis)


def _as_angle(values: np.ndarray, unit: float) -> dict[str, Any] | None:
    """Return the circular specification if the values fill [-pi, pi] or [0, 2 pi]."""
    turn, slack = 2 * np.pi / unit, 1e-6 if unit == 1 else 2.0  # last decimals and their noise
    for low in (-np.pi / unit, 0.0):
        inside = values.min() >= low - slack and values.max() <= low + turn + slack
        if inside and values.max() - values.min() > 0.99 * turn:
            return {"name": "circular", "period": turn, "low": low}
    return None


def is_smooth(values: np.ndarray, dtype: str) -> bool:
    """Return whether a column has real numbers, none of them repeated."""
    name = choose(values, dtype)[0]["name"]
    is_real = name in ("standard", "log", "rank") and not find_atoms(Distinct.of(values)).any()
    return is_real or name == "circular"


def straightened(spec: dict[str, Any], reason: str, values: np.ndarray) -> Choice:
    """Return a linear transform in place of ranks and logarithms, unless many values are one.

    For columns that are normal within the classes of a label: together they are not, and ranks
    would bend the classes.
    """
    largest = np.unique(values, return_counts=True)[1].max()
    if largest > SPIKE * len(values) or spec["name"] not in ("rank", "log", "integer"):
        return spec, reason
    reason += ", shape kept for the classes"
    if spec["name"] == "integer":
        return {**spec, "inner": "standard", "tails": "limit"}, reason
    return {"name": "standard"}, reason


def choose_integer_tails(
    values: np.ndarray, tails: dict[str, str], is_count: bool
) -> dict[str, str]:
    """Replace "auto" tails of an integer column: where generated values stop at the extremes."""
    for side, extreme in (("low", values.min()), ("high", values.max())):
        if tails[side] == "auto":
            n_there = int((values == extreme).sum())
            crowded = n_there >= 0.005 * values.size and (is_count or n_there > 2)
            limited = crowded or (side == "low" and is_count and extreme >= 0)
            tails[side] = "limit" if limited else "extend"
    return tails
