"""How a trial is judged: scores of generated events, and what they cost."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # comes with scikit-learn

from ..errors import ConfigError, InputError
from ..generation.trained_flow import Flow
from ..registry import unknown
from ..tables.event_table import EventTable
from .metrics import METRICS, Metric, Result
from .metrics.frechet import frechet_distance
from .run_metrics import judge_of

COSTS = {
    "train_s": "CPU seconds of the training",
    "us_per_event": "CPU microseconds per generated event",
}


def _frechet(
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


FRECHET = Metric(_frechet, "table", 0.0, "Fréchet distance of the columns")
OWN = {"fpd": FRECHET}
"""Scores that `flowbdt evaluate` does not have."""


def metric_of(name: str) -> Metric:
    """Return the metric behind a score."""
    return OWN[name] if name in OWN else METRICS.get(name)


SCORES = [
    *(n for n in METRICS.names() if METRICS.get(n).kind in ("column", "table", "classifier")),
    *OWN,
]
PER_REAL = 2
"""Generated events for each real one, so that their share of the noise is the smaller one."""

OPTIONS: dict[str, dict[str, Any]] = {
    "classifier": {"n_model_seeds": 1, "n_split_seeds": 4},
    "column": {"n_bootstrap": 50},
    "table": {},
}


def check_objectives(names: Sequence[str]) -> list[str]:
    """Return objectives, scores first. Raises ConfigError for an unknown one, or if none scores."""
    for name in names:
        if name not in (*SCORES, *COSTS):
            raise unknown("objective", name, [*SCORES, *COSTS])
    scores = [name for name in SCORES if name in names]
    if not scores:
        raise ConfigError(f"one objective must say how good events are: {', '.join(SCORES)}")
    ordered = [name for name in names if name in scores]
    return [*dict.fromkeys(ordered), *(name for name in COSTS if name in names)]


@dataclass(frozen=True)
class Events:
    """Generated events and the CPU time that one took."""

    table: EventTable
    us_per_event: float


def generated(flow: Flow, real: EventTable, seed: int) -> Events:
    """Return `PER_REAL` events for each real one, with the conditions of the real ones.

    The first event of a process loads models and machine code, which is no cost of an event: it
    would weigh on whichever trial comes first, so one event is made before the clock starts.
    """
    n = PER_REAL * real.n
    list(flow.sample_blocks(1, seed=seed, cond=conditions_of(real, 1)))
    cond = conditions_of(real, n)
    start = time.process_time()
    blocks = list(flow.sample_blocks(n, seed=seed, cond=cond))
    us_per_event = 1e6 * (time.process_time() - start) / n
    return Events(weighted_as(EventTable.concatenate(blocks), real), us_per_event)


def conditions_of(real: EventTable, n: int) -> EventTable | None:
    """Return n rows of the conditions of real events, one after the other; None without any."""
    if real.cond is None:
        return None
    names, texts = real.cond_names, real.categories
    return EventTable(
        x=real.cond[np.arange(n) % real.n],
        names=names,
        units=("",) * len(names),
        dtypes=("float64",) * len(names),
        categories={name: texts[name] for name in names if name in texts},
    )


def weighted_as(made: EventTable, real: EventTable) -> EventTable:
    """Return generated events with the weights of the rows that `conditions_of` took.

    Each condition is taken once, whatever its weight; only weighted are they distributed as those
    of the weighted real events. Without conditions generated events follow the weights by
    themselves, and have none.
    """
    if real.cond is None or real.weight is None:
        return made
    return replace(made, weight=real.weight[np.arange(made.n) % real.n])


def scores(
    real: EventTable,
    made: EventTable,
    names: Sequence[str],
    seed: int,
    n_threads: int,
    options: Mapping[str, Mapping[str, Any]] = OPTIONS,
) -> dict[str, Result]:
    """Return the score of each objective that is none of `COSTS`.

    Parameters
    ----------
    real, made : tables with the same columns, with or without weights; conditions without NaN are
        seen by classifiers
    names : of `SCORES`; of a column metric the mean over the columns
    options : kind of metric -> its options
    """
    found = {}
    with threadpool_limits(n_threads):
        for name in names:
            metric = metric_of(name)
            call = functools.partial(metric, seed=seed, **options[metric.kind])
            if metric.kind == "column":
                found[name] = _mean_over_columns(name, call, real, made)
                continue
            parts: list[Any] = [_joint(real), _joint(made)]
            if metric.kind == "classifier":
                parts.append(judge_of(name, n_threads))
                call = functools.partial(call, name=name)
            found[name] = call(*parts, weight_real=real.weight, weight_generated=made.weight)
    return found


def _mean_over_columns(name: str, call: Any, real: EventTable, made: EventTable) -> Result:
    weights = {"weight_real": real.weight, "weight_generated": made.weight}
    results = [call(real.column(c), made.column(c), **weights) for c in real.names]
    value = sum(r.value for r in results) / len(results)
    error = math.sqrt(sum(r.error**2 for r in results)) / len(results)
    return Result(name, value, error, results[0].n, unit=results[0].unit)


def _joint(table: EventTable) -> np.ndarray:
    whole = table.cond is not None and bool(np.isfinite(table.cond).all())
    return np.hstack([table.x, table.cond]) if whole and table.cond is not None else table.x
