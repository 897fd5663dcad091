"""Quality of showers against evaluations, one colour for each kind of sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.evaluations_figure import draw_panels
from experiments.samplers.settings import FAMILIES

FLOOR = "floor: training showers"

SCORES = {
    "separation": "mean separation x1000",
    "fpd": "FPD x1000",
    "auc_high": "AUC, high level",
    "auc_low": "AUC, low level",
}

SHOWN = {
    "Euler = DDIM": ("#3b3b3b", "-"),
    "UniPC-2": ("#0072b2", "-"),
    "DPM-Solver++ 2M": ("#56b4e9", "-"),
    "Adams-Bashforth 3": ("#8c6d31", "-"),
    "EDM, no churn, EDM grid": ("#e69f00", "-"),
    "UniPC-2, EDM grid": ("#0072b2", ":"),
    "DDPM": ("#d55e00", "-"),
    "SDE-DPM++ 2M": ("#cc79a7", "-"),
    "Restart (Heun)": ("#009e73", "-"),
    "trees, noise, UniPC": ("#7a5195", ""),
}
"""Samplers that have a colour; all others are grey."""


def draw(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the figure: separations and FPD, the floor as a band."""
    labels = {name: SCORES[name] for name in ("separation", "fpd")}
    draw_panels(labels, lambda axes, name: _panel(axes, lines, name), 4.5, path)


def _panel(axes: Any, lines: Sequence[Mapping[str, Any]], name: str) -> None:
    every = [sampler for family in FAMILIES.values() for sampler in family]
    for sampler in dict.fromkeys((*every, *SHOWN)):
        points = sorted(
            (line["evaluations"], *(1e3 * v for v in line[name]))
            for line in lines
            if line.get("sampler") == sampler
        )
        colour, dashes = SHOWN.get(sampler, ("#d0d0d0", "-"))
        look: dict[str, Any] = {"color": colour, "ls": dashes, "marker": "o", "ms": 3}
        if points and sampler in SHOWN:
            axes.errorbar(*zip(*points, strict=True), label=sampler, capsize=2, **look)
        elif points:
            axes.plot(*list(zip(*points, strict=True))[:2], zorder=0, **look)
    (floor,) = (line for line in lines if line["contender"] == FLOOR)
    value, error = (1e3 * number for number in floor[name])
    axes.axhspan(value - error, value + error, color="#c9c9c9", label="floor", zorder=0)
