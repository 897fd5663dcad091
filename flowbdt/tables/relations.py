"""Exact relations between columns, such as ``tau21 = tau2 / tau1``.

A column that follows from others is taken out before training and computed again from the
generated columns, so that the relation holds exactly instead of approximately.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, InputError, plural
from ..registry import unknown
from .event_table import EventTable

TOLERANCE = 1e-4
"""Largest relative deviation from a declared relation that a table may show (rounded data)."""
_MAX_LENGTH = 1000

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_UNARY: dict[type, Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int]] = {
    "log": (np.log, 1),
    "exp": (np.exp, 1),
    "sqrt": (np.sqrt, 1),
    "abs": (np.abs, 1),
    "minimum": (np.minimum, 2),
    "maximum": (np.maximum, 2),
}
_ALLOWED = (
    "allowed are column names, numbers, + - * / ** and brackets, and the functions "
    + ", ".join(sorted(_FUNCTIONS))
)


@dataclass(frozen=True)
class Relation:
    """One column as an arithmetic expression of others; built by `Relation.parse`.

    The text is evaluated by walking its syntax tree, never by Python's ``eval``: a run directory
    from elsewhere cannot execute code.

    ``target`` is the column that is computed, ``text`` the whole relation, ``sources`` the columns
    that it needs, sorted.

    Examples
    --------
    >>> relation = Relation.parse("tau21 = tau2 / tau1")
    >>> relation.target, relation.sources
    ('tau21', ('tau1', 'tau2'))
    >>> float(relation.evaluate({"tau1": 4.0, "tau2": 1.0}))
    0.25
    """

    target: str
    text: str
    sources: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Relation:
        """Read ``"target = expression"``. Raises ConfigError for all but plain arithmetic."""
        target, tree = _read(text)
        sources = tuple(sorted(_names(tree, text)))
        if target in sources:
            raise ConfigError(f"relation {text!r}: {target!r} cannot be computed from itself")
        if not sources:
            raise ConfigError(f"relation {text!r} uses no column; a constant column needs none")
        return cls(target, text, sources)

    @property
    def expression(self) -> ast.expr:
        """The right side: names, numbers, arithmetic and known functions only."""
        return _read(self.text)[1]

    @property
    def is_copy(self) -> bool:
        """True if the target equals another column."""
        return isinstance(self.expression, ast.Name)

    def check_columns(self, names: Sequence[str], conditions: Sequence[str] = ()) -> None:
        """Raise `ConfigError` unless every column of the relation is among the names."""
        for name in (self.target, *self.sources):
            if name in conditions:
                raise ConfigError(
                    f"relation {self.text!r}: {name!r} is a condition, and relations are between"
                    f" generated columns; leave {self.target!r} out (columns=) and compute it from"
                    " the generated events"
                )
            if name not in names:
                raise ConfigError(f"relation {self.text!r}: {unknown('column', name, names)}")

    def evaluate(self, columns: Mapping[str, Any]) -> np.ndarray:
        """Return the target (n,), float64, from a mapping of the source columns.

        Where the expression is undefined (0 / 0, log of a negative number) the result is NaN or
        infinite, without a warning.
        """
        with np.errstate(all="ignore"):
            return np.asarray(_evaluate(self.expression, columns), dtype=np.float64)

    def check(self, table: EventTable) -> float:
        """Return the largest relative deviation of the table from the relation.

        Raises InputError with the row if it is above 1e-4, or the expression undefined, or if the
        target is not missing (NaN) exactly where a source is.
        """
        columns = {name: table.column(name) for name in self.sources}
        stored, expected = table.column(self.target), self.evaluate(columns)
        missing = np.any([np.isnan(values) for values in columns.values()], axis=0)
        differs = missing != np.isnan(stored)
        if differs.any():
            row = int(np.argmax(differs))
            state = "known, a source missing" if missing[row] else "missing, all sources known"
            raise InputError(
                f"relation {self.text!r}: {self.target!r} must be missing exactly where one of its"
                f" sources is, which is not so in {plural(int(differs.sum()), 'row')} (first: row"
                f" {row}, it is {state}); correct these rows or drop the relation"
            )
        stored, expected = np.where(missing, 0.0, stored), np.where(missing, 0.0, expected)
        undefined = ~np.isfinite(expected)
        if undefined.any():
            raise InputError(
                f"relation {self.text!r} is undefined in {plural(int(undefined.sum()), 'row')}"
                f" (first: row {int(np.argmax(undefined))}); remove these rows or the relation"
            )
        deviation = _relative_deviation(stored, expected)
        row = int(np.argmax(deviation))
        if deviation[row] > TOLERANCE:
            raise InputError(
                f"relation {self.text!r} does not hold: in row {row} the column is {stored[row]:g},"
                f" the expression gives {expected[row]:g} (relative deviation"
                f" {deviation[row]:.2g}, allowed {TOLERANCE:g}; it is exceeded in"
                f" {plural(int((deviation > TOLERANCE).sum()), 'row')}); correct or drop it"
            )
        return float(deviation[row])

    def check_given(self, columns: dict[str, np.ndarray]) -> None:
        """Refuse given values, (n,) by name and NaN where unknown, that contradict the relation.

        Enters the target where it follows from what is known. Raises InputError.
        """
        target = columns[self.target]
        given = ~np.isnan(target)
        known = np.logical_and.reduce([~np.isnan(columns[name]) for name in self.sources])
        if (given & ~known).any():
            raise InputError(
                f"column {self.target!r} is given without {' and '.join(self.sources)} in"
                f" {plural(int((given & ~known).sum()), 'row')} (first: row"
                f" {int(np.argmax(given & ~known))}): it is computed as {self.text!r}, which is not"
                " solved backwards; give them, too, or leave it out"
            )
        expected = self.evaluate(columns)
        both = np.flatnonzero(given & known)
        if len(both):
            deviation = _relative_deviation(target[both], expected[both])
            wrong = ~(deviation <= TOLERANCE)  # NaN where undefined
            if wrong.any():
                row = both[np.argmax(wrong)]
                raise InputError(
                    f"given values contradict the relation {self.text!r}: in row {row} the column"
                    f" is {target[row]:g}, the expression gives {expected[row]:g}"
                    f" ({plural(int(wrong.sum()), 'row')} of this kind); correct them, or leave"
                    f" {self.target!r} out"
                )
        columns[self.target] = np.where(given, target, np.where(known, expected, np.nan))


def _relative_deviation(stored: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return |stored - expected| over the larger; 0 where both are tiny on the column's scale."""
    size = np.maximum(np.abs(stored), np.abs(expected))
    floor = max(1e-9 * float(size.max()), float(np.finfo(np.float64).tiny))
    return np.asarray(np.abs(stored - expected) / np.maximum(size, floor))


