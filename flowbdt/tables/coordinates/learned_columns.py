"""Columns that are learned in place of those of a table, which follow from them by relations.

A learned column is an expression of columns and conditions, such as ``"opening = deltaphi(phi2,
phi1)"``; a relation computes a column of the table again, such as ``"phi2 = deltaphi(opening,
-phi1)"``. Learned columns are never part of an event.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import ConfigError, InputError, plural
from ...typed_settings import Stored
from ..event_table import EventTable
from ..formulas.expressions import Expression, named_expression
from ..formulas.particles import wrapped
from ..formulas.relations import Relation, order_relations


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Learned columns by name, and the relations that give columns of the table back, in order.

    Relations may use learned columns, conditions, and columns that the flow draws.

    Examples
    --------
    >>> polar = Coordinates.parse(
    ...     ["r = hypot(x, y)", "a = arctan2(y, x)"],
    ...     ["x = r * cos(a)", "y = r * sin(a)"],
    ...     names=["x", "y"],
    ... )
    >>> polar.forward({"x": np.array([0.0]), "y": np.array([2.0])}, 1).round(3).tolist()
    [[2.0, 1.571]]
    """

    learned: Mapping[str, Expression] = field(default_factory=dict)
    relations: tuple[Relation, ...] = ()
    conditions: tuple[str, ...] = ()  # of the table, all of them

    @classmethod
    def parse(
        cls,
        learned: Sequence[str],
        relations: Sequence[str],
        names: Sequence[str],
        conditions: Sequence[str] = (),
    ) -> Coordinates:
        """Read learned columns and relations of a table's columns and conditions.

        Raises ConfigError if a name is unknown or taken, or relations form a circle.
        """
        known: dict[str, Expression] = {}
        for text in learned:
            name, expression = named_expression(text, "learned column", "r = hypot(x, y)")
            if name in known or name in names or name in conditions:
                raise ConfigError(f"learned column {text!r}: the name {name!r} is taken; rename it")
            expression.check_columns((*names, *conditions))
            known[name] = expression
        ordered = order_relations(relations, (*names, *conditions, *known))
        for relation in ordered:
            if relation.target not in names:
                raise ConfigError(
                    f"relation {relation.text!r} must compute a column of the table, which"
                    f" {relation.target!r} is not"
                )
        return cls(known, ordered, tuple(conditions))

    def joined(self, other: Coordinates, names: Sequence[str]) -> Coordinates:
        """Return these and those of other columns of a table with columns of these names."""
        if not len(self) or not len(other):
            return self if len(self) else other
        learned = [one.text for each in (self, other) for one in each.learned.values()]
        relations = [one.text for each in (self, other) for one in each.relations]
        return self.parse(learned, relations, names, self.conditions or other.conditions)

    def __len__(self) -> int:
        return len(self.learned)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the learned columns."""
        return tuple(self.learned)

    @property
    def targets(self) -> dict[str, str]:
        """The columns of the table that are computed from learned ones, with their relations."""
        return {relation.target: relation.text for relation in self.relations}

    @property
    def relative(self) -> dict[str, Expression]:
        """Those of the learned columns that conditions are part of."""
        given = {*self.conditions}
        return {name: one for name, one in self.learned.items() if given & {*one.sources}}

    @property
    def needed(self) -> set[str]:
        """The columns of the table that the relations need as they stand."""
        sources = {source for relation in self.relations for source in relation.sources}
        return sources - {*self.learned, *self.targets, *self.conditions}

    def forward(self, columns: Mapping[str, np.ndarray], n: int) -> np.ndarray:
        """Return the learned columns (n, k) of columns and conditions (n,) by name.

        NaN where a column that they need is missing.
        """
        values = [expression.numbers(columns) for expression in self.learned.values()]
        return np.stack(values, axis=1) if values else np.empty((n, 0))

    def added_to(self, table: EventTable) -> EventTable:
        """Return a table with the learned columns behind its own."""
        if not len(self):
            return table
        return table.with_columns(self.names, self.forward(table.by_name(), table.n))

    def check(self, table: EventTable, targets: Collection[str] = ()) -> None:
        """Raise unless the relations give the columns of a table back, each from one relation.

        ``targets`` are columns that other relations compute. ConfigError for one of these;
        InputError if a relation does not hold.
        """
        for target, text in self.targets.items():
            if target in targets:
                raise ConfigError(
                    f"column {target!r} is computed by a relation and cannot be learned as"
                    f" {text!r}, too; remove one of the two"
                )
        wide = self.added_to(table)
        for relation in self.relations:
            rows = wide
            if "deltaphi" in relation.expression.names:  # of an angle: whole turns do not count
                expected, stored = relation.evaluate(wide.by_name()), wide.column(relation.target)
                near = expected + wrapped(stored - expected)
                rows = wide.with_values({relation.target: near})
            relation.check(rows)

    def check_given(self, columns: Mapping[str, np.ndarray]) -> None:
        """Refuse known values (n,) by name, NaN where unknown, that learned columns cannot keep.

        Raises InputError that names what is to be given with them, or left out, and for values
        that contradict each other.
        """
        n = len(next(iter(columns.values())))
        known = {**columns, **dict(zip(self.names, self.forward(columns, n).T, strict=True))}
        for relation in self.relations:
            given = ~np.isnan(columns[relation.target])
            lost = given & np.any([np.isnan(known[name]) for name in relation.sources], axis=0)
            if lost.any():
                row = int(np.argmax(lost))
                needed = set(relation.sources) - self.learned.keys()
                for name in self.learned.keys() & set(relation.sources):
                    needed |= set(self.learned[name].sources)
                others = " and ".join(sorted(repr(o) for o in needed if np.isnan(columns[o][row])))
                raise InputError(
                    f"column {relation.target!r} is given without {others} in"
                    f" {plural(int(lost.sum()), 'row')} (first: row {row}): the model learned other"
                    f" columns in its place, which do not follow from it alone; give {others}, too,"
                    f" leave {relation.target!r} out, or fit with coordinates='columns'"
                )
            if "deltaphi" not in relation.expression.names:  # else it is as it was learned
                relation.check_given(dict(known))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` needs, as a JSON-like dict."""
        return {
            "learned": [expression.text for expression in self.learned.values()],
            "relations": [relation.text for relation in self.relations],
            "conditions": list(self.conditions),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None, names: Sequence[str]) -> Coordinates:
        """Rebuild those of a table with columns of these names; none from None."""
        if data is None:
            return cls()
        return cls.parse(data["learned"], data["relations"], names, data["conditions"])


class StoredCoordinates(Stored):
    """Stored coordinates, and the transforms of the learned columns."""

    learned: list[str]
    relations: list[str]
    conditions: list[str]
    columns: list[dict[str, Any]]
