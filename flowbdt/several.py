"""Several runs, samples or reports together: each becomes an evaluation under a name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import files, store
from .errors import ConfigError
from .evaluation import Evaluation, evaluate
from .generation import Flow
from .significance import differences, text, with_paired_separations
from .table import EventTable
from .tableio import read_attributes, read_table

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


def compare_files(options: argparse.Namespace) -> str:
    """Compare reports, samples and runs; return a table, and write it as JSON if asked to."""
    truth = read_truth(options)
    names = names_of(options.entries)
    entries = [read_entry(n, Path(p), truth) for n, p in zip(names, options.entries, strict=True)]
    evaluations = {entry.name: entry.evaluation for entry in entries}
    found = differences(evaluations)
    samples = {entry.name: entry.events for entry in entries if entry.events is not None}
    if truth is not None and samples:
        real = _with_columns(truth.real, next(iter(samples.values())))
        if truth.training is not None:  # else real events were halved to judge by
            found = with_paired_separations(found, real, samples, truth.seed)
    if options.output is not None:
        content = {
            "format": 1,
            "entries": {name: e.to_json() for name, e in evaluations.items()},
            "differences": [d.to_json() for d in found],
        }
        files.write_json(options.output, content)
    return text(evaluations, found, columns=options.columns)
