"""The inverse transform in a graph, all columns of a kind together, in double."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...errors import ConfigError
from ...tables.relations import order_relations
from ...tables.transforms import TableTransform
from ...tables.transforms.base import LARGEST
from ...tables.transforms.discrete import angle_range, lattice_of, whole_range
from ...tables.transforms.table_transform import as_stored, stored_range
from .onnx_graph import Graph, Tensor

SCALED = ("minmax", "standard", "log", "logit")

NEAR = 1 + 1e-9
"""What is this much beyond the nearest distance to a bound still counts as the bound."""


Learned = Sequence[Mapping[str, Any]]
"""Fitted state of the columns of a group."""

Flags = Sequence[Any]


class Undo(NamedTuple):
    """One step back: its kind, with all that must be equal for columns to go together, and what
    it learned."""

    kind: tuple[Any, ...]
    learned: Mapping[str, Any]


class Column(NamedTuple):
    """A learned column: its place in the table, and where its latent columns begin."""

    place: int
    latent: int
    steps: list[Undo]


def columns_of(graph: Graph, transform: TableTransform, z: Tensor) -> Tensor:
    """Return events (n, d) in the units of the table from latent points z (n, m).

    Raises ConfigError if a column has a transform or a type that cannot be exported, with its name.
    """
    stored = transform.to_json()
    groups, fixed = _groups(stored["columns"])
    parts, order = list[Tensor](), list[int]()
    if groups:
        latent = _joint_inverse(transform, z)
        for (kinds, dtype), columns in groups.items():
            parts.append(_group(graph, kinds, dtype, columns, latent))
            order += [column.place for column in columns]
    if fixed:
        values = np.array(list(fixed.values()), dtype=np.float64)
        parts.append(graph.rows(z, values))
        order += list(fixed)
    return _with_relations(graph, stored, parts, order)


def _joint_inverse(transform: TableTransform, z: Tensor) -> Tensor:
    joint = transform.joint
    if joint.name == "none":
        return z
    if joint.name == "whiten":
        z = z @ np.ascontiguousarray((joint.axes * joint.spread).T)
    return z * joint.scale[None] + joint.mean[None]


def _groups(
    columns: Sequence[Mapping[str, Any]],
) -> tuple[dict[tuple[tuple[Any, ...], str], list[Column]], dict[int, float]]:
    """Return columns that are undone alike, and the values of the constant ones."""
    groups: dict[tuple[tuple[Any, ...], str], list[Column]] = {}
    fixed, latent = dict[int, float](), 0
    for place, column in enumerate(columns):
        stored, dtype = column["transform"], column["dtype"]
        if stored is None:
            continue
        if stored["name"] == "constant":
            value = np.array([stored["state"]["value"]])
            fixed[place] = float(as_stored(value, dtype)[0])
            continue
        try:
            steps = _steps(stored)
            kinds = tuple(step.kind for step in steps)
            storage = _storage(dtype)
        except ConfigError as error:
            raise ConfigError(f"column {column['name']!r}: {error}") from error
        groups.setdefault((kinds, storage), []).append(Column(place, latent, steps))
        latent += 2 if kinds and kinds[0][0] == "circular" else 1
    return groups, fixed


def _storage(dtype: str) -> str:
    """Return the type by which a column is rounded. Raises ConfigError if there is no such one."""
    kind = np.dtype(dtype)
    if kind.kind in "biu" or (kind.kind == "f" and kind.itemsize in (4, 8)):
        return kind.name
    raise ConfigError(f"the type {dtype} cannot be exported; store it as float32 or float64")


def _steps(stored: Mapping[str, Any]) -> list[Undo]:
    """Return the steps that undo a stored column transform, in their order."""
    name, state, options = stored["name"], stored["state"], stored["options"]
    if name == "chain":
        return [step for part in reversed(state["parts"]) for step in _steps(part)]
    if name == "integer":
        names, lattice = ("low", "high", "offset", "step", "divisor"), lattice_of(options)
        learned = dict(zip(names, (*whole_range(state), *lattice), strict=False))
        return [*_steps(state["inner"]), Undo(("integer", bool(lattice)), learned)]
    if name in SCALED:
        flags = [bool(options["clip"]), bool(state.get("at_low")), bool(state.get("at_high"))]
        return [Undo(("scaled", name if name in ("log", "logit") else "", *flags), state | options)]
    if name == "circular":
        low, period = angle_range(options)
        return [Undo(("circular",), {"low": low, "period": period})]
    if name in ("rank", "categorical"):
        return [Undo((name,), state)]
    if name == "identity":
        return []
    raise ConfigError(f"the transform {name!r} cannot be exported")


def _group(
    graph: Graph, kinds: tuple[Any, ...], dtype: str, columns: Sequence[Column], latent: Tensor
) -> Tensor:
    """Return the values (n, columns) of columns that are undone alike."""
    z = latent.take([column.latent for column in columns])
    for i, (name, *flags) in enumerate(kinds):
        learned = [column.steps[i].learned for column in columns]
        if name == "circular":
            other = latent.take([column.latent + 1 for column in columns])
            z = _angle(graph, z, other, learned)
        else:
            z = UNDO[name](graph, z, learned, flags)
    return _stored(graph, z, dtype)


def _row(learned: Learned, name: str) -> np.ndarray:
    """Return one number of each column (1, columns)."""
    return np.array([[each[name] for each in learned]], dtype=np.float64)


def _scaled(graph: Graph, z: Tensor, learned: Learned, flags: Flags) -> Tensor:
    bend, clip, at_low, at_high = flags
    z_low, z_high = _row(learned, "z_low"), _row(learned, "z_high")
    z = z.clip(z_low, z_high)
    value = z * _row(learned, "scale") + _row(learned, "centre")
    if bend == "log":
        value = _unlog(graph, value, learned, at_low)
    elif bend == "logit":
        value = _unlogit(graph, value, learned, at_low, at_high)
    if not clip:
        return value.clip(-LARGEST, LARGEST)
    low, high = _row(learned, "x_low"), _row(learned, "x_high")
    value = graph.where(z <= z_low, low, value)
    return graph.where(z >= z_high, high, value).clip(low, high)


def _unlog(graph: Graph, bent: Tensor, learned: Learned, at_low: bool) -> Tensor:
    distance = graph.node("Exp", bent)
    if at_low:
        near = _row(learned, "edge") * NEAR
        distance = graph.where(distance <= near, 0.0, distance)
    low = _row(learned, "low")
    return distance + low if low.any() else distance


def _unlogit(graph: Graph, bent: Tensor, learned: Learned, at_low: bool, at_high: bool) -> Tensor:
    """Undo the logit, from the nearer bound, so that small distances to either are not lost."""
    low, high = _row(learned, "low"), _row(learned, "high")
    small = graph.node("Exp", -bent.abs())
    share = (small / (small + 1.0)) * (high - low)  # of the width, from the nearer bound
    value = graph.where(bent < 0.0, share + low, high - share)
    if at_low:
        value = graph.where(value - low <= _row(learned, "edge") * NEAR, low, value)
    if at_high:
        value = graph.where(high - value <= _row(learned, "edge_high") * NEAR, high, value)
    return value.clip(low, high)


def _search(graph: Graph, z: Tensor, tables: Sequence[np.ndarray]) -> tuple[Tensor, np.ndarray]:
    """Return, in tables that lie one after the other, the last entries not above z (n, columns).

    The first entry of each (rising) table counts as below everything. By bisection: tables are
    filled up with infinity to the same power of two.

    Returns
    -------
    places (n, columns), int64, and where each table begins, (1, columns)
    """
    size = 1 << max(max(len(table) for table in tables) - 1, 0).bit_length()
    filled = [np.pad(t, (0, size - len(t)), constant_values=np.inf) for t in tables]
    flat = graph.constant(np.concatenate(filled))
    begins = size * np.arange(len(tables), dtype=np.int64)[None]
    place, step = graph.constant(begins), size // 2
    if not step:
        return place + (z * 0.0).cast(np.int64), begins
    while step:
        further = place + np.array(step, dtype=np.int64)
        place = graph.where(graph.node("Gather", flat, further) <= z, further, place)
        step //= 2
    return place, begins


def _flat(graph: Graph, tables: Sequence[np.ndarray], places: Tensor, size: int) -> Tensor:
    """Return what stands at places of tables that are each filled up to a size."""
    filled = [np.pad(table, (0, size - len(table))) for table in tables]
    return graph.node("Gather", np.concatenate(filled), places)


def _ranked(graph: Graph, z: Tensor, learned: Learned, flags: Flags) -> Tensor:
    knots = [np.asarray(each["z"], dtype=np.float64) for each in learned]
    x = [np.asarray(each["x"], dtype=np.float64) for each in learned]
    slope = []
    for from_z, from_x in zip(knots, x, strict=True):
        dz, dx = np.diff(from_z), np.diff(from_x)
        slope.append(np.where(dz > 0, dx / np.where(dz > 0, dz, 1.0), 0.0))
    z = z.clip(np.array([[k[0] for k in knots]]), np.array([[k[-1] for k in knots]]))
    place, begins = _search(graph, z, knots)
    place = graph.node("Min", place, begins + np.array([[len(k) - 2 for k in knots]]))
    size = 1 << max(max(len(k) for k in knots) - 1, 0).bit_length()
    at, value, rise = (_flat(graph, tables, place, size) for tables in (knots, x, slope))
    value = value + (z - at) * rise
    return value.clip(np.array([[v[0] for v in x]]), np.array([[v[-1] for v in x]]))


def _category(graph: Graph, z: Tensor, learned: Learned, flags: Flags) -> Tensor:
    values = [np.atleast_1d(np.asarray(each["values"], dtype=np.float64)) for each in learned]
    edges = [
        np.concatenate([[-np.inf], np.atleast_1d(np.asarray(each["edges"], dtype=np.float64))])
        for each in learned
    ]
    place, _ = _search(graph, z, edges)
    size = 1 << max(max(len(each) for each in edges) - 1, 0).bit_length()
    return _flat(graph, values, place, size)


def _whole(graph: Graph, z: Tensor, learned: Learned, flags: Flags) -> Tensor:
    number = graph.node("Floor", z).clip(_row(learned, "low"), _row(learned, "high"))
    if not flags[0]:
        return number
    return (number * _row(learned, "step") + _row(learned, "offset")) / _row(learned, "divisor")


UNDO: dict[str, Any] = {
    "scaled": _scaled,
    "rank": _ranked,
    "categorical": _category,
    "integer": _whole,
}


def _angle(graph: Graph, x: Tensor, y: Tensor, learned: Learned) -> Tensor:
    """Return angles from points in the plane.

    onnxruntime has the arc tangent in float32 only: that angle is then corrected by the sine of
    what it is off, which is small, so that the cube of it does not matter.
    """
    radius = graph.node("Sqrt", x * x + y * y)
    radius = graph.where(radius <= 0.0, 1.0, radius)
    along, across = x / radius, y / radius
    # of the half angle: between -90 and 90 degrees, so no quadrants are needed
    forward = graph.node("Max", along + 1.0, 1e-30)
    rough = graph.node("Atan", (across / forward).cast(np.float32)).cast(np.float64) * 2.0
    rough = graph.where(along <= -1.0, np.pi, rough)
    sine, cosine = graph.node("Sin", rough), graph.node("Cos", rough)
    exact = rough + (across * cosine - along * sine)
    turn = exact / (2 * np.pi)
    turn = turn - graph.node("Floor", turn)
    low, period = _row(learned, "low"), _row(learned, "period")
    value = turn * period + low
    return graph.where(value < low + period, value, low)


def _stored(graph: Graph, value: Tensor, dtype: str) -> Tensor:
    """Return values as a column of this type holds them. See `transforms.table_transform`."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return (value >= 0.5).cast(np.float64)
    if kind.kind in "iu":
        return graph.node("Round", value).clip(*stored_range(dtype))
    value = value.clip(*stored_range(dtype))
    return value.cast(np.float32).cast(np.float64) if kind.itemsize == 4 else value


