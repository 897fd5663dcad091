"""The inverse of a table transform as flat arrays."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...tables.event_table import stored_range
from ...tables.formulas.expressions import Expression
from ...tables.formulas.particles import read_particles
from ...tables.formulas.plain_expressions import plain
from ...tables.formulas.relations import Relation, order_relations
from ...tables.transforms import ColumnTransform, TableTransform
from ...tables.transforms.base import LARGEST
from ...tables.transforms.rounded_floats import PRINTED, ROUNDED, largest_of_bits
from . import arrays
from .array_file import Arrays, named
from .arrays import ExpressionArrays, InverseArrays, TurnArrays, read_only
from .column_operations import operations

BINARY: dict[type, int] = {
    ast.Add: arrays.ADD,
    ast.Sub: arrays.SUBTRACT,
    ast.Mult: arrays.MULTIPLY,
    ast.Div: arrays.DIVIDE,
    ast.Pow: arrays.POWER,
    **dict.fromkeys((ast.And, ast.BitAnd), arrays.AND),
    **dict.fromkeys((ast.Or, ast.BitOr), arrays.OR),
}
COMPARISONS: dict[type, tuple[int, bool, bool]] = {
    ast.Lt: (arrays.LESS, False, False),
    ast.Gt: (arrays.LESS, True, False),
    ast.LtE: (arrays.LESS_EQUAL, False, False),
    ast.GtE: (arrays.LESS_EQUAL, True, False),
    ast.Eq: (arrays.EQUAL, False, False),
    ast.NotEq: (arrays.EQUAL, False, True),
}
"""What tells a comparison: a term, whether its sides change places, whether it must not hold."""

SIGNS: dict[type, int] = {
    ast.USub: arrays.NEGATE,
    **dict.fromkeys((ast.Not, ast.Invert), arrays.NOT),
}
FUNCTIONS = {
    "log": arrays.LOG,
    "exp": arrays.EXP,
    "sqrt": arrays.SQRT,
    "abs": arrays.ABS,
    "minimum": arrays.MINIMUM,
    "maximum": arrays.MAXIMUM,
    "sin": arrays.SIN,
    "cos": arrays.COS,
    "tan": arrays.TAN,
    "sinh": arrays.SINH,
    "cosh": arrays.COSH,
    "tanh": arrays.TANH,
    "arcsinh": arrays.ARCSINH,
    "rint": arrays.RINT,
    "arctan2": arrays.ARCTAN2,
    "hypot": arrays.HYPOT,
    "signed_root": arrays.SIGNED_ROOT,
    "where": arrays.WHERE,
}


class TermBuilder:
    """Collects the numbers while columns and relations are read."""

    def __init__(self) -> None:
        self.numbers: list[float] = []
        self.ops: list[tuple[int, int]] = []
        self.terms: list[tuple[int, int]] = []

    def put(self, *values: float) -> int:
        at = len(self.numbers)
        self.numbers += [float(value) for value in values]
        return at

    def do(self, *codes: int) -> None:
        self.terms += [(code, self.put(0.0)) for code in codes]

    def relate(self, node: ast.expr, names: list[str]) -> None:
        """Add the terms of an expression of numbers alone, see `plain`."""
        match node:
            case ast.Name(id=name) if name in names:
                self.terms.append((arrays.COLUMN, self.put(names.index(name))))
            case ast.Constant(value=int() | float() as value):
                self.terms.append((arrays.NUMBER, self.put(value)))
            case ast.UnaryOp(op=op, operand=operand):
                self.relate(operand, names)
                self.do(*([] if isinstance(op, ast.UAdd) else [SIGNS[type(op)]]))
            case ast.BinOp(op=op, left=left, right=right):
                self._all([left, right], names)
                self.do(BINARY[type(op)])
            case ast.BoolOp(op=op, values=values):
                self._all(values, names)
                self.do(*[BINARY[type(op)]] * (len(values) - 1))
            case ast.Compare(ops=ops):
                sides = [node.left, *node.comparators]
                for each, *pair in zip(ops, sides, sides[1:], strict=False):
                    code, changes, negates = COMPARISONS[type(each)]
                    self._all(pair[::-1] if changes else pair, names)
                    self.do(code, *([arrays.NOT] if negates else []))
                self.do(*[arrays.AND] * (len(ops) - 1))
            case ast.Call(func=ast.Name(id="isnan"), args=[one]):
                self._all([one, one], names)
                self.do(arrays.EQUAL, arrays.NOT)
            case ast.Call(func=ast.Name(id="deltaphi"), args=sides):
                self._all(sides, names)
                self.do(arrays.SUBTRACT, arrays.WRAP)
            case ast.Call(func=ast.Name(id=name), args=given) if name in FUNCTIONS:
                self._all(given, names)
                self.do(FUNCTIONS[name])
            case _:
                raise AssertionError(f"{ast.unparse(node)!r} is no part of an expression")

    def _all(self, nodes: Sequence[ast.expr], names: list[str]) -> None:
        for each in nodes:
            self.relate(each, names)


def expression_arrays(
    expressions: Mapping[str, Expression], names: Sequence[str]
) -> ExpressionArrays:
    """Return expressions by name of columns and conditions with these names.

    Each may use those before it.
    """
    build, rows, known = TermBuilder(), [], list(names)
    for name, expression in expressions.items():
        begin = len(build.terms)
        build.relate(plain(expression), known)
        rows.append((begin, len(build.terms)))
        known.append(name)
    return ExpressionArrays(
        read_only(np.reshape(rows, (-1, 2)), np.int64),
        read_only(np.reshape(build.terms, (-1, 2)), np.int64),
        read_only(build.numbers, np.float64),
    )


def storage(dtype: str) -> tuple[int, float, float]:
    """Return how a column of this type is stored, and its least and largest value."""
    if dtype in PRINTED:
        return arrays.PRINTED[list(PRINTED).index(dtype)], *stored_range("float32")
    if dtype in ROUNDED:
        largest = largest_of_bits(ROUNDED[dtype])
        return arrays.ROUNDED + ROUNDED[dtype], -largest, largest
    kind = np.dtype(dtype)
    if kind.kind == "f" and kind.itemsize in (4, 8):
        return (arrays.SINGLE if kind.itemsize == 4 else arrays.AS_IS), *stored_range(dtype)
    if kind.kind in "biu":
        return (arrays.TRUTH if kind.kind == "b" else arrays.WHOLE), *stored_range(dtype)
    raise ConfigError(f"columns of type {dtype} are not compiled")


def column_arrays(transform: TableTransform, n_cond: int) -> Arrays:
    """Return the inverse transform for a file; raises as `pack_inverse`.

    ``n_cond`` is the number of conditions of each event, whether relations use them or not.
    """
    inverse, n_columns = pack_inverse(transform), len(transform.names)
    packed = named("inverse", inverse, transform.n_latent, n_columns, n_cond, inverse.mixes)
    return {**packed, **(turn_arrays(transform) if transform.turn else {})}


def turn_arrays(transform: TableTransform) -> Arrays:
    """Return how events are turned, for a file."""
    turn, place = transform.turn, transform.names.index
    vectors = [place(name) for pair in turn.vectors for name in pair]
    packed = TurnArrays(
        read_only([place(name) for name in turn.angles], np.int64),
        read_only([*turn.angles.values()], np.float64),
        read_only(np.reshape(vectors, (-1, 2)), np.int64),
    )
    return named("turn", packed, len(transform.coordinates.relations))


def pack_inverse(transform: TableTransform) -> InverseArrays:
    """Return the inverse transform, latent points to columns before a turn, of a fitted transform.

    Raises ConfigError if a column has a transform or a type that is not compiled, with its name.
    """
    stored, build, latent = transform.to_json(), TermBuilder(), 0
    learned = stored.get("coordinates", {}).get("columns", [])
    columns = []
    for column in (*stored["columns"], *learned):
        try:
            row, width = _column(build, column, latent)
        except ConfigError as error:
            raise ConfigError(f"column {column['name']!r}: {error}") from error
        columns.append(row)
        latent += width
    names = list(transform.names)
    particles = read_particles(stored.get("particles"))
    conditions = stored.get("conditions") or []
    known = [*names, *(column["name"] for column in learned), *conditions]
    relations = [
        _relation(build, relation, known, stored["columns"])
        for relation in (
            *transform.coordinates.relations,
            *order_relations(stored["relations"], names, conditions, particles),
        )
    ]
    joint = transform.joint
    return InverseArrays(
        joint.name == "whiten",
        read_only((joint.axes * joint.spread).T, np.float64),
        read_only(joint.scale, np.float64),
        read_only(joint.mean, np.float64),
        read_only(np.reshape(columns, (-1, 5)), np.int64),
        read_only(np.reshape(build.ops, (-1, 2)), np.int64),
        read_only(np.reshape(relations, (-1, 4)), np.int64),
        read_only(np.reshape(build.terms, (-1, 2)), np.int64),
        read_only(build.numbers, np.float64),
        LARGEST,
    )


def _column(
    build: TermBuilder, column: Mapping[str, Any], latent: int
) -> tuple[tuple[int, int, int, int, int], int]:
    """Add one column; return its row of `InverseArrays.columns` and its latent width."""
    begin, place, width = len(build.ops), -2, 0
    kind, low, high = storage(column["dtype"])
    if column["transform"] is not None:
        stored = operations(column["transform"])
        build.ops += [(code, build.put(*numbers)) for code, numbers in stored]
        width = ColumnTransform.from_json(column["transform"]).n_latent
        place = latent if width else -1
    return (place, begin, len(build.ops), kind, build.put(low, high)), width


def _relation(
    build: TermBuilder, relation: Relation, names: list[str], columns: list[dict[str, Any]]
) -> tuple[int, int, int, int]:
    """Add one relation; return its row of `InverseArrays.relations`."""
    begin, place = len(build.terms), names.index(relation.target)
    build.relate(plain(relation.expression), names)
    bounds = build.put(columns[place]["low"], columns[place]["high"])
    return place, begin, len(build.terms), bounds
