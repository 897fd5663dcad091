"""`evaluate`: every metric on real against generated events, beside the floor of truth on truth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..atomic_files import to_plain
from ..errors import FormatError
from ..registry import unknown
from ..seeding import stream
from ..tables import checks
from ..tables.event_table import EventTable, with_same_codes
from ..tables.formulas.expressions import Observables, declared
from ..tables.formulas.particles import check_azimuths, check_particles
from ..tables.formulas.relations import Relation
from ..tables.html_table import html_table
from .metrics import METRICS, Result
from .metrics.classifier import MOST_EXPLAINED
from .score_events import ComparedTables, score_events

if TYPE_CHECKING:
    import pandas as pd

MetricNames = Sequence[str] | Mapping[str, Mapping[str, Any]] | None

KIND_ORDER = (
    *("column", "profiles", "tags", "pairs", "table", "classifier", "residual", "lost"),
    *("memorisation", "relation"),
)
"""Order of the metrics in a table of scores; other kinds follow."""


@dataclass(frozen=True)
class Evaluation:
    """All scores of one comparison.

    Parameters
    ----------
    results : of a column metric with many columns, ``column=None`` is the mean over the columns
    sizes : events handed in and events compared (``"compared"``, of each sample)
    floor : the samples that the floor compares, in words
    settings, seed, versions : how to get the numbers again
    notes : what a reader must know (halved or cut samples, metrics left out)
    cpu_seconds : metric -> CPU seconds of this process, floors included
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
        content = {"format": 1, **asdict(self)}
        del content["cpu_seconds"]
        plain: dict[str, Any] = to_plain(content)
        return plain

    @classmethod
    def from_json(cls, content: Any) -> Evaluation:
        """Rebuild an evaluation from what `to_json` gave. Raises FormatError."""
        try:
            return msgspec.convert(content, cls)
        except msgspec.ValidationError as error:
            raise FormatError(f"not a report of flowBDT: {error}") from error

    def to_frame(self) -> pd.DataFrame:
        """Return the scores as a DataFrame, farthest above the floor first.

        Its columns are metric, column (None for the whole table), value, error, floor, floor_error
        and excess, (value - floor) in combined standard errors; NaN without a floor.
        """
        import pandas as pd

        names = ["metric", "column", "value", "error", "floor", "floor_error", "excess"]
        rows = [
            (r.name, r.column, r.value, r.error, r.floor, r.floor_error, r.excess)
            for r in self.results
        ]
        frame = pd.DataFrame(rows, columns=names).astype(dict.fromkeys(names[2:], float))
        return frame.sort_values("excess", ascending=False, kind="stable", ignore_index=True)

    def _repr_html_(self) -> str:
        """Return `to_frame` for notebooks."""
        return html_table(self.headline(), self.to_frame().to_dict("records"))

    def worst_columns(self, name: str, count: int) -> list[str]:
        """Return at most ``count`` columns farthest above the floor in metric ``name``, in order.

        They come in the order of the table. Empty if the metric was not evaluated.
        """
        rows = [r for r in self.results if r.name == name and r.column is not None]
        far = sorted(rows, key=lambda r: -(r.excess or 0.0))[:count]
        return [str(r.column) for r in rows if r in far]

    def text(self, max_columns: int = 20) -> str:
        """Return an aligned table for a terminal: value ± error beside floor ± error.

        Of tables with more than ``max_columns`` columns, those farthest above the floor.
        """
        head: tuple[str, ...] = ("metric", "column", "value", "floor (truth)", "excess")
        shown = {
            name: {None, *self.worst_columns(name, max_columns)}
            for name in {result.name for result in self.results}
        }
        kept = [result for result in self.results if result.column in shown[result.name]]
        lines = aligned([head, *(_row(result) for result in kept)], n_left=2)
        if left_out := len(self.results) - len(kept):
            lines.append(f"({left_out} rows nearer to their floor are not shown)")
        lines += ["", "excess: (value - floor) in combined standard errors; '-': no floor"]
        lines += [f"note: {note}" for note in self.notes]
        total = sum((self.cpu_seconds or {}).values())
        return "\n".join([self.headline(), "", *lines, f"CPU time: {total:.1f} s"])

    def headline(self) -> str:
        """Return one line: what was compared with what."""
        n = f"{self.sizes['compared']:,}"
        return f"{n} real against {n} generated events; floor: {self.floor}; seed {self.seed}"


