"""Quality against epochs, a panel for each weight; quality of every observable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Runs = Sequence[Mapping[str, Any]]

LABELS = {
    "auc_gb": "classifier AUC, boosted trees",
    "separation": r"mean separation power $\times$ 100",
    "wasserstein": "mean $W_1$ / width",
}
COLOURS = ("#0072b2", "#d55e00")
"""Of the learning rates."""

BEHIND = "edm"
"""The weight that is drawn in grey behind every other."""


def curve(runs: Runs, weight: str, rate: float, score: str) -> np.ndarray:
    """Return (k, 3): epoch, mean over seeds, its standard error (0 for one seed)."""
    found = [run["lines"] for run in runs if (run["weight"], run["rate"]) == (weight, rate)]
    values = np.array([[line[score][0] for line in lines] for lines in found])
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    epochs = [line["epoch"] for line in found[0]]
    return np.column_stack([epochs, values.mean(axis=0), np.broadcast_to(error, len(epochs))])


def draw(runs: Runs, floor: Mapping[str, Sequence[float]], folder: Path) -> None:
    """Write a figure for each score, and one of the observables."""
    from flowbdt.evaluation.report.style import drawing

    with drawing():
        for score, label in LABELS.items():
            if score in floor:
                _epochs(runs, floor[score], score, label).savefig(folder / f"{score}.png")
        _observables(runs, floor).savefig(folder / "observables.png")


def _epochs(runs: Runs, floor: Sequence[float], score: str, label: str) -> Any:
    from flowbdt.evaluation.report.style import new_figure

    weights = list(dict.fromkeys(run["weight"] for run in runs))
    rates = sorted({run["rate"] for run in runs})
    figure = new_figure(10.0, 2.3 * -(-len(weights) // 4) + 0.6, "constrained")
    panels = figure.subplots(-(-len(weights) // 4), 4, sharex=True, sharey=True, squeeze=False)
    for axes, weight in zip(panels.flat, weights, strict=False):
        axes.axhspan(floor[0] - floor[1], floor[0] + floor[1], color="#c9c9c9", label="floor")
        for rate, colour in zip(rates, COLOURS, strict=False):
            if BEHIND in weights and weight != BEHIND:
                epochs, mean, _ = curve(runs, BEHIND, rate, score).T
                axes.plot(epochs, mean, color=colour, ls=":", lw=1.0, label=f"{BEHIND}, {rate:g}")
            epochs, mean, error = curve(runs, weight, rate, score).T
            axes.plot(epochs, mean, color=colour, marker="o", ms=3, label=f"rate {rate:g}")
            axes.fill_between(epochs, mean - error, mean + error, color=colour, alpha=0.25, lw=0)
        axes.set_title(weight)
    _scales(panels, label)
    for axes in list(panels.flat)[len(weights) :]:
        axes.set_axis_off()
    handles: dict[str, Any] = {}
    for axes in panels.flat:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(list(handles.values()), list(handles), loc="outside lower right", ncols=5)
    return figure


def _scales(panels: Any, label: str) -> None:
    from flowbdt.evaluation.report.style import plain_ticks

    for axes in panels.flat:
        axes.set_xscale("log")
        axes.set_yscale("log")
        plain_ticks(axes.xaxis, [1, 2, 5, 10, 20, 40, 80])
        plain_ticks(axes.yaxis)
    for axes in panels[-1]:
        axes.set_xlabel("epochs")
    panels[0, 0].figure.supylabel(label, fontsize=9.5)


def _observables(runs: Runs, floor: Mapping[str, Sequence[float]]) -> Any:
    """Return separations of every column after the last epoch: a row per weight and rate."""
    from flowbdt.evaluation.report.style import label, new_figure

    columns = [name.split()[1] for name in floor if name.startswith("separation ")]
    keys = list(dict.fromkeys((run["weight"], run["rate"]) for run in runs))
    keys.sort(key=lambda key: key[1])
    last = [[curve(runs, *key, f"separation {c}")[-1, 1:] for c in columns] for key in keys]
    values = np.array(last)
    ratio = values[..., 0] / np.array([floor[f"separation {c}"][0] for c in columns])
    figure = new_figure(0.62 * len(columns) + 3.4, 0.28 * len(keys) + 1.2, "constrained")
    axes = figure.subplots()
    image = axes.imshow(ratio, cmap="cividis_r", aspect="auto", vmin=1.0)
    for (i, j), value in np.ndenumerate(ratio):
        dark = value > 1.0 + 0.55 * (ratio.max() - 1.0)
        axes.text(
            j, i, f"{value:.1f}", ha="center", va="center", color="w" if dark else "k", size=8
        )
    axes.set_xticks(range(len(columns)), [label(c) for c in columns])
    axes.set_yticks(range(len(keys)), [f"{weight}, {rate:g}" for weight, rate in keys])
    axes.tick_params(length=0)
    figure.colorbar(image, label="separation power / floor, last epoch", shrink=0.8)
    return figure
