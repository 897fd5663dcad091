"""Compare several runs, samples and reports; put them on one page."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import atomic_files
from ..errors import ConfigError, InputError
from ..evaluation.differences import text
from ..evaluation.entries import (
    Entry,
    Truth,
    described,
    held_against_each_other,
    is_run,
    names_of,
    quality_points,
    read_entries,
    sampler_name,
    samples_of,
)
from ..evaluation.report import Content, read_published, write_together
from ..generation.trained_flow import Flow
from ..tables.formats import read_table
from ..training import run_directory
from .fit_and_generate import read_sampler


def read_truth(options: argparse.Namespace) -> Truth | None:
    """Return the real events of a command line; None if there are none."""
    if options.real is None:
        return None
    training = None if options.training is None else read_table(options.training)
    return Truth(read_table(options.real), training, options.seed, options.quick)


def check_samplers(paths: Sequence[str], samplers: Sequence[Mapping[str, Any]]) -> None:
    """Refuse, before any long work, samplers that there is no run for or that a run cannot take."""
    names = [sampler_name(way) for way in samplers]
    if len(set(names)) < len(names):
        raise ConfigError(f"samplers must have different names, got {'; '.join(names)}")
    runs = [path for path in paths if is_run(Path(path))]
    if samplers and not runs:
        raise InputError(f"--sampler needs a run, got only {', '.join(paths)}")
    for path in runs:
        for way in samplers:
            Flow(run_directory.open_run(path), sampler=way, compiled=False)


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
        atomic_files.write_json(options.output, content)
    return text(judged, found, columns=options.columns)


def report_files(options: argparse.Namespace) -> str:
    """Write a page about reports, samples and runs together; return where it is."""
    published = read_published(options.published) if options.published else ()
    samplers = [way for text in options.sampler if (way := read_sampler(text)) is not None]
    check_samplers(options.entries, samplers)
    atomic_files.make_folder(
        options.output
    )  # what is wrong with it should not be found out at the end
    truth = read_truth(options)
    entries = read_entries(options.entries, truth, samplers)
    samples, real, training = samples_of(entries, truth)
    quality, missing = quality_points(entries, truth, options.evaluations)
    names, digests = _files(options, entries)
    content = Content(
        evaluations={entry.name: entry.evaluation for entry in entries},
        differences=held_against_each_other(entries, truth) if len(entries) > 1 else [],
        samples=samples,
        real=real,
        training=training,
        runs={entry.name: described(entry) for entry in entries if entry.run is not None},
        quality=quality,
        missing=missing,
        published=published,
        files=names,
        digests=digests,
    )
    return f"report: {write_together(options.output, content, title=options.title)}"


def _files(
    options: argparse.Namespace, entries: Sequence[Entry]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return names of files and folders by sample, and digests of those that are files."""
    paths = {"real": options.real, "training": options.training}
    given = dict(zip(names_of(options.entries), options.entries, strict=True))
    paths |= {entry.name: given[entry.of] for entry in entries}
    known = {name: Path(path) for name, path in paths.items() if path is not None}
    digests = {
        name: atomic_files.digest_file(path) for name, path in known.items() if path.is_file()
    }
    return {name: path.name for name, path in known.items()}, digests
