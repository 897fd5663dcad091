"""One figure: every histogram's separation in units of its floor, before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

MARKS = {"cheap": "x", "resampled": "+", "ranks": "s", "from_cheap": "o", "from_noise": "^"}


def draw(figures: dict[str, Any], folder: Path) -> None:
    """Write ``refinement.png``."""
    from matplotlib.figure import Figure

    floor = figures["floor"]
    names = list(floor)
    at = np.arange(len(names))[::-1]
    figure = Figure(figsize=(7, 8), layout="constrained")
    axes = figure.subplots()
    methods = [name for name in figures if name != "floor"]
    for k, method in enumerate(methods):
        unit = np.array([floor[name]["floor"] for name in names])
        mean = np.array([figures[method][name]["mean"] for name in names]) / unit
        error = np.array([figures[method][name]["error"] or 0.0 for name in names]) / unit
        shift = 0.18 * (k - (len(methods) - 1) / 2)
        axes.errorbar(
            mean, at - shift, xerr=error, fmt=MARKS.get(method, "d"), ms=4, lw=1, label=method
        )
    axes.axvline(1.0, color="black", lw=0.8)
    axes.axvline(1.5, color="grey", lw=0.8, ls=":")
    axes.set_xscale("log")
    axes.set_yticks(at, names, fontsize=7)
    axes.set_xlabel("separation from the detailed showers / floor")
    axes.legend(fontsize=8)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "refinement.png", dpi=110)
