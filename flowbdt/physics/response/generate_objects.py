"""Generate the output of events from their input, stage by stage.

Random numbers are keyed by seed, stage, number of the event and place within it: neither blocks nor
the cutting of a file change an event.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import RunError
from ...generation.trained_flow import Flow
from ...seeding import derive
from ...tables.event_table import cast
from .declaration import Home, Stage, order_name
from .events import Events, Objects
from .joint_rejection import JointRejection
from .matching import NOT_MATCHED, ranks
from .shares import as_given
from .stage_tables import Rows, shares_of

OVERFLOW = 2**42
"""Distance of the row numbers of objects beyond the usual number; more events than a file has."""

MOST_DRAWS = 12
"""Of an object with a rejection of all columns, the last of which is kept: where six in ten are,
one object in 60,000 needs more, and those of conditions for which all are unlike would need
hundreds."""


class StageSampler:
    """Draws the columns of a stage; ``flow`` is its trained model, or it has constant values."""

    def __init__(
        self,
        stage: Stage,
        flow: Flow | None,
        constant: Mapping[str, tuple[float, str]],
        outside: str | None = "warn",
    ) -> None:
        self.stage, self._flow, self._constant, self._outside = stage, flow, constant, outside
        self.n_rows = 0
        self.far: np.ndarray | None = None

    def __call__(
        self, seed: int, events: Events, rows: Rows, numbers: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return columns (r,) of rows with these numbers (r,), none twice."""
        flow = self._flow
        if flow is None:
            constant = self._constant.items()
            return {name: np.full(len(rows.event), value, of) for name, (value, of) in constant}
        if not len(numbers):
            columns = zip(flow.columns["names"], flow.columns["dtypes"], strict=True)
            return {name: np.zeros(0, dtype) for name, dtype in columns}
        order = np.argsort(numbers)
        cond = None
        if flow.condition_names:
            cond = self._looked_at(flow, rows.conditions(events, self.stage, flow.condition_names))
            cond = cond[order]
        x = np.empty((len(numbers), flow.n_columns))
        key = derive(seed, f"response {self.stage.name}")
        try:
            x[order] = flow.rows(key, numbers[order], cond)
        except RunError as error:  # a cut that no draw meets
            raise RunError(f"stage {self.stage.name}: {error}") from error
        table = flow.as_table(x, None)
        return {name: table.typed(name) for name in table.names}

    def _looked_at(self, flow: Flow, cond: np.ndarray) -> np.ndarray:
        if self._outside is None:
            return cond
        ranges, far = flow.condition_ranges, flow.condition_ranges.count_far(cond)
        self.n_rows += len(cond)
        self.far = far if self.far is None else self.far + far
        if self._outside == "raise":
            ranges.report(far, len(cond), "raise")
        return ranges.clip(cond) if self._outside == "clip" else cond

    def report(self) -> None:
        """Warn, once, of conditions far outside of the training."""
        if self._flow is None or self.far is None or self._outside not in ("warn", "clip"):
            return
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self._flow.condition_ranges.report(self.far, self.n_rows, self._outside)
        for one in told:
            text = f"stage {self.stage.name}: {one.message}"
            warnings.warn(text, one.category, stacklevel=4)


