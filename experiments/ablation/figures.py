"""Quality against what it costs: one figure per data set, the judges as panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.ablation.variants import COST, EVALUATIONS
from flowbdt.report.style import BAND, GENERATED, REAL, TRAINING, drawing, new_figure

JUDGES = (("auc_gb", "AUC, boosted trees"), ("auc_mlp", "AUC, neural network"))

AGAINST = {
    "evaluations": ("evaluations of the velocity per event", list(EVALUATIONS)),
    "train_cpu_s": (
        "training, CPU seconds on one thread",
        ["reference with K = 5", "no closed form", "no trees", "balanced", *COST],
    ),
}

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
    figure = new_figure(7.2, 3.2, layout="constrained")
    for i, (judge, title) in enumerate(JUDGES):
        axes = figure.add_subplot(1, 2, i + 1)
        floor = scores[names[0]][f"floor_{judge}"]
        axes.axhline(floor, color=BAND, linewidth=4, label="real against real")
        for name in names:
            _point(axes, name, scores[name], (cost, judge))
        if cost == "evaluations":
            line = sorted((scores[name][cost], scores[name][judge]) for name in names)
            axes.plot(*zip(*line, strict=True), color=GENERATED, linewidth=1)
        axes.set(xscale="log", xlabel=label, ylabel=title)
        axes.margins(x=0.15)
        axes.legend(loc="upper right")
    return figure


def _point(axes: Any, name: str, scores: Mapping[str, float], keys: tuple[str, str]) -> None:
    cost, judge = keys
    x, y = scores[cost], scores[judge]
    colour = TRAINING if name in ("fast", "balanced", "best") else GENERATED
    error = scores.get(f"{judge}_error")
    axes.errorbar(x, y, yerr=error, color=colour, marker="o", markersize=4, capsize=2)
    if cost != "evaluations":
        axes.annotate(
            name, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=6.5, color=REAL
        )
