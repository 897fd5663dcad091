"""Operations that undo column transforms: their numbers, and loops for `column_loops` to compile.

An operation with a code of its own is added to `operations`, `numbers_needed` and `undone` here, to
``UNDO`` in `onnx_columns`, and to ``Inverse`` in ``flowbdt.hpp``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import ConfigError

SCALED, RANK, CATEGORICAL, INTEGER, FIXED, CIRCULAR, LATTICE = range(7)
"""Codes of the operations."""

PAIRS = (CIRCULAR,)
"""Those that need two latent values; the others change one."""

BENDS = {"minmax": 0.0, "standard": 0.0, "log": 1.0, "logit": 2.0}

SCALED_NAMES = (
    *("centre", "scale", "z_low", "z_high", "clip", "x_low", "x_high"),
    *("low", "edge", "at_low", "high", "edge_high", "at_high"),
)
"""Numbers of `SCALED` after the bend; those that a transform does not have are 0."""


def operations(stored: Mapping[str, Any]) -> list[tuple[int, list[float]]]:
    """Return codes and numbers of what undoes a stored column transform, the last step first.

    Raises ConfigError if there is no operation for it.
    """
    # not at the top: a first event needs no transforms
    from ...tables.transforms.discrete import angle_range, lattice_of, whole_range

    name, state, options = stored["name"], stored["state"], stored["options"]
    if name in BENDS:
        fitted = {**state, **options}
        return [(SCALED, [BENDS[name], *(float(fitted.get(n) or 0) for n in SCALED_NAMES)])]
    if name == "rank":
        z, x = np.asarray(state["z"]), np.asarray(state["x"])
        dz = np.diff(z)
        slope = np.where(dz > 0, np.diff(x) / np.where(dz > 0, dz, 1.0), 0.0)
        return [(RANK, [len(z), *z, *x, *slope])]
    if name == "categorical":
        values, edges = (np.atleast_1d(state["values"]), np.atleast_1d(state["edges"]))
        return [(CATEGORICAL, [len(values), *edges[: len(values) - 1], *values])]
    if name == "integer":
        lattice = lattice_of(options)
        last = (LATTICE if lattice else INTEGER, [*whole_range(state), *lattice])
        return [*operations(state["inner"]), last]
    if name == "circular":
        return [(CIRCULAR, [*angle_range(options)])]
    if name == "chain":
        return [each for step in reversed(state["parts"]) for each in operations(step)]
    if name == "constant":
        return [(FIXED, [state["value"]])]
    if name == "classified":  # a classifier replaces it
        return [(FIXED, [float(np.atleast_1d(state["values"])[np.argmax(state["counts"])])])]
    if name == "mixed" and np.count_nonzero(state["shares"]) > 1:  # a classifier says where
        return operations(state["inner"])
    if name == "identity":
        return []
    raise ConfigError(f"the transform {name!r} is not compiled")


def numbers_needed(code: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return how many numbers operations (n,) read, from their codes and their first numbers."""
    count = np.clip(np.floor(first), 0.0, 2.0**53)  # NaN stays
    two = (code == INTEGER) | (code == CIRCULAR)
    fixed = np.select([code == SCALED, two, code == LATTICE], [14, 2, 5], 1)
    counted = np.select([code == RANK, code == CATEGORICAL], [3 * count, 2 * count], 0)
    least = np.select([code == RANK, code == CATEGORICAL], [6, 2], 0)
    return np.where(counted >= least, np.maximum(fixed, counted), np.inf)


def logistic(y: float) -> float:
    small = math.exp(-abs(y))
    return (small if y < 0 else 1.0) / (1.0 + small)


def unbent(p: np.ndarray, bent: float) -> Any:
    """Undo the logarithm or logit of a smooth transform."""
    low, edge, at_low = p[8], p[9], p[10] != 0.0
    if p[0] == 0.0:
        return bent
    if p[0] == 1.0:
        distance = math.exp(bent)
        return low + (0.0 if at_low and distance <= edge * (1 + 1e-9) else distance)
    high, width = p[11], p[11] - low
    value = low + width * logistic(bent) if bent < 0 else high - width * logistic(-bent)
    if at_low and value - low <= edge * (1 + 1e-9):
        value = low
    if p[13] != 0.0 and high - value <= p[12] * (1 + 1e-9):
        value = high
    return min(max(value, low), high)


def scaled(p: np.ndarray, z: float, largest: float) -> Any:
    z = min(max(z, p[3]), p[4])
    value = unbent(p, p[1] + p[2] * z)
    if p[5] == 0.0:
        return min(max(value, -largest), largest)
    if z <= p[3]:
        value = p[6]
    if z >= p[4]:
        value = p[7]
    return min(max(value, p[6]), p[7])


def after(sorted_values: np.ndarray, value: float) -> int:
    """Return how many sorted values are not above ``value``."""
    low, high = 0, len(sorted_values)
    while low < high:
        middle = (low + high) // 2
        if sorted_values[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


def ranked(p: np.ndarray, z: float) -> Any:
    n = int(p[0])
    knots, x, slope = p[1 : 1 + n], p[1 + n : 1 + 2 * n], p[1 + 2 * n : 3 * n]
    z = min(max(z, knots[0]), knots[n - 1])
    i = min(after(knots, z) - 1, n - 2)
    return min(max(x[i] + (z - knots[i]) * slope[i], x[0]), x[n - 1])


def angle(p: np.ndarray, x: float, y: float) -> Any:
    """Return the angle of a point in the plane, in [low, low + period)."""
    low, period = p[0], p[1]
    value = low + period * ((math.atan2(y, x) / (2.0 * math.pi)) % 1.0)
    return value if value < low + period else low


def undone(inverse: Any, begin: int, end: int, latent: np.ndarray, place: int) -> Any:
    """Return the value of a column that begins at a place among the latent ones, -1 for none."""
    z = latent[place] if place >= 0 else 0.0
    for q in range(begin, end):
        code, p = inverse.ops[q, 0], inverse.numbers[inverse.ops[q, 1] :]
        if code == SCALED:
            z = scaled(p, z, inverse.largest)
        elif code == RANK:
            z = ranked(p, z)
        elif code == CATEGORICAL:
            n = int(p[0])
            z = p[n + after(p[1:n], z)]
        elif code == INTEGER:
            z = min(max(np.floor(z), p[0]), p[1])  # math.floor would be an int64
        elif code == LATTICE:
            z = (p[2] + p[3] * min(max(np.floor(z), p[0]), p[1])) / p[4]
        elif code == CIRCULAR:
            z = angle(p, latent[place], latent[place + 1])
        else:
            z = p[0]
    return z
