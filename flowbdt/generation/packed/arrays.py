"""The arrays that the core reads, see `native`; all are C-contiguous and little-endian."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

NONE, FULL, LOW_RANK = 0, 1, 2
"""`FormArrays.kind`."""

CENTRE, STACK, CONSTANT, QUADRATIC, LINEAR, BASE, GAIN, RATIO = range(8)
"""Columns of `FormArrays.where`."""


class TreeArrays(NamedTuple):
    """All trees.

    table (F, 7), int64: of each forest the number of trees T, depth D, width W, first output, and
    where in the arrays below its nodes, its leaves and its base begin.
    feature (nodes,), uint16; threshold, float32; missing, uint8: T x 2^D per forest.
    leaves, float32: T x 2^D x W per forest. base, float32: W per forest.
    """

    table: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    missing: np.ndarray
    leaves: np.ndarray
    base: np.ndarray


class FormArrays(NamedTuple):
    """The closed form at every step.

    numbers, float64, and ``where`` (S, 8), int64: where in it begin, for each step,
    0 centre (R); 1 stack: the constants (I, K) of all inner variables, then for each of the R
    inputs what it adds to them (I, K); of a full covariance input j adds to those from j on only,
    (I - j, K); 2 constant (K); for low rank 3 quadratic and 4 linear (K, R); and where the end
    point does not follow from the score, 5 base (K, O), 6 gain (K, I, O), -1 if it is zero, and for
    low rank 7 ratio (K, O). K is the number of components, O is ``n_used`` filled up to a
    multiple of 8.

    ``n_used`` is m: the end point. turn (S, 4): velocity = turn[s, 0] times the end point +
    turn[s, 1] times the point; end point = (point + turn[s, 3] score) / turn[s, 2] where that
    is not 0. Where events start from source events, ``n_used`` is 2 m: velocity, then end point.
    observed (R - m,), int64: the conditions that are known.
    """

    kind: int
    n_points: int
    n_known: int
    n_inner: int
    n_components: int
    n_out: int
    n_used: int
    observed: np.ndarray
    turn: np.ndarray
    where: np.ndarray
    numbers: np.ndarray


class SolverArrays(NamedTuple):
    """The solver (see `SolverProgram`), and the inputs of the trees.

    step (E,), int64: the step model of each evaluation. forests (S + 1,), int64: the forests of
    step s are forests[s] to forests[s + 1]. TreeArrays see, in this order: the point if ``latent``;
    to_columns (columns, m) times the point; the end point if ``end_point``; the weights of the
    components if ``components``; the conditions. silent (S,), uint8: end point and weights are
    replaced by zeros.
    """

    scale: np.ndarray
    terms: np.ndarray
    term: np.ndarray
    weight: np.ndarray
    slot: np.ndarray
    step: np.ndarray
    forests: np.ndarray
    latent: bool
    to_columns: np.ndarray
    silent: np.ndarray
    end_point: bool
    components: bool


class InverseArrays(NamedTuple):
    """From latent points to columns.

    First the joint transform: the latent columns are the point times axes (m, columns), if
    ``mixes``, times scale plus mean. Then, for each column i of the table, columns[i], int64:
    which latent column (-1 none, -2 a relation computes it), first and last + 1 of its ``ops``,
    how it is stored and where in ``numbers`` the least and the largest value of its type are. An
    operation is its code and where its numbers begin. Then each of the relations: its column,
    first and last + 1 of its ``terms``, and where the values are that replace what is undefined,
    the lower and the higher; a term is its code and where its number is. The number of a column
    is its place: first all of the table, then those that are learned in place of some, which are
    the last of ``columns`` too, then conditions.
    """

    mixes: bool
    axes: np.ndarray
    scale: np.ndarray
    mean: np.ndarray
    columns: np.ndarray
    ops: np.ndarray
    relations: np.ndarray
    terms: np.ndarray
    numbers: np.ndarray
    largest: float


class TurnArrays(NamedTuple):
    """How events are turned about the beam by an angle.

    angles (a,), int64: columns that are azimuths, with the low end of their range in lows (a,);
    vectors (v, 2), int64: columns of x and y components. Then the relations are computed again, but
    for those of learned columns, which are the first ones; their number stands in the sizes.
    """

    angles: np.ndarray
    lows: np.ndarray
    vectors: np.ndarray


class DiscreteArrays(NamedTuple):
    """The discrete columns, in the order in which they are drawn; q of them, of K_k values each.

    places, centre, scale (p,): the numeric columns that classifiers see, and what takes them to
    float32, within plus and minus ``largest``. forests (q + 1,): those of column k are forests[k]
    to forests[k + 1]. first (q + 1,): where its values begin in what has a number for each:
    log_frequency, float32; atom, what the value enters in another column, NaN for nothing; source,
    which column's number it enters there, -1 for none. enters (q, 3): that other column, -1 for
    none, its number among ``places``, -1 for none, and how it is stored, within limits (q, 2).
    rules (q + 1,): those of column k are rules[k] to rules[k + 1]; rule (R, 2): the earlier column,
    and where in ``meet``, uint8, the values (K_before, K_k) begin that may meet.
    """

    places: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    largest: float
    forests: np.ndarray
    first: np.ndarray
    log_frequency: np.ndarray
    atom: np.ndarray
    source: np.ndarray
    enters: np.ndarray
    limits: np.ndarray
    rules: np.ndarray
    rule: np.ndarray
    meet: np.ndarray


class ExpressionArrays(NamedTuple):
    """What trees see after columns and conditions, or cuts: p expressions of these.

    learned (p, 2): first and last + 1 of the terms of each, as relations are in `InverseArrays`;
    the number of a column is its place in the table, behind them are the conditions, and the
    expressions before.
    """

    learned: np.ndarray
    terms: np.ndarray
    numbers: np.ndarray


class DrawnArrays(NamedTuple):
    """How single events are completed with their q discrete columns, beside `DiscreteArrays`.

    column (q,): the column of the table that has the value of a code, -1 for none; value: for each
    value of each discrete column, float64. missing (q,): the code for which columns are missing, -1
    for none, and gaps (q + 1,): these are gap[gaps[k]] to gap[gaps[k + 1]]. `ExpressionArrays` of
    the same name have the learned columns that classifiers see.
    """

    column: np.ndarray
    value: np.ndarray
    missing: np.ndarray
    gaps: np.ndarray
    gap: np.ndarray


def read_only(array: Any, dtype: Any) -> np.ndarray:
    """Return a contiguous array that cannot be written to, as one mapped from a file."""
    result = np.ascontiguousarray(array, dtype=dtype)
    if result.flags.writeable:
        result = result.view()
        result.flags.writeable = False
    return result


def leaf_width(width: int) -> int:
    """Return how many numbers a leaf of so many outputs takes: no step of a sum is left half."""
    if width == 1:
        return 1
    by_four = (width + 3) // 4 * 4
    return by_four + 4 if by_four % 16 == 12 else by_four


def aligned_zeros(size: int) -> np.ndarray:
    """Return float32 zeros (size,) that begin with a line of the cache."""
    room = np.zeros(size + 16, np.float32)
    first = (-room.ctypes.data // 4) % 16
    return room[first : first + size]


COLUMN, NUMBER, ADD, SUBTRACT, MULTIPLY, DIVIDE, POWER, NEGATE = range(8)

LOG, EXP, SQRT, ABS, MINIMUM, MAXIMUM, WRAP = range(8, 15)
SIN, COS, TAN, SINH, COSH, TANH, ARCSINH, RINT, ARCTAN2, HYPOT = range(15, 25)
SIGNED_ROOT, LESS, LESS_EQUAL, EQUAL, AND, OR, NOT, WHERE = range(25, 33)
"""What an expression does, on a stack; an angle is wrapped as by `particles.wrapped`, a signed root
is that of the size with the sign. A condition is 1 where it holds, else 0."""

VALUES = (COLUMN, NUMBER)
UNARY = (NEGATE, LOG, EXP, SQRT, ABS, *range(WRAP, ARCTAN2), SIGNED_ROOT, NOT)
"""What puts a number on the stack, and what replaces the last one; `WHERE` takes three, the others
two."""

AS_IS, SINGLE, TRUTH, WHOLE, *PRINTED, ROUNDED = range(7)
"""How a column is stored; `PRINTED` are `SINGLE` as read after printing with 8 and 9 digits, and
`ROUNDED` with so many bits of the mantissa as are added to it."""
