"""Generation of events to be judged, and their scores: the one place where metrics are called."""

from __future__ import annotations

import functools
import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # comes with scikit-learn

from ..atomic_files import digest, digest_array
from ..errors import ConfigError, DataWarning, InputError
from ..generation.trained_flow import Flow
from ..registry import Registry, unknown
from ..seeding import stream
from ..tables.event_table import EventTable
from ..tables.formulas.particles import proposed_particles, read_particles
from ..tables.formulas.relations import TOLERANCE, Relation, relative_deviation
from ..tables.proposals.found_relations import find_relations
from ..trees.signed_weights import with_positive_weights
from .metrics import METRICS, Metric, Result, make_mlp
from .metrics.classifier import MOST_CLASSES, few_values, partners_of
from .metrics.joint import frechet_distance

COSTS = {
    "train_s": "CPU seconds of the training",
    "us_per_event": "CPU microseconds per generated event",
}

PER_REAL = 2
"""Generated events for each real one, so that their share of the noise is the smaller one."""

# ---- generation


@dataclass(frozen=True)
class GeneratedEvents:
    """Generated events and the CPU time of one of them."""

    table: EventTable
    us_per_event: float


def generate_events(flow: Flow, n: int, seed: int, cond: Any = None) -> GeneratedEvents:
    """Generate ``n`` events at the conditions (k, c), taken in turn, and measure their CPU time.

    One event is generated before the clock starts: it loads models and machine code, which is no
    cost of an event.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the same come again
        list(flow.sample_blocks(1, seed=seed, cond=_in_turn(cond, 1)))
    cond = _in_turn(cond, n)
    start = time.process_time()
    blocks = list(flow.sample_blocks(n, seed=seed, cond=cond))
    us_per_event = 1e6 * (time.process_time() - start) / n
    return GeneratedEvents(EventTable.concatenate(blocks), us_per_event)


def generate_like(flow: Flow, real: EventTable, seed: int, n: int | None = None) -> GeneratedEvents:
    """Generate events with the conditions and weights of real ones; `PER_REAL` for each of them."""
    made = generate_events(flow, n or PER_REAL * real.n, seed, condition_table(real))
    return replace(made, table=weighted_as(made.table, real))


def _in_turn(cond: Any, n: int) -> Any:
    if cond is None:
        return None
    rows = np.arange(n) % len(cond)
    return cond.take(rows) if isinstance(cond, EventTable) else np.asarray(cond)[rows]


def condition_table(real: EventTable) -> EventTable | None:
    """Return the conditions of events as a table; None without any."""
    if real.cond is None:
        return None
    names, count = real.cond_names, len(real.cond_names)
    texts = {name: real.categories[name] for name in names if name in real.categories}
    return EventTable(real.cond, names, ("",) * count, ("float64",) * count, categories=texts)


def weighted_as(made: EventTable, real: EventTable) -> EventTable:
    """Return events generated at the conditions of real ones, in turn, with the weights of those.

    Each condition is used equally often, whatever its weight. Without conditions generated events
    follow the weights by themselves and carry none.
    """
    if real.cond is None or real.weight is None:
        return made
    return replace(made, weight=real.weight[np.arange(made.n) % real.n])


# ---- scores


@dataclass(frozen=True)
class ComparedTables:
    """Tables with the same columns that a metric compares, with or without weights.

    ``other`` holds independent real events, which give the floor; ``training`` those that the
    generator was trained on. ``seed`` is that of bootstrap replicas and judges.
    """

    real: EventTable
    generated: EventTable
    other: EventTable | None = None
    training: EventTable | None = None
    relations: Sequence[Relation] = ()
    seed: int = 0
    n_threads: int = 1

    def joint(self) -> list[np.ndarray]:
        """Return all columns of real, generated and other events; conditions too if all known."""
        tables = [t for t in (self.real, self.generated, self.other) if t is not None]
        with_conditions = len({table.cond_names for table in tables}) == 1 and all(
            table.cond is not None and bool(np.isfinite(table.cond).all()) for table in tables
        )
        return [
            np.hstack([t.x, t.cond]) if with_conditions and t.cond is not None else t.x
            for t in tables
        ]

    @functools.cached_property
    def positive(self) -> ComparedTables:
        """The tables with non-negative weights of the same density, for what takes no others."""
        names = ("real", "generated", "other", "training")
        tables = {name: table for name in names if (table := getattr(self, name)) is not None}
        weighted: dict[str, Any] = {
            name: with_positive_weights(t, seed=self.seed) for name, t in tables.items()
        }
        return self if weighted == tables else replace(self, **weighted)

    def partners(self) -> np.ndarray | None:
        """Return `partners_of` the real and the generated events."""
        return partners_of(self.real.cond, self.generated.cond)


def score_events(
    tables: ComparedTables, metrics: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[Result]]:
    """Score generated events by each metric (name -> options), beside the floor if it is known.

    Return metric -> results, that of the whole table (for a metric of single columns the mean)
    first. Raises ConfigError if a metric is unknown, or lacks training events or relations.
    """
    results = {}
    # the matrix products of the neural judge are small: more threads spend their time waiting
    with threadpool_limits(tables.n_threads):
        for name, options in metrics.items():
            metric = metric_of(name)
            given = tables if metric.signed else tables.positive
            results[name] = KINDS.get(metric.kind)(given, metric, name, options)
    return results


KINDS: Registry[Any] = Registry("kind of metric")
"""Kind -> function of the tables, a metric of this kind, its name and its options."""


@KINDS.register("column")
def _score_columns(
    tables: ComparedTables, metric: Metric, name: str, options: Mapping[str, Any]
) -> list[Result]:
    real = tables.real

    def call(other: EventTable, column: str) -> Result:
        values, weights = (real.column(column), other.column(column)), _weights(real, other)
        return metric(*values, seed=tables.seed, **options, **weights)

    results = []
    for column in real.names:
        value = call(tables.generated, column)
        if tables.other is not None:
            value = value.with_floor(call(tables.other, column))
        results.append(replace(value, column=column))
    return [_mean(results), *results] if len(results) > 1 else results


@KINDS.register("table")
def _score_table(
    tables: ComparedTables, metric: Metric, name: str, options: Mapping[str, Any]
) -> list[Result]:
    call = functools.partial(metric, seed=tables.seed, **options)
    return [_beside_floor(tables, call, [name, dict(options)])]


@KINDS.register("classifier")
def _score_by_classifier(
    tables: ComparedTables, metric: Metric, name: str, options: Mapping[str, Any]
) -> list[Result]:
    judge = judge_of(name, tables.n_threads)

    def call(real: np.ndarray, generated: np.ndarray, **known: Any) -> Result:
        return metric(real, generated, judge, name=name, seed=tables.seed, **options, **known)

    return [_beside_floor(tables, call, [name, dict(options)], partners=tables.partners())]


def _beside_floor(
    tables: ComparedTables, call: Callable[..., Result], key: list[Any], **known_of_generated: Any
) -> Result:
    """Return the score of whole tables; ``key`` tells the calls apart whose floors are kept."""
    real, generated, *other = tables.joint()
    weights = _weights(tables.real, tables.generated)
    value = call(real, generated, **weights, **known_of_generated)
    if tables.other is None:
        return value
    weights = _weights(tables.real, tables.other)
    known = {k: w for k, w in weights.items() if w is not None}
    arrays = [digest_array(a) for a in (real, *other, *known.values())]
    key_of = digest([*key, tables.seed, list(known), arrays])
    if key_of not in _FLOORS:
        if len(_FLOORS) >= MOST_FLOORS:
            _FLOORS.pop(next(iter(_FLOORS)))
        _FLOORS[key_of] = call(real, *other, **weights)
    return value.with_floor(_FLOORS[key_of])


_FLOORS: dict[str, Result] = {}
"""Floors of whole tables computed in this process: a study judges many samples beside one truth,
and half of the time of its classifiers would go into the same floor again."""
MOST_FLOORS = 100


def judge_of(name: str, n_threads: int) -> Callable[[int], Any]:
    """Return the maker of the classifiers of a metric, by its name."""
    if name == "auc_mlp":
        return make_mlp
    from ..trees.boosted_trees import make_classifier

    return functools.partial(make_classifier, n_threads=n_threads)


@KINDS.register("pairs")
def _score_pairs(
    tables: ComparedTables, metric: Metric, name: str, options: Mapping[str, Any]
) -> list[Result]:
    """Score the joint counts of each pair of columns of few values; none if there are no two."""
    arrays = tables.joint()
    names = (*tables.real.names, *tables.real.cond_names)
    few = [(j, known) for j, known in enumerate(few_values(*arrays)) if known is not None]
    results = []
    for (i, first), (j, second) in itertools.combinations(few, 2):
        # the place of a pair of values among all such pairs
        real, *others = (
            np.searchsorted(first, a[:, i]) * len(second) + np.searchsorted(second, a[:, j])
            for a in arrays
        )
        edges = np.arange(len(first) * len(second) + 1) - 0.5
        against = [t for t in (tables.generated, tables.other) if t is not None]
        found = [
            metric(real, c, edges=edges, seed=tables.seed, **options, **_weights(tables.real, t))
            for c, t in zip(others, against, strict=True)
        ]
        value = found[0] if len(found) == 1 else found[0].with_floor(found[1])
        results.append(replace(value, name=name, column=f"{names[i]} & {names[j]}"))
    return [_mean(results), *results] if len(results) > 1 else results


@KINDS.register("profiles")
def _score_profiles(
    tables: ComparedTables, metric: Metric, name: str, options: Mapping[str, Any]
) -> list[Result]:
    """Score each column in bins of each condition; none without conditions of numbers."""
    results = []
    for condition, given in _conditions(tables):
        if condition in tables.real.categories:
            continue
        for column in tables.real.names:
            values = [t.column(column) for t in _compared(tables)]
            result = _given(tables, metric, options, values, given)
            results.append(replace(result, column=f"{column} in {condition}"))
    return [_mean(results), *results] if len(results) > 1 else results


@KINDS.register("tags")
def _score_tags(
    tables: ComparedTables, metric: Metric, name: str, options: Mapping[str, Any]
) -> list[Result]:
    """Score columns of two values against conditions of many, and the other way round."""
    results = []
    for condition, given in _conditions(tables):
        for column in tables.real.names:
            values = [t.column(column) for t in _compared(tables)]
            two, many = _two_valued(values), _two_valued(given)
            if (two is None) == (many is None):
                continue
            tags, scores = (two, given) if two is not None else (many, values)
            if min(len(np.unique(score)) for score in scores) <= MOST_CLASSES:
                continue
            result = _given(tables, metric, options, scores, tags or [])
            results.append(replace(result, column=f"{column} and {condition}"))
    return [_mean(results), *results] if len(results) > 1 else results


def _compared(tables: ComparedTables) -> list[EventTable]:
    return [t for t in (tables.real, tables.generated, tables.other) if t is not None]


def _conditions(tables: ComparedTables) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield the conditions that all tables know, with the values of each table."""
    every = _compared(tables)
    if any(t.cond is None or t.cond_names != tables.real.cond_names for t in every):
        return
    for condition in tables.real.cond_names:
        given = [t.by_name()[condition] for t in every]
        if all(np.isfinite(values).all() for values in given):
            yield condition, given


