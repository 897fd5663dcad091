"""Unfolded spectra of the six observables, with the ratio to the truth below each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowbdt.evaluation.report.style import BAND, REAL, drawing, new_figure, quiet_ticks
from flowbdt.physics.jets.omnifold_files import SIX

LABELS = {
    "mass": "jet mass [GeV]",
    "width": "width",
    "multiplicity": "constituents",
    "ln_rho": r"$\ln \rho$",
    "z_g": r"$z_g$",
    "tau21": r"$\tau_{21}$",
}
STYLES = {
    "not unfolded": ("#0072b2", ":"),
    "the simulation's truth": ("#56b4e9", "-."),
    "omnifold": ("#d55e00", "-"),
    "posterior": ("#009e73", "-"),
    "networks": ("#cc79a7", "--"),
}


def draw(runs: Mapping[str, Any], key: str, path: Path) -> None:
    """Write a picture of the runs whose names are ``key`` with the job filled in, as far as done.

    Two bins of the separation are one here; the outermost hold what lies beyond.
    """
    own = [found for name, found in runs.items() if name == key.format(name.split(" | ")[1])]
    entries = {method: entry for found in own for method, entry in found.items()}
    if "truth" not in entries:
        return
    with drawing():
        figure = new_figure(10.0, 8.4, layout="constrained")
        grid = figure.add_gridspec(4, 3, height_ratios=[2.2, 1.0, 2.2, 1.0])
        for i, name in enumerate(SIX):
            row, column = 2 * (i // 3), i % 3
            upper = figure.add_subplot(grid[row, column])
            lower = figure.add_subplot(grid[row + 1, column], sharex=upper)
            _panel(upper, lower, entries, i)
            lower.set(xlabel=LABELS[name], ylim=(0.6, 1.4), ylabel="ratio")
            upper.set_ylabel("events per unit")
            quiet_ticks(upper)
        handles, labels = upper.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncol=6)
        figure.savefig(path)


def _panel(upper: Any, lower: Any, entries: Mapping[str, Any], i: int) -> None:
    inner = np.array(entries["truth"]["edges"][i])[2:-1:2]
    edges = np.array([2 * inner[0] - inner[1], *inner, 3 * inner[-1] - 2 * inner[-2]])
    truth, width = _pairs(entries["truth"]["shares"][i]), np.diff(edges)
    upper.stairs(truth / width, edges, fill=True, color=BAND, label="truth")
    for method, (colour, style) in STYLES.items():
        if method in entries:
            share, line = _pairs(entries[method]["shares"][i]), {"color": colour, "ls": style}
            upper.stairs(share / width, edges, label=method, lw=1.1, **line)
            ratio = np.divide(share, truth, out=np.full_like(share, np.nan), where=truth > 0)
            lower.stairs(ratio, edges, baseline=None, lw=1.1, **line)
    lower.axhline(1.0, color=REAL, lw=0.6)
    if SIX[i] in ("mass", "ln_rho"):
        upper.set_yscale("log")
    upper.set_xlim(edges[0], edges[-1])


def _pairs(shares: list[float]) -> np.ndarray:
    """Return the sums of two neighbours (b / 2,); the last bin of an odd number stays alone."""
    return np.asarray(np.add.reduceat(shares, np.arange(0, len(shares), 2)))
