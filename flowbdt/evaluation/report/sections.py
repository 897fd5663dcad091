"""Content of a page about entries together, and its sections as tables and sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import plural
from ...tables import checks
from ...tables.event_table import EventTable
from ..differences import Difference, label_of
from ..evaluate import Evaluation
from ..metrics import uncertain
from ..metrics.base import effective_size
from ..metrics.marginal import spread
from . import score_tables
from .curves import Point
from .published import Published
from .render import PageTable


@dataclass(frozen=True)
class Content:
    """Everything that `write_together` shows, by the names of the entries.

    Parameters
    ----------
    real, training : tables with the columns of the samples, or None
    runs : name -> record of its run: ``steps`` (of a manifest), ``settings``, ``digest``,
        ``events seen``, ``times``, and ``us_per_event`` where it was measured
    quality : name -> score at different numbers of evaluations
    missing : points that ``quality`` lacks, and why
    left_out : entries that could not be made, and why
    published : figures of others
    files, digests : name of a sample, "real" or "training" -> name and SHA-256 of its file
    """

    evaluations: Mapping[str, Evaluation]
    differences: Sequence[Difference] = ()
    samples: Mapping[str, EventTable] = field(default_factory=dict)
    real: EventTable | None = None
    training: EventTable | None = None
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    quality: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    missing: Sequence[str] = ()
    left_out: Sequence[str] = ()
    published: Sequence[Published] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers of the page as JSON can hold them."""
        return {
            "format": 1,
            "entries": {name: e.to_json() for name, e in self.evaluations.items()},
            "differences": [d.to_json() for d in self.differences],
            "quality": {
                name: [vars(point) for point in line] for name, line in self.quality.items()
            },
            "missing": list(self.missing),
            "left_out": list(self.left_out),
            "published": [vars(one) for one in self.published],
            "digests": dict(self.digests),
        }

    def tables(self) -> dict[str, EventTable]:
        """Return all tables of events that are known: real, training, entries."""
        known = {"real": self.real, "training": self.training}
        return {**{k: t for k, t in known.items() if t is not None}, **self.samples}

    def made(self, name: str) -> dict[str, Any]:
        """Return the record of the generation of an entry; empty if not known."""
        return dict(self.evaluations[name].settings.get("generated") or {})

    def distinct_runs(self) -> dict[str, Mapping[str, Any]]:
        """Return the runs, each once: entries may be samples of one run by different samplers."""
        known: dict[str, str] = {}
        for name, run in self.runs.items():
            known.setdefault(str(run["digest"]), name)
        return {name: self.runs[name] for name in known.values()}

    def run_of(self, name: str) -> Mapping[str, Any]:
        """Return the record of the run of an entry; of events in a file by its digest."""
        digest = self.made(name).get("run_digest")
        same = [run for run in self.runs.values() if digest and run.get("digest") == digest]
        return self.runs.get(name) or next(iter(same), {})


# ---- data


def data_tables(content: Content) -> Iterator[PageTable]:
    """Yield tables of the samples and their columns, those of all samples folded."""
    yield _samples(content)
    if content.real is None:
        return
    head = ("unit", "mean", "standard deviation", "smallest", "largest")
    columns = (*content.real.names, *content.real.cond_names)
    rows = [(c, *column_numbers(content.real, c)) for c in columns]
    yield PageTable(("column", *head), rows, "Columns of the real events")
    others = [
        (c, name, *column_numbers(table, c))
        for c in columns
        for name, table in content.tables().items()
        if c in (*table.names, *table.cond_names)
    ]
    title = "Columns of all samples beside each other"
    yield PageTable(("column", "sample", *head), others, folded=title)


def _samples(content: Content) -> PageTable:
    known = content.tables()
    rows = []
    for name in dict.fromkeys((*known, *content.evaluations)):
        run = content.made(name).get("run_digest") if name in content.evaluations else None
        digest = content.digests.get(name, "")[:16] or (f"run {run[:12]}" if run else "-")
        events, weights, conditions = "-", "-", "-"
        if (table := known.get(name)) is None:
            events = f"{int(content.evaluations[name].sizes['generated']):,}"
        else:
            size = None if table.weight is None else effective_size(table.weight)
            weights = "none" if size is None else f"effective number {size:,.0f}"
            events, conditions = f"{table.n:,}", ", ".join(table.cond_names) or "none"
        rows.append((name, content.files.get(name, "-"), events, weights, conditions, digest))
    first = next(iter(content.evaluations.values()))
    digest = "SHA-256 of the file, or of the run (first digits)"
    head = ("sample", "from", "events", "weights", "conditions", digest)
    caption = f"Samples; {first.sizes['compared']:,} events of each are compared"
    return PageTable(head, rows, caption, words=[1])


def column_numbers(table: EventTable, name: str) -> tuple[str, ...]:
    """Return unit, mean with its error, standard deviation and range of a column or condition."""
    if table.cond is not None and name in table.cond_names:
        values, unit = table.cond[:, table.cond_names.index(name)], "condition"
    else:
        values, unit = table.column(name), table.unit(name) or "-"
    weight = checks.relative_or_ones(table.weight, table.n)
    known = np.isfinite(values)
    values, weight = values[known], weight[known]
    if not len(values):
        return (unit, *("none known",) * 4)
    deviation, mean = spread(values, weight), float(np.average(values, weights=weight))
    error = deviation / float(np.sqrt(effective_size(weight)))
    ends = (f"{values.min():.4g}", f"{values.max():.4g}")
    return (unit, uncertain(mean, error), f"{deviation:.4g}", *ends)


