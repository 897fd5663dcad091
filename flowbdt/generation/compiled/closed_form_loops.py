"""The loops of generation for the compiler: closed form and steps. Arrays in, arrays out.

Every row is worked on by the same operations in the same order whatever the others are, so that a
result does not depend on how rows are grouped. `arrays` says what the arrays hold.
"""

from __future__ import annotations

import math

import numpy as np

from . import arrays
from .compiler import compiled, in_any_order
from .tree_loops import add_forests

TOGETHER = 4
"""Rows whose inner variables are in the cache together."""

C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3 = (1.0 / math.factorial(k) for k in range(13, 2, -1))

LOG2E, LN2_HIGH, LN2_LOW = (1.0 / math.log(2.0), 0.6931471803691238, 1.9082149292705877e-10)
MAGIC = 1.5 * 2.0**52
"""Added to a number it leaves its nearest integer in the lowest bits."""


@in_any_order
def _sum(values):  # type: ignore[no-untyped-def]
    total = 0.0
    for k in range(len(values)):
        total += values[k]
    return total


@in_any_order
def _product(a, b):  # type: ignore[no-untyped-def]
    total = 0.0
    for k in range(len(a)):
        total += a[k] * b[k]
    return total


@in_any_order
def _largest(values):  # type: ignore[no-untyped-def]
    largest = values[0]
    for k in range(1, len(values)):
        largest = max(largest, values[k])
    return largest


@compiled
def softmax(log_joint, weights, room):  # type: ignore[no-untyped-def]
    """Fill ``weights`` (K,) with exp(log_joint) over its sum.

    exp(y) is 2^n exp(y - n log 2) with a Taylor polynomial of degree 13, good to 2e-16.
    """
    shifted = room.shifted
    largest = _largest(log_joint)
    for k in range(len(log_joint)):
        y = log_joint[k] - largest
        y = max(-700.0, y)
        shifted[k] = y * LOG2E + MAGIC
        n = shifted[k] - MAGIC
        log_joint[k] = (y - n * LN2_HIGH) - n * LN2_LOW
    powers, bits = shifted.view(np.int64), weights.view(np.int64)
    for k in range(len(log_joint)):
        bits[k] = (powers[k] + 1023) << 52
    for k in range(len(log_joint)):
        y = log_joint[k]
        p = ((((y * C13 + C12) * y + C11) * y + C10) * y + C9) * y + C8
        p = ((((p * y + C7) * y + C6) * y + C5) * y + C4) * y + C3
        weights[k] *= ((p * y + 0.5) * y + 1.0) * y + 1.0
    share = 1.0 / _sum(weights)
    for k in range(len(log_joint)):
        weights[k] *= share


@compiled
def _add_times(out, x, row):  # type: ignore[no-untyped-def]
    for k in range(len(out)):
        out[k] += x * row[k]


@compiled
def _skipped(form, j):  # type: ignore[no-untyped-def]
    """Return how many inner variables, over all components, do not depend on input j."""
    return j * form.n_components if form.kind == arrays.FULL else 0


@compiled
def _inner(form, s, n, room):  # type: ignore[no-untyped-def]
    """Fill the inner variables (n, I K) of the rows in ``room.centred`` (n, R)."""
    numbers, size = form.numbers, form.n_inner * form.n_components
    at = form.where[s, arrays.STACK]
    for r in range(n):
        inner = room.inner[r]
        for k in range(size):
            inner[k] = numbers[at + k]
    at += size
    for j in range(form.n_known):
        skipped = _skipped(form, j)
        row = numbers[at : at + size - skipped]
        for r in range(n):
            _add_times(room.inner[r, skipped:], room.centred[r, j], row)
        at += size - skipped


@compiled
def _joint(form, s, centred, inner, joint):  # type: ignore[no-untyped-def]
    """Fill ``joint`` (K,) with log(weight k) + log p_k of one row."""
    numbers, size, n_known = form.numbers, form.n_components, form.n_known
    joint[:] = 0.0
    for i in range(form.n_inner):
        row = inner[i * size : (i + 1) * size]
        for k in range(size):
            joint[k] += row[k] * row[k]
    if form.kind == arrays.LOW_RANK:
        at, to = form.where[s, arrays.QUADRATIC], form.where[s, arrays.LINEAR]
        for k in range(size):
            square = _form(numbers[at : at + n_known], numbers[to : to + n_known], centred)
            joint[k] = square - joint[k]
            at, to = at + n_known, to + n_known
    constant = numbers[form.where[s, arrays.CONSTANT] : form.where[s, arrays.CONSTANT] + size]
    for k in range(size):
        joint[k] = constant[k] - 0.5 * joint[k]


