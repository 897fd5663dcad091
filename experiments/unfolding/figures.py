"""Unfolded histograms of the six observables, with the ratio to the truth below each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.unfolding.samples import OBSERVABLES
from experiments.unfolding.summary import gathered
from flowbdt.evaluation.report.style import BAND, REAL, drawing, new_figure, quiet_ticks

LABELS = {
    "mass": "jet mass [GeV]",
    "width": "width",
    "multiplicity": "constituents",
    "ln_rho": r"$\ln \rho$",
    "z_g": r"$z_g$",
    "tau21": r"$\tau_{21}$",
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLES = ("-", "-", "--", ":", "-.", (0, (5, 1)))

SHOWN = {
    "closure": ("detector level", "noise, told", "detector", "transport", "OmniFold, all trees"),
    "cross": (
        *("detector level", "simulation", "noise, told", "noise, told, iterated"),
        *("OmniFold, published stop", "OmniFold, all trees"),
    ),
}
RATIO = {"closure": (0.8, 1.2), "cross": (0.6, 1.4)}


def draw(runs: Mapping[str, Any], edges: list[np.ndarray], folder: Path) -> None:
    """Write ``closure.png`` and ``cross.png``: histograms of the first seed and its split."""
    found = gathered(runs)
    for where, names in SHOWN.items():
        present = [name for name in names if where in found.get(name, [{}])[0]]
        with drawing():
            figure = new_figure(10.0, 8.4, layout="constrained")
            grid = figure.add_gridspec(4, 3, height_ratios=[2.2, 1.0, 2.2, 1.0])
            for i, name in enumerate(OBSERVABLES):
                row, column = 2 * (i // 3), i % 3
                upper = figure.add_subplot(grid[row, column])
                lower = figure.add_subplot(grid[row + 1, column], sharex=upper)
                _panel(upper, lower, _histograms(found, where, present, i), edges[i], name)
                lower.set_ylim(*RATIO[where])
            handles, labels = upper.get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncol=4)
            figure.savefig(folder / f"{where}.png")


def _histograms(
    found: Mapping[str, list[Any]], where: str, names: Sequence[str], i: int
) -> dict[str, np.ndarray]:
    return {name: np.array(found[name][0][where]["histograms"][i]) for name in ("truth", *names)}


def _panel(
    upper: Any, lower: Any, histograms: Mapping[str, np.ndarray], edges: np.ndarray, name: str
) -> None:
    truth = histograms["truth"]
    width = np.diff(edges)
    upper.stairs(truth / width, edges, fill=True, color=BAND, label="truth")
    seen = truth > 0
    for i, (method, share) in enumerate(list(histograms.items())[1:]):
        line = {"color": COLOURS[i], "ls": STYLES[i], "lw": 1.1}
        upper.stairs(share / width, edges, label=method, **line)
        ratio = np.divide(share, truth, out=np.full_like(share, np.nan), where=seen)
        lower.stairs(ratio, edges, baseline=None, **line)
    lower.axhline(1.0, color=REAL, lw=0.6)
    lower.set(xlabel=LABELS[name])
    if name in ("mass", "ln_rho"):
        upper.set_yscale("log")
    if name in ("mass", "multiplicity", "ln_rho"):
        lower.set_xlim(edges[0], edges[-1])
    upper.set_ylabel("events per unit")
    lower.set_ylabel("ratio")
    quiet_ticks(upper)
