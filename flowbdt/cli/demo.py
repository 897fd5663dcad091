"""The demo: top jets that ship with the package, from table to verdict, in one call."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import ModelConfig
from ..evaluation.evaluate import evaluate
from ..evaluation.report import demo_figure, write_report
from ..evaluation.score_events import generate_events
from ..generation.trained_flow import Flow
from ..model import fit_run
from ..physics import bundled
from ..tables.formats import write_table
from ..training.plan import Inputs, check_config

N_TRAIN = 15_000
"""Jets to learn from; the rest, as many as are trained on at most, judge."""

SETTINGS = ModelConfig(preset="balanced", executor="joblib")
"""The defaults; on two cores they take about two minutes."""


def demo(folder: Path, *, seed: int, bar: Callable[..., Any]) -> str:
    """Fit, generate and judge; write run, events, report and figure to ``folder``.

    Returns the table of scores and where to look. Raises RunError if the folder holds other files.
    """
    data = bundled()
    jets, relations = data.load(), data.relations
    train = jets.take(slice(0, N_TRAIN))
    test = jets.take(slice(N_TRAIN, 2 * N_TRAIN))
    start = time.perf_counter()
    config = ModelConfig(**{**vars(SETTINGS), "relations": list(relations), "random_state": seed})
    run = folder / "run"
    with bar(total=len(check_config(config).times), desc="training", unit="step") as progress:
        trained = fit_run(
            Inputs(train, config, seed), run, resume=True, on_report=lambda _: progress.update()
        )
    seconds = [time.perf_counter() - start]
    flow = Flow(trained)
    generated = generate_events(flow, test.n, seed + 1).table
    record = flow.record(seed + 1)
    write_table(folder / "generated.h5", generated, attributes=record)
    seconds.append(time.perf_counter() - start - seconds[0])
    verdict = evaluate(
        test,
        generated,
        training=train,
        relations=relations,
        seed=seed,
        quick=True,
        provenance=record,
    )
    write_report(verdict, test, generated, folder / "report", training=train)
    score = verdict.get("auc_gb")
    headline = f"AUC {score.text()}, floor {score.floor_text()}"
    demo_figure(test, generated, folder / "jets.png", auc_text=headline)
    return (
        f"{verdict.text()}\n\n"
        f"trained on {train.n} jets in {seconds[0]:.0f} s of wall time, generated {test.n} in"
        f" {seconds[1]:.1f} s ({flow.n_evaluations} evaluations each)\n"
        f"figure: {folder / 'jets.png'}   report: {folder / 'report' / 'report.html'}"
    )
