"""One comparison of generated events with real ones: the samples, and every metric with its floor.

`evaluation` checks what is asked for and tells the result.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..atomic_files import digest, digest_array
from ..errors import ConfigError
from ..seeding import stream
from ..tables import checks
from ..tables.event_table import EventTable, united
from ..tables.relations import Relation
from .metrics import METRICS, Metric, Result, make_mlp


@dataclass(frozen=True)
class Samples:
    """Three tables with the same columns and number of events: real, generated, other truth."""

    real: EventTable
    generated: EventTable
    other: EventTable
    training: EventTable | None
    sizes: dict[str, int]
    floor_text: str
    notes: tuple[str, ...]


def cut_samples(real: Any, generated: Any, training: Any, seed: int) -> Samples:
    """Return the tables that are compared: the same columns, codes of texts and sizes."""
    truth = EventTable.of(real)
    tables = {"real": truth, "generated": _like(truth, generated, "generated")}
    if training is not None:
        tables["training"] = _like(truth, training, "training")
    texts = united([table.categories for table in tables.values()])
    tables = {name: table.recoded(texts) for name, table in tables.items()}
    truth = tables["real"]
    sizes = {name: table.n for name, table in tables.items()}
    notes = []
    if training is None:
        order = stream(seed, "evaluate-halves").permutation(truth.n)
        half = truth.n // 2
        tables["training"] = truth.take(order[half:])
        tables["real"] = truth.take(order[:half])
        notes.append(
            "no training events given: real events were cut into two random halves and"
            " everything is compared at half size"
        )
    n = min(table.n for table in tables.values())
    checks.min_rows(n, 10, "every sample of an evaluation")
    if len({table.n for table in tables.values()}) > 1:
        notes.append(f"samples of different sizes were cut at random to {n:,} events each")
    cut = {name: _cut(table, n, seed, key) for key, (name, table) in enumerate(tables.items())}
    floor = "real against training" if training is not None else "one half of real on the other"
    return Samples(
        cut["real"],
        cut["generated"],
        cut["training"],
        None if training is None else tables["training"],
        {**sizes, "compared": n},
        f"{floor}, {n:,} each",
        tuple(notes),
    )


def _like(truth: EventTable, data: Any, what: str) -> EventTable:
    table = EventTable.of(data)
    checks.same_columns(table.names, truth.names, f"the {what} events")
    return table.select(truth.names)


def _cut(table: EventTable, n: int, seed: int, key: int) -> EventTable:
    if table.n == n:
        return table
    rows = stream(seed, "evaluate-cut", key).permutation(table.n)[:n]
    return table.take(np.sort(rows))


_FLOORS: dict[str, Result] = {}
"""Floors of whole tables computed in this process: a study judges many samples beside one truth,
and half of the time of its classifiers would go into the same floor again."""
MOST_FLOORS = 100


def _judged(
    call: Callable[..., Result], make: Callable[[int], Any], name: str, *parts: Any, **weights: Any
) -> Result:
    return call(*parts, make, name=name, **weights)


class Comparison:
    """Runs metrics of each kind on the same samples, value and floor."""

    def __init__(
        self,
        samples: Samples,
        relations: list[Relation],
        seed: int,
        n_threads: int,
        explicit: bool,
    ) -> None:
        self.samples = samples
        self.relations = relations
        self.seed = seed
        self.n_threads = n_threads
        self.explicit = explicit
        self.notes: list[str] = []

    def run_all(
        self, wanted: Mapping[str, dict[str, Any]]
    ) -> tuple[tuple[Result, ...], dict[str, float]]:
        """Return all results, and the CPU seconds of each metric."""
        results: list[Result] = []
        seconds: dict[str, float] = {}
        for name, options in wanted.items():
            start = time.process_time()
            results += self.run(name, METRICS.get(name), options)
            seconds[name] = time.process_time() - start
        return tuple(results), seconds

    def run(self, name: str, metric: Metric, options: dict[str, Any]) -> list[Result]:
        """Return the results of one metric with their floors."""
        call = functools.partial(metric, seed=self.seed, **options)
        if metric.kind == "column":
            return self._columns(call)
        if metric.kind == "table":
            return [self._pair(call, name, options)]
        if metric.kind == "classifier":
            make = judge_of(name, self.n_threads)
            judged = functools.partial(_judged, call, make, name)
            return [self._pair(judged, name, options)]
        if metric.kind == "memorisation":
            return self._memorisation(call, options)
        return self._relations(functools.partial(metric, **options))

    def _columns(self, call: Callable[..., Result]) -> list[Result]:
        real, generated, other = self.samples.real, self.samples.generated, self.samples.other
        results = []
        for name in real.names:
            value = call(real.column(name), generated.column(name), **_weights(real, generated))
            floor = call(real.column(name), other.column(name), **_weights(real, other))
            results.append(replace(value.with_floor(floor), column=name))
        return [_mean(results), *results] if len(results) > 1 else results

    def _pair(self, call: Callable[..., Result], name: str, options: dict[str, Any]) -> Result:
        real, generated, other = self.samples.real, self.samples.generated, self.samples.other
        parts = [_joint(table, self._shared_conditions()) for table in (real, generated, other)]
        value = call(parts[0], parts[1], **_weights(real, generated))
        weights = _weights(real, other)
        given = {k: w for k, w in weights.items() if w is not None}
        arrays = [digest_array(a) for a in (parts[0], parts[2], *given.values())]
        key = digest([name, options, self.seed, list(given), arrays])
        if key not in _FLOORS:
            if len(_FLOORS) >= MOST_FLOORS:
                _FLOORS.pop(next(iter(_FLOORS)))
            _FLOORS[key] = call(parts[0], parts[2], **weights)
        return value.with_floor(_FLOORS[key])

    def _shared_conditions(self) -> bool:
        tables = (self.samples.real, self.samples.generated, self.samples.other)
        return len({table.cond_names for table in tables}) == 1 and all(
            table.cond is not None and bool(np.isfinite(table.cond).all()) for table in tables
        )

    def _memorisation(self, call: Callable[..., Result], options: dict[str, Any]) -> list[Result]:
        """Compare as many held-out events twice: against generated ones and among themselves."""
        training, real = self.samples.training, self.samples.real
        if training is None:
            if self.explicit:
                raise ConfigError("the metric 'memorisation' needs the training events: training=")
            self.notes.append("memorisation not tested: it needs the training events")
            return []
        size = min(options.get("max_events", 5000), real.n // 2)
        order = stream(self.seed, "evaluate-memorisation").permutation(real.n)
        first, second = real.take(order[:size]), real.take(order[size : 2 * size])
        generated = self.samples.generated.take(order[:size])
        value = call(first.x, generated.x, training.x, **_weights(first, generated))
        floor = call(first.x, second.x, training.x, **_weights(first, second))
        return [value.with_floor(floor)]

    def _relations(self, call: Callable[..., Result]) -> list[Result]:
        real, generated = self.samples.real, self.samples.generated
        if self.explicit and not self.relations:
            raise ConfigError("the metric 'relation' needs relations=, e.g. ['z = x / y']")
        results = []
        for relation in self.relations:
            value = call(_columns_of(generated), relation, weight=generated.weight)
            results.append(value.with_floor(call(_columns_of(real), relation, weight=real.weight)))
        return results


def judge_of(name: str, n_threads: int) -> Callable[[int], Any]:
    """Return the maker of the classifiers of a metric, by its name."""
    if name == "auc_mlp":
        return make_mlp
    from ..trees.boosted_trees import make_classifier

    return functools.partial(make_classifier, n_threads=n_threads)


def _weights(real: EventTable, generated: EventTable) -> dict[str, np.ndarray | None]:
    return {"weight_real": real.weight, "weight_generated": generated.weight}


def _joint(table: EventTable, with_conditions: bool) -> np.ndarray:
    return (
        np.hstack([table.x, table.cond]) if with_conditions and table.cond is not None else table.x
    )


def _columns_of(table: EventTable) -> dict[str, np.ndarray]:
    columns = {name: table.column(name) for name in table.names}
    if table.cond is not None:
        columns |= dict(zip(table.cond_names, table.cond.T, strict=True))
    return columns


def _mean(results: list[Result]) -> Result:
    """Return the mean over columns, with errors as of independent columns."""
    count = len(results)
    return Result(
        results[0].name,
        sum(r.value for r in results) / count,
        math.sqrt(sum(r.error**2 for r in results)) / count,
        results[0].n,
        floor=sum(r.floor or 0.0 for r in results) / count,
        floor_error=math.sqrt(sum((r.floor_error or 0.0) ** 2 for r in results)) / count,
        unit=results[0].unit,
        settings={"mean_over_columns": count, "error": "columns taken as independent"},
    )
