"""Tables of scores and of their differences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ...tables.checks import relative_or_ones
from ...tables.event_table import EventTable
from ..differences import Difference, evaluations_of, label_of, legend, side_by_side, verdict
from ..evaluate import Evaluation
from ..metrics import Result, uncertain
from ..metrics.base import effective_size
from ..model_errors import Worth
from .render import Cell, PageTable, Row

FAR = 3.0
"""Standard errors above or below the floor from which a score is bold."""

MOST_ROWS = 30
"""Rows that a page shows at once; longer tables are folded."""


def beside_floor(results: Sequence[tuple[str, Result]], first: str, caption: str) -> PageTable:
    """Return named results of one evaluation: value, floor and excess, far ones bold."""
    rows = []
    for name, result in results:
        excess = "-" if result.excess is None else f"{result.excess:+.1f}"
        rows.append((name, result.text(), result.floor_text(), Cell(excess, far=is_far(result))))
    return PageTable((first, "value", "floor", "excess"), rows, caption)


def is_far(result: Result) -> bool:
    """Return whether a score is at least `FAR` from its floor."""
    return abs(result.excess or 0.0) >= FAR


def score_label(result: Result) -> str:
    """Return the name of a score, with its unit and whether it is a mean."""
    text = _capital(label_of(result.name))
    text += " (in standard deviations of real)" if result.unit == "std" else ""
    return text + (", mean over columns" if "mean_over_columns" in result.settings else "")


def worth_tables(worth: Sequence[Worth], training: EventTable | None) -> list[PageTable]:
    """Return the table of what generated events are worth; none of a single model."""
    if not worth:
        return []
    n = None if training is None else effective_size(relative_or_ones(training.weight, training.n))
    caption = (
        "Real events that generated ones are worth, by the spread of the replicas: beyond so many,"
        " more generation does not help there"
    )
    head = ("column", "region", "real events", "times training events")
    return [PageTable(head, [one.said(n) for one in worth], caption)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def tables_of(evaluation: Evaluation) -> list[PageTable]:
    """Return one table of single scores and one per column metric, its worst columns first."""
    whole = [(score_label(r), r) for r in evaluation.results if r.column is None]
    tables = [beside_floor(whole, "score", "Whole table")] if whole else []
    columns: dict[str, list[Result]] = {}
    for result in evaluation.results:
        if result.column is not None:
            columns.setdefault(result.name, []).append(result)
    if lost := columns.pop("lost", []):
        tables.insert(1, what_is_lost(lost))
    for rows in columns.values():
        named = [(str(r.column), r) for r in sorted(rows, key=lambda r: -(r.excess or 0.0))]
        tables.append(beside_floor(named, "column", score_label(rows[0])))
        if rows[0].name == "profiles":
            tables += [profile_table(r) for r in sorted(rows, key=lambda r: -(r.excess or 0.0))[:4]]
    return tables


def profile_table(result: Result) -> PageTable:
    """Return mean, width and quantiles of a column in bins of a condition, folded."""
    edges = [f"{edge:.4g}" for edge in result.settings["edges"]]
    bins = [f"below {edges[0]}"] if edges else ["all"]
    bins += [f"{low} to {high}" for low, high in itertools.pairwise(edges)]
    bins += [f"above {edges[-1]}"] if edges else []
    rows: list[Row] = []
    for i, name in enumerate(bins[: len(result.settings["real"]["mean"])]):
        for kind in ("real", "generated"):
            numbers = result.settings[kind]
            mean = uncertain(numbers["mean"][i], numbers["error"][i])
            quantiles = [f"{q:.4g}" for q in numbers["quantiles"][i]]
            rows.append((name, kind, mean, f"{numbers['width'][i]:.4g}", *quantiles))
    head = ("bin", "events", "mean", "width", "5%", "50%", "95%")
    return PageTable(head, rows, folded=f"Bins of {result.column}")


def what_is_lost(results: Sequence[Result]) -> PageTable:
    """Return what explains each column in real and generated events, the worst first."""
    rows: list[Row] = [
        (
            str(r.column),
            *(f"{r.settings[kind]:.3f}" for kind in ("real", "generated")),
            *(r.text(), r.floor_text(), Cell(f"{r.excess or 0.0:+.1f}", far=is_far(r))),
        )
        for r in sorted(results, key=lambda r: -(r.excess or r.value))
    ]
    head = ("column", "R2, real", "R2, generated", "difference", "floor", "excess")
    caption = (
        "What is lost: how well boosted trees tell each column from all others (R2; of columns of"
        " few values the share of the log loss)"
    )
    return PageTable(head, rows, caption)


def tables_side_by_side(evaluations: Mapping[str, Evaluation]) -> list[PageTable]:
    """Return the scores of all entries side by side: whole table first, then each column's."""
    whole: list[Row] = []
    single: dict[str, list[Row]] = {}
    labels: dict[str, str] = {}
    for (metric, column), results in side_by_side(evaluations).items():
        label = score_label(next(iter(results.values())))
        row: Row = [column or label, *_entries(results, evaluations)]
        if column is None:
            whole.append(row)
        else:
            labels[metric] = label + ", single columns"
            single.setdefault(metric, []).append(row)
    counts = [evaluations_of(one) for one in evaluations.values()]
    if set(counts) != {"-"}:
        whole.append(("evaluations of the velocity, per trajectory", *counts, ""))
    head = (*evaluations, "floor")
    tables = [PageTable(("score", *head), whole, "Whole table", words=[0])] if whole else []
    for metric, rows in single.items():
        title = labels[metric] if len(rows) > MOST_ROWS else ""
        tables.append(PageTable(("column", *head), rows, labels[metric], folded=title))
    return tables