BINARY: dict[type, str] = {
    ast.Add: "Add",
    ast.Sub: "Sub",
    ast.Mult: "Mul",
    ast.Div: "Div",
    ast.Pow: "Pow",
}
FUNCTIONS = {"log": "Log", "exp": "Exp", "sqrt": "Sqrt", "abs": "Abs"}
PAIRS = {"minimum": "Min", "maximum": "Max"}


def _with_relations(
    graph: Graph, stored: Mapping[str, Any], parts: list[Tensor], order: list[int]
) -> Tensor:
    """Return all columns in the order of the table, those that follow from others included."""
    columns = stored["columns"]
    names = [column["name"] for column in columns]
    relations = order_relations(stored["relations"], names)
    have = graph.join(parts)
    needed = {name for relation in relations for name in relation.sources}
    single = {names[p]: have.take([i]) for i, p in enumerate(order) if names[p] in needed}
    parts = [have]
    for relation in relations:
        place = names.index(relation.target)
        low, high, dtype = (columns[place][key] for key in ("low", "high", "dtype"))
        value = _evaluated(graph, relation.expression, single)
        value = _defined(graph, value, low, high)
        single[relation.target] = _stored(graph, value, _storage(dtype))
        parts.append(single[relation.target])
        order.append(place)
    result = graph.join(parts)
    if order == sorted(order):
        return result
    return result.take(np.argsort(order))