def _two_valued(columns: list[np.ndarray]) -> list[np.ndarray] | None:
    """Return where columns have the larger of two values that each of them has; None if not so."""
    known = np.unique(np.concatenate(columns))
    if len(known) != 2 or any(len(np.unique(values)) != 2 for values in columns):
        return None
    return [values == known[1] for values in columns]


def _given(
    tables: ComparedTables,
    metric: Metric,
    options: Mapping[str, Any],
    values: Sequence[np.ndarray],
    given: Sequence[np.ndarray],
) -> Result:
    """Score values (n,) of real and generated events beside conditions (n,), and the floor."""
    real, *others = _compared(tables)
    found = [
        metric(
            *(values[0], values[i], given[0], given[i]),
            seed=tables.seed,
            **options,
            **_weights(real, other),
        )
        for i, other in enumerate(others, start=1)
    ]
    return found[0] if len(found) == 1 else found[0].with_floor(found[1])


@KINDS.register("residual")
@KINDS.register("lost")
def _score_by_columns(
    tables: ComparedTables, metric: Metric, name: str, options: Mapping[str, Any]
) -> list[Result]:
    """Score by models of each column given all others, of real events and others alike."""
    from ..trees.boosted_trees import ColumnModel

    real, generated, *others = tables.joint()
    make_model = functools.partial(ColumnModel, n_threads=tables.n_threads)
    columns = (*tables.real.names, *tables.real.cond_names)
    known: dict[str, Any] = {
        **_weights(tables.real, tables.generated),
        "weight_training": None if tables.other is None else tables.other.weight,
        "categories": {i for i, c in enumerate(columns) if c in tables.real.categories},
    }
    if metric.kind == "lost":
        training = others[0] if others else None
        results = metric(real, generated, training, make_model, seed=tables.seed, **known)
        return [replace(r, column=c) for r, c in zip(results, columns, strict=False)]
    if not others:
        raise ConfigError(f"the metric {name!r} needs other real events: training=")
    models = judge_of(name, tables.n_threads), make_model
    beside = relation_deviations(tables)
    value, floor = metric(
        *(real, generated, others[0], *models),
        partners=tables.partners(),
        seed=tables.seed,
        beside=beside,
        **options,
        **known,
    )
    return [value.with_floor(floor)]


