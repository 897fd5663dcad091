"""Sums over trees for the compiler, with the bits that XGBoost gives them.

References
----------
Comparing all nodes of a tree for many rows at once and finding the leaf by selection follows the
idea of QuickScorer: Lucchese et al., SIGIR 2015, section 3.
"""

from __future__ import annotations

import numpy as np

from .arrays import LANES, ROWS, WIDEST, leaf_width
from .compiler import (
    add_1,
    add_4,
    add_16,
    choose_2,
    choose_3,
    choose_4,
    choose_5,
    choose_6,
    choose_7,
    compare_gaps,
    compare_rows,
    compiled,
)

leaf_width = compiled(leaf_width)

FEWEST = 6
"""With fewer rows all trees are evaluated node by node."""


@compiled
def _compare(trees, at, size, xt, lane, gaps, marks):  # type: ignore[no-untyped-def]
    """Compare all nodes of the tree that begins at ``at`` for the 64 rows ``lane`` and after."""
    feature, cuts = trees.feature[at : at + size], trees.threshold[at : at + size]
    across, missing = xt.shape[1], trees.missing[at : at + size]
    if gaps:
        for k in range(np.uint64(1), np.uint64(size)):
            compare_gaps(xt, np.int64(feature[k]) * across + lane, cuts[k], marks, k, missing[k])
    else:
        for k in range(np.uint64(1), np.uint64(size)):
            compare_rows(xt, np.int64(feature[k]) * across + lane, cuts[k], marks, k, missing[k])


@compiled
def _choose(depth, marks, chosen):  # type: ignore[no-untyped-def]
    """Find the leaves of four trees from their comparisons."""
    for q in range(4):
        at, to = q << WIDEST, q * LANES
        if depth == 6:
            choose_6(marks, at, chosen, to)
        elif depth == 5:
            choose_5(marks, at, chosen, to)
        elif depth == 4:
            choose_4(marks, at, chosen, to)
        elif depth == 3:
            choose_3(marks, at, chosen, to)
        elif depth == 2:
            choose_2(marks, at, chosen, to)
        else:
            choose_7(marks, at, chosen, to)


@compiled
def _add_wide(trees, shape, n, xt, gaps, total, room):  # type: ignore[no-untyped-def]
    """Add a forest's leaves to ``total`` (n, M), four trees at a time.

    All rows use the same four trees before the next ones, whose leaves then are in the cache.
    """
    n_trees, depth, first, at, leaf = shape[0], shape[1], shape[3], shape[4], shape[5]
    size, width = 1 << depth, leaf_width(shape[2])
    for t in range(0, n_trees, 4):
        count, leaves = min(4, n_trees - t), trees.leaves[leaf + t * size * width :]
        for low in range(0, n, LANES):
            for q in range(count):
                marks = room.marks[q << WIDEST : (q + 1) << WIDEST]
                _compare(trees, at + (t + q) * size, size, xt, low, gaps, marks)
            _choose(depth, room.marks, room.chosen)
            rows = total[low : low + min(LANES, n - low)]
            if count < 4:
                _add_some(rows, first, leaves, size, width, room.chosen, count)
            elif width == 16:
                _add_16(rows, first, leaves, size * width, room.chosen)
            elif width == 1:
                _add_1(rows, first, leaves, size, room.chosen)
            else:
                _add_four(rows, first, leaves, size * width, width, room.chosen)


@compiled
def _add_16(rows, first, leaves, step, chosen):  # type: ignore[no-untyped-def]
    """Add to each row the leaves of four trees, which have 16 outputs."""
    to = first
    for r in range(np.uint64(len(rows))):
        p0, p1 = np.int64(chosen[0, r]) << 4, step + (np.int64(chosen[1, r]) << 4)
        p2, p3 = np.int64(chosen[2, r]) << 4, step + (np.int64(chosen[3, r]) << 4)
        add_16(rows, to, leaves, (p0, p1, p2 + 2 * step, p3 + 2 * step))
        to += rows.shape[1]


@compiled
def _add_1(rows, first, leaves, step, chosen):  # type: ignore[no-untyped-def]
    """Add to each row the leaves of four trees, which have one output."""
    to = first
    for r in range(np.uint64(len(rows))):
        p0, p1 = np.int64(chosen[0, r]), step + np.int64(chosen[1, r])
        p2, p3 = 2 * step + np.int64(chosen[2, r]), 3 * step + np.int64(chosen[3, r])
        add_1(rows, to, leaves, (p0, p1, p2, p3))
        to += rows.shape[1]


