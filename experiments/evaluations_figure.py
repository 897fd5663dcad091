"""The picture of studies of samplers: a panel for each score against evaluations of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flowbdt.evaluation.report import style


def draw_panels(
    labels: Mapping[str, str], panel: Callable[[Any, str], None], width: float, path: Path
) -> None:
    """Write a figure whose axes ``panel`` fills for each score; ``labels`` are those of the scores.

    ``width`` of a panel is in inches; both axes are logarithmic, the legend is below.
    """
    with style.drawing():
        figure = style.new_figure(width * len(labels), 4.3, "constrained")
        panels = figure.subplots(1, len(labels), squeeze=False)[0]
        for axes, (name, label) in zip(panels, labels.items(), strict=True):
            panel(axes, name)
            axes.set(xscale="log", yscale="log", xlabel="evaluations of the network", ylabel=label)
            style.plain_ticks(axes.xaxis)
            style.plain_ticks(axes.yaxis)
        found = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
        figure.legend(found.values(), found, loc="outside lower center", ncols=4)
        figure.savefig(path)
