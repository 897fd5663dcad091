"""The compiled inverse transform, row by row. `arrays.InverseArrays` says what is read."""

from __future__ import annotations

import math

import numpy as np

from . import arrays
from .compiler import compiled


@compiled
def _logistic(y):  # type: ignore[no-untyped-def]
    small = math.exp(-abs(y))
    return (small if y < 0 else 1.0) / (1.0 + small)


@compiled
def _unbent(p, bent):  # type: ignore[no-untyped-def]
    """Undo the logarithm or logit of `transforms.columns`."""
    low, edge, at_low = p[8], p[9], p[10] != 0.0
    if p[0] == 0.0:
        return bent
    if p[0] == 1.0:
        distance = math.exp(bent)
        return low + (0.0 if at_low and distance <= edge * (1 + 1e-9) else distance)
    high, width = p[11], p[11] - low
    value = low + width * _logistic(bent) if bent < 0 else high - width * _logistic(-bent)
    if at_low and value - low <= edge * (1 + 1e-9):
        value = low
    if p[13] != 0.0 and high - value <= p[12] * (1 + 1e-9):
        value = high
    return min(max(value, low), high)


@compiled
def _scaled(p, z, largest):  # type: ignore[no-untyped-def]
    z = min(max(z, p[3]), p[4])
    value = _unbent(p, p[1] + p[2] * z)
    if p[5] == 0.0:
        return min(max(value, -largest), largest)
    if z <= p[3]:
        value = p[6]
    if z >= p[4]:
        value = p[7]
    return min(max(value, p[6]), p[7])


@compiled
def _after(sorted_values, value):  # type: ignore[no-untyped-def]
    """Return how many sorted values are not above ``value``."""
    low, high = 0, len(sorted_values)
    while low < high:
        middle = (low + high) // 2
        if sorted_values[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _ranked(p, z):  # type: ignore[no-untyped-def]
    n = int(p[0])
    knots, x, slope = p[1 : 1 + n], p[1 + n : 1 + 2 * n], p[1 + 2 * n : 3 * n]
    z = min(max(z, knots[0]), knots[n - 1])
    i = min(_after(knots, z) - 1, n - 2)
    return min(max(x[i] + (z - knots[i]) * slope[i], x[0]), x[n - 1])


@compiled
def _turned(p, x, y):  # type: ignore[no-untyped-def]
    """Return the angle of a point in the plane, in [low, low + period)."""
    low, period = p[0], p[1]
    value = low + period * ((math.atan2(y, x) / (2.0 * math.pi)) % 1.0)
    return value if value < low + period else low


@compiled
def _undone(inverse, begin, end, latent, place):  # type: ignore[no-untyped-def]
    """Return the value of a column that begins at a place among the latent ones, -1 for none."""
    z = latent[place] if place >= 0 else 0.0
    for q in range(begin, end):
        code, p = inverse.ops[q, 0], inverse.numbers[inverse.ops[q, 1] :]
        if code == arrays.SCALED:
            z = _scaled(p, z, inverse.largest)
        elif code == arrays.RANK:
            z = _ranked(p, z)
        elif code == arrays.CATEGORICAL:
            n = int(p[0])
            z = p[n + _after(p[1:n], z)]
        elif code == arrays.INTEGER:
            z = min(max(np.floor(z), p[0]), p[1])  # math.floor would be an int64
        elif code == arrays.LATTICE:
            z = (p[2] + p[3] * min(max(np.floor(z), p[0]), p[1])) / p[4]
        elif code == arrays.CIRCULAR:
            z = _turned(p, latent[place], latent[place + 1])
        else:
            z = p[0]
    return z


@compiled
def _stored(kind, p, value):  # type: ignore[no-untyped-def]
    """Return the value as the type of its column holds it."""
    if kind == arrays.SINGLE:
        return np.float64(np.float32(min(max(value, p[0]), p[1])))
    if kind == arrays.TRUTH:
        return 1.0 if value >= 0.5 else 0.0
    if kind == arrays.WHOLE:
        return min(max(np.rint(value), p[0]), p[1])
    return min(max(value, p[0]), p[1])


@compiled
def _pair(code, a, b):  # type: ignore[no-untyped-def]
    if code == arrays.ADD:
        return a + b
    if code == arrays.SUBTRACT:
        return a - b
    if code == arrays.MULTIPLY:
        return a * b
    if code == arrays.DIVIDE:
        return a / b
    if code == arrays.POWER:
        return a**b
    if a != a or b != b:
        return np.nan
    return min(a, b) if code == arrays.MINIMUM else max(a, b)


@compiled
def _single(code, a):  # type: ignore[no-untyped-def]
    if code == arrays.NEGATE:
        return -a
    if code == arrays.LOG:
        return np.log(a)
    if code == arrays.EXP:
        return np.exp(a)
    return np.sqrt(a) if code == arrays.SQRT else abs(a)


@compiled
def _related(inverse, begin, end, row, stack):  # type: ignore[no-untyped-def]
    """Return what a relation gives for one row."""
    top = 0
    for q in range(begin, end):
        code, value = inverse.terms[q, 0], inverse.numbers[inverse.terms[q, 1]]
        if code in arrays.VALUES:
            stack[top] = row[int(value)] if code == arrays.COLUMN else value
            top += 1
        elif code in arrays.UNARY:
            stack[top - 1] = _single(code, stack[top - 1])
        else:
            stack[top - 2] = _pair(code, stack[top - 2], stack[top - 1])
            top -= 1
    return stack[0]


@compiled
def restore(inverse, z, x, latent, stack):  # type: ignore[no-untyped-def]
    """Fill x (n, d) from latent points z (n, m); return how often each relation is undefined."""
    m, undefined = z.shape[1], 0
    for r in range(len(z)):
        for c in range(len(latent)):
            value = 0.0
            if inverse.mixes:
                for j in range(m):
                    value += z[r, j] * inverse.axes[j, c]
            else:
                value = z[r, c]
            latent[c] = value * inverse.scale[c] + inverse.mean[c]
        for i in range(len(inverse.columns)):
            column = inverse.columns[i]
            if column[0] >= -1:
                value = _undone(inverse, column[1], column[2], latent, column[0])
                x[r, i] = _stored(column[3], inverse.numbers[column[4] :], value)
        for q in range(len(inverse.relations)):
            i, begin, end, at = inverse.relations[q]
            value, column = _related(inverse, begin, end, x[r], stack), inverse.columns[i]
            if not math.isfinite(value):
                value = inverse.numbers[at + 1] if value > 0 else inverse.numbers[at]
                undefined += 1
            x[r, i] = _stored(column[3], inverse.numbers[column[4] :], value)
    return undefined
