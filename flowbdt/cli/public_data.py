"""Commands on public data: a demonstration on electron pairs, and records to list and download."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from . import options
from .options import bar, say, show


@click.command()
@options.output("FOLDER", "Folder for all results.", default="flowbdt-demo")
@options.seed(default=1)
@options.printing
def demo_command(output: Path, seed: int) -> None:
    """Fit, generate and judge electron pairs of CMS.

    They come with the package.
    """
    from ..config import ModelConfig
    from ..evaluation.evaluate import evaluate
    from ..evaluation.report import demo_figure, write_report
    from ..evaluation.score_events import generate_events
    from ..generation.fit_run import fit_run
    from ..generation.trained_flow import Flow
    from ..physics import ZToEE
    from ..tables.formats import write_table
    from ..tables.formulas.expressions import declared
    from ..training.plan import Inputs, check_config

    data = ZToEE()
    train, test = data.load("train"), data.load("test")
    known: Any = {"particles": data.particles, "observables": list(data.observables)}
    start = time.perf_counter()
    # in one process: others would import all once more, for nine short steps
    config = ModelConfig(executor="serial", require=list(data.require), random_state=seed, **known)
    grid = check_config(config)
    inputs = Inputs(train, config, seed, grid=grid)
    with bar(total=len(grid.times), desc="training", unit="step") as progress:
        run = fit_run(inputs, output / "run", resume=True, on_report=lambda _: progress.update())
    trained = time.perf_counter()
    flow = Flow(run)
    generated = generate_events(flow, test.n, seed + 1).table
    write_table(output / "generated.h5", generated, record := flow.record(seed + 1))
    end = time.perf_counter()
    protocol: Any = {**known, "seed": seed, "quick": True, "provenance": record}
    verdict = evaluate(test, generated, training=train, metrics=METRICS, **protocol)
    little: Any = {"training": train, "max_columns": len(COLUMNS), "pdf": False}
    page = write_report(verdict, test, generated, output / "report", **little)
    score, figure = verdict.get("auc_gb"), output / "z_to_ee.png"
    add = declared(known["observables"], data.particles)[0].added_to
    title = f"AUC {score.text()}, floor {score.floor_text()}"
    demo_figure(add(test), add(generated), figure, title, COLUMNS)
    show(
        f"{verdict.text()}\n\n"
        f"trained on {train.n} events in {trained - start:.0f} s of wall time, generated {test.n}"
        f" in {end - trained:.1f} s ({flow.n_evaluations} evaluations each)\n"
        f"figure: {figure}   report: {page}",
        **verdict.to_json(),
        figure=figure,
        report=page,
    )


COLUMNS = ("mee", "ptee", "pt1", "pt2", "eta1", "phi2")
"""What the figure of the demo shows."""

METRICS = ("separation", "wasserstein", "correlation_max", "auc_gb", "memorisation")
"""Its scores: those that take seconds. `flowbdt evaluate` has them all, a neural judge too."""


@click.group()
def data_group() -> None:
    """List public data sets, and download them."""


@data_group.command("list")
@click.argument("name", required=False, help="A record, to list its files.")
@options.printing
def list_records_command(name: str | None) -> None:
    """List the public records, or the files of one."""
    from ..physics.datasets.records import overview, record, records

    if name is None:
        listed = [asdict(one) for one in records().values()]
        show(f"{overview()}\n\ntheir files: flowbdt data list NAME", records=listed)
        return
    show(record(name).describe(), **asdict(record(name)))


@data_group.command()
@click.argument("name", help="A record of 'flowbdt data list'.")
@click.argument("files", nargs=-1, help="Names or patterns such as '*'; by default the usual ones.")
@options.output("FOLDER", "Folder for the files; by default NAME.")
@click.option("--base-url", metavar="URL", help="Web folder of a mirror that has the files.")
@options.printing
def fetch_command(
    name: str, files: Sequence[str], output: Path | None, base_url: str | None
) -> None:
    """Download and verify files; continue interrupted downloads."""
    from ..physics.datasets.records import fetch_file, record

    source = record(name)
    folder = output or Path(source.name)
    for file in source.select(files):
        with bar(total=file.size, desc=file.name, unit="B", unit_scale=True) as progress:
            done = fetch_file(source, file, folder, base_url=base_url, on_bytes=progress.update)
        say(done.text(), files=[vars(done)])
    terms = {"licence": source.licence, "cite": source.cite, "page": source.page}
    say(f"licence: {source.licence}; cite {source.cite} and {source.page}", **terms)
