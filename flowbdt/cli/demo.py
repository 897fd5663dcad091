"""The demonstration: top jets that ship with the package, from table to verdict."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from . import options
from .options import bar

N_TRAIN = 15_000
"""Jets to train on; the others, at most as many, judge."""


@click.command()
@options.output("FOLDER", "Folder for all results.", default="flowbdt-demo")
@options.seed(default=1)
@options.quiet
def demo_command(output: Path, seed: int) -> None:
    """Fit, generate and judge top jets that ship with the package."""
    from ..config import ModelConfig
    from ..evaluation.evaluate import evaluate
    from ..evaluation.report import demo_figure, write_report
    from ..evaluation.score_events import generate_events
    from ..generation.trained_flow import Flow
    from ..model import fit_run
    from ..physics import bundled
    from ..tables.formats import write_table
    from ..training.plan import Inputs, check_config

    data = bundled()
    jets, relations = data.load(), data.relations
    train, test = jets.take(slice(N_TRAIN)), jets.take(slice(N_TRAIN, 2 * N_TRAIN))
    start = time.perf_counter()
    config = ModelConfig(executor="joblib", relations=list(relations), random_state=seed)
    grid = check_config(config)
    inputs = Inputs(train, config, seed, grid=grid)
    with bar(total=len(grid.times), desc="training", unit="step") as progress:
        run = fit_run(inputs, output / "run", resume=True, on_report=lambda _: progress.update())
    trained = time.perf_counter()
    flow = Flow(run)
    generated = generate_events(flow, test.n, seed + 1).table
    write_table(output / "generated.h5", generated, record := flow.record(seed + 1))
    end = time.perf_counter()
    protocol: Any = {"relations": relations, "seed": seed, "quick": True, "provenance": record}
    verdict = evaluate(test, generated, training=train, **protocol)
    page = write_report(verdict, test, generated, output / "report", training=train)
    score = verdict.get("auc_gb")
    figure = output / "jets.png"
    demo_figure(test, generated, figure, f"AUC {score.text()}, floor {score.floor_text()}")
    click.echo(
        f"{verdict.text()}\n\n"
        f"trained on {train.n} jets in {trained - start:.0f} s of wall time, generated {test.n} in"
        f" {end - trained:.1f} s ({flow.n_evaluations} evaluations each)\n"
        f"figure: {figure}   report: {page}"
    )
