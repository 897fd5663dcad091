"""The discrete columns of many events in one pass. `arrays.DiscreteArrays` says what is read."""

from __future__ import annotations

import numpy as np

from .arrays import ROWS
from .closed_form_loops import softmax
from .column_loops import stored
from .compiler import compiled
from .tree_loops import add_forests

EXCLUDED = -1e30
"""Log probability of a value that is not allowed."""


@compiled
def _seen(columns, i, value):  # type: ignore[no-untyped-def]
    """Return what the classifiers see of a number of the i-th numeric column."""
    largest = columns.largest
    value = (value - columns.centre[i]) / columns.scale[i]
    return np.float32(min(max(value, -largest), largest))


@compiled
def _excludes(columns, k, codes, allowed):  # type: ignore[no-untyped-def]
    """Fill ``allowed`` (K,) with what column k may be beside earlier codes; False if all may be."""
    begin, end = columns.rules[k], columns.rules[k + 1]
    if begin == end:
        return False
    allowed[:] = 1
    for q in range(begin, end):
        at = columns.rule[q, 1] + codes[columns.rule[q, 0]] * len(allowed)
        for o in range(len(allowed)):
            allowed[o] &= columns.meet[at + o]
    some = 0
    for o in range(len(allowed)):
        some |= allowed[o]
    return some > 0


@compiled
def _drawn(weights, allowed, excludes, uniform):  # type: ignore[no-untyped-def]
    """Return a code with probabilities (K,), from a uniform number; see `seeding.drawn`."""
    last = len(weights) - 1
    if excludes:
        while not allowed[last]:
            last -= 1
    edge = 0.0
    for code in range(last):
        edge += 0.0 if excludes and not allowed[code] else weights[code]
        if edge > uniform:
            return code
    return last


@compiled
def _enter(columns, k, code, row):  # type: ignore[no-untyped-def]
    """Enter in a row (d,) what a code says of another column, see `Pattern.enter`."""
    at, place = columns.first[k] + code, columns.enters[k, 0]
    if columns.source[at] >= 0:
        kind, limits = columns.enters[k, 2], columns.limits[k]
        row[place] = stored(kind, limits, row[columns.source[at]])
    elif columns.atom[at] == columns.atom[at]:
        row[place] = columns.atom[at]


@compiled
def draw_columns(columns, trees, x, cond, uniform, codes, allowed, room):  # type: ignore[no-untyped-def]
    """Fill codes (n, q) from x (n, d), cond (n, c), uniform (q, n); enter in x what they say."""
    n_numeric, n_seen = len(columns.places), len(columns.places) + cond.shape[1]
    for low in range(0, len(x), ROWS):
        n = min(ROWS, len(x) - low)
        for r in range(n):
            for i in range(n_numeric):
                room.xt[i, r] = _seen(columns, i, x[low + r, columns.places[i]])
            for i in range(n_numeric, n_seen):
                room.xt[i, r] = cond[low + r, i - n_numeric]
            if not n_seen:
                room.xt[0, r] = 0.0
        for k in range(codes.shape[1]):
            add_forests(
                trees, columns.forests[k], columns.forests[k + 1], n, room.xt, room.total, room
            )
            first, size = columns.first[k], columns.first[k + 1] - columns.first[k]
            joint, weights, may = room.joint[:size], room.weights[0, :size], allowed[:size]
            for r in range(n):
                code = 0
                if size > 1:
                    excludes = _excludes(columns, k, codes[low + r], may)
                    for o in range(size):
                        joint[o] = room.total[r, o] + columns.log_frequency[first + o]
                        if excludes and not may[o]:
                            joint[o] = EXCLUDED
                    softmax(joint, weights, room)
                    code = _drawn(weights, may, excludes, uniform[k, low + r])
                codes[low + r, k] = code
                room.xt[n_seen + k, r] = code
                if columns.enters[k, 0] >= 0:
                    _enter(columns, k, code, x[low + r])
                    i = columns.enters[k, 1]
                    if i >= 0:
                        room.xt[i, r] = _seen(columns, i, x[low + r, columns.enters[k, 0]])