def relations_text(content: Content) -> str:
    """Return the relations that entries or their runs declare."""
    declared = {
        str(relation): None
        for name in content.evaluations
        for relation in (
            *content.evaluations[name].settings.get("relations", ()),
            *content.run_of(name).get("settings", {}).get("relations", ()),
        )
    }
    return "; ".join(declared) or "none declared"


# ---- settings


def settings_line(content: Content, name: str) -> str:
    """Return the settings that decide the events of an entry: solver, steps, times, cost, seed."""
    made, run = content.made(name), content.run_of(name)
    if not made:
        return "not recorded how the events were made"
    words = [made_by(made)]
    micros = content.runs.get(name, {}).get("us_per_event")
    if micros is not None:
        words.append(f"{micros:.3g} µs of CPU time per kept event")
    words.append(f"seed {made.get('seed', 'not recorded')}")
    times = ", ".join(f"{t:.4g}" for t in run.get("times", ()))
    if times:
        words.append(f"step models trained at t = {times}")
    if "run_digest" in made:
        words.append(f"run {str(made['run_digest'])[:12]}")
    return "; ".join(words)


def made_by(made: dict[str, Any]) -> str:
    """Return sampler, steps and evaluations from the record of a generation."""
    return "; ".join([_solver(made), *_cost(made)])


def _cost(made: dict[str, Any]) -> Iterator[str]:
    kept = float(made.get("acceptance", 1.0))
    if "n_steps" in made:
        yield plural(int(made["n_steps"]), "step")
    if "n_evaluations" in made:
        count = int(made["n_evaluations"])
        share = kept * float(made.get("required", 1.0))
        more = "" if share == 1.0 else f", {count / share:.1f} per kept event"
        yield f"{plural(count, 'evaluation')} of the velocity per trajectory{more}"
    yield "no rejection" if kept == 1.0 else f"rejection keeps {kept:.1%} of the events"
    if "require" in made:
        yield f"{float(made['required']):.1%} meet require {made['require']}"
    elif "required" in made:
        far = 1 - float(made["required"])
        yield f"{far:.2%} with a computed column far beyond its training range, drawn anew"


def _solver(made: dict[str, Any]) -> str:
    parameters = dict(made.get("solver_parameters") or {})
    words = [f"{k} {v}" for k, v in parameters.items() if v is not None]
    spacing = made.get("spacing")
    if isinstance(spacing, (list, tuple)):
        words.append("boundaries t = " + ", ".join(f"{float(t):.4g}" for t in spacing))
    elif spacing is not None:
        words.append(f"spacing {spacing}")
    words += ["times between step models interpolated"] if made.get("interpolate") else []
    return ", ".join([str(made.get("solver", "-")), *words])


def recorded(content: Content) -> Iterator[tuple[str, str]]:
    """Yield the name of each entry and everything that is recorded of it."""
    for name, evaluation in content.evaluations.items():
        run = content.run_of(name)
        known: dict[str, Any] = {
            "judged with": {"seed": evaluation.seed, **evaluation.settings},
            "versions": evaluation.versions,
            "events": evaluation.sizes,
            **{k: run[k] for k in ("digest", "settings", "events seen") if k in run},
        }
        yield name, json.dumps(known, indent=1, sort_keys=True, default=str)


# ---- losses, memorisation, limits

LOSSES = ("train_rmse", "valid_rmse", "valid_rmse_without_trees")


def step_tables(content: Content) -> Iterator[PageTable]:
    """Yield the losses and trees of every step of every run, folded."""
    head = ("step", "time t", "trees", "rmse, training", "rmse, validation", "without trees")
    for name, run in content.distinct_runs().items():
        rows = []
        for step in run["steps"]:
            losses = ("-" if step[k] is None else f"{step[k]:.5f}" for k in LOSSES)
            rows.append((str(step["step"]), f"{step['time']:.4g}", str(step["trees"]), *losses))
        yield PageTable(head, rows, folded=f"Steps of {name}")


def memorisation_lines(content: Content) -> Iterator[str]:
    """Yield the result of the test of each entry in words."""
    for name, evaluation in content.evaluations.items():
        result = next((r for r in evaluation.results if r.name == "memorisation"), None)
        if result is None:
            yield f"{name}: not tested: it needs the training events"
            continue
        verdict, excess = "no sign of copies", result.excess or 0.0
        if excess >= score_tables.FAR:
            verdict = "generated events lie nearer to training events than real ones do"
        elif excess <= -score_tables.FAR:
            verdict = "no copies; generated events lie farther out than real ones do"
        yield f"{name}: {result.text()}, floor {result.floor_text()}: {verdict}"


def limits(content: Content) -> list[str]:
    """Return the limits of the scores in words."""
    notes = [f"not in this page: {reason}" for reason in content.left_out]
    notes += dict.fromkeys(note for e in content.evaluations.values() for note in e.notes)
    for name, evaluation in content.evaluations.items():
        whole = [r for r in evaluation.results if r.column is None and r.name != "memorisation"]
        far = [r for r in whole if (r.excess or 0.0) >= score_tables.FAR]
        if far:
            above = [f"{label_of(r.name)} (by {r.excess:.0f} standard errors)" for r in far]
            notes.append(f"{name} differs from real events: above the floor in {', '.join(above)}")
    if content.real is not None and not any(content.real.units):
        notes.append("the table of real events states no units: columns are in those of its file")
    notes.append("scores hold for samples of this size; more events show smaller differences")
    notes.append(
        "one training per run: errors are those of finite samples and of judges, and do not include"
        " the scatter between trainings with different seeds"
    )
    return notes
