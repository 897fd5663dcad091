"""The inverse transform in a graph, from its packed arrays; columns with equal operations together.

All numbers are double. ``Way`` in ``flowbdt.hpp`` has the same operations as loops.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...tables.transforms import TableTransform
from ..packed import arrays, column_operations
from ..packed.arrays import ExpressionArrays, InverseArrays
from ..packed.pack_columns import pack_inverse
from .onnx_functions import direction, of_one, of_two, whole_turn, wrapped_angle
from .onnx_graph import Graph, Tensor

NEAR = 1 + 1e-9
"""What is this much beyond the nearest distance to a bound still counts as the bound."""

Numbers = Sequence[np.ndarray]
"""Of one operation of each column of a group."""


class Column(NamedTuple):
    """A learned column: its place in the table, where its latent columns begin, the numbers of
    each operation, and the range of its type."""

    place: int
    latent: int
    numbers: list[np.ndarray]
    ends: np.ndarray


def columns_of(
    graph: Graph, transform: TableTransform, z: Tensor, cond: Tensor | None = None
) -> Tensor:
    """Return events (n, d) in the units of the table from latent points z (n, m).

    ``cond`` (n, c) are the conditions in the units of the table, which relations may use.
    Raises ConfigError if a column has a transform or a type that is not packed, with its name.
    """
    inverse = pack_inverse(transform)
    groups = defaultdict[tuple[Any, ...], list[Column]](list)
    for place, (first, begin, end, storage, at) in enumerate(inverse.columns.tolist()):
        if first >= -1:
            ops = [(code, inverse.numbers[q:]) for code, q in inverse.ops[begin:end].tolist()]
            ends = inverse.numbers[at : at + 2]
            column = Column(place, first, [numbers for _, numbers in ops], ends)
            groups[(storage, *(_kind(*op) for op in ops))].append(column)
    latent = _joint_inverse(inverse, z)
    values = [_group(graph, inverse, key, columns, latent) for key, columns in groups.items()]
    order = [column.place for columns in groups.values() for column in columns]
    columns = _with_relations(graph, inverse, graph.join(values), order, cond)
    wanted = np.argsort(order)[: len(transform.names)]
    return columns if wanted.tolist() == list(range(len(order))) else columns.take(wanted)


def _joint_inverse(inverse: InverseArrays, z: Tensor) -> Tensor:
    if inverse.mixes:
        z = z @ inverse.axes
    if (inverse.scale == 1.0).all() and not inverse.mean.any():
        return z
    return z * inverse.scale[None] + inverse.mean[None]


def _kind(code: int, numbers: np.ndarray) -> tuple[float, ...]:
    """Return what must be equal for columns to go together: of the scaled, bend and clip."""
    scaled = code == column_operations.SCALED
    return (code, numbers[0], numbers[5]) if scaled else (code,)


def _group(
    graph: Graph,
    inverse: InverseArrays,
    key: tuple[Any, ...],
    columns: Sequence[Column],
    latent: Tensor,
) -> Tensor:
    """Return the values (n, columns) of columns that are undone alike."""
    storage, *kinds = key
    z = latent.take([column.latent for column in columns])
    for i, (code, *_) in enumerate(kinds):
        numbers = [column.numbers[i] for column in columns]
        if code == column_operations.CIRCULAR:
            other = latent.take([column.latent + 1 for column in columns])
            z = _angle(graph, z, other, numbers)
        elif code == column_operations.SCALED:
            z = _scaled(graph, z, numbers, inverse.largest)
        else:
            z = UNDO[code](graph, z, numbers)
    return _stored(graph, z, storage, np.array([column.ends for column in columns]).T[:, None])


def _row(numbers: Numbers, place: int) -> np.ndarray:
    """Return one number of each column (1, columns)."""
    return np.array([[each[place] for each in numbers]])


def _scaled(graph: Graph, z: Tensor, numbers: Numbers, largest: float) -> Tensor:
    z_low, z_high = _row(numbers, 3), _row(numbers, 4)
    z = z.clip(z_low, z_high)
    value = z * _row(numbers, 2) + _row(numbers, 1)
    if numbers[0][0] == 1.0:
        value = _unlog(graph, value, numbers)
    elif numbers[0][0] == 2.0:
        value = _unlogit(graph, value, numbers)
    if not numbers[0][5]:
        return value.clip(-largest, largest)
    low, high = _row(numbers, 6), _row(numbers, 7)
    value = graph.where(z <= z_low, low, value)
    return graph.where(z >= z_high, high, value).clip(low, high)


def _near(numbers: Numbers, edge: int, at_edge: int) -> np.ndarray:
    """Return how close to a bound values count as the bound, (1, columns); -1 for never."""
    return np.where(_row(numbers, at_edge), _row(numbers, edge) * NEAR, -1.0)


def _unlog(graph: Graph, bent: Tensor, numbers: Numbers) -> Tensor:
    distance = graph.node("Exp", bent)
    distance = graph.where(distance <= _near(numbers, 9, 10), 0.0, distance)
    return distance + _row(numbers, 8)


def _unlogit(graph: Graph, bent: Tensor, numbers: Numbers) -> Tensor:
    """Undo the logit, from the nearer bound, so that small distances to either are not lost."""
    low, high = _row(numbers, 8), _row(numbers, 11)
    small = graph.node("Exp", -bent.abs())
    share = (small / (small + 1.0)) * (high - low)  # of the width, from the nearer bound
    value = graph.where(bent < 0.0, share + low, high - share)
    value = graph.where(value - low <= _near(numbers, 9, 10), low, value)
    value = graph.where(high - value <= _near(numbers, 12, 13), high, value)
    return value.clip(low, high)


def _search(graph: Graph, z: Tensor, tables: Sequence[np.ndarray]) -> tuple[Tensor, np.ndarray]:
    """Return, in tables that lie one after the other, the last entries not above z (n, columns).

    Also where each table begins, (1, columns). The first entry of each (rising) table counts as
    below everything. By bisection: tables are filled up with infinity to the same power of two.
    """
    size = _size(tables)
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


def _size(tables: Sequence[np.ndarray]) -> int:
    return 1 << max(max(len(table) for table in tables) - 1, 0).bit_length()


def _flat(graph: Graph, tables: Sequence[np.ndarray], places: Tensor, size: int) -> Tensor:
    """Return what stands at places of tables that are each filled up to a size."""
    filled = [np.pad(table, (0, size - len(table))) for table in tables]
    return graph.node("Gather", np.concatenate(filled), places)


def _ranked(graph: Graph, z: Tensor, numbers: Numbers) -> Tensor:
    knots, x, slope = (
        [each[1 + i * int(each[0]) : 1 + (i + 1) * int(each[0]) - (i == 2)] for each in numbers]
        for i in range(3)
    )
    z = z.clip(np.array([[k[0] for k in knots]]), np.array([[k[-1] for k in knots]]))
    place, begins = _search(graph, z, knots)
    place = graph.node("Min", place, begins + np.array([[len(k) - 2 for k in knots]]))
    at, value, rise = (_flat(graph, tables, place, _size(knots)) for tables in (knots, x, slope))
    value = value + (z - at) * rise
    return value.clip(np.array([[v[0] for v in x]]), np.array([[v[-1] for v in x]]))


def _category(graph: Graph, z: Tensor, numbers: Numbers) -> Tensor:
    counts = [int(each[0]) for each in numbers]
    edges = [np.append(-np.inf, p[1:n]) for p, n in zip(numbers, counts, strict=True)]
    values = [p[n : 2 * n] for p, n in zip(numbers, counts, strict=True)]
    return _flat(graph, values, _search(graph, z, edges)[0], _size(edges))


def _whole(graph: Graph, z: Tensor, numbers: Numbers) -> Tensor:
    return graph.node("Floor", z).clip(_row(numbers, 0), _row(numbers, 1))


def _on_lattice(graph: Graph, z: Tensor, numbers: Numbers) -> Tensor:
    number = _whole(graph, z, numbers)
    return (number * _row(numbers, 3) + _row(numbers, 2)) / _row(numbers, 4)


def _fixed(graph: Graph, z: Tensor, numbers: Numbers) -> Tensor:
    return graph.rows(z, _row(numbers, 0)[0])


UNDO: dict[int, Any] = {
    column_operations.RANK: _ranked,
    column_operations.CATEGORICAL: _category,
    column_operations.INTEGER: _whole,
    column_operations.LATTICE: _on_lattice,
    column_operations.FIXED: _fixed,
}


def _angle(graph: Graph, x: Tensor, y: Tensor, numbers: Numbers) -> Tensor:
    """Return angles from points in the plane, within the range of each column."""
    turn = wrapped_angle(graph, x, y) / (2 * np.pi)
    turn = turn - graph.node("Floor", turn)
    low, period = _row(numbers, 0), _row(numbers, 1)
    value = turn * period + low
    return graph.where(value < low + period, value, low)


def _stored(graph: Graph, value: Tensor, storage: int, ends: np.ndarray) -> Tensor:
    """Return values as columns of this type hold them; ``ends`` (2, 1, columns) of the types."""
    if storage == arrays.TRUTH:
        return (value >= 0.5).cast(np.float64)
    if storage == arrays.WHOLE:
        return graph.node("Round", value).clip(*ends)
    value = value.clip(*ends)
    if storage == arrays.AS_IS:
        return value
    if storage > arrays.ROUNDED:  # Veltkamp's splitting (Dekker, Numer. Math. 18, 1971)
        wide = value * 2.0 ** (52 - (storage - arrays.ROUNDED)) + value
        value = wide - (wide - value)
    return value.cast(np.float32).cast(np.float64)


def _with_relations(
    graph: Graph, inverse: InverseArrays, learned: Tensor, order: list[int], cond: Tensor | None
) -> Tensor:
    """Return all columns, those that follow from others too; ``order`` becomes their places."""
    codes, at = inverse.terms.T
    needed = set(inverse.numbers[at[codes == arrays.COLUMN]].astype(int))
    single = {place: learned.take([i]) for i, place in enumerate(order) if place in needed}
    for place in needed - set(range(len(inverse.columns))):
        assert cond is not None  # a transform that uses conditions was fitted with them
        single[place] = cond.take([place - len(inverse.columns)])
    targets = _related(graph, inverse, 0, single)
    order += targets
    return graph.join([learned, *(single[place] for place in targets)])


def _related(
    graph: Graph, inverse: InverseArrays, first: int, single: dict[int, Tensor]
) -> list[int]:
    """Compute the relations from number ``first`` on; return the places that have changed."""
    targets = []
    for place, begin, end, q in inverse.relations[first:].tolist():
        value = _evaluated(graph, inverse, inverse.terms[begin:end], single)
        value = _defined(graph, value, *inverse.numbers[q : q + 2].tolist())
        single[place] = _stored_at(graph, inverse, place, value)
        targets.append(place)
    return targets


def _stored_at(
    graph: Graph, inverse: InverseArrays, place: int, value: Tensor, digits: bool = True
) -> Tensor:
    """Return a column (n, 1) as its type holds it, without fewer ``digits`` than that has."""
    storage, at = inverse.columns[place, 3:]
    if storage > arrays.WHOLE and not digits:
        storage = arrays.SINGLE
    return _stored(graph, value, storage, inverse.numbers[at : at + 2].reshape(2, 1, 1))


def turned(
    graph: Graph, transform: TableTransform, x: Tensor, vector: Tensor, cond: Tensor | None = None
) -> Tensor:
    """Return events x (n, d) turned by the angles of vectors (n, 2), and what follows from them."""
    inverse, names = pack_inverse(transform), transform.names
    known = x if cond is None else graph.join([x, cond])
    places = range(len(names) + (0 if cond is None else len(transform.conditions)))
    behind = len(inverse.columns) - len(names)  # of learned columns, which no relation needs here
    single = {p if p < len(names) else p + behind: known.take([p]) for p in places}
    cosine, sine = direction(graph, vector.take([0]), vector.take([1]))
    angle = wrapped_angle(graph, cosine, sine)
    new: dict[str, Tensor] = {}
    for name, low in transform.turn.angles.items():
        new[name] = whole_turn(graph, single[names.index(name)] + angle, low)
    for pair in transform.turn.vectors:
        along, across = (single[names.index(name)] for name in pair)
        new[pair[0]] = along * cosine - across * sine
        new[pair[1]] = along * sine + across * cosine
    for name, value in new.items():
        place = names.index(name)
        single[place] = _stored_at(graph, inverse, place, value, digits=False)
    _related(graph, inverse, len(transform.coordinates.relations), single)
    return graph.join([single[place] for place in range(len(names))])


def _defined(graph: Graph, value: Tensor, low: float, high: float) -> Tensor:
    """Return the ends of a column's training range where a relation is undefined."""
    end = graph.where(value >= 0.0, high, low)  # NaN is not
    return graph.where(value.is_nan() | graph.node("IsInf", value), end, value)


