"""Sections of a page that are words and tables: data, settings, steps, memorisation, limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from ...errors import plural
from ...tables.event_table import EventTable
from ..differences import label_of
from ..metrics import Result, uncertain
from ..metrics.base import effective_size
from . import html, score_tables
from .content import Content

DEFINITIONS = (
    ("Separation power x100", "50 sum over bins of (p - q)^2 / (p + q), with p and q the shares of"
     " real and generated events in 50 bins by quantiles of the real ones, outer bins open: 0 for"
     " equal histograms, 100 for disjoint ones; N against N events of the same distribution give"
     " about 100 x 49 / (2 N)."),
    ("Wasserstein-1", "mean distance that probability must be moved to turn one histogram into the"
     " other, in standard deviations of the real column."),
    ("Correlation distance", "square root of the sum of squares of the differences of Pearson"
     " correlations over all ordered pairs of columns; the largest correlation error is the largest"
     " single difference."),
    ("Deviation from a relation", "largest relative difference between a column and what its"
     " relation gives, over all events."),
    ("AUC", "area under the ROC curve of a classifier of real against generated events, fitted on"
     " 70% of them and measured on the rest: 0.5 cannot tell them apart."),
    ("Memorisation", "probability that a generated event is nearer to a training event than a real"
     " one that was not trained on: 0.5 for independent events, 1 for copies."),
    ("Floor", "the same score of real against other real events of the same number: what a perfect"
     " generator reaches."),
    ("Excess", "(value - floor) in combined standard errors, in brackets behind a score; from 3 on"
     " the score is bold."),
    ("Evaluations", "calls of the velocity for an event on its way from noise, steps of a start and"
     " of restarts counted. Where events are rejected, a kept event takes as many more as its share"
     " says."),
    ("Errors", "standard errors, everywhere."),
)  # fmt: skip

LOSSES = (
    ("Path", "x_t = (1 - t) x0 + t x1 unless another is set: t = 0 is noise, t = 1 an event"),
    ("SNR(t)", "(t / (1 - t))^2 on this path"),
    ("Schedule", "the boundaries of the steps, in the settings of every entry; uniform: i / n"),
    ("Loss at a time t", "mean of (v(x_t) - (x1 - x0))^2 over events, noise and columns; its square"
     " root is the rmse. In units of the transformed columns, without unit"),
    ("Weights", "none: every time has a model of its own, and a weight would change no tree"),
    ("Explained by trees", "1 - loss / loss without trees, on validation events: most of a loss is"
     " noise that nothing can explain"),
)  # fmt: skip


def data(content: Content) -> list[str]:
    """Return what the samples are: numbers of events, digests, columns, relations."""
    return [_samples(content), *_columns(content), _relations(content)]


def _samples(content: Content) -> str:
    rows: list[score_tables.Row] = []
    known = content.tables()
    for name in dict.fromkeys((*known, *content.evaluations)):
        table = known.get(name)
        n = _handed_in(content, name) if table is None else table.n
        given = "-" if table is None else ", ".join(table.cond_names) or "none"
        weights = "-" if table is None else _weights(table)
        digest = content.digests.get(name, "")[:16] or _run(content, name)
        rows.append((name, content.files.get(name, "-"), f"{n:,}", weights, given, digest))
    first = next(iter(content.evaluations.values()))
    head = (
        "sample",
        "from",
        "events",
        "weights",
        "conditions",
        "SHA-256 of the file, or of the run (first digits)",
    )
    text = f"Samples; {first.sizes['compared']:,} events of each are compared"
    return score_tables.table(head, rows, caption=text, words=[1])


def _run(content: Content, name: str) -> str:
    digest = content.made(name).get("run_digest") if name in content.evaluations else None
    return f"run {digest[:12]}" if digest else "-"


def _handed_in(content: Content, name: str) -> int:
    return int(content.evaluations[name].sizes["generated"])


def _weights(table: EventTable) -> str:
    if table.weight is None:
        return "none"
    return f"effective number {effective_size(table.weight):,.0f}"


def _columns(content: Content) -> Iterator[str]:
    """Yield the columns of the real events, and folded those of all samples."""
    if content.real is None:
        return
    head = ("unit", "mean", "standard deviation", "smallest", "largest")
    rows = [(c, *_numbers(content.real, c)) for c in _all_columns(content.real)]
    yield score_tables.table(("column", *head), rows, caption="Columns of the real events")
    others = [
        (c, name, *_numbers(table, c))
        for c in _all_columns(content.real)
        for name, table in content.tables().items()
        if c in _all_columns(table)
    ]
    text = "Columns of all samples beside each other"
    yield score_tables.folded(text, score_tables.table(("column", "sample", *head), others))


def _all_columns(table: EventTable) -> tuple[str, ...]:
    return (*table.names, *table.cond_names)


def _numbers(table: EventTable, name: str) -> tuple[str, ...]:
    """Return unit, mean with its error, standard deviation and range of a column or condition."""
    given = name in table.cond_names
    if given and table.cond is not None:
        values = table.cond[:, table.cond_names.index(name)]
    else:
        values = table.column(name)
    weight = np.ones(len(values)) if table.weight is None else table.weight
    known = np.isfinite(values)
    values, weight = values[known], weight[known]
    unit = "condition" if given else table.unit(name) or "-"
    if not len(values):
        return (unit, *("none known",) * 4)
    mean = np.average(values, weights=weight)
    spread = float(np.sqrt(np.average((values - mean) ** 2, weights=weight)))
    error = spread / float(np.sqrt(effective_size(weight)))
    ends = (f"{values.min():.4g}", f"{values.max():.4g}")
    return (unit, uncertain(float(mean), error), f"{spread:.4g}", *ends)


def _relations(content: Content) -> str:
    declared = {
        str(relation): None
        for name in content.evaluations
        for relation in (
            *content.evaluations[name].settings.get("relations", ()),
            *content.run_of(name).get("settings", {}).get("relations", ()),
        )
    }
    text = "; ".join(declared) or "none declared"
    return f"<p>Relations between columns that hold exactly: {escape(text)}.</p>"


def settings(content: Content) -> list[str]:
    """Return a line of settings per entry, and folded everything that is known."""
    lines = [(name, settings_line(content, name)) for name in content.evaluations]
    return [html.listed(lines), *_everything(content)]


def settings_line(content: Content, name: str) -> str:
    """Return what decides the events of an entry: solver, steps, times, cost, rejection, seed."""
    made, run = content.made(name), content.run_of(name)
    if not made:
        return "not recorded how the events were made"
    parts = [_solver(made), *_cost(made)]
    micros = content.runs.get(name, {}).get("us_per_event")
    if micros is not None:
        parts.append(f"{micros:.3g} µs of CPU time per kept event")
    parts.append(f"seed {made.get('seed', 'not recorded')}")
    times = ", ".join(f"{t:.4g}" for t in run.get("times", ()))
    if times:
        parts.append(f"step models trained at t = {times}")
    if "run_digest" in made:
        parts.append(f"run {str(made['run_digest'])[:12]}")
    return "; ".join(parts)


def _cost(made: dict[str, Any]) -> Iterator[str]:
    kept = float(made.get("acceptance", 1.0))
    if "n_steps" in made:
        yield plural(int(made["n_steps"]), "step")
    if "n_evaluations" in made:
        count = int(made["n_evaluations"])
        more = "" if kept == 1.0 else f", {count / kept:.1f} per kept event"
        yield f"{plural(count, 'evaluation')} of the velocity per trajectory{more}"
    yield "no rejection" if kept == 1.0 else f"rejection keeps {kept:.1%} of the events"


def _solver(made: dict[str, Any]) -> str:
    given = dict(made.get("solver_parameters") or {})
    told = [f"{k} {v}" for k, v in given.items() if v is not None]
    spacing = made.get("spacing")
    if isinstance(spacing, (list, tuple)):
        told.append("boundaries t = " + ", ".join(f"{float(t):.4g}" for t in spacing))
    elif spacing is not None:
        told.append(f"spacing {spacing}")
    told += ["times between step models interpolated"] if made.get("interpolate") else []
    return ", ".join([str(made.get("solver", "-")), *told])


def _everything(content: Content) -> Iterator[str]:
    for name, evaluation in content.evaluations.items():
        known: dict[str, Any] = {
            "judged with": {"seed": evaluation.seed, **evaluation.settings},
            "versions": evaluation.versions,
            "events": evaluation.sizes,
        }
        run = content.run_of(name)
        known |= {k: run[k] for k in ("digest", "settings", "events seen") if k in run}
        text = json.dumps(known, indent=1, sort_keys=True, default=str)
        yield score_tables.folded(f"Everything recorded of {name}", f"<pre>{escape(text)}</pre>")


def steps(content: Content) -> list[str]:
    """Return the losses and trees of every step of every run, folded."""
    head = ("step", "time t", "trees", "rmse, training", "rmse, validation", "without trees")
    parts = []
    for name, run in content.distinct_runs().items():
        rows = [
            (str(s["step"]), f"{s['time']:.4g}", str(s["trees"]), *(_loss(s[key]) for key in LOSS))
            for s in run["steps"]
        ]
        parts.append(score_tables.folded(f"Steps of {name}", score_tables.table(head, rows)))
    return parts


LOSS = ("train_rmse", "valid_rmse", "valid_rmse_without_trees")


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"


def memorisation(content: Content) -> list[str]:
    """Return in words what the check says, of entries that had it."""
    lines = []
    for name, evaluation in content.evaluations.items():
        found = [r for r in evaluation.results if r.name == "memorisation"]
        said = _memorised(found[0]) if found else "not tested: it needs the training events"
        lines.append(f"<li>{escape(f'{name}: {said}')}</li>")
    return [f"<ul>{''.join(lines)}</ul>"]


def _memorised(result: Result) -> str:
    text = f"{result.text()}, floor {result.floor_text()}"
    excess = result.excess or 0.0
    if excess >= score_tables.FAR:
        return f"{text}: generated events lie nearer to training events than real ones do"
    if excess <= -score_tables.FAR:
        return f"{text}: no copies; generated events lie farther out than real ones do"
    return f"{text}: no sign of copies"


def limits(content: Content) -> list[str]:
    """Return what a reader must know, in words."""
    judged = content.evaluations
    notes = list(dict.fromkeys(note for e in judged.values() for note in e.notes))
    for name, evaluation in judged.items():
        whole = [r for r in evaluation.results if r.column is None and r.name != "memorisation"]
        far = [r for r in whole if (r.excess or 0.0) >= score_tables.FAR]
        if far:
            told = ", ".join(f"{label_of(r.name)} (by {r.excess:.0f} standard errors)" for r in far)
            notes.append(f"{name} is told from real events: above the floor in {told}")
    if content.real is not None and not any(content.real.units):
        notes.append("the table of real events states no units: columns are in those of its file")
    notes.append("scores hold for samples of this size; more events show smaller differences")
    notes.append(
        "one training per run: errors are those of finite samples and of judges, and leave out that"
        " another seed of the training would give other events"
    )
    return notes


def bullets(lines: list[str]) -> str:
    """Return a list of sentences."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def correlation_caption(name: str, n: int) -> str:
    """Return the caption of a figure of correlations, with the size of statistical errors."""
    error = 100 * np.sqrt(2.0 / n)
    return (
        f"Differences of Pearson correlations, raw columns: {name}. The standard error of a number"
        f" is {error:.1f} where columns are not correlated, and smaller elsewhere"
    )