def evaluate(
    real: Any,
    generated: Any,
    *,
    training: Any = None,
    relations: Sequence[str | Relation] = (),
    observables: Sequence[str] | None = None,
    particles: Mapping[str, Any] | None = None,
    seed: int = 0,
    quick: bool = False,
    metrics: MetricNames = None,
    provenance: Mapping[str, Any] | None = None,
    n_threads: int = 1,
) -> Evaluation:
    """Compare generated events with real ones that the generator was not trained on.

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
    observables : such as ``["mee = mass(e1, e2)"]``: further columns for every metric. None for
        mass and distance of each pair of the first five particles, if there are some
    particles : what expressions may name, such as ``{"e1": {"pt": "pt1", "eta": "eta1", "phi":
        "phi1", "mass": 0.000511}}``: columns or numbers, of pt, eta, phi, mass (or E); E, px, py,
        pz; or px, py, pz, mass
    seed : equal inputs and seed give equal results
    quick : fewer bootstrap replicas and one model seed instead of three
    metrics : names from `METRICS`, or a mapping name -> options; None for all that apply
    provenance : how the generated events were made (`Flow.record`, or the attributes of their
        file); kept with the settings, an acceptance below 1 also in the notes
    n_threads : for the classifiers

    Returns
    -------
    Evaluation; all samples are cut to the same number of events (at random, if rows must go),
    because floors depend on it.

    Raises
    ------
    InputError if tables have different columns or too few events, or an observable is undefined;
    ConfigError for an unknown metric, option or column.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b, c = rng.normal(size=(3, 500, 2))
    >>> evaluate(a, b, training=c, metrics=["separation"]).get("separation", "x0").n
    500
    """
    wanted = _wanted(metrics, quick)
    derived, known = declared(observables, particles)
    parsed = [r if isinstance(r, Relation) else Relation.parse(r, known) for r in relations]
    cut = cut_samples(real, generated, training, seed, derived)
    check_particles(known, (*cut.real.names, *cut.real.cond_names))
    check_azimuths(known, cut.real.by_name())
    for relation in parsed:  # now, and not after minutes of other metrics
        relation.check_columns((*cut.generated.names, *cut.generated.cond_names))
    tables = ComparedTables(
        cut.real, cut.generated, cut.other, cut.training, parsed, seed=seed, n_threads=n_threads
    )
    results, seconds, notes = [], {}, list(cut.notes)
    for name, options in wanted.items():
        start = time.process_time()
        if metrics is not None or _possible(name, tables, notes):
            results += score_events(tables, {name: options})[name]
        seconds[name] = time.process_time() - start
    if "lost" in wanted and cut.real.n > MOST_EXPLAINED:
        notes.append(
            f"what is lost is told from the first {MOST_EXPLAINED:,} events of each sample"
        )
    if quick:
        notes.append("quick: fewer replicas and trainings of judges, larger errors")
    settings = {"quick": quick, "metrics": wanted, "relations": [r.text for r in parsed]}
    if len(derived):
        settings |= {"observables": derived.texts, "particles": to_plain(dict(particles or {}))}
    if provenance:
        settings["generated"] = to_plain(dict(provenance))
        if (acceptance := float(provenance.get("acceptance", 1.0))) != 1.0:
            notes.append(
                "generated events passed a rejection: a boosted classifier, trained on training"
                f" events, kept {acceptance:.0%}; the judge made of boosted trees is of the same"
                " kind"
            )
    return Evaluation(
        *(tuple(results), cut.sizes, cut.floor_text, settings, seed, _versions()),
        notes=tuple(notes),
        cpu_seconds=seconds,
    )


def _possible(name: str, tables: ComparedTables, notes: list[str]) -> bool:
    """Return whether there is all that a metric needs; add a note if its absence matters."""
    kind = METRICS.get(name).kind
    if kind == "memorisation" and tables.training is None:
        notes.append("memorisation not tested: it needs the training events")
        return False
    return kind != "relation" or bool(tables.relations)