def expressions_of(
    graph: Graph, packed: ExpressionArrays, known: Tensor, n_known: int
) -> list[Tensor]:
    """Return expressions (n, 1) of columns and, after them, conditions (n, d + c) as they are."""
    codes, at = packed.terms.T
    needed = set(packed.numbers[at[codes == arrays.COLUMN]].astype(int))
    single, found = {place: known.take([place]) for place in needed if place < n_known}, []
    for i, (begin, end) in enumerate(packed.learned.tolist()):
        found.append(_evaluated(graph, packed, packed.terms[begin:end], single))
        single[n_known + i] = found[-1]
    return found


def _evaluated(
    graph: Graph,
    inverse: InverseArrays | ExpressionArrays,
    terms: np.ndarray,
    columns: dict[int, Tensor],
) -> Tensor:
    """Return a relation of columns (n, 1) by its terms, on a stack."""
    stack: list[Tensor] = []
    for code, at in terms.tolist():
        if code in arrays.VALUES:
            number = float(inverse.numbers[at])
            stack.append(columns[int(number)] if code == arrays.COLUMN else graph.constant(number))
        elif code in arrays.UNARY:
            stack.append(of_one(graph, code, stack.pop()))
        elif code == arrays.WHERE:
            no, yes, condition = stack.pop(), stack.pop(), stack.pop()
            stack.append(graph.where(graph.node("Equal", condition, 0.0), no, yes))
        else:
            b, a = stack.pop(), stack.pop()
            stack.append(of_two(graph, code, a, b))
    return stack[0]
