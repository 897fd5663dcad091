"""Figures of runs together: losses and trees per step, quality against cost, corners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...tables.event_table import EventTable
from ...training.explained_variance import explained
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
    """Score of one sampler with its standard error, from ``n_events`` real and generated events.

    An event costs ``n_evaluations`` of the velocity and ``us_per_event`` CPU microseconds.
    """

    n_evaluations: int
    us_per_event: float
    value: float
    error: float
    n_events: int = 0


def steps_figure(runs: Mapping[str, Sequence[Mapping[str, Any]]], axes: Any = None) -> Figure:
    """Return losses, the share explained by trees, and numbers of trees against the time.

    ``runs``: name -> steps of a manifest; ``axes`` are three. Call it inside `style.drawing`.
    """
    figure, (panels,) = style.subplots(axes, (1, 3), (10.2, 3.2), "constrained")
    titles = ("rmse of the velocity, validation", "explained by trees [%]", "trees used")
    for (name, steps), (color, dashes) in zip(runs.items(), style.lines(), strict=False):
        columns = zip(*map(_numbers, steps), strict=True)
        for panel, values in zip(panels, columns, strict=True):
            times = [step["time"] for step in steps]
            panel.plot(times, values, color=color, ls=dashes, marker=".", label=name)
    for panel, title in zip(panels, titles, strict=True):
        panel.set_xlabel("time t (0 noise, 1 data)")
        panel.set_ylabel(title)
    panels[1].axhline(0.0, color=style.REAL, lw=0.7)
    panels[2].set_ylim(bottom=0)
    _legend(figure, panels[0], given=axes is not None)
    return figure


def _numbers(step: Mapping[str, Any]) -> tuple[float, ...]:
    """Return loss, percent explained and trees; the training loss without validation events."""
    valid = step["valid_rmse"]
    loss = step["train_rmse"] if valid is None else valid
    return loss, 100.0 * explained(step), step["trees"]


def quality_figure(
    curves: Mapping[str, Sequence[Point]], floor: tuple[float, float] | None, axes: Any = None
) -> Figure:
    """Return the mean separation power against evaluations and against time per event.

    ``floor``: truth against truth and its error, a band; ``axes`` are two. Call it inside
    `style.drawing`.
    """
    figure, (panels,) = style.subplots(axes, (1, 2), (8.6, 3.6), "constrained", sharey=True)
    places = ("n_evaluations", "us_per_event")
    labels = ("evaluations of the velocity per event", r"CPU time per event [$\mu$s]")
    for panel, place, label in zip(panels, places, labels, strict=True):
        panel.set(xscale="log", xlabel=label)
        _lines(panel, curves, place)
        if floor is not None:
            band = (floor[0] - floor[1], floor[0] + floor[1])
            panel.axhspan(*band, color=style.BAND, zorder=0, label="floor: truth against truth")
    made = sorted({p.n_evaluations for points in curves.values() for p in points})
    panels[0].set_yscale("log")
    style.plain_ticks(panels[0].xaxis, made if len(made) <= 10 else None)
    style.plain_ticks(panels[1].xaxis)
    style.plain_ticks(panels[0].yaxis)
    panels[0].set_ylabel(r"mean separation power $\times$ 100")
    _legend(figure, panels[0], given=axes is not None)
    return figure


def _legend(figure: Figure, axes: Axes, *, given: bool) -> None:
    """Write a legend above our panels, or within axes that were given."""
    if given:
        axes.legend()
        return
    handles, labels = axes.get_legend_handles_labels()
    columns = style.legend_columns([str(label) for label in labels], figure.get_figwidth())
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def _lines(axes: Axes, curves: Mapping[str, Sequence[Point]], place: str) -> None:
    for (name, points), (color, dashes) in zip(curves.items(), style.lines(), strict=False):
        x = [getattr(point, place) for point in points]
        y, error = [point.value for point in points], [point.error for point in points]
        look: dict[str, Any] = {"color": color, "ls": dashes, "marker": "o", "ms": 4, "capsize": 2}
        axes.errorbar(x, y, error, label=name, **look)


def corner_figure(
    real: EventTable, samples: Mapping[str, EventTable], names: Sequence[str], axes: Any = None
) -> Figure:
    """Return contours of all pairs of a few columns: real as areas, samples as lines.

    ``axes`` are as many rows and columns as there are ``names``, six at most. Call it inside
    `style.drawing`.
    """
    names = list(names)[:MOST_CORNERS]
    size = len(names)
    side = 1.75 * size + 1.0
    ends = {"left": 0.85 / side, "right": 1 - 0.15 / side}
    ends |= {"bottom": 0.55 / side, "top": 1 - 0.1 / side}
    room: dict[str, Any] = {**ends, "wspace": 0.06, "hspace": 0.06}
    figure, grid = style.subplots(axes, (size, size), (side, side), gridspec_kw=room)
    for row, column in np.ndindex(size, size):
        place: Axes = grid[row, column]
        if column > row:
            place.set_axis_off()
            continue
        _corner(place, real, samples, names[column], names[row])
        place.tick_params(labelleft=column == 0 < row, labelbottom=row == size - 1)
        style.inner_ticks(place.xaxis)
        style.inner_ticks(place.yaxis)
        if row == size - 1:
            place.set_xlabel(style.label(names[column], real.unit(names[column])))
        if column == 0 < row:
            place.set_ylabel(style.label(names[row], real.unit(names[row])))
            place.yaxis.set_label_coords(-0.36, 0.5)
    _corner_legend(figure if axes is None else grid[0, -1], samples)
    return figure


def _corner_legend(place: Figure | Axes, samples: Mapping[str, EventTable]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=style.BAND, label="real")]
    for name, (color, dashes) in zip(samples, style.lines(), strict=False):
        handles.append(Line2D([], [], color=color, ls=dashes, label=name))
    place.legend(handles=handles, loc="upper right")


def _corner(
    axes: Axes, real: EventTable, samples: Mapping[str, EventTable], first: str, second: str
) -> None:
    edges = [_edges(real.column(name)) for name in (first, second)]
    lines = list(zip(samples.values(), style.lines(), strict=False))
    if first == second:
        axes.stairs(_single_density(real, first, edges[0]), edges[0], fill=True, color=style.BAND)
        for table, (color, dashes) in lines:
            axes.stairs(_single_density(table, first, edges[0]), edges[0], color=color, ls=dashes)
        axes.set_ylim(bottom=0.0)
        return
    middles = [0.5 * (e[1:] + e[:-1]) for e in edges]
    density = _density(real, first, second, edges)
    axes.contourf(*middles, density, [*levels(density), np.inf], colors=["#dcdcdc", "#b0b0b0"])
    for table, (color, dashes) in lines:
        density = _density(table, first, second, edges)
        look: dict[str, Any] = {"colors": color, "linestyles": [dashes], "linewidths": 1.1}
        axes.contour(*middles, density, levels(density), **look)


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = np.quantile(values, [0.005, 0.995])
    span = (high - low) or max(abs(low), 1.0)
    return np.linspace(low - 0.02 * span, high + 0.02 * span, CORNER_BINS + 1)


def _single_density(table: EventTable, name: str, edges: np.ndarray) -> np.ndarray:
    """Return the density in each bin, as a share of the events in all of them; 0 without any."""
    counts, _ = np.histogram(table.column(name), bins=edges, weights=table.weight)
    return np.asarray(counts / (max(counts.sum(), 1e-300) * np.diff(edges)))


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
    places = np.minimum(np.searchsorted(inside, MASSES[::-1]), len(falling) - 1)
    heights = [float(height) for height in falling[places]]
    return heights if heights[1] > heights[0] else [heights[0], heights[0] * (1 + 1e-9) + 1e-12]
