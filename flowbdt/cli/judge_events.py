"""Commands that judge generated events or showers, and compare generators."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, InputError
from . import options
from .options import TABLES, say, show

if TYPE_CHECKING:
    from ..evaluation.entries import Truth

FLOOR = "gives the floor and the memorisation check; without it the floor comes from two halves of"
LOW_VALUES = 70_000_000
"""Voxels of a sample for low-level judges: all showers of dataset 1, 10,802 of dataset 2."""


@click.command()
@click.argument("real", type=options.PATH, help="Real events that were not trained on.")
@click.argument("generated", type=options.PATH, help="Generated events.")
@options.output("REPORT", "Folder for the report.", required=True)
@options.file("--training", help=f"Real events that were trained on: {FLOOR} REAL.")
@click.option(
    "--relation",
    "relations",
    multiple=True,
    metavar="'A = B / C'",
    help="Relation between columns to check; repeatable.",
)
@options.observables
@options.weight
@options.quick
@options.seed()
@options.printing
def evaluate_command(
    real: Path,
    generated: Path,
    output: Path,
    training: Path | None,
    weight: str | None,
    **protocol: Any,
) -> None:
    """Judge generated events against real events."""
    from ..atomic_files import make_folder
    from ..evaluation.evaluate import evaluate
    from ..evaluation.report import write_report
    from ..evaluation.verdict import tables_as_judged, verdict_of
    from ..tables.formats import read_attributes, read_like, read_table

    make_folder(output)  # an error now, not at the end
    new = read_table(generated)
    truth = read_like(real, new, weight)
    train = None if training is None else read_like(training, new, weight)
    provenance = read_attributes(generated)
    scores = evaluate(truth, new, training=train, provenance=provenance, **protocol)
    page = write_report(scores, truth, new, output, training=train)
    verdict = verdict_of(scores, *tables_as_judged(scores, truth, new))
    text = f"{scores.text()}\n\n{verdict.text()}\n\nreport: {page}"
    show(text, **scores.to_json(), verdict=vars(verdict), report=page)


ENTRIES = "Report folders, files of events, or runs."

truth_options = options.combined(
    options.file("--real", help="Real events to judge events and runs by."),
    options.file("--training", help="Events trained on: gives the floor."),
    options.observables,
    options.quick,
    options.seed(),
)
"""Options that say what `compare` and `report` judge by."""


def _read_truth(
    entries: Sequence[str], real: Path | None, training: Path | None, **judged: Any
) -> Truth | None:
    """Return the real events to judge by; None if there are none."""
    from ..evaluation.entries import Truth
    from ..tables.formats import read_table

    if real is None:
        reason = "--real names the events to judge by"
        options.refuse_given(reason, "training", "fit", "fit_by", *judged)
        return None
    known = None if training is None else read_table(training)
    return Truth.for_entries(entries, read_table(real), known, **judged)


@click.command()
@click.argument("entries", nargs=-1, required=True, help=ENTRIES)
@truth_options
@options.flag("--columns", "List single columns too.")
@options.flag("--fit", "Also test if events and real ones are of one distribution: a p-value each.")
@click.option("--fit-by", metavar="COLUMN", help="The same in bins of a column or condition.")
@options.output("FILE", "Also write the differences as JSON.")
@options.printing
def compare_command(
    entries: Sequence[str],
    columns: bool,
    fit: bool,
    fit_by: str | None,
    output: Path | None,
    **truth_settings: Any,
) -> None:
    """Say which differences between generators are significant."""
    from ..atomic_files import check_target, write_json
    from ..evaluation.differences import text
    from ..evaluation.entries import fits, held_against_each_other, read_entries

    if output is not None:
        check_target(output)
    truth = _read_truth(entries, **truth_settings)
    judged = read_entries(entries, truth)
    scores = {entry.name: entry.evaluation for entry in judged}
    differences = held_against_each_other(judged, truth)
    tested = fits(judged, truth, fit_by) if fit or fit_by else {}
    content: dict[str, Any] = {
        "format": 1,
        "entries": {name: evaluation.to_json() for name, evaluation in scores.items()},
        "differences": [difference.to_json() for difference in differences],
        "fits": {name: found.to_json() for name, found in tested.items()},
    }
    if output is not None:
        write_json(output, content)
    show(text(scores, differences, columns=columns), **content)
    for name, found in tested.items():
        show(f"{name}: of one distribution with the real events: {found.text(fit_by)}")


@click.command(cls=options.EvaluationsCommand)
@click.argument("entries", nargs=-1, required=True, help=ENTRIES)
@options.output("FOLDER", "Folder for the page.", required=True)
@truth_options
@options.integer(
    "--evaluations",
    help="Numbers of evaluations at which to show the separation of every run, e.g. 4 8 16 32.",
    metavar="N...",
    multiple=True,
)
@options.sampler("Judge runs with this sampler too, without rejection; repeatable", multiple=True)
@options.file(
    "--published",
    help="YAML list of published figures to show as well: score, value, source, and if known error,"
    " events, note.",
)
@click.option("--title", default="Generated events, side by side", help="Title of the page.")
@options.printing
def report_command(
    entries: Sequence[str],
    output: Path,
    evaluations: Sequence[int],
    sampler: Sequence[dict[str, Any]],
    published: Path | None,
    title: str,
    **truth_settings: Any,
) -> None:
    """Write one page about several runs, samples or reports."""
    from .. import atomic_files
    from ..evaluation import entries as library
    from ..evaluation.report import Content, read_published, write_together

    figures = () if published is None else read_published(published)
    _check_samplers(entries, sampler)
    usable, left_out = library.usable_samplers(entries, sampler)
    for reason in left_out:
        click.echo(f"flowbdt: left out: {reason}", err=True)
    if not any(library.is_run(Path(entry)) for entry in entries):
        options.refuse_given("only runs make events with it", "evaluations")
    atomic_files.make_folder(output)  # an error now, not at the end
    truth = _read_truth(entries, **truth_settings)
    judged = library.read_entries(entries, truth, usable)
    samples, real, training = library.samples_of(judged, truth)
    quality, missing = library.quality_points(judged, truth, evaluations)
    by_name = dict(zip(library.names_of(entries), entries, strict=True))
    sources = {name: truth_settings[name] for name in ("real", "training")}
    sources |= {entry.name: by_name[entry.of] for entry in judged}
    files = {name: Path(path) for name, path in sources.items() if path is not None}
    content = Content(
        evaluations={entry.name: entry.evaluation for entry in judged},
        differences=library.held_against_each_other(judged, truth) if len(judged) > 1 else [],
        samples=samples,
        real=real,
        training=training,
        runs={entry.name: library.described(entry) for entry in judged if entry.run is not None},
        quality=quality,
        missing=missing,
        left_out=left_out,
        published=figures,
        files={name: path.name for name, path in files.items()},
        digests={n: atomic_files.digest_file(p) for n, p in files.items() if p.is_file()},
    )
    page = write_together(output, content, title=title)
    say(f"report: {page}", report=page, left_out=left_out)


def _check_samplers(paths: Sequence[str], samplers: Sequence[dict[str, Any]]) -> None:
    """Refuse samplers without a run, or of one name."""
    from ..evaluation.entries import is_run, sampler_name

    if samplers and not any(is_run(Path(path)) for path in paths):
        raise InputError(f"--sampler needs a run, got only {', '.join(paths)}")
    names = [sampler_name(spec) for spec in samplers]
    if len(set(names)) < len(names):
        raise ConfigError(f"samplers must have different names, got {'; '.join(names)}")


@click.command()
@options.run
@click.argument("table", type=options.PATH, help="Rows with all columns, and conditions if any.")
@options.output("FILE", f"Table to write: {TABLES}.", required=True)
@options.file("--training", help="Rows of training: the density is learned from them first.")
@click.option(
    "--weight", metavar="COLUMN", help="Event weights of --training; by default as trained."
)
@options.printing
def score_command(
    run: Path, table: Path, output: Path, training: Path | None, weight: str | None
) -> None:
    """Add to rows the log of their density and its error."""
    import numpy as np

    from ..atomic_files import check_target
    from ..model import FlowBDT
    from ..tables.formats import read_table, write_table

    check_target(output)
    if training is None:
        options.refuse_given("--training names the rows that have it", "weight")
    model, rows = FlowBDT.load(run), read_table(table, missing=True)
    if training is not None:
        weight = weight or model.flow().settings.get("weight")
        known = read_table(training, weight=weight, missing=True)
        model.fit_density(known, sample_weight=known.weight)
    elif not model.density:
        raise ConfigError(
            f"{run} has no density: name the rows of training with --training, or save a model that"
            " was fitted with FlowBDT(density=True)"
        )
    found = np.column_stack(model.score_samples(rows, return_error=True))
    write_table(output, rows.with_columns(["log_density", "log_density_error"], found))
    possible = found[np.isfinite(found[:, 0]), 0]
    none = f", {rows.n - len(possible)} of density 0" if len(possible) < rows.n else ""
    mean = float(possible.mean()) if len(possible) else None
    said = "" if mean is None else f", mean log density {mean:.4g}"
    counts = {"rows": rows.n, "of_density_0": rows.n - len(possible)}
    say(f"{output}: {rows.n} rows{none}{said}", file=output, mean_log_density=mean, **counts)


@click.group()
def calo_group() -> None:
    """Judge calorimeter showers by CaloChallenge metrics."""


@calo_group.command("evaluate")
@click.argument("reference", type=options.PATH, help="HDF5 file of showers, not trained on.")
@click.argument("generated", type=options.PATH, help="HDF5 file of generated showers.")
@options.output("REPORT", "Folder for the report.", default="calo-report")
@options.file("--training", help=f"Showers that were trained on: {FLOOR} REFERENCE.")
@options.flag("--official", "Also train the official network, which takes hours on a CPU.")
@options.integer("--runs", help="Trainings of the official network; published: 10.", default=1)
@options.integer("--epochs", help="Epochs of the official network.", default=50)
@click.option(
    "--neighbours",
    type=options.NUMBER,
    default=20_000,
    metavar="N",
    help="Showers of each file for precision, recall, density and coverage; 0: all, as in the"
    " official evaluation.",
)
@options.flag("--quick", "One split of each judge, few replicas.")
@options.seed()
@options.printing
def evaluate_showers_command(
    reference: Path,
    generated: Path,
    output: Path,
    training: Path | None,
    official: bool,
    runs: int,
    epochs: int,
    neighbours: int,
    quick: bool,
    seed: int,
) -> None:
    """Judge generated showers against a reference."""
    from ..atomic_files import make_folder
    from ..evaluation.metrics.classifier import make_mlp
    from ..physics.calorimeter.report import score_summary, write_shower_report
    from ..physics.calorimeter.scores.evaluate_showers import Protocol, evaluate_showers
    from ..physics.calorimeter.shower_files import ShowerFile, read_showers
    from ..trees.boosted_trees import make_classifier

    if not official:
        options.refuse_given("only --official trains that network", "runs", "epochs")
    files = [ShowerFile(path) for path in (reference, generated)]  # both checked before reading
    real, new = (file.read() for file in files)
    make_folder(output)  # an error now, not after hours
    train = None if training is None else read_showers(training)
    geometry = real.geometry
    protocol = Protocol(
        judges={"mlp": make_mlp, "gb": make_classifier},
        official=_official_network(runs, epochs, seed) if official else None,
        most_neighbours=neighbours,
        n_repeats=1 if quick else 3,
        most_low=LOW_VALUES // geometry.n_voxels,
        n_bootstrap=20 if quick else 100,
        seed=seed,
    )
    evaluation = evaluate_showers(real, new, protocol, train)
    sizes = ", ".join(f"{n:,} {name}" for name, n in evaluation.sizes.items())
    notes = [
        f"{geometry.name}; showers: {sizes}. Voxels below {geometry.min_energy:g} MeV count as"
        " empty.",
        "Floor from training showers."
        if train is not None
        else "Floor from two halves of the reference: half as many showers each.",
        "Floors of separations are scaled to the numbers compared.",
    ]
    page = write_shower_report(evaluation, output, title="Showers", notes=notes)
    results = [result.to_json() for result in evaluation.results]
    say(f"{score_summary(evaluation)}\n\n{page}", results=results, report=page)


def _official_network(runs: int, epochs: int, seed: int) -> Any:
    from ..physics.calorimeter.scores.official_classifier import Network, deep_classifier_auc

    settings: Any = {"network": Network(epochs=epochs), "n_runs": runs, "seed": seed}
    return lambda reference, generated, name: deep_classifier_auc(
        reference, generated, name=name, **settings
    )
