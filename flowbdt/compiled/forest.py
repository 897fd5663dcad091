"""Sums over trees for the compiler, with the bits that XGBoost gives them.

References
----------
Comparing all nodes of a tree for many rows at once and finding the leaf by selection follows the
idea of QuickScorer: Lucchese et al., SIGIR 2015, section 3.
"""

from __future__ import annotations

import numpy as np

from .numba import compiled

LANES = 64
"""Rows that go through a tree together."""

WIDEST = 7
"""Trees of at most this depth are evaluated for all rows at once, deeper ones node by node."""

FEWEST = 6
"""With fewer rows all trees are evaluated node by node."""


@compiled
def _wide(trees, at, depth, xt, gaps, marks, found):  # type: ignore[no-untyped-def]
    """Find the leaf of every lane in the tree whose nodes begin at ``at``.

    Only where there are ``gaps`` it is asked where NaN goes: nobody could guess the answers.
    """
    n_nodes = 1 << depth
    for k in range(1, n_nodes):
        x, cut, mark = xt[np.uint64(trees.feature[at + k])], trees.threshold[at + k], marks[k]
        if gaps and trees.missing[at + k]:
            for r in range(LANES):
                mark[r] = not (x[r] < cut)
        else:
            for r in range(LANES):
                mark[r] = x[r] >= cut
    bit, low = np.uint8(2), n_nodes >> 2
    while low >= 1:  # what the second child knows if its node says so, else the first
        for k in range(low, 2 * low):
            mark, first, second = marks[k], marks[2 * k], marks[2 * k + 1]
            for r in range(LANES):
                mask = np.uint8(-mark[r])
                mark[r] = (first[r] & ~mask) | ((second[r] | bit) & mask)
        bit, low = np.uint8(bit << 1), low >> 1
    mark = marks[min(1, n_nodes - 1)]
    for r in range(LANES):
        found[r] = mark[r] if depth else np.uint8(0)


@compiled
def _add_wide(trees, shape, n, xt, gaps, total, room):  # type: ignore[no-untyped-def]
    """Add a forest's leaves to ``total`` (n, M), four trees at a time."""
    n_trees, depth, width, first, at, leaf = (
        shape[0],
        shape[1],
        shape[2],
        shape[3],
        shape[4],
        shape[5],
    )
    size, leaves = 1 << depth, trees.leaves
    found0, found1, found2, found3 = room.found[0], room.found[1], room.found[2], room.found[3]
    t = 0
    while t + 4 <= n_trees:
        for q in range(4):
            _wide(trees, at + (t + q) * size, depth, xt, gaps, room.marks, room.found[q])
        start0 = leaf + t * size * width
        step = size * width
        for r in range(n):
            i0 = start0 + np.int64(found0[r]) * width
            i1 = start0 + step + np.int64(found1[r]) * width
            i2 = start0 + 2 * step + np.int64(found2[r]) * width
            i3 = start0 + 3 * step + np.int64(found3[r]) * width
            a, b = leaves[i0 : i0 + width], leaves[i1 : i1 + width]
            c, d = leaves[i2 : i2 + width], leaves[i3 : i3 + width]
            sums = total[r, first : first + width]
            for o in range(width):
                sums[o] = (((sums[o] + a[o]) + b[o]) + c[o]) + d[o]
        t += 4
    while t < n_trees:
        _wide(trees, at + t * size, depth, xt, gaps, room.marks, found0)
        for r in range(n):
            i0 = leaf + (t * size + np.int64(found0[r])) * width
            a, sums = leaves[i0 : i0 + width], total[r, first : first + width]
            for o in range(width):
                sums[o] += a[o]
        t += 1


@compiled
def _child(trees, at, k, xt, r):  # type: ignore[no-untyped-def]
    x = xt[np.uint64(trees.feature[at + k]), r]
    beyond = (x >= trees.threshold[at + k]) | ((x != x) & (trees.missing[at + k] != 0))
    return 2 * k + np.int64(beyond)


@compiled
def _add_narrow(trees, shape, n, xt, total):  # type: ignore[no-untyped-def]
    """Add a forest's leaves row by row; four trees at a time, which do not wait for each other."""
    n_trees, depth, width, first, at, leaf = (
        shape[0],
        shape[1],
        shape[2],
        shape[3],
        shape[4],
        shape[5],
    )
    size, leaves = 1 << depth, trees.leaves
    for r in range(n):
        sums = total[r, first : first + width]
        for t in range(0, n_trees, 4):
            last = n_trees - 1  # the last ones may be walked several times, but count once
            t1, t2, t3 = min(t + 1, last), min(t + 2, last), min(t + 3, last)
            at0, at1, at2, at3 = at + t * size, at + t1 * size, at + t2 * size, at + t3 * size
            k0, k1, k2, k3 = 1, 1, 1, 1
            for _ in range(depth):
                k0, k1 = _child(trees, at0, k0, xt, r), _child(trees, at1, k1, xt, r)
                k2, k3 = _child(trees, at2, k2, xt, r), _child(trees, at3, k3, xt, r)
            for q in range(min(4, n_trees - t)):
                k = k0 if q == 0 else k1 if q == 1 else k2 if q == 2 else k3
                i0 = leaf + ((t + q) * size + k - size) * width
                a = leaves[i0 : i0 + width]
                for o in range(width):
                    sums[o] += a[o]


@compiled
def _has_gaps(xt):  # type: ignore[no-untyped-def]
    missing = 0
    for i in range(len(xt)):
        row = xt[i]
        for r in range(LANES):
            missing += row[r] != row[r]
    return missing > 0


@compiled
def add_forests(trees, begin, end, n, xt, total, room):  # type: ignore[no-untyped-def]
    """Set ``total`` (n, M) to what the forests begin to end say of the n first lanes."""
    gaps = n >= FEWEST and _has_gaps(xt)
    for f in range(begin, end):
        shape = trees.table[f]
        for r in range(n):
            for o in range(shape[2]):
                total[r, shape[3] + o] = trees.base[shape[6] + o]
        if shape[1] <= WIDEST and n >= FEWEST:
            _add_wide(trees, shape, n, xt, gaps, total, room)
        else:
            _add_narrow(trees, shape, n, xt, total)


@compiled
def predict(trees, begin, end, inputs, result, room):  # type: ignore[no-untyped-def]
    """Fill ``result`` (n, M) for ``inputs`` (n, p)."""
    for low in range(0, len(inputs), LANES):
        n = min(LANES, len(inputs) - low)
        for r in range(n):
            row = inputs[low + r]
            for i in range(len(row)):
                room.xt[i, r] = row[i]
        add_forests(trees, begin, end, n, room.xt, result[low : low + n], room)
