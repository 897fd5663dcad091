"""Exact relations between columns and conditions, such as ``tau21 = tau2 / tau1``.

A column that follows from others is taken out before training and computed again from the
generated columns, so that the relation holds exactly instead of approximately.
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import ConfigError, InputError, plural
from ...registry import unknown
from ..event_table import EventTable
from .expressions import Expression, named_expression, share_of
from .particles import Particles

TOLERANCE = 1e-4
"""Largest relative deviation from a declared relation that a table may show (rounded data)."""


@dataclass(frozen=True)
class Relation:
    """One column as an expression of others; built by `Relation.parse`.

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
    expression: Expression = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, particles: Particles | None = None) -> Relation:
        """Read ``"target = expression"``. Raises ConfigError, see `Expression.parse`."""
        target, tree = named_expression(text, "relation", "d2 = ecf3 / ecf2**3", particles)
        if target in tree.sources:
            raise ConfigError(f"relation {text!r}: {target!r} cannot be computed from itself")
        for name, value in tree.labels:
            if isinstance(value, str):
                raise ConfigError(
                    f"relation {text!r}: relations are between numbers, so {name!r} cannot be"
                    f" compared with {value!r}"
                )
        return cls(target, text, tree.sources, tree)

    def check_columns(self, names: Sequence[str], conditions: Sequence[str] = ()) -> None:
        """Raise `ConfigError` unless the target is a column, the sources columns or conditions."""
        if self.target in conditions and self.target not in names:
            raise ConfigError(
                f"relation {self.text!r}: {self.target!r} is a condition, which is given and not"
                " computed; solve it for a column"
            )
        if self.target not in names:
            raise ConfigError(f"relation {self.text!r}: {unknown('column', self.target, names)}")
        self.expression.check_columns((*names, *conditions))

    def evaluate(self, columns: Mapping[str, Any]) -> np.ndarray:
        """Return the target (n,), float64, from a mapping of the source columns.

        Where the expression is undefined (0 / 0, log of a negative number) the result is NaN or
        infinite, without a warning.
        """
        return self.expression.numbers(columns)

    def solved(self, name: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the source of this name (n,) that goes with the target and the other sources.

        NaN where the expression is linear neither in it nor, with all else above the line, in its
        inverse.
        """

        def at(values: np.ndarray | float) -> np.ndarray:
            return self.evaluate({**columns, name: np.broadcast_to(values, target.shape)})

        target = columns[self.target]
        result = np.full(target.shape, np.nan)
        with np.errstate(all="ignore"):
            for power in (1, -1):
                first, second, third = (at(k) ** power for k in (1.0, 2.0, 3.0))
                slope = second - first
                bent = np.abs(third - second - slope) > 1e-9 * np.abs(third)
                value = (target**power - (first - slope)) / slope
                fits = ~bent & (relative_deviation(at(value), target) < TOLERANCE)
                result = np.where(np.isnan(result) & fits, value, result)
        return result

    def check(self, table: EventTable) -> float:
        """Return the largest relative deviation of the table from the relation.

        Raises InputError with the row if it is above 1e-4, or the expression undefined, or if the
        target is not missing (NaN) exactly where a source is.
        """
        by_name = table.by_name()
        columns = {name: by_name[name] for name in self.sources}
        stored, expected = table.column(self.target), self.evaluate(columns)
        missing = np.any([np.isnan(values) for values in columns.values()], axis=0)
        differs = missing != np.isnan(stored)
        if differs.any():
            row = int(np.argmax(differs))
            state = "known, a source missing" if missing[row] else "missing, all sources known"
            raise InputError(
                f"relation {self.text!r}: {self.target!r} must be missing exactly where one of its"
                f" sources is, which is not so in {share_of(differs)} (first: row"
                f" {row}, it is {state}); correct these rows or drop the relation"
            )
        stored, expected = np.where(missing, 0.0, stored), np.where(missing, 0.0, expected)
        undefined = ~np.isfinite(expected)
        if undefined.any():
            raise InputError(
                f"relation {self.text!r} is undefined in {share_of(undefined)}"
                f" (first: row {int(np.argmax(undefined))}); remove these rows or the relation"
            )
        deviation = relative_deviation(stored, expected)
        row = int(np.argmax(deviation))
        if deviation[row] > TOLERANCE:
            raise InputError(
                f"relation {self.text!r} does not hold: in row {row} the column is {stored[row]:g},"
                f" the expression gives {expected[row]:g} (relative deviation"
                f" {deviation[row]:.2g}, allowed {TOLERANCE:g}; it is exceeded in"
                f" {share_of(deviation > TOLERANCE)}); correct or drop it"
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
            row = int(np.argmax(given & ~known))
            lost = " and ".join(name for name in self.sources if np.isnan(columns[name][row]))
            raise InputError(
                f"column {self.target!r} is given without {lost} in"
                f" {plural(int((given & ~known).sum()), 'row')} (first: row {row}): it is computed"
                f" as {self.text!r}, which cannot be solved for that; give it, too, leave"
                f" {self.target!r} out, or fit with relations=[]"
            )
        expected = self.evaluate(columns)
        both = np.flatnonzero(given & known)
        if len(both):
            deviation = relative_deviation(target[both], expected[both])
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


def relative_deviation(stored: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return |stored - expected| over the larger; 0 where both are tiny on the column's scale."""
    size = np.maximum(np.abs(stored), np.abs(expected))
    floor = max(1e-9 * float(size.max()), float(np.finfo(np.float64).tiny))
    return np.asarray(np.abs(stored - expected) / np.maximum(size, floor))


def order_relations(
    relations: Sequence[str | Relation],
    names: Sequence[str],
    conditions: Sequence[str] = (),
    particles: Particles | None = None,
) -> tuple[Relation, ...]:
    """Parse relations of a table's columns; put each behind those that compute its sources.

    Raises ConfigError if a column is unknown, the target a condition or that of two relations, or
    if relations form a circle.
    """
    if isinstance(relations, (str, Relation)):
        relations = [relations]
    parsed = [r if isinstance(r, Relation) else Relation.parse(r, particles) for r in relations]
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


def written(name: str) -> str:
    """Return the name of a column as expressions have it."""
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"`{name}`"