@compiled
def _add_four(rows, first, leaves, step, width, chosen):  # type: ignore[no-untyped-def]
    """Add to each row the leaves of four trees."""
    to = first
    for r in range(np.uint64(len(rows))):
        p0, p1 = np.int64(chosen[0, r]) * width, step + np.int64(chosen[1, r]) * width
        p2, p3 = np.int64(chosen[2, r]) * width, step + np.int64(chosen[3, r]) * width
        p2, p3, o = p2 + 2 * step, p3 + 2 * step, 0
        while o + 16 <= width:
            add_16(rows, to + o, leaves, (p0 + o, p1 + o, p2 + o, p3 + o))
            o += 16
        while o < width:
            add_4(rows, to + o, leaves, (p0 + o, p1 + o, p2 + o, p3 + o))
            o += 4
        to += rows.shape[1]


@compiled
def _add_some(rows, first, leaves, size, width, chosen, count):  # type: ignore[no-untyped-def]
    """Add to each row the leaves of fewer trees than four."""
    for r in range(len(rows)):
        for q in range(count):
            at = (q * size + np.int64(chosen[q, r])) * width
            _add_leaf(rows, r * rows.shape[1] + first, leaves, at, width)


@compiled
def _add_leaf(total, to, leaves, at, padded):  # type: ignore[no-untyped-def]
    o = 0
    while o + 16 <= padded:
        add_16(total, to + o, leaves, (at + o,))
        o += 16
    while o + 4 <= padded:
        add_4(total, to + o, leaves, (at + o,))
        o += 4
    if o < padded:
        add_1(total, to, leaves, (at,))


@compiled
def _beyond(trees, at, k, xt, r):  # type: ignore[no-untyped-def]
    x = xt[np.uint64(trees.feature[at + k]), r]
    return np.int64((x >= trees.threshold[at + k]) | ((x != x) & (trees.missing[at + k] != 0)))


@compiled
def _add_narrow(trees, shape, n, xt, total):  # type: ignore[no-untyped-def]
    """Add a forest's leaves row by row; four trees at a time, which do not wait for each other."""
    n_trees, depth, width, first = shape[0], shape[1], shape[2], shape[3]
    size, leaves, at, leaf = 1 << depth, trees.leaves, shape[4], shape[5]
    padded, across = leaf_width(width), total.shape[1]
    for r in range(n):
        to = r * across + first
        for t in range(0, n_trees, 4):
            last = n_trees - 1  # the last ones may be followed more than once, but count once
            t1, t2, t3 = min(t + 1, last), min(t + 2, last), min(t + 3, last)
            at0, at1, at2, at3 = (at + t * size, at + t1 * size, at + t2 * size, at + t3 * size)
            k0, k1, k2, k3, n_nodes = 0, 0, 0, 0, 1
            for _ in range(depth):
                k0 += n_nodes * _beyond(trees, at0, n_nodes + k0, xt, r)
                k1 += n_nodes * _beyond(trees, at1, n_nodes + k1, xt, r)
                k2 += n_nodes * _beyond(trees, at2, n_nodes + k2, xt, r)
                k3 += n_nodes * _beyond(trees, at3, n_nodes + k3, xt, r)
                n_nodes *= 2
            for q in range(min(4, n_trees - t)):
                k = k0 if q == 0 else k1 if q == 1 else k2 if q == 2 else k3
                _add_leaf(total, to, leaves, leaf + ((t + q) * size + k) * padded, padded)


@compiled
def _has_gaps(xt, n):  # type: ignore[no-untyped-def]
    missing = 0
    for i in range(len(xt)):
        row = xt[i]
        for r in range(n):
            missing += row[r] != row[r]
    return missing > 0


@compiled
def add_forests(trees, begin, end, n, xt, total, room):  # type: ignore[no-untyped-def]
    """Set ``total`` (n, M) to what the forests begin to end say of the n first rows of ``xt``."""
    gaps = n >= FEWEST and _has_gaps(xt, n)
    for f in range(begin, end):  # all of them first: leaves are filled up with zeros
        shape = trees.table[f]
        for r in range(n):
            for o in range(shape[2]):
                total[r, shape[3] + o] = trees.base[shape[6] + o]
    for f in range(begin, end):
        shape = trees.table[f]
        if 2 <= shape[1] <= WIDEST and n >= FEWEST:
            _add_wide(trees, shape, n, xt, gaps, total, room)
        else:
            _add_narrow(trees, shape, n, xt, total)


@compiled
def predict(trees, begin, end, inputs, result, room):  # type: ignore[no-untyped-def]
    """Fill ``result`` (n, M) for ``inputs`` (n, p)."""
    for low in range(0, len(inputs), ROWS):
        n = min(ROWS, len(inputs) - low)
        for r in range(n):
            row = inputs[low + r]
            for i in range(len(row)):
                room.xt[i, r] = row[i]
        add_forests(trees, begin, end, n, room.xt, room.total, room)
        for r in range(n):
            row, total = result[low + r], room.total[r]
            for o in range(len(row)):
                row[o] = total[o]
