"""The rows of a stage: objects or events, their conditions, and in training what is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...tables.event_table import EventTable
from .balance import balanced_weights
from .declaration import Home, Stage, order_name
from .events import Events, Objects
from .matching import Matches, matched_by_distance, matched_by_index
from .shares import as_learned


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a stage: the event (r,) of each, and columns (r,) that are a row's own.

    ``fixed``: by stage, conditions (r,) by name that nothing drawn for the rows changes.
    """

    event: np.ndarray
    own: dict[str, np.ndarray] = field(default_factory=dict)
    fixed: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def conditions(self, events: Events, stage: Stage, names: tuple[str, ...]) -> np.ndarray:
        """Return conditions (r, c) of these names."""
        fixed = self.fixed.get(stage.name, {})
        known = {**self.own, **fixed}
        for quantity in stage.quantities:
            if quantity.name not in fixed:
                known[quantity.name] = quantity.values(events, self.event, known)
        return np.column_stack([known[name] for name in names]).astype(np.float64, copy=False)

    def with_fixed(self, home: Home, events: Events) -> Rows:
        """Return the rows, without columns drawn so far, with conditions worked out once for all.

        For rows of which some are drawn anew: their conditions on the input stay.
        """
        found: dict[str, dict[str, np.ndarray]] = {}
        for stage in home.properties:
            drawn, known, fixed = {*home.columns}, dict(self.own), dict[str, np.ndarray]()
            for one in stage.quantities:
                if drawn.isdisjoint(one.outer.sources):
                    known[one.name] = fixed[one.name] = one.values(events, self.event, known)
                else:
                    drawn.add(one.name)
            found[stage.name] = fixed
        return Rows(self.event, self.own, found)

    @classmethod
    def of_objects(cls, objects: Objects, rows: np.ndarray) -> Rows:
        """Return some objects (r,)."""
        return cls(objects.event[rows], _at(rows, objects.columns))

    @classmethod
    def of_events(cls, n: int) -> Rows:
        """Return all events."""
        return cls(np.arange(n))

    def take(self, rows: np.ndarray) -> Rows:
        """Return some rows, (k,) numbers."""
        fixed = {stage: _at(rows, of) for stage, of in self.fixed.items()}
        return Rows(self.event[rows], _at(rows, self.own), fixed)

    def with_own(self, columns: Mapping[str, np.ndarray]) -> Rows:
        """Return the rows with more columns of their own."""
        return Rows(self.event, {**self.own, **columns}, self.fixed)


def _at(rows: np.ndarray, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values[rows] for name, values in columns.items()}


def matches_of(home: Home, events: Events) -> Matches:
    """Return the parents of the objects of training events. Raises InputError."""
    objects = events.collections[home.name]
    if home.parent is None:
        return Matches.of(np.full(len(objects), -1), 0)
    parents = events.collections[home.parent]
    if home.distance is not None:
        return matched_by_distance(objects, home.name, parents, home.parent, home.distance)
    assert home.index is not None
    return matched_by_index(objects, home.index, parents, home.parent)


def stage_table(
    stage: Stage, home: Home, events: Events, weight: str | None, *, training: bool = False
) -> EventTable:
    """Return what a stage is trained on: a row for each event, parent, matched or other object.

    In ``training`` kinds of parents weigh.
    """
    rows, columns = _training_rows(stage, home, events)
    columns = as_learned(columns, shares_of(stage, home), rows.own)
    names = tuple(quantity.name for quantity in stage.quantities)
    order = order_name(home.name)
    if stage.kind == "properties" and rows.own[order].any():
        names = (*names, order)
    cond = rows.conditions(events, stage, names) if names else None
    table = EventTable.of(
        columns,
        cond=None if cond is None else EventTable.of(cond, names, missing=True),
        weight=_weights(rows, events, weight, home.balance if training else (), stage),
    )
    return table


def _weights(
    rows: Rows, events: Events, weight: str | None, kinds: Sequence[str], stage: Stage
) -> np.ndarray | None:
    own = None if weight is None else events.columns[weight][rows.event]
    if stage.kind != "properties" or not kinds:
        return own
    balance = balanced_weights(kinds, events, rows.event, rows.own)
    return balance if own is None else own * balance


def _training_rows(stage: Stage, home: Home, events: Events) -> tuple[Rows, dict[str, np.ndarray]]:
    if stage.kind == "event":
        return Rows.of_events(events.n), {name: events.columns[name] for name in stage.columns}
    objects, matches = events.collections[home.name], matches_of(home, events)
    if stage.kind == "number":
        parents = events.collections[str(home.parent)]
        return Rows.of_objects(parents, np.arange(len(parents))), {stage.columns[0]: matches.number}
    others = np.flatnonzero(matches.parent < 0)
    if stage.kind == "fake number":
        counts = np.bincount(objects.event[others], minlength=events.n)
        return Rows.of_events(events.n), {stage.columns[0]: counts}
    if stage.kind == "fakes":
        return Rows(objects.event[others]), _columns(objects, stage.columns, others)
    rows = matched_rows(home, events)
    return rows, {name: rows.own[name] for name in stage.columns}


def matched_rows(home: Home, events: Events) -> Rows:
    """Return the objects of training events that have a parent, with their columns."""
    objects, matches = events.collections[home.name], matches_of(home, events)
    found = np.flatnonzero(matches.parent >= 0)
    rows = Rows.of_objects(events.collections[str(home.parent)], matches.parent[found])
    rows = rows.with_own({order_name(home.name): matches.rank[found]})
    return rows.with_own(_columns(objects, home.columns, found))


def shares_of(stage: Stage, home: Home) -> list[tuple[str, ...]]:
    """Return the groups of columns that add up to one of which a stage has some."""
    return [group for group in home.shares if set(group) & set(stage.columns)]


def _columns(objects: Objects, names: tuple[str, ...], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: objects.columns[name][rows] for name in names}


def needed_branches(home: Home, weight: str | None) -> set[str]:
    """Return the branches that training reads."""
    sources = {s for stage in home.stages for q in stage.quantities for s in q.sources}
    index = {home.index} if home.index is not None and home.distance is None else set()
    places = {f"{o}_{one}" for o in (home.name, home.parent) for one in ("eta", "phi")}
    near = places if home.distance is not None else set()
    return {*home.columns, *sources, *index, *near, *([weight] if weight else [])}


def constant_of(table: EventTable) -> dict[str, tuple[float, str]] | None:
    """Return value and type of columns that have one value each; None if one varies."""
    if table.n and (table.x == table.x[0]).all():
        values = zip(table.x[0].tolist(), table.dtypes, strict=True)
        return dict(zip(table.names, values, strict=True))
    return None
