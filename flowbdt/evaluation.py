"""`evaluate`: every metric on real against generated events, beside the floor of truth on truth."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from threadpoolctl import threadpool_limits  # comes with scikit-learn

from . import checks
from .errors import ConfigError
from .metrics import METRICS, Metric, Result, make_mlp
from .metrics.base import Kind
from .registry import unknown
from .relations import Relation
from .seeding import stream
from .table import EventTable, united

MetricNames = Sequence[str] | Mapping[str, Mapping[str, Any]] | None


@dataclass(frozen=True)
class Evaluation:
    """All scores of one comparison.

    Parameters
    ----------
    results : tuple of Result; for a column metric with several columns, ``column=None`` is the
        mean over the columns
    sizes : dict, events handed in and events compared (``"compared"``, of each sample)
    floor : str, what the floor compares
    settings, seed, versions : how to get the numbers again
    notes : tuple of str, what a reader must know (halved or cut samples, metrics left out)
    cpu_seconds : dict, metric -> CPU seconds of this process, floors included
    """

    results: tuple[Result, ...]
    sizes: dict[str, int]
    floor: str
    settings: dict[str, Any]
    seed: int
    versions: dict[str, str]
    notes: tuple[str, ...] = ()
    cpu_seconds: dict[str, float] | None = None

    def get(self, name: str, column: str | None = None) -> Result:
        """Return one result. Raises ConfigError that lists those there are."""
        for result in self.results:
            if (result.name, result.column) == (name, column):
                return result
        known = [r.name if r.column is None else f"{r.name}/{r.column}" for r in self.results]
        raise unknown("result", name if column is None else f"{name}/{column}", known)

    def to_json(self) -> dict[str, Any]:
        """Return a dict that JSON can hold; equal inputs and seed give equal content."""
        return {
            "format": 1,
            "results": [result.to_json() for result in self.results],
            "sizes": self.sizes,
            "floor": self.floor,
            "settings": self.settings,
            "seed": self.seed,
            "versions": self.versions,
            "notes": list(self.notes),
        }

    def worst_columns(self, name: str, count: int) -> list[str]:
        """Return at most ``count`` columns farthest above the floor in metric ``name``, in order.

        They come in the order of the table. Empty if the metric was not evaluated.
        """
        rows = [r for r in self.results if r.name == name and r.column is not None]
        far = sorted(rows, key=lambda r: -(r.excess or 0.0))[:count]
        return [r.column for r in rows if r in far and r.column is not None]

    def text(self, max_columns: int = 20) -> str:
        """Return an aligned table for a terminal: value ± error beside floor ± error.

        Of tables with more than ``max_columns`` columns, those farthest above the floor.
        """
        head = ("metric", "column", "value", "floor (truth)", "excess")
        shown = {
            name: {None, *self.worst_columns(name, max_columns)}
            for name in {result.name for result in self.results}
        }
        kept = [result for result in self.results if result.column in shown[result.name]]
        rows = [head, *(_row(result) for result in kept)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [_aligned(row, widths) for row in rows]
        lines.insert(1, "-" * len(lines[0]))
        left_out = len(self.results) - len(kept)
        more = [f"({left_out} rows nearer to their floor are not shown)"] if left_out else []
        return "\n".join([self.headline(), "", *lines, *more, "", *self.footer()])

    def headline(self) -> str:
        """Return one line: what was compared with what."""
        n = f"{self.sizes['compared']:,}"
        return f"{n} real against {n} generated events; floor: {self.floor}; seed {self.seed}"

    def footer(self) -> list[str]:
        """Return the lines under a table."""
        total = sum((self.cpu_seconds or {}).values())
        legend = "excess: (value - floor) in combined standard errors; '-': no floor"
        return [legend, *(f"note: {note}" for note in self.notes), f"CPU time: {total:.1f} s"]


def evaluate(
    real: Any,
    generated: Any,
    *,
    training: Any = None,
    relations: Sequence[str | Relation] = (),
    seed: int = 0,
    quick: bool = False,
    metrics: MetricNames = None,
    n_threads: int = 1,
) -> Evaluation:
    """Compare generated events with real ones the generator has not seen.

    Parameters
    ----------
    real, generated : EventTable, DataFrame or array (n, d), columns in any order. Weights are
        used everywhere. Conditions, if all tables have the same ones and none is missing, count
        as further columns in correlations and classifier tests.
    training : like ``real``, or None: the events the generator was trained on, independent of
        ``real``. The floor is real against training. Without it ``real`` is cut into two random
        halves; one is compared with as many generated events, the floor is one half against
        the other, and memorisation cannot be tested.
    relations : such as ``["tau21 = tau2 / tau1"]``, checked on the generated events
    seed : int; equal inputs and seed give equal results
    quick : bool, fewer bootstrap replicas and one model seed instead of three
    metrics : names from `METRICS`, or a mapping name -> options; None for all that apply
    n_threads : int, for the classifiers

    Returns
    -------
    Evaluation; all samples are cut to the same number of events (at random, if rows must go),
    because floors depend on it.

    Raises
    ------
    InputError if tables have different columns or too few events; ConfigError for an unknown
    metric or option.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b, c = rng.normal(size=(3, 500, 2))
    >>> evaluate(a, b, training=c, metrics=["separation"]).get("separation", "x0").n
    500
    """
    wanted = _wanted(metrics, quick)
    parsed = [r if isinstance(r, Relation) else Relation.parse(r) for r in relations]
    samples = _samples(real, generated, training, seed)
    job = _Job(samples, parsed, seed, n_threads, explicit=metrics is not None)
    # the matrix products of the neural judge are small: more threads spend their time waiting
    with threadpool_limits(n_threads):
        results, seconds = job.run_all(wanted)
    texts = [relation.text for relation in parsed]
    settings = {"quick": quick, "metrics": wanted, "relations": texts}
    notes = (*samples.notes, *job.notes)
    floor = samples.floor_text
    return Evaluation(results, samples.sizes, floor, settings, seed, _versions(), notes, seconds)


def _wanted(names: MetricNames, quick: bool) -> dict[str, dict[str, Any]]:
    """Return metric -> options, checked."""
    kinds = get_args(Kind)
    order = sorted(METRICS.names(), key=lambda name: kinds.index(METRICS.get(name).kind))
    chosen = order if names is None else list(names)
    given = names if isinstance(names, Mapping) else {}
    result = {}
    for name in chosen:
        metric = METRICS.get(name)
        options = dict(given.get(name) or {})
        for key in options:
            if key not in metric.options():
                raise unknown(f"option of metric {name!r}:", key, metric.options())
        result[name] = {**(metric.quick if quick else {}), **options}
    return result


@dataclass(frozen=True)
class _Samples:
    """Three tables with the same columns and number of events: real, generated, other truth."""

    real: EventTable
    generated: EventTable
    other: EventTable
    training: EventTable | None
    sizes: dict[str, int]
    floor_text: str
    notes: tuple[str, ...]


def _samples(real: Any, generated: Any, training: Any, seed: int) -> _Samples:
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
    return _Samples(
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


class _Job:
    """Runs metrics of each kind on the same samples, value and floor."""

    def __init__(
        self,
        samples: _Samples,
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
            return [self._pair(call)]
        if metric.kind == "classifier":
            make = _judge(name, self.n_threads)
            return [self._pair(lambda a, b, **kw: call(a, b, make, name=name, **kw))]
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

    def _pair(self, call: Callable[..., Result]) -> Result:
        real, generated, other = self.samples.real, self.samples.generated, self.samples.other
        parts = [_joint(table, self._shared_conditions()) for table in (real, generated, other)]
        value = call(parts[0], parts[1], **_weights(real, generated))
        return value.with_floor(call(parts[0], parts[2], **_weights(real, other)))

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


def _judge(name: str, n_threads: int) -> Callable[[int], Any]:
    if name == "auc_mlp":
        return make_mlp
    from .regressors.xgb import make_classifier

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


def _row(result: Result) -> tuple[str, ...]:
    label = METRICS.get(result.name).label + (f" [{result.unit}]" if result.unit == "std" else "")
    mean = "mean" if "mean_over_columns" in result.settings else ""
    excess = "-" if result.excess is None else f"{result.excess:+.1f}"
    return label, result.column or mean, result.text(), result.floor_text(), excess


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join([*left, *right])


def _versions() -> dict[str, str]:
    import platform
    from importlib import metadata

    from . import __version__

    packages = ("numpy", "scipy", "scikit-learn", "xgboost")
    versions = {name: metadata.version(name) for name in packages}
    return {"flowbdt": __version__, "python": platform.python_version(), **versions}
