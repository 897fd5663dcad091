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
from ...tables.formulas.relations import Relation, order_relations
from ...tables.transforms import ColumnTransform, TableTransform
from ...tables.transforms.base import LARGEST
from ...tables.transforms.rounded_floats import PRINTED, ROUNDED, largest_of_bits
from . import arrays
from .array_file import Arrays, named
from .arrays import ExpressionArrays, InverseArrays, read_only
from .column_operations import operations

BINARY: dict[type, int] = {
    ast.Add: arrays.ADD,
    ast.Sub: arrays.SUBTRACT,
    ast.Mult: arrays.MULTIPLY,
    ast.Div: arrays.DIVIDE,
    ast.Pow: arrays.POWER,
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

    def relate(self, node: ast.expr, names: list[str]) -> None:
        """Add the terms of an expression."""
        if isinstance(node, ast.Name) and node.id in names:
            self.terms.append((arrays.COLUMN, self.put(names.index(node.id))))
            return
        if isinstance(node, ast.Constant):
            self.terms.append((arrays.NUMBER, self.put(float(node.value))))  # type: ignore[arg-type]
            return
        if isinstance(node, ast.UnaryOp):
            self.relate(node.operand, names)
            if isinstance(node.op, ast.Not | ast.Invert):
                raise ConfigError(f"{ast.unparse(node)!r} is not compiled")
            if isinstance(node.op, ast.USub):
                self.terms.append((arrays.NEGATE, self.put(0.0)))
            return
        if isinstance(node, ast.BinOp):
            operands, code = [node.left, node.right], BINARY.get(type(node.op))
        else:
            call: Any = node
            name = call.func.id if isinstance(node, ast.Call) else ""
            code = arrays.SUBTRACT if name == "deltaphi" else FUNCTIONS.get(name)
            operands = call.args if code else []
        if code is None:
            raise ConfigError(f"{ast.unparse(node)!r} is not compiled")
        for each in operands:
            self.relate(each, names)
        self.terms.append((code, self.put(0.0)))
        if isinstance(node, ast.Call) and code == arrays.SUBTRACT:
            self.terms.append((arrays.WRAP, self.put(0.0)))


def expression_arrays(
    expressions: Mapping[str, Expression], names: Sequence[str]
) -> ExpressionArrays:
    """Return expressions by name of columns and conditions with these names.

    Each may use those before it. Raises ConfigError for one that is not compiled.
    """
    build, rows, known = TermBuilder(), [], list(names)
    for name, expression in expressions.items():
        begin = len(build.terms)
        build.relate(expression.tree, known)
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
    return named("inverse", inverse, transform.n_latent, n_columns, n_cond, inverse.mixes)


def pack_inverse(transform: TableTransform) -> InverseArrays:
    """Return the inverse transform, latent points to columns, of a fitted transform.

    Raises ConfigError if a column has a transform or a type that is not compiled, with its name.
    """
    stored, build, latent = transform.to_json(), TermBuilder(), 0
    learned = stored.get("coordinates", {}).get("columns", [])
    if transform.turn:
        targets = ", ".join(map(repr, sorted(transform.turn.columns)))
        raise ConfigError(
            f"{targets} turn with the event, which is not compiled; fit with particles={{}}, which"
            " learns the columns as they stand"
        )
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
    build.relate(relation.expression.tree, names)
    bounds = build.put(columns[place]["low"], columns[place]["high"])
    return place, begin, len(build.terms), bounds
