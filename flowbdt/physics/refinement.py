"""Corrections of a simulated sample to a better one, such as data or a detailed simulation.

Its events get weights, or are carried to new values. Weights leave events as they are and cannot
make what the simulation never has; carried events can be anywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import ConfigError, InputError
from ..flow.couplings import assign
from ..model import FlowBDT
from ..registry import Registry
from ..seeding import derive, stream
from ..tables.checks import relative_or_ones
from ..tables.event_table import EventTable, with_same_codes
from ..training.threads import available_cpus
from .unfolding.odds import CrossFittedOdds, Trees, folds

BATCH = 256
"""Events among which partners are chosen."""

CONDITION_WEIGHT = 10.0
"""Partners have nearly equal conditions: a distance in these counts so many times as much."""


@dataclass
class Refiner(ABC):
    """A correction that is learned from two samples and applied to events.

    Parameters
    ----------
    seed : of everything random
    flow : settings of `flowbdt.FlowBDT`, for methods that have one
    """

    seed: int = 0
    flow: Mapping[str, Any] = field(default_factory=dict)

    @abstractmethod
    def learn(self, simulation: EventTable, better: EventTable) -> None:
        """Learn from samples with the same columns and conditions."""

    @abstractmethod
    def apply(self, events: EventTable, *, learned_from: bool) -> EventTable:
        """Return corrected events, row by row; ``learned_from`` if they are the simulation."""


REFINERS: Registry[Refiner] = Registry("method of refinement")


@REFINERS.register("weights")
class Weights(Refiner):
    """Ratios of densities by boosted classifiers, each for events that it did not see.

    With conditions it is the ratio given these, so that their distribution stays. Weights keep
    their sum. Source: A. Rogozhnikov, arXiv 1608.05806.
    """

    def learn(self, simulation: EventTable, better: EventTable) -> None:
        if self.flow:
            raise ConfigError("the method 'weights' has no flow, and takes no settings of one")
        tables = (simulation, better)
        named = zip(tables, ("simulation", "better"), strict=True)
        fold = np.concatenate([folds(t.n, Trees().n_folds, self.seed, name) for t, name in named])
        weights = [relative_or_ones(table.weight, table.n) for table in tables]
        zeros = [np.zeros(table.n) for table in tables]
        upper, lower = (np.append(zeros[0], weights[1]), np.append(weights[0], zeros[1]))
        self._odds, self._own = [], np.zeros(simulation.n)
        for sign, rows in _inputs(simulation):
            both = np.concatenate([rows, dict(_inputs(better))[sign]])
            odds = CrossFittedOdds(both, fold, Trees(), derive(self.seed, sign), available_cpus())
            self._own += SIGNS[sign] * odds.fit(upper, lower)[: simulation.n]
            self._odds.append(odds)

    def apply(self, events: EventTable, *, learned_from: bool) -> EventTable:
        log_ratio = self._own
        if not learned_from:
            log_ratio = np.zeros(events.n)
            for odds, (sign, rows) in zip(self._odds, _inputs(events), strict=True):
                every = [odds.predict(rows, np.full(events.n, k)) for k in range(Trees().n_folds)]
                log_ratio += SIGNS[sign] * np.mean(every, axis=0)
        before = np.ones(events.n) if events.weight is None else events.weight
        after = before * np.exp(log_ratio)
        return replace(events, weight=after * (before.sum() / after.sum()))


SIGNS = {"events": 1, "conditions": -1}


def _inputs(events: EventTable) -> list[tuple[str, np.ndarray]]:
    """Return what classifiers see: events with their conditions, and these alone if there are."""
    if events.cond is None:
        return [("events", events.x)]
    return [("events", np.hstack([events.x, events.cond])), ("conditions", events.cond)]


@REFINERS.register("pairs")
class Pairs(Refiner):
    """A flow that starts at an event of the simulation and ends at its partner in the same row."""

    def learn(self, simulation: EventTable, better: EventTable) -> None:
        _paired(simulation, better)
        self.model = FlowBDT(**{**self.flow, "coupling": "given"}, random_state=self.seed)
        self.model.fit(
            _plain(better), source=_plain(simulation), cond=_conditions(better),
            sample_weight=better.weight,
        )  # fmt: skip

    def apply(self, events: EventTable, *, learned_from: bool) -> EventTable:
        found = self.model.sample(
            source=_plain(events), cond=_conditions(events), random_state=self.seed
        )
        return replace(events, x=found.x, dtypes=found.dtypes)


@REFINERS.register("transport")
class Transport(Pairs):
    """A flow as of `Pairs`, without pairs: partners are those that move the least together.

    Events of both samples are assigned in random batches with the least sum of squared distances,
    in units of the better sample's spread, so that the flow moves no event further than it must.
    Source: Tong et al., arXiv 2302.00482, section 3.3.
    """

    def learn(self, simulation: EventTable, better: EventTable) -> None:
        rng = stream(self.seed, "refinement-partners")
        share = relative_or_ones(simulation.weight, simulation.n) / simulation.n
        more = simulation.n < better.n or simulation.weight is not None
        start = simulation.take(rng.choice(simulation.n, better.n, replace=more, p=share))
        start = start.take(_partners(start, better, rng))
        super().learn(start, better)


def _partners(start: EventTable, better: EventTable, rng: np.random.Generator) -> np.ndarray:
    """Return the row (n,) of ``start`` that goes with each row of ``better``."""
    points = [table.x / np.maximum(better.x.std(axis=0), 1e-12) for table in (start, better)]
    if start.cond is not None and better.cond is not None:
        unit = np.maximum(np.nanstd(better.cond, axis=0), 1e-12) / CONDITION_WEIGHT
        points = [
            np.hstack([rows, np.nan_to_num(cond) / unit])
            for rows, cond in zip(points, (start.cond, better.cond), strict=True)
        ]
    found = np.empty(better.n, dtype=np.int64)
    for batch in np.array_split(rng.permutation(better.n), -(-better.n // BATCH)):
        found[batch] = batch[assign(points[0][batch], points[1][batch])]
    return found


@REFINERS.register("conditions")
class Conditions(Refiner):
    """A flow from noise to the partner, with the simulated event as further conditions.

    One event of the simulation has many answers, as it should where the better sample has
    fluctuations of its own.
    """

    def learn(self, simulation: EventTable, better: EventTable) -> None:
        _paired(simulation, better)
        self.model = FlowBDT(**self.flow, random_state=self.seed)
        cond = _as_conditions(simulation)
        self.model.fit(_plain(better), cond=cond, sample_weight=better.weight)

    def apply(self, events: EventTable, *, learned_from: bool) -> EventTable:
        cond = _as_conditions(events)
        found = self.model.sample(cond=cond, outside=None, random_state=self.seed)
        return replace(events, x=found.x, dtypes=found.dtypes)


def _paired(simulation: EventTable, better: EventTable) -> None:
    if simulation.n != better.n:
        raise InputError(
            f"rows must be pairs, of one particle or event each, got {simulation.n} simulated and"
            f" {better.n} better ones; without pairs use method='weights' or 'transport'"
        )


def _plain(events: EventTable) -> EventTable:
    """Return the events without conditions and weights."""
    return replace(events, cond=None, cond_names=(), weight=None)


def _conditions(events: EventTable) -> EventTable | None:
    """Return the conditions as a table of their own."""
    if events.cond is None:
        return None
    return EventTable.of(events.cond, events.cond_names, missing=True)


def _as_conditions(events: EventTable) -> EventTable:
    """Return conditions and events as one table of conditions."""
    names = [f"simulated {name}" for name in events.names]
    own = EventTable.of(events.x, names, missing=True)
    if events.cond is None:
        return own
    return own.with_columns(events.cond_names, events.cond).select([*events.cond_names, *names])


def refine(
    simulation: EventTable,
    better: EventTable,
    method: str = "weights",
    *,
    new: EventTable | None = None,
    conditions: Sequence[str] = (),
    flow: Mapping[str, Any] | None = None,
    random_state: int = 0,
) -> EventTable:
    """Return simulated events corrected to a better sample.

    Parameters
    ----------
    simulation, better : EventTable with the same columns; weights count. For 'pairs' and
        'conditions' row i of both is the same event
    method : 'weights', 'transport', 'pairs' or 'conditions', see `REFINERS`
    new : other events of the simulation to correct; by default ``simulation``
    conditions : columns that both samples share and that stay, such as the true energy
    flow : settings of `flowbdt.FlowBDT`
    random_state : seed

    Returns
    -------
    EventTable with the rows of ``new``: new weights, or new values in all columns but conditions

    Raises
    ------
    InputError if the tables have other columns or, where pairs are needed, other numbers of rows;
    ConfigError if the method is unknown.
    """
    refiner = REFINERS.build({"name": method, "seed": random_state, "flow": flow or {}})
    better = better.as_conditions(conditions)
    tables = [better, *(one.like(better) for one in (simulation, new) if one is not None)]
    better, simulation, *others = with_same_codes(tables)
    refiner.learn(simulation, better)
    if others:
        return refiner.apply(others[0], learned_from=False)
    return refiner.apply(simulation, learned_from=True)