def _defined(graph: Graph, value: Tensor, low: float, high: float) -> Tensor:
    """Return the ends of a column's training range where a relation is undefined."""
    end = graph.where(value >= 0.0, high, low)  # NaN is not
    return graph.where(value.is_nan() | graph.node("IsInf", value), end, value)


def _evaluated(graph: Graph, node: ast.expr, columns: Mapping[str, Tensor]) -> Any:
    """Return an expression of columns (n, 1): a tensor, or a number."""
    if isinstance(node, ast.Name):
        return columns[node.id]
    if isinstance(node, ast.Constant):
        return graph.constant(float(node.value))  # type: ignore[arg-type]
    if isinstance(node, ast.UnaryOp):
        value = _evaluated(graph, node.operand, columns)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        sides = [_evaluated(graph, side, columns) for side in (node.left, node.right)]
        return graph.node(BINARY[type(node.op)], *sides)
    call: Any = node  # of a known function: a relation has nothing else
    values = [_evaluated(graph, argument, columns) for argument in call.args]
    if call.func.id in FUNCTIONS:
        return graph.node(FUNCTIONS[call.func.id], *values)
    a, b = values  # where one of them is NaN, both are to be
    unclear = a.is_nan() | b.is_nan()
    return graph.where(unclear, np.nan, graph.node(PAIRS[call.func.id], a, b))