def relation_deviations(tables: ComparedTables) -> list[np.ndarray] | None:
    """Return how far real, generated and other rows (n, k) are off exact relations of the others.

    Relative deviations; those of rounding are 0. None if there is no relation.
    """
    assert tables.other is not None
    proposed = proposed_particles(tables.other.names)
    found, known = find_relations(tables.other, proposed), read_particles(proposed)
    relations = [Relation.parse(one.text, known) for one in found if one.exact]
    if not relations:
        return None
    result = []
    for table in _compared(tables):
        columns = table.by_name()
        off = [relative_deviation(columns[r.target], r.evaluate(columns)) for r in relations]
        far = np.nan_to_num(np.stack(off, axis=1), nan=2.0, posinf=2.0)
        result.append(np.where(far > TOLERANCE, far, 0.0))
    return result


@KINDS.register("memorisation")
def _score_memorisation(
    tables: ComparedTables, metric: Metric, name: str, options: Mapping[str, Any]
) -> list[Result]:
    """Compare as many held-out events twice: with generated ones and among themselves."""
    if tables.training is None:
        raise ConfigError(f"the metric {name!r} needs the training events: training=")
    call, real = functools.partial(metric, seed=tables.seed, **options), tables.real
    size = min(options.get("max_events", 5000), real.n // 2)
    order = stream(tables.seed, "evaluate-memorisation").permutation(real.n)
    first, second = real.take(order[:size]), real.take(order[size : 2 * size])
    value, floor = (
        call(first.x, near.x, tables.training.x, **_weights(first, near))
        for near in (tables.generated.take(order[:size]), second)
    )
    return [value.with_floor(floor)]


@KINDS.register("relation")
def _score_relations(
    tables: ComparedTables, metric: Metric, name: str, options: Mapping[str, Any]
) -> list[Result]:
    if not tables.relations:
        raise ConfigError(f"the metric {name!r} needs relations=, e.g. ['z = x / y']")
    results = []
    for relation in tables.relations:
        value, floor = (
            metric(t.by_name(), relation, weight=t.weight, **options)
            for t in (tables.generated, tables.real)
        )
        results.append(value.with_floor(floor))
    return results


def _weights(real: EventTable, generated: EventTable) -> dict[str, np.ndarray | None]:
    return {"weight_real": real.weight, "weight_generated": generated.weight}


def _mean(results: list[Result]) -> Result:
    """Return the mean over columns, with errors as of independent columns."""
    count, floors = len(results), [r.floor for r in results if r.floor is not None]
    return replace(
        results[0],
        value=sum(r.value for r in results) / count,
        error=math.sqrt(sum(r.error**2 for r in results)) / count,
        floor=sum(floors) / count if floors else None,
        floor_error=math.sqrt(sum((r.floor_error or 0.0) ** 2 for r in results)) / count
        if floors
        else None,
        column=None,
        settings={"mean_over_columns": count, "error": "columns taken as independent"},
    )


# ---- objectives of a search


def _frechet_objective(
    real: np.ndarray,
    generated: np.ndarray,
    *,
    weight_real: np.ndarray | None = None,
    weight_generated: np.ndarray | None = None,
    seed: int = 0,
) -> Result:
    """Return the Fréchet distance of the columns, extrapolated from sizes up to these samples."""
    if weight_real is not None or weight_generated is not None:
        raise InputError("the objective 'fpd' knows no event weights; take 'separation'")
    n = min(len(real), len(generated))
    return frechet_distance(
        real, generated, min_samples=max(2 * n // 5, 2), max_samples=n, seed=seed
    )


OBJECTIVES_ONLY = {
    "fpd": Metric(_frechet_objective, "table", 0.0, "Fréchet distance of the columns")
}
"""Scores that `flowbdt evaluate` does not have."""


def metric_of(name: str) -> Metric:
    """Return the metric behind a score. Raises ConfigError for an unknown one."""
    return OBJECTIVES_ONLY[name] if name in OBJECTIVES_ONLY else METRICS.get(name)


OPTIONS: dict[str, dict[str, Any]] = {
    "classifier": {"n_model_seeds": 1, "n_split_seeds": 4},
    "column": {"n_bootstrap": 50},
    "table": {},
}
"""Kind of metric -> its options in a search."""

SCORES = [*(n for n in METRICS.names() if METRICS.get(n).kind in OPTIONS), *OBJECTIVES_ONLY]


def check_objectives(names: Sequence[str]) -> list[str]:
    """Return objectives, scores first. Raises ConfigError for an unknown one, or if none scores."""
    for name in names:
        if name not in (*SCORES, *COSTS):
            raise unknown("objective", name, [*SCORES, *COSTS])
    scores = [name for name in names if name in SCORES]
    if not scores:
        raise ConfigError(f"one objective must say how good events are: {', '.join(SCORES)}")
    return [*dict.fromkeys(scores), *(name for name in COSTS if name in names)]


def score_objectives(
    real: EventTable,
    made: EventTable,
    names: Sequence[str],
    seed: int,
    n_threads: int,
    options: Mapping[str, Mapping[str, Any]] = OPTIONS,
) -> dict[str, Result]:
    """Return the score of each of `SCORES`, without floors; of a column metric the mean.

    ``options``: kind of metric -> its options.
    """
    tables = ComparedTables(real, made, seed=seed, n_threads=n_threads)
    wanted = {name: options[metric_of(name).kind] for name in names}
    return {name: results[0] for name, results in score_events(tables, wanted).items()}