def _entries(results: Mapping[str, Result], names: Mapping[str, Evaluation]) -> Iterator[Cell]:
    """Yield the values of all entries and the floor; with each value where floors differ."""
    floors = {result.floor_text() for result in results.values()}
    for name in names:
        result = results.get(name)
        if result is None:
            yield Cell("-")
            continue
        notes = [] if result.excess is None else [f"{result.excess:+.1f}"]
        if len(floors) > 1:
            notes.append(f"floor {result.floor_text()}")
        yield Cell(result.text(), is_far(result), f"({', '.join(notes)})" if notes else "")
    yield Cell(floors.pop() if len(floors) == 1 else "differ")


def difference_tables(differences: Sequence[Difference]) -> list[PageTable]:
    """Return the differences of the whole table with verdicts; long lists and columns folded."""
    whole = [d for d in differences if d.column is None]
    single = [d for d in differences if d.column is not None]
    tables = []
    if len(whole) > MOST_ROWS:
        real = [d for d in whole if d.real]
        tables += [_differences(real, "Differences that are real")] if real else []
        tables.append(replace(_differences(whole), folded=f"All {len(whole)} differences"))
    elif whole:
        tables.append(_differences(whole, "Differences"))
    if single:
        text = f"{len(single)} differences of single columns, {sum(d.real for d in single)} real"
        tables.append(replace(_differences(single), folded=text))
    return tables


def difference_legend(differences: Sequence[Difference]) -> str:
    """Return the words under a table of differences; empty without any."""
    whole = [d for d in differences if d.column is None]
    return ". ".join(_capital(line) for line in legend(whole)) + "." if whole else ""


def _differences(differences: Sequence[Difference], caption: str = "") -> PageTable:
    head = ("difference", "score", "value", "in standard errors", "paired", "verdict")
    return PageTable(head, [_difference(d) for d in differences], caption, words=[0, 1, 5])


def _difference(d: Difference) -> Row:
    score = label_of(d.metric) + ("" if d.column is None else f", {d.column}")
    sigmas, paired = f"{d.sigmas:+.1f}", "yes" if d.paired else "no"
    value = uncertain(d.value, d.error)
    return (f"{d.second} - {d.first}", score, value, sigmas, paired, Cell(verdict(d), far=d.real))