def _read(text: str) -> tuple[str, ast.expr]:
    if not isinstance(text, str) or len(text) > _MAX_LENGTH:
        raise ConfigError(
            f"a relation is a text such as 'tau21 = tau2 / tau1' (at most {_MAX_LENGTH}"
            f" characters), got {str(text)[:60]!r}"
        )
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"relation {text!r} cannot be read ({error}); {_ALLOWED}") from error
    match body:
        case [ast.Assign(targets=[ast.Name(id=target)], value=value)]:
            return target, value
    raise ConfigError(
        f"relation {text!r} must have the form 'column = expression', as 'd2 = ecf3 / ecf2**3'"
    )


def _names(node: ast.expr, text: str) -> set[str]:
    """Return the column names in an expression; refuse what is not plain arithmetic."""
    match node:
        case ast.Name():
            return {node.id}
        case ast.Constant() if type(node.value) in (int, float):
            return set()
        case ast.BinOp() if type(node.op) in _BINARY:
            return _names(node.left, text) | _names(node.right, text)
        case ast.UnaryOp() if type(node.op) in _UNARY:
            return _names(node.operand, text)
        case ast.Call():
            _check_call(node, text)
            return set().union(*(_names(argument, text) for argument in node.args))
    raise ConfigError(f"relation {text!r}: {ast.unparse(node)!r} is not supported; {_ALLOWED}")


def _check_call(node: ast.Call, text: str) -> None:
    name = ast.unparse(node.func)
    if name not in _FUNCTIONS:
        raise ConfigError(f"relation {text!r}: " + str(unknown("function", name, _FUNCTIONS)))
    needed = _FUNCTIONS[name][1]
    if node.keywords or len(node.args) != needed:
        raise ConfigError(f"relation {text!r}: {name} takes {plural(needed, 'argument')}")


def _evaluate(node: Any, columns: Mapping[str, Any]) -> Any:
    """Return the values of an expression that `_names` has accepted."""
    match node:
        case ast.Name():
            return np.asarray(columns[node.id], dtype=np.float64)
        case ast.BinOp():
            left, right = _evaluate(node.left, columns), _evaluate(node.right, columns)
            return _BINARY[type(node.op)](left, right)
        case ast.UnaryOp():
            return _UNARY[type(node.op)](_evaluate(node.operand, columns))
        case ast.Call():
            function, _ = _FUNCTIONS[ast.unparse(node.func)]
            return function(*(_evaluate(argument, columns) for argument in node.args))
    return np.float64(node.value)


def order_relations(
    relations: Sequence[str | Relation], names: Sequence[str], conditions: Sequence[str] = ()
) -> tuple[Relation, ...]:
    """Parse relations of a table's columns; put each behind those that compute its sources.

    Raises ConfigError if a column is unknown, a condition, the target of two relations, or if
    relations form a circle.
    """
    if isinstance(relations, (str, Relation)):
        relations = [relations]
    parsed = [r if isinstance(r, Relation) else Relation.parse(r) for r in relations]
    targets: dict[str, Relation] = {}
    for relation in parsed:
        relation.check_columns(names, conditions)
        if relation.target in targets:
            raise ConfigError(
                f"column {relation.target!r} is the target of two relations,"
                f" {targets[relation.target].text!r} and {relation.text!r}; keep one"
            )
        targets[relation.target] = relation
    return _sorted_by_need(targets)


def _sorted_by_need(targets: dict[str, Relation]) -> tuple[Relation, ...]:
    waiting, ordered = dict(targets), []
    while waiting:
        ready = [r for r in waiting.values() if not any(s in waiting for s in r.sources)]
        if not ready:
            circle = "; ".join(relation.text for relation in waiting.values())
            raise ConfigError(f"these relations need each other in a circle: {circle}; drop one")
        for relation in ready:
            ordered.append(waiting.pop(relation.target))
    return tuple(ordered)
