"""Quantities that a stage is conditioned on: branches, and expressions with sums over objects.

``ht = sum(Jet_pt)``, ``n40 = count(Jet_pt > 40)``, ``px = GenMET_pt * cos(GenMET_phi)``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from ...registry import unknown
from ...tables.formulas.expressions import MAX_LENGTH, Expression
from .events import Events


def _sum(values: np.ndarray, event: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(event, values, n)


def _mean(values: np.ndarray, event: np.ndarray, n: int) -> np.ndarray:
    counts = np.bincount(event, minlength=n)
    return np.where(counts, _sum(values, event, n) / np.maximum(counts, 1), np.nan)


def _extreme(of: np.ufunc) -> Callable[[np.ndarray, np.ndarray, int], np.ndarray]:
    def extreme(values: np.ndarray, event: np.ndarray, n: int) -> np.ndarray:
        result = np.full(n, np.nan)
        of.at(result, event, values)
        return result

    return extreme


OVER_OBJECTS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "sum": _sum,
    "count": _sum,
    "mean": _mean,
    "min": _extreme(np.fmin),
    "max": _extreme(np.fmax),
}
"""Functions of an expression over the objects of an event: values (m,), the events (m,) they belong
to and their number -> (n,). Of no object sum and count are 0, the others missing."""

EXAMPLE = "ht = sum(Jet_pt)"


@dataclass(frozen=True)
class Quantity:
    """A named number of each row of a stage.

    ``text`` is how it was declared, ``outer`` the expression, ``inner`` by name what it sums over
    objects: function and expression; ``before`` are quantities that it may use.
    """

    name: str
    text: str
    outer: Expression
    inner: Mapping[str, tuple[str, Expression]]
    before: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str, before: Iterable[str] = ()) -> Quantity:
        """Read a branch's name, or ``"name = expression"``. Raises ConfigError.

        ``before`` are the names of other quantities that are known then.
        """
        if not isinstance(text, str) or len(text) > MAX_LENGTH:
            raise ConfigError(f"a condition is a branch or '{EXAMPLE}', got {str(text)[:60]!r}")
        try:
            body = ast.parse(text.strip()).body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ConfigError(f"condition {text!r} cannot be read: {error}") from error
        match body:
            case [ast.Expr(value=ast.Name(id=name) as tree)]:
                pass
            case [ast.Assign(targets=[ast.Name(id=name)], value=tree)]:
                pass
            case _:
                raise ConfigError(
                    f"condition {text!r} must be the name of a branch, or 'name = expression' such"
                    f" as {EXAMPLE!r}"
                )
        finder = _Sums(text)
        outer = Expression.parse(ast.unparse(finder.visit(tree)), "condition")
        return cls(name, text, outer, finder.found, frozenset(before))

    @property
    def sources(self) -> set[str]:
        """All branches that it needs."""
        inner = {source for _, one in self.inner.values() for source in one.sources}
        return inner | self.own

    @property
    def own(self) -> set[str]:
        """Branches whose number in the row itself it needs."""
        return {*self.outer.sources} - self.inner.keys() - self.before

    def check(self, known: Collection[str]) -> None:
        """Raise ConfigError unless all its branches are known."""
        for name in sorted(self.sources):
            if name not in known:
                raise ConfigError(f"condition {self.text!r}: {unknown('branch', name, known)}")

    def values(
        self, events: Events, event: np.ndarray, row: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Return the numbers (r,) of rows: of events (r,), with columns (r,) of their own."""
        columns = dict(row)
        for name, (function, expression) in self.inner.items():
            of_event = _over_objects(self.text, events, function, expression)
            columns[name] = of_event[event]
        for name in {*self.outer.sources} - columns.keys():
            columns[name] = np.asarray(_of_events(events, name, self.text))[event]
        return self.outer.numbers(columns)


def _of_events(events: Events, name: str, text: str) -> np.ndarray:
    if name in events.columns:
        return events.columns[name]
    if name[1:] in events.collections and name[0] == "n":
        return events.collections[name[1:]].counts
    raise ConfigError(
        f"condition {text!r}: {name!r} is a number of each object, of which this stage has many or"
        f" none: say how to take them together, such as sum({name}) or max({name})"
    )


def _over_objects(text: str, events: Events, function: str, expression: Expression) -> np.ndarray:
    homes = [
        name
        for name, objects in events.collections.items()
        if not objects.columns.keys().isdisjoint(expression.sources)
    ]
    if len(homes) != 1:
        raise ConfigError(
            f"condition {text!r}: {function}({expression.text}) must use the branches of one"
            f" collection, it uses those of {' and '.join(homes) or 'none'}"
        )
    objects = events.collections[homes[0]]
    columns = {
        name: objects.columns[name]
        if name in objects.columns
        else _of_events(events, name, text)[objects.event]
        for name in expression.sources
    }
    return OVER_OBJECTS[function](expression.numbers(columns), objects.event, events.n)


class _Sums(ast.NodeTransformer):
    """Takes the sums over objects out of a syntax tree, and puts names in their place."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: dict[str, tuple[str, Expression]] = {}

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if not isinstance(node.func, ast.Name) or node.func.id not in OVER_OBJECTS:
            return self.generic_visit(node)
        if len(node.args) != 1 or node.keywords:
            raise ConfigError(f"condition {self.text!r}: {node.func.id} takes one argument")
        name = f"{node.func.id}_{len(self.found) + 1}_"
        inner = Expression.parse(ast.unparse(node.args[0]), f"condition {self.text!r}:")
        self.found[name] = node.func.id, inner
        return ast.copy_location(ast.Name(name, ast.Load()), node)