class ChainSampler:
    """Generates the output of events; see `ResponseChain.sample` for the parameters.

    ``slots``: by collection, and by stage of fakes, the usual number of objects, a power of two;
    ``index_types``: types of the branches of parents; ``rejections`` of all columns together, by
    collection.
    """

    def __init__(
        self,
        homes: list[Home],
        samplers: dict[str, StageSampler],
        slots: Mapping[str, int],
        index_types: Mapping[str, str],
        rejections: Mapping[str, JointRejection],
    ) -> None:
        self._homes, self._samplers, self._rejections = homes, samplers, rejections
        self._slots, self._index_types = slots, index_types

    @property
    def most_events(self) -> int:
        """Number of events that have random numbers of their own."""
        return OVERFLOW // max(self._slots.values(), default=1)

    def generate(self, events: Events, numbers: np.ndarray, seed: int) -> Events:
        """Return events with their output; ``numbers`` (n,) key their random numbers."""
        for home in self._homes:
            if home.is_event:
                stage = home.stages[0]
                made = self._drawn(stage, seed, events, Rows.of_events(events.n), numbers)
                events = events.with_columns(made)
            else:
                objects = self._objects(home, events, numbers, seed)
                events = events.with_objects(home.name, objects)
        return events

    def report(self) -> None:
        """Warn of conditions far outside of the training."""
        for sampler in self._samplers.values():
            sampler.report()

    def _drawn(self, stage: Stage, *of_rows: Any) -> dict[str, np.ndarray]:
        return self._samplers[stage.name](*of_rows)

    def _properties(
        self, home: Home, stage: Stage, seed: int, events: Events, rows: Rows, keys: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return drawn columns of objects, those of shares as they are."""
        drawn = self._drawn(stage, seed, events, rows, keys)
        return as_given(drawn, shares_of(stage, home), rows.own, home.rounded)

    def _numbers(
        self, made: str, rows: np.ndarray, place: np.ndarray, attempt: int = 0
    ) -> np.ndarray:
        """Return row numbers of objects, by the number of their event and their place in it.

        Of an ``attempt`` places count what is left: numbers lie close, as noise comes in blocks.
        """
        slots = max(self._slots[made] >> attempt, 1)
        return rows * slots + place % slots + place // slots * OVERFLOW

    def _objects(self, home: Home, events: Events, numbers: np.ndarray, seed: int) -> Objects:
        parts = []
        if home.parent is not None:
            parts.append(self._matched(home, events, numbers, seed))
        if any(stage.kind == "fakes" for stage in home.stages):
            parts.append(self._fakes(home, events, numbers, seed))
        parts = [part for part in parts if len(part["event"])] or parts[:1]
        event = np.concatenate([part.pop("event") for part in parts])
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order: tuple[np.ndarray, ...] = (event,)
        if home.sort is not None:
            order = (-columns[home.sort].astype(np.float64), event)
        rows = np.lexsort(order)
        counts = np.bincount(event, minlength=events.n)
        return Objects(counts, {name: values[rows] for name, values in columns.items()})

    def _matched(
        self, home: Home, events: Events, numbers: np.ndarray, seed: int
    ) -> dict[str, np.ndarray]:
        parents, stage = events.collections[str(home.parent)], home.stage("number")
        every = Rows.of_objects(parents, np.arange(len(parents)))
        keys = self._numbers(home.name, numbers[parents.event], parents.place)
        (number,) = self._drawn(stage, seed, events, every, keys).values()
        number = number.astype(np.int64)
        parent = np.repeat(np.arange(len(parents)), number)
        made = Objects(np.bincount(parents.event, number, events.n).astype(np.int64))
        rows = Rows.of_objects(parents, parent)
        rows = rows.with_own({order_name(home.name): ranks(parent, number)})
        keys = self._numbers(home.name, numbers[made.event], made.place)
        columns = self._accepted(home, seed, events, rows, keys, numbers)
        return self._with_index(home, {"event": made.event, **columns}, parents.place[parent])

    def drawn_properties(
        self, home: Home, seed: int, events: Events, rows: Rows, keys: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return the columns of objects that all stages of properties draw, one after the other."""
        columns: dict[str, np.ndarray] = {}
        for stage in home.properties:
            known = rows.with_own(columns)
            columns |= self._properties(home, stage, seed, events, known, keys)
        return columns

    def _accepted(
        self,
        home: Home,
        seed: int,
        events: Events,
        rows: Rows,
        keys: np.ndarray,
        numbers: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Return the same, drawn anew where the rejection of all columns together says so.

        ``numbers`` (n,) are those of the events.
        """
        rows, left = rows.with_fixed(home, events), np.arange(len(keys))
        columns = self.drawn_properties(home, seed, events, rows, keys)
        rejection = self._rejections.get(home.name)
        if rejection is None or not len(left):
            return columns
        for attempt in range(1, MOST_DRAWS):
            drawn = rows.take(left).with_own({name: of[left] for name, of in columns.items()})
            left = left[~rejection.keeps(seed, attempt, events, drawn, keys)]
            if not len(left):
                break
            event = rows.event[left]
            place = Objects(np.bincount(event, minlength=events.n)).place
            keys = self._numbers(home.name, numbers[event], place, attempt)
            again = derive(seed, "attempt", attempt), events, rows.take(left), keys
            for name, values in self.drawn_properties(home, *again).items():
                columns[name][left] = values
        return columns

    def _fakes(
        self, home: Home, events: Events, numbers: np.ndarray, seed: int
    ) -> dict[str, np.ndarray]:
        every = Rows.of_events(events.n)
        (number,) = self._drawn(home.stage("fake number"), seed, events, every, numbers).values()
        made, stage = Objects(number.astype(np.int64)), home.stage("fakes")
        own = stage.name if stage.name in self._slots else home.name  # of an older chain
        keys = self._numbers(own, numbers[made.event], made.place)
        columns = self._properties(home, stage, seed, events, Rows(made.event), keys)
        place = np.full(len(made), NOT_MATCHED)
        return self._with_index(home, {"event": made.event, **columns}, place)

    def _with_index(
        self, home: Home, columns: dict[str, np.ndarray], place: np.ndarray
    ) -> dict[str, np.ndarray]:
        if home.index is None:
            return columns
        return {**columns, home.index: cast(place.astype(float), self._index_types[home.name])}