@dataclass(frozen=True)
class CutSamples:
    """Tables of the same columns and number of events: real, generated, other real events."""

    real: EventTable
    generated: EventTable
    other: EventTable
    training: EventTable | None
    sizes: dict[str, int]
    floor_text: str
    notes: tuple[str, ...]


def cut_samples(
    real: Any,
    generated: Any,
    training: Any,
    seed: int,
    observables: Observables = Observables(),  # noqa: B008 (immutable)
) -> CutSamples:
    """Return the tables that are compared: the same columns, codes of texts and sizes.

    Observables are further columns.
    """
    truth = EventTable.of(real)
    tables = {"real": truth, "generated": _like(truth, generated, "generated")}
    if training is not None:
        tables["training"] = _like(truth, training, "training")
    tables = {
        name: observables.added_to(table, f"the {name} events")
        for name, table in zip(tables, with_same_codes(list(tables.values())), strict=True)
    }
    truth = tables["real"]
    sizes = {name: table.n for name, table in tables.items()}
    notes = []
    if training is None:
        order = stream(seed, "evaluate-halves").permutation(truth.n)
        half = truth.n // 2
        tables["training"] = truth.take(order[half:])
        tables["real"] = truth.take(order[:half])
        notes.append(
            "no training events: real events were cut into two random halves, and everything is"
            " compared at half size"
        )
    n = min(table.n for table in tables.values())
    checks.min_rows(n, 10, "every sample of an evaluation")
    cut = dict(tables)
    for key, (name, table) in enumerate(tables.items()):
        if table.n > n:
            rows = stream(seed, "evaluate-cut", key).permutation(table.n)[:n]
            cut[name] = table.take(np.sort(rows))
    if any(table.n > n for table in tables.values()):
        given = ", ".join(f"{name} {table.n:,}" for name, table in tables.items())
        notes.append(
            f"samples of different sizes were cut at random to {n:,} events each (of {given}): the"
            " judges see no smaller differences than these show"
        )
    floor = "real against training" if training is not None else "one half of real on the other"
    return CutSamples(
        *(cut["real"], cut["generated"], cut["training"]),
        training=None if training is None else tables["training"],
        sizes={**sizes, "compared": n},
        floor_text=f"{floor}, {n:,} each",
        notes=tuple(notes),
    )


def _like(truth: EventTable, data: Any, what: str) -> EventTable:
    table = EventTable.of(data)
    checks.same_columns(table.names, truth.names, f"the {what} events")
    return table.select(truth.names)


def _wanted(names: MetricNames, quick: bool) -> dict[str, dict[str, Any]]:
    """Return metric -> options, checked."""
    if names is None:
        kinds = {name: METRICS.get(name).kind for name in METRICS.names()}
        names = sorted(kinds, key=lambda name: [*KIND_ORDER, kinds[name]].index(kinds[name]))
    options_of = names if isinstance(names, Mapping) else {}
    result = {}
    for name in names:
        metric = METRICS.get(name)
        options = dict(options_of.get(name) or {})
        for key in options:
            if key not in metric.options():
                raise unknown(f"option of metric {name!r}:", key, metric.options())
        result[name] = {**(metric.quick if quick else {}), **options}
    return result


def _row(result: Result) -> tuple[str, ...]:
    label = METRICS.get(result.name).label + (f" [{result.unit}]" if result.unit == "std" else "")
    mean = "mean" if "mean_over_columns" in result.settings else ""
    excess = "-" if result.excess is None else f"{result.excess:+.1f}"
    return label, result.column or mean, result.text(), result.floor_text(), excess


def aligned(rows: Sequence[tuple[str, ...]], n_left: int) -> list[str]:
    """Return a table as lines, the first ``n_left`` columns set left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(c.ljust(w) if i < n_left else c.rjust(w) for i, (c, w) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return [lines[0].rstrip(), "-" * len(lines[0]), *(line.rstrip() for line in lines[1:])]


def _versions() -> dict[str, str]:
    import platform
    from importlib import metadata

    from .. import __version__

    packages = ("numpy", "scipy", "scikit-learn", "xgboost")
    versions = {name: metadata.version(name) for name in packages}
    return {"flowbdt": __version__, "python": platform.python_version(), **versions}
