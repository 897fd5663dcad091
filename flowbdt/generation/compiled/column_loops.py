"""The compiled inverse transform, row by row. `arrays.InverseArrays` says what is read."""

from __future__ import annotations

import math

import numpy as np

from . import arrays, column_operations
from .compiler import compiled, compiled_functions

undone = compiled_functions(column_operations)["undone"]


@compiled
def stored(kind, p, value):  # type: ignore[no-untyped-def]
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
                value = undone(inverse, column[1], column[2], latent, column[0])
                x[r, i] = stored(column[3], inverse.numbers[column[4] :], value)
        for q in range(len(inverse.relations)):
            i, begin, end, at = inverse.relations[q]
            value, column = _related(inverse, begin, end, x[r], stack), inverse.columns[i]
            if not math.isfinite(value):
                value = inverse.numbers[at + 1] if value > 0 else inverse.numbers[at]
                undefined += 1
            x[r, i] = stored(column[3], inverse.numbers[column[4] :], value)
    return undefined
