"""Events with columns of their own and collections of objects, as branches of a ROOT file.

A branch ``Jet_pt`` holds the numbers of all jets of all events, one after the other; how many are
those of an event is the collection's count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from ...errors import InputError, MissingExtra, plural


@dataclass(frozen=True, eq=False)
class Objects:
    """A collection: ``counts`` (n,) objects of each event, ``columns`` (m,) by branch name."""

    counts: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def first(self) -> np.ndarray:
        """Place (n,) of the first object of each event."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def event(self) -> np.ndarray:
        """Event (m,) of each object."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def place(self) -> np.ndarray:
        """Place (m,) of each object within its event."""
        return np.arange(len(self)) - self.first[self.event]

    def take(self, events: np.ndarray) -> Objects:
        """Return the objects of some events, (k,) numbers."""
        counts = self.counts[events]
        new = Objects(counts)
        rows = np.repeat(self.first[events], counts) + new.place
        return Objects(counts, {name: values[rows] for name, values in self.columns.items()})


@dataclass(frozen=True, eq=False)
class Events:
    """``n`` events: ``columns`` (n,) by branch name, ``collections`` by name.

    The branches of a collection begin with its name and "_"; its counts are the branch "n" + name.
    ``left_out`` has, by name, why a branch of the file can be neither.
    """

    n: int
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    collections: dict[str, Objects] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Any) -> Self:
        """Build from an awkward array of records, or a mapping of branches to arrays.

        Collections may be branches ``Jet_pt``, or one field ``Jet`` of records. Texts, lists of
        lists, and lists of no collection are left out. Raises InputError if branches of a
        collection have other counts than the others, or a number is missing.
        """
        if isinstance(data, Events):
            return cls(data.n, dict(data.columns), dict(data.collections), dict(data.left_out))
        try:
            import awkward
        except ImportError as error:
            raise MissingExtra.of("awkward", error, "root") from error
        branches = _branches(data, awkward)
        columns: dict[str, np.ndarray] = {}
        collections: dict[str, Objects] = {}
        left_out: dict[str, str] = {}
        for name, branch in branches.items():
            array = awkward.Array(branch)
            if array.ndim > 2 or (array.ndim == 2 and "_" not in name):
                left_out[name] = (
                    f"branch {name!r} must hold a number for each event, or for each object of a"
                    f" collection such as Jet_pt; it has {plural(array.ndim, 'dimension')}"
                )
                continue
            values = _numbers(array if array.ndim == 1 else awkward.flatten(array), name, awkward)
            if values.dtype.kind not in "fiub":
                left_out[name] = f"branch {name!r} must hold numbers, got {values.dtype}"
                continue
            if array.ndim == 1:
                columns[name] = values
                continue
            counts = np.asarray(awkward.num(array), dtype=np.int64)
            group = name.partition("_")[0]
            known = collections.setdefault(group, Objects(counts))
            if not np.array_equal(known.counts, counts):
                entry = int(np.argmax(known.counts != counts))
                raise InputError(
                    f"branch {name!r} has {counts[entry]} objects in entry {entry}, other branches"
                    f" of {group} have {known.counts[entry]}: a collection has one count"
                )
            known.columns[name] = values
        sizes = {len(v) for v in columns.values()} | {len(c.counts) for c in collections.values()}
        if len(sizes) > 1:
            raise InputError(f"branches must have one number of events, got {sorted(sizes)}")
        for group in collections:
            columns.pop(f"n{group}", None)
        return cls(max(sizes, default=0), columns, collections, left_out)

    @property
    def names(self) -> list[str]:
        """All branches, without those of counts."""
        return [*self.columns, *(name for c in self.collections.values() for name in c.columns)]

    def with_objects(self, name: str, objects: Objects) -> Events:
        """Return the events with one collection more, or another in its place."""
        return Events(self.n, self.columns, {**self.collections, name: objects})

    def with_columns(self, columns: Mapping[str, np.ndarray]) -> Events:
        """Return the events with more columns."""
        return Events(self.n, {**self.columns, **columns}, self.collections)

    def take(self, events: np.ndarray) -> Events:
        """Return some events, (k,) numbers."""
        return Events(
            len(events),
            {name: values[events] for name, values in self.columns.items()},
            {name: objects.take(events) for name, objects in self.collections.items()},
        )

    def split(self, size: int) -> Iterable[Events]:
        """Yield the events in blocks."""
        for low in range(0, self.n, size):
            yield self.take(np.arange(low, min(low + size, self.n)))

    def branches(self) -> dict[str, Any]:
        """Return arrays by branch name, jagged ones as awkward arrays; no counts."""
        import awkward

        jagged = {
            name: awkward.unflatten(values, objects.counts)
            for objects in self.collections.values()
            for name, values in objects.columns.items()
        }
        return {**self.columns, **jagged}

    def to_awkward(self) -> Any:
        """Return an awkward array of records, a field for each branch."""
        import awkward

        return awkward.zip(self.branches(), depth_limit=1)

    @staticmethod
    def concatenate(parts: Sequence[Events]) -> Events:
        """Return events of equal branches, one after the other."""
        first = parts[0]
        stacked = {
            name: np.concatenate([part.columns[name] for part in parts]) for name in first.columns
        }
        collections = {
            name: Objects(
                np.concatenate([part.collections[name].counts for part in parts]),
                {
                    branch: np.concatenate([p.collections[name].columns[branch] for p in parts])
                    for branch in objects.columns
                },
            )
            for name, objects in first.collections.items()
        }
        return Events(sum(part.n for part in parts), stacked, collections)


def _branches(data: Any, awkward: Any) -> dict[str, Any]:
    """Return arrays by branch name; records in lists become branches of their own."""
    if isinstance(data, Mapping):
        found = dict(data)
    else:
        array = awkward.Array(data)
        if not array.fields:
            raise InputError("events must have named branches: an array of records, or a mapping")
        found = {name: array[name] for name in array.fields}
    for name in list(found):
        array = awkward.Array(found[name])
        if array.fields:
            del found[name]
            found |= {f"{name}_{part}": array[part] for part in array.fields}
    return found


def _numbers(array: Any, name: str, awkward: Any) -> np.ndarray:
    """Return the values (k,) of a branch in native byte order, in their type."""
    try:
        values = awkward.to_numpy(array, allow_missing=False)
    except ValueError as error:
        n_missing = awkward.sum(awkward.is_none(array))
        raise InputError(
            f"branch {name!r} must hold numbers, none missing: {n_missing}"
            " are; remove these events, or leave the branch out"
        ) from error
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def check_finite(events: Events, names: Collection[str], first: int = 0) -> None:
    """Raise InputError with branch and entry unless all numbers of these branches are finite.

    ``first`` is the entry of the first event.
    """
    for name in names:
        home: Any = next((c for c in events.collections.values() if name in c.columns), None)
        values = events.columns[name] if home is None else home.columns[name]
        bad = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(0, dtype=bool)
        if bad.any():
            row = int(np.argmax(bad))
            where = f"entry {first + row}"
            if home is not None:
                where = f"entry {first + home.event[row]}, object {home.place[row]}"
            raise InputError(
                f"branch {name!r} is {values[row]} in {plural(int(bad.sum()), 'place')} (first:"
                f" {where}); remove these events, or leave the branch out"
            )
