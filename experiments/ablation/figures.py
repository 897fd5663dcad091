"""Quality against what it costs: one figure per data set and cost, a panel per judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.ablation.variants import EVALUATIONS
from flowbdt.evaluation.report.style import (
    BAND,
    GENERATED,
    SAMPLES,
    TRAINING,
    drawing,
    new_figure,
    plain_ticks,
)

JUDGES = (("auc_gb", "AUC, boosted trees"), ("auc_mlp", "AUC, neural network"))

AGAINST = {
    "evaluations": ("evaluations of the velocity per event", list(EVALUATIONS)),
    "train_cpu_s": (
        "training, CPU seconds on one thread",
        [
            *("reference with K = 5", "no closed form nor rejection", "no trees nor rejection"),
            *("fast", "fast with rejection", "no rejection", "balanced with 15 trees"),
            "balanced",
        ],
    ),
}

MARKS = "osD^vP*Xhp"

Scores = Mapping[str, Mapping[str, float]]


def draw(figures: Mapping[str, Scores], folder: Path) -> None:
    """Write ``<data>_<cost>.svg`` and ``.png`` for every data set and cost that has points."""
    for data, scores in figures.items():
        for cost, (label, names) in AGAINST.items():
            found = [name for name in names if name in scores]
            if len(found) < 2:
                continue
            with drawing():
                figure = _panels(scores, found, cost, label)
                for ending in ("svg", "png"):
                    figure.savefig(folder / f"{data}_{cost}.{ending}")


def _panels(scores: Scores, names: Sequence[str], cost: str, label: str) -> Any:
    figure = new_figure(7.6, 3.4 if cost == "evaluations" else 4.2, layout="constrained")
    panels = figure.subplots(1, len(JUDGES))
    for axes, (judge, title) in zip(panels, JUDGES, strict=True):
        # what is left above 0.5 spans two decades between the recipe and the floor
        floor = abs(scores[names[0]][f"floor_{judge}"] - 0.5)
        axes.axhspan(0, floor, color=BAND, label="real against real, or below")
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel=f"{title}, minus 0.5")
        if cost == "evaluations":
            _curve(axes, scores, names, judge)
        else:
            _points(axes, scores, names, (cost, judge))
        axes.set_ylim(bottom=2e-3)
        plain_ticks(axes.yaxis)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _curve(axes: Any, scores: Scores, names: Sequence[str], judge: str) -> None:
    """Draw one line through all numbers of evaluations, with ticks at these."""
    line = sorted(
        (s["evaluations"], s[judge] - 0.5, s.get(f"{judge}_error", 0.0))
        for s in (scores[name] for name in names)
    )
    x, y, error = zip(*line, strict=True)
    axes.errorbar(
        x, y, yerr=error, color=GENERATED, marker="o", capsize=2, label="without rejection"
    )
    plain_ticks(axes.xaxis, x)


def _points(axes: Any, scores: Scores, names: Sequence[str], keys: tuple[str, str]) -> None:
    """Draw a mark per variant; presets in one colour of their own."""
    cost, judge = keys
    for i, name in enumerate(names):
        preset = name in ("fast", "balanced")
        axes.errorbar(
            scores[name][cost],
            scores[name][judge] - 0.5,
            yerr=scores[name].get(f"{judge}_error"),
            color=TRAINING if preset else SAMPLES[i % len(SAMPLES)],
            marker=MARKS[i],
            markersize=8 if preset else 5,
            linestyle="",
            capsize=2,
            label=name,
        )
    plain_ticks(axes.xaxis)