@in_any_order
def _form(quadratic, linear, x):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(len(x)):
        total += (quadratic[j] * x[j] + linear[j]) * x[j]
    return total


@compiled
def _end_points(form, s, x, low, n, room):  # type: ignore[no-untyped-def]
    """Fill ``room.out`` (n, m) by Tweedie's formula, E[x1 | x] = (x + variance score) / scale.

    The score is minus the mean of C^-1 (r - mean) over the components: of L^-T inner for full
    matrices, and of D^-1 (r - mean) - stack^T inner for low rank.
    """
    numbers, n_components, m = form.numbers, form.n_components, form.n_points
    size, scale, variance = (form.n_inner * n_components, form.turn[s, 2], form.turn[s, 3])
    for r in range(n):
        weights = room.weights[low + r]
        for i in range(form.n_inner):
            inner = room.inner[r, i * n_components : (i + 1) * n_components]
            for k in range(n_components):
                inner[k] *= weights[k]
    at = form.where[s, arrays.STACK] + size
    for j in range(m):
        skipped = _skipped(form, j)
        row = numbers[at : at + size - skipped]
        for r in range(n):
            room.out[low + r, j] = _product(row, room.inner[r, skipped:])
        at += size - skipped
    for r in range(n):
        out, point = room.out[low + r], x[low + r]
        if form.kind == arrays.LOW_RANK:
            _diagonal_pull(form, s, room.centred[r], room.weights[low + r], out, room.diagonal)
        for j in range(m):
            out[j] = (point[j] - variance * out[j]) / scale


@compiled
def _diagonal_pull(form, s, centred, weights, out, diagonal):  # type: ignore[no-untyped-def]
    """Turn ``out`` (m,), stack^T inner, into the mean of D^-1 (r - mean) minus it."""
    numbers, m = form.numbers, form.n_points
    diagonal[:] = 0.0
    slope, level = diagonal[:m], diagonal[m : 2 * m]
    at, to = form.where[s, arrays.QUADRATIC], form.where[s, arrays.LINEAR]
    for k in range(form.n_components):
        _add_times(slope, weights[k], numbers[at : at + m])
        _add_times(level, weights[k], numbers[to : to + m])
        at, to = at + form.n_known, to + form.n_known
    for j in range(m):
        out[j] = (centred[j] * slope[j] + 0.5 * level[j]) - out[j]


@compiled
def _outputs(form, s, n, low, room):  # type: ignore[no-untyped-def]
    """Fill ``room.out`` (n, O) from the gains of all components, whatever the step."""
    numbers, width, m = form.numbers, form.n_out, form.n_points
    for r in range(n):
        out, diagonal, weights = room.out[low + r], room.diagonal, room.weights[low + r]
        out[:] = 0.0
        diagonal[:] = 0.0
        where = form.where[s]
        base, gain, ratio = where[arrays.BASE], where[arrays.GAIN], where[arrays.RATIO]
        for k in range(form.n_components):
            weight, at = weights[k], k * width
            _add_times(out, weight, numbers[base + at : base + at + width])
            if form.kind == arrays.LOW_RANK:
                _add_times(diagonal[:width], weight, numbers[ratio + at : ratio + at + width])
            for i in range(form.n_inner if gain >= 0 else 0):
                at = gain + (k * form.n_inner + i) * width
                x = weight * room.inner[r, i * form.n_components + k]
                _add_times(out, x, numbers[at : at + width])
        if form.kind == arrays.LOW_RANK:
            for o in range(form.n_used):
                out[o] += room.centred[r, o % m] * diagonal[o]


