"""Several runs, samples or reports together: each becomes an evaluation under a name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import files, store
from .errors import ConfigError, GridError
from .evaluation import Evaluation, evaluate
from .generation import Flow
from .gridsearch import steps_within
from .report.curves import Point
from .report.together import write_together
from .significance import Difference, differences, text, with_paired_separations
from .solvers import SOLVERS, evaluations
from .table import EventTable
from .tableio import read_attributes, read_table
from .tuning.bench import Bench
from .tuning.judge import weighted_as

REPORT = "report.json"


@dataclass(frozen=True)
class Entry:
    """One of several: its scores, and where known its events and its run."""

    name: str
    evaluation: Evaluation
    events: EventTable | None = None
    run: store.Source | None = None


@dataclass(frozen=True)
class Truth:
    """What generated events are judged by. ``training`` None: the floor is from halves of real."""

    real: EventTable
    training: EventTable | None
    seed: int = 0
    quick: bool = False


def names_of(paths: Sequence[str | Path]) -> list[str]:
    """Return short names of paths: the last part, or as many parts as tell them apart."""
    parts = [Path(path).resolve().parts for path in paths]
    for count in range(1, max(len(p) for p in parts) + 1):
        names = ["/".join(p[-count:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"something is named twice: {', '.join(map(str, paths))}")


def read_entry(name: str, path: Path, truth: Truth | None) -> Entry:
    """Return a report as it is, a sample or a run judged now.

    Raises ConfigError if something must be judged and there are no real events for it.
    """
    if (path / REPORT).exists():
        return Entry(name, Evaluation.from_json(files.read_json(path / REPORT)))
    if truth is None:
        raise ConfigError(f"{path} is no report; to judge it now say by what: --real FILE")
    if path.is_dir() or path.suffix == ".flowbdt":
        source = store.open_run(path)
        events, record = _generated(source, truth)
    else:
        source, record = None, read_attributes(path)
        events = read_table(path)
    real, training = (_with_columns(t, events) for t in (truth.real, truth.training))
    if source is not None:
        events = weighted_as(events, real)
    found = evaluate(
        real, events, training=training, seed=truth.seed, quick=truth.quick, provenance=record
    )
    return Entry(name, found, events, source)


def _generated(source: store.Source, truth: Truth) -> tuple[EventTable, dict[str, Any]]:
    flow = Flow(source)
    names = flow.columns["conditions"]
    cond = truth.real.select(names) if names else None
    blocks = flow.sample_blocks(truth.real.n, seed=truth.seed, cond=cond)
    return EventTable.concatenate(list(blocks)), flow.record(truth.seed)


def _with_columns(table: EventTable | None, events: EventTable) -> Any:
    """Return real events with the columns, and where they are there the conditions, of others."""
    if table is None:
        return None
    given = [name for name in events.cond_names if name in table.names]
    table = table.as_conditions(given) if given else table
    return table.select(events.names)


def read_truth(options: argparse.Namespace) -> Truth | None:
    """Return the real events of a command line; None if there are none."""
    if options.real is None:
        return None
    training = None if options.training is None else read_table(options.training)
    return Truth(read_table(options.real), training, options.seed, options.quick)


def read_entries(paths: Sequence[str], truth: Truth | None) -> list[Entry]:
    """Return all entries under names that tell them apart."""
    return [
        read_entry(name, Path(p), truth) for name, p in zip(names_of(paths), paths, strict=True)
    ]


def samples_of(
    entries: Sequence[Entry], truth: Truth | None
) -> tuple[dict[str, EventTable], EventTable | None, EventTable | None]:
    """Return the events that are known, and real and training events with their columns."""
    samples = {entry.name: entry.events for entry in entries if entry.events is not None}
    if truth is None or not samples:
        return {}, None, None
    first = next(iter(samples.values()))
    real, training = (_with_columns(table, first) for table in (truth.real, truth.training))
    return samples, real, training


def held_against_each_other(entries: Sequence[Entry], truth: Truth | None) -> list[Difference]:
    """Return all differences, paired as far as can be."""
    found = differences({entry.name: entry.evaluation for entry in entries})
    samples, real, training = samples_of(entries, truth)
    if truth is None or real is None or training is None:  # without training real was halved
        return found
    return with_paired_separations(found, real, samples, truth.seed)


def compare_files(options: argparse.Namespace) -> str:
    """Compare reports, samples and runs; return a table, and write it as JSON if asked to."""
    truth = read_truth(options)
    entries = read_entries(options.entries, truth)
    judged = {entry.name: entry.evaluation for entry in entries}
    found = held_against_each_other(entries, truth)
    if options.output is not None:
        content = {
            "format": 1,
            "entries": {name: e.to_json() for name, e in judged.items()},
            "differences": [d.to_json() for d in found],
        }
        files.write_json(options.output, content)
    return text(judged, found, columns=options.columns)


def report_files(options: argparse.Namespace) -> str:
    """Write a page about reports, samples and runs together; return where it is."""
    truth = read_truth(options)
    entries = read_entries(options.entries, truth)
    samples, real, training = samples_of(entries, truth)
    runs = {entry.name: entry.run for entry in entries if entry.run is not None}
    page = write_together(
        options.output,
        {entry.name: entry.evaluation for entry in entries},
        held_against_each_other(entries, truth) if len(entries) > 1 else [],
        samples=samples,
        real=real,
        training=training,
        runs={name: described(source) for name, source in runs.items()},
        quality=_quality(runs, truth, options.evaluations) if truth is not None else {},
        title=options.title,
    )
    return f"report: {page}"


def described(source: store.Source) -> dict[str, Any]:
    """Return what a report tells of a run: steps, settings, digest, how many events it saw."""
    manifest = store.parse_json(source.read("manifest.json"), "manifest.json")
    plan = store.parse_json(source.read("plan.json"), "plan.json")
    return {
        "steps": manifest["steps"],
        "settings": {**plan["fingerprint"]["settings"], "grid": plan["grid"]},
        "digest": plan["digest"],
        "events seen": {"training": plan["n_train"], "validation": plan["n_valid"]},
    }


def _quality(
    runs: dict[str, store.Source], truth: Truth, numbers: Sequence[int]
) -> dict[str, list[Point]]:
    """Return the mean separation of each run at several numbers of evaluations."""
    curves: dict[str, list[Point]] = {}
    for name, source in runs.items() if numbers else ():
        flow = Flow(source, 1)
        events = flow.as_table(np.empty((0, len(flow.columns["names"]))), None)
        given = flow.columns["conditions"]
        real = _with_columns(truth.real.as_conditions(given) if given else truth.real, events)
        bench = Bench(source, real, "separation", seed=truth.seed, n_threads=1)
        curves[name] = [point for n in numbers if (point := _point(bench, n)) is not None]
    return curves


def _point(bench: Bench, number: int) -> Point | None:
    """Return the score of a run's own solver within so many evaluations; None if it cannot."""
    spacing = bench.flow.settings["spacing"]
    spacing = "uniform" if isinstance(spacing, list) else spacing
    name = bench.flow.settings["solver"]
    try:
        steps = steps_within(SOLVERS.build(name), number, bench.convention, spacing)
        way = {"solver": name, "n_steps": steps, "spacing": spacing, "interpolate": True}
        result = bench.result(way)
    except (ConfigError, GridError):  # it would ask for times beyond the last step model
        return None
    made = len(evaluations(SOLVERS.build(name), bench.boundaries(way), bench.convention))
    return Point(made, 1e6 * bench.cpu_s / bench.real.n, result.value, result.error)
