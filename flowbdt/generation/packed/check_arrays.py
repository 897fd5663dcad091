"""Checks of arrays from files before the loops follow every index in them.

Arrays from a file may be damaged, or made to do harm. What is checked here is that no index leads
out of an array, not that the numbers make sense.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import FormatError
from ..compiled import arrays
from ..compiled.arrays import (
    BASE,
    DEEPEST_STACK,
    FULL,
    GAIN,
    LOW_RANK,
    NONE,
    FormArrays,
    InverseArrays,
    SolverArrays,
    TreeArrays,
    leaf_width,
    n_inputs,
)
from ..compiled.column_operations import PAIRS, numbers_needed

TYPES = {"i": np.int64, "h": np.uint16, "b": np.uint8, "s": np.float32, "f": np.float64}

KINDS: dict[type, str] = {
    TreeArrays: "i2 h1 s1 b1 s1 s1",
    FormArrays: "int int int int int int int i1 f2 i2 f1",
    SolverArrays: "f1 i1 i1 f1 i1 i1 i1 bool f2 b1 bool bool",
    InverseArrays: "bool f2 f1 f1 i2 i2 i2 i2 f1 float",
}
"""Of each field: letter of its type and number of dimensions, or the type of a number."""


def _require(good: Any, what: str) -> None:
    if not np.all(good):
        raise FormatError(
            f"the {what} of this model do not fit together: it is damaged or was changed by hand;"
            " copy the file again, or save the model anew"
        )


def _check_kinds(packed: Any, what: str) -> None:
    for value, kind in zip(packed, KINDS[type(packed)].split(), strict=True):
        if kind[-1].isdigit():
            _require(
                isinstance(value, np.ndarray)
                and value.dtype == TYPES[kind[0]]
                and value.ndim == int(kind[1])
                and value.flags.c_contiguous
                and value.flags.aligned,
                what,
            )
        else:
            _require(type(value).__name__ == kind, what)


def _within(begin: np.ndarray, size: Any, end: int) -> Any:
    """Return which runs of so many elements are within an array of ``end``, without overflow."""
    return (begin >= 0) & (begin <= end) & (size <= end - begin)


def _rising(edges: np.ndarray, end: int) -> bool:
    return len(edges) > 0 and bool(
        edges[0] >= 0 and (np.diff(edges) >= 0).all() and edges[-1] <= end
    )


def _below(indices: np.ndarray, end: int) -> Any:
    return (indices >= 0) & (indices < end)


def check_trees(trees: TreeArrays, n_inputs: int, n_outputs: int) -> None:
    """Refuse trees that read or write out of their arrays, of other inputs or of other outputs.

    Raises FormatError.
    """
    _check_kinds(trees, "trees")
    table, nodes = trees.table, len(trees.feature)
    _require(table.shape[1] == 7 and len(table), "trees")
    _require(len(trees.threshold) == nodes == len(trees.missing), "trees")
    _require((table >= 0) & (table <= nodes + len(trees.leaves) + len(trees.base)), "trees")
    count, depth, width, first, node, leaf, base = table.T
    _require((depth < 32) & (width >= 1), "trees")
    size = count * 2.0**depth  # as real numbers, which do not overflow
    wide, which = np.unique(width, return_inverse=True)
    filled_up = np.array([leaf_width(int(each)) for each in wide])[which]
    _require(_within(node, size, nodes), "trees")
    _require(_within(leaf, size * filled_up, len(trees.leaves)), "trees")
    _require(_within(base, width, len(trees.base)), "trees")
    _require((first + width).max() == n_outputs, "outputs of the trees")
    _require(nodes == 0 or int(trees.feature.max()) < n_inputs, "inputs of the trees")


def check_steps(
    solver: SolverArrays, form: FormArrays, trees: TreeArrays, m: int, n_cond: int
) -> None:
    """Refuse a solver, a closed form and trees that lead out of their arrays.

    ``m`` is the number of latent columns, ``n_cond`` of conditions. Raises FormatError.
    """
    _check_kinds(form, "closed forms")
    _check_kinds(solver, "steps")
    _check_solver(solver, len(trees.table), m)
    n_steps = len(solver.forests) - 1
    _require(len(solver.silent) == n_steps, "steps")
    if form.kind == NONE:
        _require(not (solver.end_point or solver.components), "closed forms")
    else:
        _check_form(form, n_steps, m, n_cond)
    check_trees(trees, n_inputs(solver, form, m, n_cond), m)


def _check_solver(solver: SolverArrays, n_forests: int, m: int) -> None:
    n = len(solver.step)
    _require(len(solver.scale) == n + 1 == len(solver.slot) + 1, "steps")
    _require(len(solver.terms) == n + 2 and len(solver.weight) == len(solver.term), "steps")
    _require(_rising(solver.terms, len(solver.term)), "steps")
    _require(_rising(solver.forests, n_forests), "steps")
    _require(n > 0 and _below(solver.slot, n).all(), "steps")
    _require(_below(solver.term, int(solver.slot.max()) + 1), "steps")
    _require(_below(solver.step, len(solver.forests) - 1), "steps")
    _require(solver.to_columns.shape[1] == m or not len(solver.to_columns), "steps")


def _check_form(form: FormArrays, n_steps: int, m: int, n_cond: int) -> None:
    """All that is read at a step must lie within the numbers."""
    what, low = "closed forms", form.kind == LOW_RANK
    n, k, i, out = form.n_known, form.n_components, form.n_inner, form.n_out
    _require(form.kind in (FULL, LOW_RANK) and (low or i == n), what)
    _require(form.n_points == m and n == m + len(form.observed), what)
    _require(_below(form.observed, n_cond), what)
    _require(form.n_used in (m, 2 * m) and form.n_used <= out, what)
    _require(0 < k <= len(form.numbers) and 0 < i <= len(form.numbers), what)
    _require(out <= len(form.numbers) + 8, what)
    _require(form.turn.shape == (n_steps, 4) and form.where.shape == (n_steps, 8), what)
    stack = i * k + (n * i * k if low else k * n * (n + 1) // 2)
    sizes = np.array([n, stack, k, *[low * n * k] * 2, k * out, k * i * out, low * k * out], float)
    needed = np.tile(sizes, (n_steps, 1))
    needed[form.turn[:, 2] > 0.0, BASE:] = 0.0  # the end point follows from the score there
    needed[form.where[:, GAIN] < 0, GAIN] = 0.0
    _require((needed == 0) | _within(form.where, needed, len(form.numbers)), what)


def check_inverse(inverse: InverseArrays, m: int, n_columns: int, n_cond: int) -> None:
    """Refuse an inverse of m latent columns that leads out of its arrays. Raises FormatError."""
    what = "columns"
    _check_kinds(inverse, what)
    n_single, columns = len(inverse.scale), inverse.columns
    _require(len(inverse.mean) == n_single, what)
    _require(inverse.axes.shape == (m, n_single) if inverse.mixes else n_single == m, what)
    _require(columns.shape[0] >= n_columns and columns.shape[1] == 5, what)
    _require(inverse.ops.shape[1] == inverse.terms.shape[1] == 2, what)
    _require(inverse.relations.shape[1] == 4, what)
    place, begin, end, _, at = columns.T
    _require((place >= -2) & (place < n_single), what)
    _require((begin >= 0) & (begin <= end) & (end <= len(inverse.ops)), what)
    _require(_within(at, 2, len(inverse.numbers)), what)
    code, first = inverse.ops.T
    _require(_within(first, 1, len(inverse.numbers)), what)
    needed = numbers_needed(code, inverse.numbers[first])
    _require(_within(first, needed, len(inverse.numbers)), what)
    for q in np.flatnonzero(np.isin(code, PAIRS)):
        _require(((place >= 0) & (place + 1 < n_single)) | (q < begin) | (q >= end), what)
    for relation in inverse.relations.tolist():
        _require(0 <= relation[0] < n_columns, what)
        _check_relation(inverse, len(columns) + n_cond, *relation)


def _check_relation(
    inverse: InverseArrays, n_known: int, _: int, begin: int, end: int, ends: int
) -> None:
    """A relation must find its numbers and columns, and leave one number on its stack."""
    what = "relations"
    _require(0 <= begin <= end <= len(inverse.terms), what)
    _require(0 <= ends <= len(inverse.numbers) - 2, what)
    code, at = inverse.terms[begin:end].T
    _require(_below(at, len(inverse.numbers)), what)
    _require((code != arrays.COLUMN) | _below(inverse.numbers[at], n_known), what)
    takes = np.where(np.isin(code, arrays.VALUES), 0, np.where(np.isin(code, arrays.UNARY), 1, 2))
    depth = np.cumsum(1 - takes)
    _require(len(depth) and depth[-1] == 1, what)
    _require((depth >= 1) & (depth <= DEEPEST_STACK), what)
