"""Quality against evaluations of the network: network alone, and with trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.evaluations_figure import draw_panels

SCORES = {
    "auc_gb": "classifier AUC, boosted trees",
    "separation": r"mean separation power $\times$ 100",
    "wasserstein": "mean $W_1$ / width",
}

FAMILIES = {
    "DDPM": ("DDPM", "#56b4e9", "o", "-"),
    "Heun": ("EDM, Heun", "#3b3b3b", "s", "-"),
    "DPM++": ("DPM-Solver++ 2M", "#8c6d31", "v", "-"),
    "UniPC": ("UniPC", "#0072b2", "D", "-"),
    "Restart (DPM++": ("Restart, DPM-Solver++ 2M", "#cc79a7", "^", "-"),
    "Restart (Heun": ("Restart, Heun", "#cc79a7", "v", ":"),
    "above": ("trees above, UniPC below", "#d55e00", "P", ""),
    "below": ("UniPC above, trees below", "#e69f00", "X", ""),
    "restart by trees": ("UniPC, restart by trees", "#009e73", "*", ""),
    "noise to": ("trees, noise, UniPC", "#7a5195", "h", ""),
    "corrected": ("UniPC, corrected by trees", "#f0a30a", "p", ""),
}
"""Part of a contender's name -> label, colour, mark, line; network alone first."""


def family(name: str) -> str | None:
    """Return the family of a contender; None for trees alone, which ask no network."""
    for part in ("restart by trees", "noise to", "corrected"):
        if part in name:
            return part
    if " to t = " in name:
        return "above" if name.startswith("trees") else "below"
    alone = ("DDPM", "Restart (DPM++", "Restart (Heun", "DPM++", "UniPC", "Heun")
    return next((key for key in alone if key in name), None)


def draw(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the figure: a panel for each score, floor and trees alone as bands."""
    labels = {name: label for name, label in SCORES.items() if name in lines[0]}
    draw_panels(labels, lambda axes, name: _panel(axes, lines, name), 4.1, path)


def _panel(axes: Any, lines: Sequence[Mapping[str, Any]], name: str) -> None:
    for key, (label, colour, mark, dashes) in FAMILIES.items():
        points = sorted(
            (line["network"], *line[name][:2]) for line in lines if family(line["contender"]) == key
        )
        if points:
            look = {"color": colour, "marker": mark, "ls": dashes, "ms": 5, "capsize": 2}
            axes.errorbar(*zip(*points, strict=True), label=label, **look)
    low, error = lines[0][name][2:]
    axes.axhspan(low - error, low + error, color="#c9c9c9", label="floor", zorder=0)
    for line in lines:
        if line["contender"] == "trees alone":
            value, error = line[name][:2]
            axes.axhline(value, color="#009e73", ls="--", lw=1.0, label="trees alone", zorder=0)
            axes.axhspan(value - error, value + error, color="#009e73", alpha=0.12, zorder=0)
