"""Figures of several runs together: losses and trees per step, quality against cost, corners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..table import EventTable
from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CORNERS = 6
CORNER_BINS = 40
MASSES = (0.393, 0.865)
"""Shares of events inside contours: those within one and two standard deviations of a normal."""


@dataclass(frozen=True)
class Point:
    """Quality of one sampler: evaluations and time per event, score and its error."""

    n_evaluations: int
    us_per_event: float
    value: float
    error: float


def steps_figure(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Return losses, what trees explain, and trees, against the time of the step.

    Parameters
    ----------
    runs : name -> steps of a manifest

    Call it inside `style.drawing`.
    """
    figure = style.new_figure(10.2, 3.2, layout="constrained")
    panels = figure.subplots(1, 3)
    titles = ("rmse of the velocity, validation", "explained by trees [%]", "trees used")
    for (name, steps), (color, dashes) in zip(runs.items(), style.lines(), strict=False):
        times = [step["time"] for step in steps]
        for axes, values in zip(panels, _of_steps(steps), strict=True):
            axes.plot(times, values, color=color, ls=dashes, marker=".", label=name)
    for axes, title in zip(panels, titles, strict=True):
        axes.set_xlabel("time t (0 noise, 1 data)")
        axes.set_ylabel(title)
    panels[1].axhline(0.0, color=style.REAL, lw=0.7)
    panels[2].set_ylim(bottom=0)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _of_steps(steps: Sequence[Mapping[str, Any]]) -> tuple[list[float], ...]:
    """Return loss, percent explained and trees; the training loss without validation events."""
    losses, explained = [], []
    for step in steps:
        valid, plain = step["valid_rmse"], step["valid_rmse_without_trees"]
        losses.append(step["train_rmse"] if valid is None else valid)
        explained.append(np.nan if valid is None else 100.0 * (1.0 - (valid / plain) ** 2))
    return losses, explained, [step["trees"] for step in steps]


def quality_figure(
    curves: Mapping[str, Sequence[Point]], floor: tuple[float, float] | None
) -> Figure:
    """Return the mean separation power against evaluations and against time per event.

    Parameters
    ----------
    curves : name -> points
    floor : truth against truth and its error, drawn as a band

    Call it inside `style.drawing`.
    """
    figure = style.new_figure(8.6, 3.6, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    places = ("n_evaluations", "us_per_event")
    for (name, points), (color, dashes) in zip(curves.items(), style.lines(), strict=False):
        for axes, place in zip(panels, places, strict=True):
            x = [getattr(point, place) for point in points]
            y, error = [point.value for point in points], [point.error for point in points]
            axes.errorbar(
                x, y, error, color=color, ls=dashes, marker="o", ms=4, capsize=2, label=name
            )
    labels = ("evaluations of the velocity per event", "CPU time per event [us]")
    for axes, label in zip(panels, labels, strict=True):
        axes.set_xscale("log")
        axes.set_xlabel(label)
        _plain_numbers(axes.xaxis)
        if floor is not None:
            axes.axhspan(floor[0] - floor[1], floor[0] + floor[1], color=style.BAND, zorder=0)
    panels[0].set_yscale("log")
    _plain_numbers(panels[0].yaxis)
    panels[0].set_ylabel(r"mean separation power $\times$ 100")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _plain_numbers(axis: Any) -> None:
    """Write the numbers of a logarithmic axis as people do, a few of them."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(LogLocator(subs=(1.5, 3.0, 4.0, 7.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(StrMethodFormatter("{x:g}"))


def corner_figure(
    real: EventTable, samples: Mapping[str, EventTable], names: Sequence[str]
) -> Figure:
    """Return contours of all pairs of a few columns: real as areas, samples as lines.

    Call it inside `style.drawing`.
    """
    names = list(names)[:MOST_CORNERS]
    size = len(names)
    figure = style.new_figure(1.75 * size + 0.8, 1.75 * size + 0.8, layout="constrained")
    grid: Any = figure.subplots(size, size, squeeze=False)
    for row, column in np.ndindex(size, size):
        axes: Axes = grid[row][column]
        if column > row:
            axes.set_axis_off()
            continue
        _corner(axes, real, samples, names[column], names[row])
        axes.tick_params(labelleft=column == 0 < row, labelbottom=row == size - 1)
        axes.locator_params(nbins=3)
        if row == size - 1:
            axes.set_xlabel(style.label(names[column], real.unit(names[column])))
        if column == 0 < row:
            axes.set_ylabel(style.label(names[row], real.unit(names[row])))
    _corner_legend(figure, samples)
    return figure


def _corner_legend(figure: Figure, samples: Mapping[str, EventTable]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=style.BAND, label="real")]
    for name, (color, dashes) in zip(samples, style.lines(), strict=False):
        handles.append(Line2D([], [], color=color, ls=dashes, label=name))
    figure.legend(handles=handles, loc="upper right")


def _corner(
    axes: Axes, real: EventTable, samples: Mapping[str, EventTable], first: str, second: str
) -> None:
    edges = [_edges(real.column(name)) for name in (first, second)]
    if first == second:
        bins = edges[0].tolist()
        axes.hist(real.column(first), bins, density=True, color=style.BAND)
        for table, (color, dashes) in zip(samples.values(), style.lines(), strict=False):
            axes.hist(
                table.column(first), bins, density=True, histtype="step", color=color, ls=dashes
            )
        return
    middles = [0.5 * (e[1:] + e[:-1]) for e in edges]
    density = _density(real, first, second, edges)
    axes.contourf(*middles, density, [*levels(density), np.inf], colors=["#dcdcdc", "#b0b0b0"])
    for table, (color, dashes) in zip(samples.values(), style.lines(), strict=False):
        density = _density(table, first, second, edges)
        look: dict[str, Any] = {"colors": color, "linestyles": [dashes], "linewidths": 1.1}
        axes.contour(*middles, density, levels(density), **look)


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = np.quantile(values, [0.005, 0.995])
    span = (high - low) or max(abs(low), 1.0)
    return np.linspace(low - 0.02 * span, high + 0.02 * span, CORNER_BINS + 1)


def _density(table: EventTable, first: str, second: str, edges: list[np.ndarray]) -> np.ndarray:
    """Return smoothed counts (y, x)."""
    from scipy.ndimage import gaussian_filter

    counts, _, _ = np.histogram2d(
        table.column(first), table.column(second), bins=edges, weights=table.weight
    )
    return np.asarray(gaussian_filter(counts.T, 1.0))


def levels(density: np.ndarray) -> list[float]:
    """Return the heights, rising, above which lie the shares `MASSES` of the events."""
    falling = np.sort(density.ravel())[::-1]
    inside = np.cumsum(falling) / max(falling.sum(), 1e-300)
    heights = [float(falling[np.searchsorted(inside, mass)]) for mass in MASSES[::-1]]
    return heights if heights[1] > heights[0] else [heights[0], heights[0] * (1 + 1e-9) + 1e-12]
