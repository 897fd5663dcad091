"""Expressions over columns and particles: one safe parser for relations, observables and cuts.

An expression is evaluated by walking its syntax tree, never by Python's ``eval``: a run directory
from elsewhere cannot execute code.
"""

from __future__ import annotations

import ast
import functools
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np

from ...errors import ConfigError, InputError, plural
from ...registry import unknown
from .. import original_types
from ..event_table import Categories, EventTable
from .particles import (
    OF_PAIR,
    OF_SUM,
    Particle,
    Particles,
    check_particles,
    default_observables,
    read_particles,
    wrapped,
)

MAX_LENGTH = 1000
"""Characters of an expression."""
MAX_DEPTH = 200
"""Levels of its syntax tree: walking it never meets Python's own limit."""
MAX_NUMBER = 2**1023

NAMES = re.compile(
    r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`(?P<quoted>[^`]+)`|(?P<word>[^\W\d]\w*)"""
)
"""Texts, which stay as they are, and names, in backticks or not."""

Kind = Literal["number", "condition", "particle", "text"]
Columns = Mapping[str, Any]
"""Columns (n,) by name; texts as codes."""

ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
SIGNS: dict[type, Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
LOGIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.And: np.logical_and,
    ast.Or: np.logical_or,
    ast.BitAnd: np.logical_and,
    ast.BitOr: np.logical_or,
}
ONE = (
    *("log", "exp", "sqrt", "abs", "sin", "cos", "tan", "sinh", "cosh", "tanh"),
    *("arcsin", "arccos", "arctan", "arcsinh", "rint", "isnan"),
)
TWO = ("minimum", "maximum", "arctan2", "hypot")
FUNCTIONS: dict[str, tuple[Callable[..., Any], int]] = {
    **{name: (getattr(np, name), 1) for name in ONE},
    **{name: (getattr(np, name), 2) for name in TWO},
    "where": (np.where, 3),
}
"""Functions of numbers, of numpy's meaning, and their number of arguments."""

KINEMATIC = (*OF_SUM, *OF_PAIR)
"""Functions of declared particles."""

ALLOWED = (
    "allowed are column names (in `backticks` if they are not those of variables), numbers,"
    " + - * / ** and brackets, comparisons, and, or, not, & and |, the functions"
    f" {', '.join(sorted(FUNCTIONS))}, and of declared particles {', '.join(sorted(KINEMATIC))}"
)


@dataclass(frozen=True, eq=False)
class Expression:
    """A checked expression; built by `Expression.parse` or `named_expression`.

    Parameters
    ----------
    what : what it is in errors: relation, observable, cut
    text : as it was written
    tree : its syntax tree: names, numbers, arithmetic, comparisons and known functions only
    kind : "number" or "condition"
    sources : the columns that it needs, sorted
    labels : names compared for equality, with what they are compared with
    numeric : the sources that must be numbers
    particles : those it may name
    categories : texts of columns, see `bound`

    Notes
    -----
    A comparison with a missing value is false, "!=" true, as in numpy.
    """

    what: str
    text: str
    tree: ast.expr
    kind: Kind
    sources: tuple[str, ...]
    labels: tuple[tuple[str, Any], ...]
    numeric: frozenset[str]
    particles: Particles = field(default_factory=dict)
    categories: Categories = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, what: str, particles: Particles | None = None) -> Self:
        """Read an expression. Raises ConfigError that names what is unknown or not supported."""
        return cls._checked(_parsed(text, what, ast.Expression).body, text, what, particles or {})

    @classmethod
    def _checked(cls, tree: ast.expr, text: str, what: str, particles: Particles) -> Self:
        if _depth(tree) > MAX_DEPTH:
            raise ConfigError(f"{what} {text!r} is nested too deeply, in over {MAX_DEPTH} levels")
        reader = _Reader(f"{what} {text!r}", particles)
        kind = reader.kind(tree)
        if kind not in ("number", "condition"):
            raise ConfigError(
                f"{what} {text!r} is a {kind}, not a number or a condition; of particles say for"
                " example mass(e1, e2), pt(e1) or deltaR(e1, e2)"
            )
        if not reader.sources:
            raise ConfigError(f"{what} {text!r} uses no column; a constant needs none")
        sources, labels = tuple(sorted(reader.sources)), tuple(reader.labels)
        return cls(what, text, tree, kind, sources, labels, frozenset(reader.numeric), particles)

    @property
    def names(self) -> set[str]:
        """All names in it: of columns, particles and functions."""
        return {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}

    def check_columns(self, names: Collection[str]) -> None:
        """Raise ConfigError unless every column is among the names, and no particle is."""
        named = self.names & self.particles.keys()
        check_particles({name: self.particles[name] for name in named}, names)
        for name in self.sources:
            if name in names:
                continue
            odd = next((known for known in names if not known.isidentifier()), None)
            hint = "" if odd is None else f" Set a name such as `{odd}` in backticks."
            raise ConfigError(f"{self.what} {self.text!r}: {unknown('column', name, names)}{hint}")

    def bound(self, categories: Categories) -> Self:
        """Return the expression for columns of texts, which can be compared for equality only.

        Raises ConfigError for another use of them, for a text that none of them has, and for a text
        compared with a column of numbers.
        """
        categories = {name: texts for name, texts in categories.items() if name in self.sources}
        for name in categories:
            if name in self.numeric:
                raise ConfigError(
                    f"{self.what} {self.text!r}: column {name!r} holds categories, not numbers:"
                    f" compare it with == or !=, such as {name} == {categories[name][0]!r}"
                )
        for name, value in self.labels:
            if name in categories:
                code_of(name, value, categories[name], f"{self.what} {self.text!r}")
            elif isinstance(value, str):
                raise ConfigError(
                    f"{self.what} {self.text!r}: column {name!r} holds numbers, so compare it with"
                    f" a number and not with {value!r}"
                )
        return replace(self, categories=categories)

    def value(self, columns: Columns) -> np.ndarray:
        """Return the values (n,), bool of a condition, else float64.

        Where it is undefined (0 / 0, log of a negative number) the result is NaN or infinite,
        without a warning.
        """
        with np.errstate(all="ignore"):
            value = np.asarray(_evaluate(self.tree, columns, self.particles, self.categories))
        return value if self.kind == "condition" else value.astype(np.float64)

    def numbers(self, columns: Columns) -> np.ndarray:
        """Return the values (n,), float64; 1 and 0 of a condition."""
        return self.value(columns).astype(np.float64)


def named_expression(
    text: str, what: str, example: str, particles: Particles | None = None
) -> tuple[str, Expression]:
    """Read ``"name = expression"``. Raises ConfigError, see `Expression.parse`."""
    match _parsed(text, what, ast.Module).body:
        case [ast.Assign(targets=[ast.Name(id=name)], value=tree)]:
            return name, Expression._checked(tree, text, what, particles or {})
    raise ConfigError(f"{what} {text!r} must have the form 'name = expression', as {example!r}")


def _parsed(text: Any, what: str, wanted: type) -> Any:
    if not isinstance(text, str) or len(text) > MAX_LENGTH:
        raise ConfigError(
            f"each {what} is a text (at most {MAX_LENGTH} characters), got {str(text)[:60]!r}"
        )
    quoted: dict[str, str] = {}

    def plain(match: re.Match[str]) -> str:
        name = match["quoted"] or match["word"]
        if name is None or (name == match["word"] and name.isascii()):
            return match[0]
        quoted[plain := f"__quoted_{len(quoted)}__"] = name  # Python would change "\u00b5", say
        return plain

    try:
        mode = "eval" if wanted is ast.Expression else "exec"
        tree = ast.parse(NAMES.sub(plain, text.strip()), mode=mode)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{what} {text!r} cannot be read ({error}); {ALLOWED}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = quoted.get(node.id, node.id)
    return tree


def _depth(tree: ast.AST) -> int:
    level, depth = [tree], 0
    while level:
        level, depth = [c for node in level for c in ast.iter_child_nodes(node)], depth + 1
    return depth


class _Reader:
    """Finds the kind of an expression and what it uses; refuses what is not supported."""

    def __init__(self, where: str, particles: Particles) -> None:
        self.where, self.particles = where, particles
        self.sources: set[str] = set()
        self.numeric: set[str] = set()
        self.labels: list[tuple[str, Any]] = []

    def kind(self, node: ast.expr) -> Kind:
        match node:
            case ast.Name(id=name) if name in self.particles:
                self.sources |= self.particles[name].sources
                self.numeric |= self.particles[name].sources
                return "particle"
            case ast.Name(id=name):
                self.sources.add(name)
                self.numeric.add(name)
                return "number"
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                if abs(value) < MAX_NUMBER:
                    return "number"
            case ast.Constant(value=str()):
                return "text"
            case ast.BinOp(op=op) if type(op) in ARITHMETIC:
                return self._of_sum(node)
            case ast.BinOp(op=op) if type(op) in LOGIC:
                return self._all(node, "condition", node.left, node.right)
            case ast.BoolOp():
                return self._all(node, "condition", *node.values)
            case ast.UnaryOp(op=op) if type(op) in SIGNS:
                self._all(node, "number", node.operand)
                return "number"
            case ast.UnaryOp(op=ast.Not() | ast.Invert()):
                return self._all(node, "condition", node.operand)
            case ast.Compare() if all(type(op) in COMPARISONS for op in node.ops):
                return self._comparison(node)
            case ast.Call():
                return self._call(node)
        raise ConfigError(f"{self.where}: {ast.unparse(node)!r} is not supported; {ALLOWED}")

    def _all(self, node: ast.expr, wanted: Kind, *parts: ast.expr) -> Kind:
        """Return the kind that all parts must have; conditions count as numbers, 1 and 0."""
        for part in parts:
            kind = self.kind(part)
            if kind == wanted or (wanted, kind) == ("number", "condition"):
                continue
            said, hint = ast.unparse(part), ""
            if wanted == "condition":
                hint = (
                    f": compare it, as {said} == 1; beside & and | set brackets: (a > 1) & (b < 2)"
                )
            elif wanted == "particle" and isinstance(part, ast.Name):
                raise ConfigError(
                    f"{self.where}: {unknown('particle', said, self.particles)} Declare it in"
                    " particles, such as {" + said + ": {pt: ..., eta: ..., phi: ..., mass: 0}}"
                )
            elif kind == "particle":
                hint = f": take a number of it, such as pt({said}) or mass({said})"
            elif kind == "text":
                hint = ": a text can only be compared with a column, by == or !="
            raise ConfigError(
                f"{self.where}: {said!r} in {ast.unparse(node)!r} is a {kind}, not a {wanted}{hint}"
            )
        return wanted

    def _of_sum(self, node: ast.BinOp) -> Kind:
        sides = (node.left, node.right)
        wanted: Kind = "number"
        if isinstance(node.op, ast.Add | ast.Sub) and any(
            _is_particle(side, self.particles) for side in sides
        ):
            wanted = "particle"
        return self._all(node, wanted, *sides)

    def _comparison(self, node: ast.Compare) -> Kind:
        if (label := label_of(node)) is not None and label[0] not in self.particles:
            self.labels.append(label)
            self.sources.add(label[0])
        else:
            self._all(node, "number", node.left, *node.comparators)
        return "condition"

    def _call(self, node: ast.Call) -> Kind:
        name, given = ast.unparse(node.func), node.args
        if name not in FUNCTIONS and name not in KINEMATIC:
            raise ConfigError(
                f"{self.where}: {unknown('function', name, [*FUNCTIONS, *KINEMATIC])}"
            )
        numbers = name in FUNCTIONS or is_of_angles(node, self.particles)
        wanted = FUNCTIONS[name][1] if name in FUNCTIONS else 2 if name in OF_PAIR else len(given)
        if node.keywords or len(given) != wanted or not given:
            noun = "argument" if numbers else "particle"
            how = plural(wanted, noun) if wanted else f"one {noun} or more"
            raise ConfigError(f"{self.where}: {name} takes {how}")
        if name == "where":
            self._all(node, "condition", given[0])
            given = given[1:]
        self._all(node, "number" if numbers else "particle", *given)
        return "condition" if name == "isnan" else "number"


def _is_particle(node: ast.expr, particles: Particles) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_particle(node.left, particles) or _is_particle(node.right, particles)
    return isinstance(node, ast.Name) and node.id in particles


def is_of_angles(node: ast.Call, particles: Particles) -> bool:
    """Return whether a call is ``deltaphi`` of two numbers."""
    is_delta = isinstance(node.func, ast.Name) and node.func.id == "deltaphi"
    return is_delta and not any(_is_particle(one, particles) for one in node.args)


def label_of(node: ast.Compare) -> tuple[str, Any] | None:
    """Return column and constant of a comparison for equality of the two."""
    if len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq | ast.NotEq):
        match (node.left, node.comparators[0]):
            case (ast.Name(id=name), ast.Constant(value=int() | float() | str() as value)) | (
                ast.Constant(value=int() | float() | str() as value),
                ast.Name(id=name),
            ) if isinstance(value, str) or abs(value) < MAX_NUMBER:
                return name, value
    return None


def code_of(name: str, value: Any, texts: Sequence[str], where: str) -> float:
    """Return the code of a text, or of a number among categories that are numbers."""
    if value in texts:
        return float(texts.index(value))
    numbers = original_types.category_numbers(texts)
    if numbers is not None and not isinstance(value, str) and value in numbers:
        return float(list(numbers).index(value))
    raise ConfigError(f"{where}: {unknown(f'category of {name!r}:', value, texts)}")


def _evaluate(node: Any, columns: Columns, particles: Particles, texts: Categories) -> Any:
    """Return the value of an expression that `_Reader` has accepted."""

    def of(part: Any) -> Any:
        return _evaluate(part, columns, particles, texts)

    def number(part: Any) -> Any:
        return np.asarray(of(part), dtype=np.float64)  # a sum of truth values would be their "or"

    match node:
        case ast.Name(id=name):
            if name in particles:
                return particles[name].momenta(columns)
            return np.asarray(columns[name], dtype=np.float64)
        case ast.BinOp(op=op):
            if type(op) in LOGIC:
                return LOGIC[type(op)](of(node.left), of(node.right))
            return ARITHMETIC[type(op)](number(node.left), number(node.right))
        case ast.BoolOp(op=op):
            return functools.reduce(LOGIC[type(op)], map(of, node.values))
        case ast.UnaryOp(op=ast.Not() | ast.Invert()):
            return np.logical_not(of(node.operand))
        case ast.UnaryOp(op=op):
            return SIGNS[type(op)](number(node.operand))
        case ast.Compare():
            label = label_of(node)
            if label is not None and label[0] in texts:
                sides = [columns[label[0]], code_of(*label, texts[label[0]], "")]
            else:
                sides = [number(part) for part in (node.left, *node.comparators)]
            pairs = zip(node.ops, sides, sides[1:], strict=False)
            return functools.reduce(np.logical_and, [COMPARISONS[type(o)](*s) for o, *s in pairs])
        case ast.Call(func=ast.Name(id=name), args=given):
            if is_of_angles(node, particles):
                return wrapped(number(given[0]) - number(given[1]))
            if name in OF_SUM:
                return OF_SUM[name](functools.reduce(operator.add, map(of, given)))
            if name in OF_PAIR:
                return OF_PAIR[name](*map(of, given))
            if name == "where":
                return np.where(of(given[0]), number(given[1]), number(given[2]))
            return FUNCTIONS[name][0](*map(number, given))
    return np.float64(node.value)


# ---- observables and cuts of a table


def _listed(texts: Any, what: str, example: str) -> Sequence[Any]:
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, list | tuple):
        raise ConfigError(f"{what} must be a list of texts such as [{example!r}], got {texts!r}")
    return texts


@dataclass(frozen=True, eq=False)
class Observables:
    """Named expressions of each event, in order; one may use those before it.

    Examples
    --------
    >>> observables = Observables.parse(["ht = pt1 + pt2", "share = pt1 / ht"])
    >>> observables.values({"pt1": [30.0], "pt2": [10.0]}).tolist()
    [[40.0, 0.75]]
    """

    expressions: Mapping[str, Expression] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Sequence[str], particles: Particles | None = None) -> Self:
        """Read texts such as ``"mee = mass(e1, e2)"``. Raises ConfigError."""
        expressions: dict[str, Expression] = {}
        for text in _listed(texts, "observables", "mee = mass(e1, e2)"):
            name, expression = named_expression(text, "observable", "mee = mass(e1, e2)", particles)
            if name in expressions or name in (particles or {}):
                raise ConfigError(f"observable {text!r}: the name {name!r} is taken; rename it")
            expressions[name] = expression
        return cls(expressions)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the observables."""
        return tuple(self.expressions)

    @property
    def texts(self) -> list[str]:
        """The observables as they were written."""
        return [expression.text for expression in self.expressions.values()]

    def __len__(self) -> int:
        return len(self.expressions)

    def bound(self, names: Collection[str], categories: Categories) -> Self:
        """Return the observables of a table with columns and conditions of these names.

        Raises ConfigError if one of them is unknown, or an observable has the name of a column.
        """
        known, result = list(names), {}
        for name, expression in self.expressions.items():
            expression.check_columns(known)
            if name in known:
                raise ConfigError(
                    f"observable {expression.text!r}: {name!r} is a column already; rename it"
                )
            result[name] = expression.bound(categories)
            known.append(name)
        return replace(self, expressions=result)

    def joined(self, others: Self) -> Self:
        """Return these and then others, but for names that these have."""
        own = self.expressions
        return replace(self, expressions={**own, **others.expressions, **own})

    def known(self, columns: Columns, wanted: Collection[str] | None = None) -> dict[str, Any]:
        """Return columns and observables (n,) by name; all, or those needed for some of them."""
        needed = set(self.names if wanted is None else wanted)
        for name in reversed(self.names):
            needed |= set(self.expressions[name].sources if name in needed else ())
        known = dict(columns)
        for name, expression in self.expressions.items():
            if name in needed:
                known[name] = expression.numbers(known)
        return known

    def values(self, columns: Columns) -> np.ndarray:
        """Return the observables (n, k), float64; NaN or infinite where undefined."""
        known = self.known(columns)
        return np.stack([known[name] for name in self.names], axis=1)

    def added_to(self, table: EventTable, what: str = "the table") -> EventTable:
        """Return a table with the observables as further columns.

        Raises ConfigError as `bound`; InputError, with the share of rows, where one is undefined
        although its sources are known.
        """
        if not len(self):
            return table
        columns = table.by_name()
        bound = self.bound(columns, table.categories)
        known = bound.known(columns)
        x = np.stack([known[name] for name in self.names], axis=1)
        for (name, expression), values in zip(bound.expressions.items(), x.T, strict=True):
            sources = [np.isnan(known[source]) for source in expression.sources]
            wrong = ~np.isfinite(values) & ~np.any(sources, axis=0)
            if wrong.any():
                row = int(np.argmax(wrong))
                held = ", ".join(f"{s} = {known[s][row]:g}" for s in expression.sources)
                raise InputError(
                    f"observable {expression.text!r} is undefined in {share_of(wrong)} of {what}"
                    f" (first: row {row}, where {held}); write {name!r} so that it has a value"
                    " there, such as with maximum(...) or where(...)"
                )
        return table.with_columns(self.names, x)


@dataclass(frozen=True, eq=False)
class Cuts:
    """Conditions that every event must meet; they may use observables.

    Examples
    --------
    >>> cuts = Cuts.parse(["pt > 25", "abs(eta) < 2.5"])
    >>> cuts.hold({"pt": [30.0, 30.0, 20.0], "eta": [1.0, -3.0, 0.0]}).tolist()
    [True, False, False]
    """

    conditions: Sequence[Expression] = ()
    observables: Observables = field(default_factory=Observables)

    @classmethod
    def parse(
        cls,
        texts: Sequence[str],
        observables: Observables | None = None,
        particles: Particles | None = None,
    ) -> Self:
        """Read texts such as ``"pt2 > 25"``. Raises ConfigError."""
        texts = _listed(texts, "require", "pt > 25")
        conditions = [Expression.parse(text, "cut", particles) for text in texts]
        for one in conditions:
            if one.kind != "condition":
                raise ConfigError(
                    f"cut {one.text!r} is a number, not a condition: compare it, as 'pt > 25'"
                )
        return cls(conditions, observables or Observables())

    def __len__(self) -> int:
        return len(self.conditions)

    @property
    def text(self) -> str:
        """All conditions as one text."""
        return " and ".join(repr(one.text) for one in self.conditions)

    def check_generated(self, names: Collection[str]) -> None:
        """Raise ConfigError for a condition that no column of these names can change."""
        for one in self.conditions:
            needed, left = set(one.sources), list(self.observables.names)
            while left:
                if (name := left.pop()) in needed:
                    needed |= set(self.observables.expressions[name].sources)
            if needed.isdisjoint(names):
                raise ConfigError(
                    f"cut {one.text!r} is of conditions only, which are not drawn: select the"
                    " conditions before generating, and leave it out"
                )

    def bound(self, names: Collection[str], categories: Categories) -> Self:
        """Return the cuts of a table with columns and conditions of these names.

        Raises ConfigError if a name is unknown.
        """
        observables = self.observables.bound(names, categories)
        for one in self.conditions:
            one.check_columns([*names, *observables.names])
        return replace(
            self,
            conditions=[one.bound(categories) for one in self.conditions],
            observables=observables,
        )

    def _known(self, columns: Columns) -> dict[str, Any]:
        used = {source for one in self.conditions for source in one.sources}
        return self.observables.known(columns, used)

    def hold(self, columns: Columns) -> np.ndarray:
        """Return which events meet all conditions, bool (n,); where one is missing, they do not."""
        known = self._known(columns)
        return np.logical_and.reduce([one.value(known) for one in self.conditions])

    def check(self, table: EventTable) -> None:
        """Raise ConfigError as `bound`, and InputError unless all rows of a table meet them."""
        columns = table.by_name()
        bound = self.bound(columns, table.categories)
        known = bound._known(columns)
        for one in bound.conditions:
            fails = ~one.value(known)
            if not fails.any():
                continue
            row = int(np.argmax(fails))
            held = ", ".join(f"{s} = {known[s][row]:g}" for s in one.sources)
            if missing := [s for s in one.sources if np.isnan(known[s][row])]:
                held += f"; no comparison with it holds: say isnan({missing[0]}) or ..."
            raise InputError(
                f"require {one.text!r} does not hold in {share_of(fails)} of the training table"
                f" (first: row {row}, where {held}): a model of these rows cannot keep it. Remove"
                " the rows, or correct the cut"
            )


def share_of(mask: np.ndarray) -> str:
    """Return how many rows a mask (n,) has, such as ``3 rows (0.15%)``."""
    return f"{plural(int(mask.sum()), 'row')} ({mask.mean():.2%})"


def declared(
    observables: Sequence[str] | None, particles: Mapping[str, Any] | None
) -> tuple[Observables, dict[str, Particle]]:
    """Return observables and particles of settings.

    Without observables (None) those that particles have by default. Raises ConfigError.
    """
    known = read_particles(particles)
    texts = default_observables(list(known)) if observables is None else observables
    return Observables.parse(texts, known), known
