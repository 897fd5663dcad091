"""Whether the loops may read some arrays: they follow every index without looking.

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

TYPES = {"i": np.int64, "h": np.uint16, "b": np.uint8, "s": np.float32, "f": np.float64}

KINDS: dict[type, str] = {
    TreeArrays: "i2 h1 s1 b1 s1 s1",
    FormArrays: "int int int int int int int i1 f2 i2 f1",
    SolverArrays: "f1 i1 i1 f1 i1 i1 i1 bool f2 b1 bool bool",
    InverseArrays: "bool f2 f1 f1 i2 i2 i2 i2 f1 float",
}
"""Of each field: letter of its type and number of dimensions, or the type of a number."""

NUMBERS = {arrays.SCALED: 14, arrays.INTEGER: 2, arrays.CIRCULAR: 2}
"""Numbers that an operation reads, where that does not depend on the first of them; else 1."""


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
    """Whether runs of so many elements are within an array of ``end``; no sum can overflow."""
    return (begin >= 0) & (begin <= end) & (size <= end - begin)


def _rising(edges: np.ndarray, end: int) -> bool:
    return len(edges) > 0 and bool(
        edges[0] >= 0 and (np.diff(edges) >= 0).all() and edges[-1] <= end
    )


def _below(indices: np.ndarray, end: int) -> Any:
    return (indices >= 0) & (indices < end)


def check_trees(trees: TreeArrays, n_inputs: int, n_outputs: int) -> None:
    """Refuse trees that read or write out of their arrays, of other inputs or of other outputs.

    Raises
    ------
    FormatError
        If one of them would.
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
    walk: SolverArrays, form: FormArrays, trees: TreeArrays, m: int, n_cond: int
) -> None:
    """Refuse a solver, a closed form and trees that lead out of their arrays.

    Parameters
    ----------
    m : latent columns
    n_cond : conditions, known or not

    Raises
    ------
    FormatError
        If there is an index out of range, or they do not fit together.
    """
    _check_kinds(form, "closed forms")
    _check_kinds(walk, "steps")
    _check_solver(walk, len(trees.table), m)
    n_steps = len(walk.forests) - 1
    _require(len(walk.silent) == n_steps, "steps")
    if form.kind == NONE:
        _require(not (walk.end_point or walk.components), "closed forms")
    else:
        _check_form(form, n_steps, m, n_cond)
    check_trees(trees, n_inputs(walk, form, m, n_cond), m)


def _check_solver(walk: SolverArrays, n_forests: int, m: int) -> None:
    n = len(walk.step)
    _require(len(walk.scale) == n + 1 == len(walk.slot) + 1, "steps")
    _require(len(walk.terms) == n + 2 and len(walk.weight) == len(walk.term), "steps")
    _require(_rising(walk.terms, len(walk.term)) and _rising(walk.forests, n_forests), "steps")
    _require(n > 0 and _below(walk.slot, n).all(), "steps")
    _require(_below(walk.term, int(walk.slot.max()) + 1), "steps")
    _require(_below(walk.step, len(walk.forests) - 1), "steps")
    _require(walk.to_columns.shape[1] == m or not len(walk.to_columns), "steps")


def _check_form(form: FormArrays, n_steps: int, m: int, n_cond: int) -> None:
    """Every part that is read at a step must lie within the numbers."""
    what, low = "closed forms", form.kind == LOW_RANK
    n, k, i, out = form.n_seen, form.n_components, form.n_inner, form.n_out
    _require(form.kind in (FULL, LOW_RANK) and (low or i == n), what)
    _require(form.n_points == m and n == m + len(form.observed), what)
    _require(_below(form.observed, n_cond), what)
    _require(form.n_used in (m, 2 * m) and form.n_used <= out, what)
    _require(0 < k <= len(form.numbers) and 0 < i <= len(form.numbers), what)
    _require(out <= len(form.numbers) + 8, what)
    _require(form.turn.shape == (n_steps, 4) and form.where.shape == (n_steps, 8), what)
    stack = i * k + (n * i * k if low else k * n * (n + 1) // 2)
    own = n * k if low else 0
    sizes = np.array([n, stack, k, own, own, k * out, k * i * out, low * k * out], dtype=float)
    needed = np.tile(sizes, (n_steps, 1))
    needed[form.turn[:, 2] > 0.0, BASE:] = 0.0  # the end point is found from the score there
    needed[form.where[:, GAIN] < 0, GAIN] = 0.0
    _require((needed == 0) | _within(form.where, needed, len(form.numbers)), what)


def check_inverse(way: InverseArrays, m: int, n_columns: int) -> None:
    """Refuse a way from m latent columns back to a table that leads out of its arrays.

    Raises
    ------
    FormatError
        If there is an index out of range, or a relation has no result.
    """
    what = "columns"
    _check_kinds(way, what)
    n_single, columns = len(way.scale), way.columns
    _require(len(way.mean) == n_single, what)
    _require(way.axes.shape == (m, n_single) if way.mixes else n_single == m, what)
    _require(columns.shape == (n_columns, 5), what)
    _require(way.ops.shape[1] == way.terms.shape[1] == 2 and way.relations.shape[1] == 4, what)
    place, begin, end, _, at = columns.T
    _require((place >= -2) & (place < n_single), what)
    _require((begin >= 0) & (begin <= end) & (end <= len(way.ops)), what)
    _require(_within(at, 2, len(way.numbers)), what)
    _check_ops(way)
    for q in np.flatnonzero(way.ops[:, 0] == arrays.CIRCULAR):
        _require(((place >= 0) & (place + 1 < n_single)) | (q < begin) | (q >= end), what)
    for relation in way.relations.tolist():
        _check_relation(way, *relation)


def _check_ops(way: InverseArrays) -> None:
    """Every operation must find its numbers."""
    code, at = way.ops.T
    end, what = len(way.numbers), "columns"
    needed = np.ones(len(code))
    for each, count in NUMBERS.items():
        needed[code == each] = count
    _require(_within(at, 1, end), what)
    for each, least, times in ((arrays.RANK, 2, 3), (arrays.CATEGORICAL, 1, 2)):
        counts = way.numbers[at[code == each]]
        _require((counts >= least) & (counts <= end), what)  # not so if it is NaN
        needed[code == each] = times * np.floor(counts)
    _require(_within(at, needed, end), what)


def _check_relation(way: InverseArrays, column: int, begin: int, end: int, ends: int) -> None:
    """A relation must find its numbers and columns, and leave one number on its stack."""
    what = "relations"
    _require(0 <= column < len(way.columns) and 0 <= begin <= end <= len(way.terms), what)
    _require(0 <= ends <= len(way.numbers) - 2, what)
    code, at = way.terms[begin:end].T
    _require(_below(at, len(way.numbers)), what)
    _require((code != arrays.COLUMN) | _below(way.numbers[at], len(way.columns)), what)
    takes = np.where(np.isin(code, arrays.VALUES), 0, np.where(np.isin(code, arrays.UNARY), 1, 2))
    depth = np.cumsum(1 - takes)
    _require(len(depth) and depth[-1] == 1, what)
    _require((depth >= 1) & (depth <= DEEPEST_STACK), what)
