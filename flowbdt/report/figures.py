"""The figures of a report: histograms with ratio panels, correlation differences, the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import atomic
from ..metrics import correlation_matrix
from ..table import EventTable
from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PER_PAGE = 6
BINS = 40


@dataclass(frozen=True)
class Shape:
    """A normalised histogram: percent of events per bin (b,) and its statistical error."""

    edges: np.ndarray
    share: np.ndarray
    error: np.ndarray
    outside: float

    @staticmethod
    def of(values: np.ndarray, weight: np.ndarray | None, edges: np.ndarray) -> Shape:
        """Fill; ``outside`` is the share of events beyond the edges."""
        weight = np.ones(len(values)) if weight is None else weight
        counts, _ = np.histogram(values, bins=edges, weights=weight)
        squares, _ = np.histogram(values, bins=edges, weights=weight**2)
        scale = weight.sum() / 100.0
        outside = max(0.0, 1.0 - counts.sum() / weight.sum())
        return Shape(edges, counts / scale, np.sqrt(squares) / scale, float(outside))


def column_edges(real: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    """Return bin edges for drawing: the range of nearly all events, unit bins for integers."""
    both = real if other is None else np.concatenate([real, other])
    if np.array_equal(real, np.round(real)) and np.ptp(real) <= 60:
        return np.arange(real.min() - 0.5, real.max() + 1.0)
    low, high = np.quantile(real, [0.002, 0.998])
    span = (high - low) or max(abs(low), 1.0)
    low, high = low - 0.04 * span, high + 0.04 * span
    if both.min() > low:
        low = both.min()
    if both.max() < high:
        high = both.max()
    if real.min() >= 0.0 and low < 0.06 * span:
        low = 0.0
    return np.linspace(low, high if high > low else low + 1.0, BINS + 1)


Samples = EventTable | Mapping[str, EventTable]
"""One generated sample, or several by what they are called in the legend."""


def column_pages(
    real: EventTable, generated: Samples, training: EventTable | None = None
) -> list[Figure]:
    """Return figures of six columns each: shares and ratios to real, with statistical bands.

    Call it inside `style.drawing`.
    """
    groups = [real.names[i : i + PER_PAGE] for i in range(0, len(real.names), PER_PAGE)]
    return [_page(group, real, generated, training) for group in groups]


def _page(
    names: tuple[str, ...],
    real: EventTable,
    generated: Samples,
    training: EventTable | None,
    height: float = 3.2,
    title: str = "",
) -> Figure:
    """Draw columns three in a row, each ``height`` inches high, margins fixed in inches."""
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    top = 0.6 if title else 0.38
    size = (3.35 * columns + 0.3, height * rows + top)
    figure = style.new_figure(*size)
    outer = figure.add_gridspec(
        rows,
        columns,
        left=0.68 / size[0],
        right=1 - 0.2 / size[0],
        bottom=0.52 / size[1],
        top=1 - top / size[1],
        wspace=0.17,
        hspace=0.55 / (height - 0.55),
    )
    handles: dict[str, Any] = {}
    for i, name in enumerate(names):
        cell = outer[divmod(i, columns)].subgridspec(2, 1, height_ratios=(3, 1), hspace=0.0)
        upper = figure.add_subplot(cell[0])
        lower = figure.add_subplot(cell[1], sharex=upper)
        handles = _column(upper, lower, name, real, generated, training)
        if i % columns == 0:
            _label_side(upper, lower)
    _legend(figure, handles, title)
    return figure


def _label_side(upper: Axes, lower: Axes) -> None:
    """Write the y labels at one distance, however wide the numbers are."""
    for axes, text in ((upper, "events per bin [%]"), (lower, "ratio")):
        axes.set_ylabel(text)
        axes.yaxis.set_label_coords(-0.145, 0.5)


def _legend(figure: Figure, handles: dict[str, Any], title: str) -> None:
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="upper center",
        ncols=len(handles),
        borderaxespad=0.15,
        title=title or None,
        title_fontsize=10,
    )


def _column(
    upper: Axes,
    lower: Axes,
    name: str,
    real: EventTable,
    generated: Samples,
    training: EventTable | None,
) -> dict[str, Any]:
    """Draw one column; return the legend entries."""
    samples = {"generated": generated} if isinstance(generated, EventTable) else generated
    edges = column_edges(
        real.column(name), np.concatenate([t.column(name) for t in samples.values()])
    )
    truth = Shape.of(real.column(name), real.weight, edges)
    handles = {"real": _filled(upper, truth)}
    shapes: list[tuple[Shape, str, Any]] = []
    for (label, table), (color, dashes) in zip(samples.items(), style.lines(), strict=False):
        made = Shape.of(table.column(name), table.weight, edges)
        handles[label] = _line(upper, made, color, dashes)
        shapes.append((made, color, dashes))
    _scale(upper, truth, [made for made, _, _ in shapes])
    if training is not None:
        seen = Shape.of(training.column(name), training.weight, edges)
        handles["training (truth on truth)"] = _line(upper, seen, style.TRAINING, (0, (4, 2)))
        shapes.insert(0, (seen, style.TRAINING, (0, (4, 2))))
    _ratios(lower, truth, shapes)
    style.quiet_ticks(upper)
    lower.set_xlabel(style.label(name, real.unit(name)))
    upper.set_xlim(edges[0], edges[-1])
    lower.locator_params(axis="x", nbins=6)
    return handles


def _filled(axes: Axes, shape: Shape) -> Any:
    """Draw the real events: grey area, dark outline, hatched statistical band."""
    area = axes.stairs(
        shape.share, shape.edges, fill=True, facecolor="#dedede", edgecolor=style.REAL, lw=1.0
    )
    axes.stairs(shape.share, shape.edges, color=style.REAL, lw=1.0)
    return area


def _line(axes: Axes, shape: Shape, color: str, dashes: Any) -> Any:
    """Draw an outline and its statistical band."""
    axes.stairs(
        shape.share + shape.error,
        shape.edges,
        baseline=np.maximum(shape.share - shape.error, 0.0),
        fill=True,
        color=color,
        alpha=0.25,
        lw=0,
    )
    return axes.stairs(shape.share, shape.edges, color=color, lw=1.4, linestyle=dashes)


def _scale(axes: Axes, truth: Shape, made: Sequence[Shape]) -> None:
    """Choose a logarithmic y axis where most bins would be squeezed to the bottom."""
    filled = truth.share[truth.share > 0]
    peak = max(truth.share.max(), *(shape.share.max() for shape in made))
    if len(filled) > 8 and np.median(filled) < 0.06 * filled.max():
        axes.set_yscale("log")
        axes.set_ylim(0.5 * filled.min(), 3.0 * peak)
    else:
        axes.set_ylim(0.0, 1.15 * peak if peak > 0 else 1.0)
        axes.locator_params(axis="y", nbins=5, prune="lower")
    outside = max(shape.outside for shape in made)
    if outside > truth.outside + 0.005:
        text = f"{100 * outside:.1f}% of generated outside"
        axes.text(0.97, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=7.5)


def _ratios(axes: Axes, truth: Shape, shapes: list[tuple[Shape, str, Any]]) -> None:
    """Draw every shape over the truth; the grey band is the error of the truth."""
    known = truth.error < 0.3 * truth.share  # about 11 events: with fewer a ratio says nothing
    safe = np.where(known, truth.share, 1.0)
    band = np.where(known, truth.error / safe, 0.0)
    axes.stairs(
        1 + band, truth.edges, baseline=1 - band, fill=True, color=style.BAND, lw=0, zorder=0
    )
    axes.axhline(1.0, color=style.REAL, lw=0.7, zorder=1)
    reach = 0.05
    for shape, color, dashes in shapes:
        ratio = np.where(known, shape.share / safe, np.nan)
        error = np.where(known, shape.error / safe, np.nan)
        axes.stairs(
            ratio + error, truth.edges, baseline=ratio - error, fill=True, color=color, alpha=0.25
        )
        axes.stairs(ratio, truth.edges, color=color, lw=1.1, linestyle=dashes, baseline=None)
        reach = max(reach, _reach(ratio, error, truth))
    tick = next((step for step in (0.05, 0.1, 0.2) if reach <= 1.4 * step), 0.5)
    limit = 1.7 * tick
    axes.set_ylim(1 - limit, 1 + limit)
    axes.set_yticks([1 - tick, 1.0, 1 + tick])
    for shape, color, _ in shapes:
        _off_scale(axes, np.where(known, shape.share / safe, np.nan), truth.edges, color, limit)


def _reach(ratio: np.ndarray, error: np.ndarray, truth: Shape) -> float:
    """Return how far the ratio goes from 1 in the bins that hold nearly all events."""
    good = (truth.share > 0) & (truth.error < 0.1 * truth.share)
    if not good.any():
        return 0.5
    return float(np.quantile(np.abs(ratio[good] - 1) + error[good], 0.97))


def _off_scale(axes: Axes, ratio: np.ndarray, edges: np.ndarray, color: str, limit: float) -> None:
    """Mark ratios beyond the panel with a triangle at its edge."""
    centres = (edges[:-1] + edges[1:]) / 2
    for marker, beyond, y in (
        ("^", ratio > 1 + limit, 1 + 0.88 * limit),
        ("v", ratio < 1 - limit, 1 - 0.88 * limit),
    ):
        if beyond.any():
            axes.plot(centres[beyond], np.full(beyond.sum(), y), marker, color=color, ms=3)


def correlation_figure(
    real: EventTable, generated: EventTable, training: EventTable | None = None
) -> Figure:
    """Return the difference of the Pearson correlations to real, beside the floor if known."""
    truth = correlation_matrix(real.x, real.weight)
    parts = {"generated - real": generated}
    if training is not None:
        parts["training - real (floor)"] = training
    differences = {
        title: correlation_matrix(table.x, table.weight) - truth for title, table in parts.items()
    }
    limit = max(0.02, *(float(np.abs(d).max()) for d in differences.values()))
    size = min(max(3.2, 0.42 * len(real.names) + 1.0), 9.0)
    figure = style.new_figure(size * len(parts) + 0.7, size, layout="constrained")
    grid = figure.subplots(1, len(parts), squeeze=False)[0]
    for axes, (title, difference) in zip(grid, differences.items(), strict=True):
        image = _matrix(axes, difference, real.names, limit)
        axes.set_title(title)
    figure.colorbar(image, ax=list(grid), label="difference of correlation", shrink=0.8, pad=0.01)
    return figure


def _matrix(axes: Axes, matrix: np.ndarray, names: tuple[str, ...], limit: float) -> Any:
    """Draw a matrix; small ones with their numbers (x100), for greyscale and exact reading."""
    image = axes.imshow(matrix, cmap="PuOr", vmin=-limit, vmax=limit)
    axes.tick_params(length=0)
    if len(names) <= 30:
        ticks = range(len(names))
        axes.set_xticks(ticks, [style.label(n) for n in names], rotation=90)
        axes.set_yticks(ticks, [style.label(n) for n in names])
    if len(names) <= 16:
        axes.set_xlabel(r"numbers: difference $\times$ 100")
        for (i, j), value in np.ndenumerate(matrix):
            if i != j:
                color = "white" if abs(value) > 0.6 * limit else "black"
                text = f"{100 * value:.1f}".replace("-0.0", "0.0")
                axes.text(j, i, text, ha="center", va="center", fontsize=6.5, color=color)
    return image


def demo_figure(
    real: EventTable,
    generated: EventTable,
    path: str | Path,
    auc_text: str = "",
    columns: tuple[str, ...] = ("mass", "pt", "tau21", "tau32", "d12", "ecf2"),
) -> None:
    """Write one compact figure of up to six columns, real against generated with ratios.

    Parameters
    ----------
    real, generated : EventTable with the same columns
    path : where to write; the ending chooses the format (.png, .svg, .pdf)
    auc_text : str, the headline, e.g. ``"AUC 0.56, floor 0.51"``
    columns : names to show; those the table lacks are replaced by its first others

    Raises
    ------
    MissingExtra if matplotlib is not installed.
    """
    known = [name for name in columns if name in real.names]
    others = [name for name in real.names if name not in known]
    names = tuple([*known, *others][: len(columns)])
    with style.drawing():
        save(_page(names, real, generated, None, height=2.6, title=auc_text), path)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure whole or not at all, without a date, so that equal figures are equal files."""
    path = Path(path)
    kind = path.suffix.lstrip(".").lower() or "png"
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    with atomic(path) as part:
        figure.savefig(part, format=kind, metadata=metadata)