@compiled
def _closed_form(form, s, x, cond, n, room):  # type: ignore[no-untyped-def]
    """Fill ``room.out`` (n, O) and ``room.weights`` (n, K) for the points x (n, m)."""
    m, numbers, centre = form.n_points, form.numbers, form.where[s, arrays.CENTRE]
    for low in range(0, n, TOGETHER):
        rows = min(TOGETHER, n - low)
        for r in range(rows):
            for j in range(m):
                room.centred[r, j] = x[low + r, j] - numbers[centre + j]
            for j in range(form.n_known - m):
                values = cond[low + r, form.observed[j]]
                room.centred[r, m + j] = values - numbers[centre + m + j]
        _inner(form, s, rows, room)
        for r in range(rows):
            _joint(form, s, room.centred[r], room.inner[r], room.joint)
            softmax(room.joint, room.weights[low + r], room)
        if form.turn[s, 2] > 0.0:
            _end_points(form, s, x, low, rows, room)
        else:
            _outputs(form, s, rows, low, room)


@compiled
def _inputs(solver, form, s, x, cond, low, room):  # type: ignore[no-untyped-def]
    """Fill ``room.xt`` (p, rows), from row ``low`` on, with what the trees of a step see."""
    (n, m), at, xt = x.shape, 0, room.xt[:, low:]
    if solver.latent:
        for r in range(n):
            for j in range(m):
                xt[j, r] = x[r, j]
        at += m
    for q in range(solver.to_columns.shape[0]):
        for r in range(n):
            value = 0.0
            for j in range(m):
                value += x[r, j] * solver.to_columns[q, j]
            xt[at, r] = value
        at += 1
    heard = 0.0 if solver.silent[s] else 1.0
    if solver.end_point:
        for r in range(n):
            for j in range(m):
                xt[at + j, r] = heard * room.out[r, form.n_used - m + j]
        at += m
    if solver.components:
        for r in range(n):
            for k in range(form.n_components):
                xt[at + k, r] = heard * room.weights[r, k]
        at += form.n_components
    for j in range(cond.shape[1]):
        for r in range(n):
            xt[at + j, r] = cond[r, j]


@compiled
def _move(solver, e, x, room):  # type: ignore[no-untyped-def]
    """Go to the point of evaluation ``e``: a multiple of the last one plus some velocities."""
    n, m, scale = x.shape[0], x.shape[1], solver.scale[e]
    for r in range(n):
        row = x[r]
        if scale != 1.0:
            for j in range(m):
                row[j] *= scale
        for q in range(solver.terms[e], solver.terms[e + 1]):
            weight, velocity = solver.weight[q], room.slots[solver.term[q], r]
            for j in range(m):
                row[j] += weight * velocity[j]


@compiled
def _closed_velocity(form, s, x, room, velocity):  # type: ignore[no-untyped-def]
    """Fill ``velocity`` (n, m) with the closed form."""
    (n, m), (turn, pull) = x.shape, (form.turn[s, 0], form.turn[s, 1])
    for r in range(n):
        out, row = room.out[r], velocity[r]
        for j in range(m):
            row[j] = turn * out[j] + pull * x[r, j] if form.n_used == m else out[j]


@compiled
def _add_trees(form, total, velocity):  # type: ignore[no-untyped-def]
    """Add the sums of the trees to ``velocity`` (n, m); without closed form they are all of it."""
    for r in range(len(velocity)):
        row, more = velocity[r], total[r]
        if form.kind == arrays.NONE:
            row[:] = 0.0
        for j in range(len(row)):
            row[j] += more[j]


@compiled
def walk(solver, form, trees, x, cond, room):  # type: ignore[no-untyped-def]
    """Carry the points x (n, m) from noise to data, in place; cond is (n, c), c may be 0."""
    for e in range(len(solver.step)):
        _move(solver, e, x, room)
        s = solver.step[e]
        velocity = room.slots[solver.slot[e], : len(x)]
        for low in range(0, len(x), arrays.LANES):
            n = min(arrays.LANES, len(x) - low)
            points, values = x[low : low + n], cond[low : low + n]
            if form.kind != arrays.NONE:
                _closed_form(form, s, points, values, n, room)
                _closed_velocity(form, s, points, room, velocity[low : low + n])
            _inputs(solver, form, s, points, values, low, room)
        begin, end = solver.forests[s], solver.forests[s + 1]
        add_forests(trees, begin, end, len(x), room.xt, room.total, room)
        _add_trees(form, room.total, velocity)
    _move(solver, len(solver.step), x, room)
