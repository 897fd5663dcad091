"""The figures of a report: histograms with ratio panels, correlation differences, the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...atomic_files import atomic
from ...tables import checks
from ...tables.event_table import EventTable, with_same_codes
from ..metrics import correlation_matrix
from ..model_errors import bin_errors
from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PER_PAGE = 6
BINS = 40


@dataclass(frozen=True)
class Shape:
    """A normalised histogram: percent of events per bin (b,) and its statistical error.

    ``total`` is the error with that of the model, of events of an ensemble.
    """

    edges: np.ndarray
    share: np.ndarray
    error: np.ndarray
    outside: float
    total: np.ndarray | None = None

    @staticmethod
    def of(values: np.ndarray, weight: np.ndarray | None, edges: np.ndarray) -> Shape:
        """Fill; ``outside`` is the share of events beyond the edges."""
        weight = checks.relative_or_ones(weight, len(values))
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
    low, high = max(low - 0.04 * span, both.min()), min(high + 0.04 * span, both.max())
    if real.min() >= 0.0 and low < 0.06 * span:
        low = 0.0
    return np.linspace(low, high if high > low else low + 1.0, BINS + 1)


Samples = Mapping[str, EventTable]
"""Generated samples by their names in the legend."""

TRAINING = "training (truth on truth)"


Replicas = Mapping[str, np.ndarray | None]
"""Which replica made each event of a sample (n,), by the name of the sample; None of one model."""


def column_pages(
    real: EventTable,
    samples: Samples,
    training: EventTable | None = None,
    replicas: Replicas | None = None,
) -> list[Figure]:
    """Return figures of six columns each: shares and ratios to real, with statistical bands.

    Samples of known ``replicas`` have a wider, paler band with the error of the model. Call it
    inside `style.drawing`.
    """
    known = [real, *samples.values(), *([] if training is None else [training])]
    real, *others = with_same_codes(known)
    samples = dict(zip(samples, others, strict=False))
    training = None if training is None else others[-1]
    groups = [real.names[i : i + PER_PAGE] for i in range(0, len(real.names), PER_PAGE)]
    return [column_page(group, real, samples, training, replicas=replicas) for group in groups]


def column_page(
    names: tuple[str, ...],
    real: EventTable,
    samples: Samples,
    training: EventTable | None,
    height: float = 3.2,
    title: str = "",
    replicas: Replicas | None = None,
    axes: Any = None,
) -> Figure:
    """Draw columns three in a row, each ``height`` inches high, or into ``axes``."""
    cells = style.Cells(height=height, top=0.6 if title else 0.38)
    shown = ["real", *samples, *([] if training is None else [TRAINING])]
    figure, panels = style.ratio_panels(len(names), cells, shown, axes)
    handles: dict[str, Any] = {}
    for name, (upper, lower) in zip(names, panels, strict=True):
        handles = _column(upper, lower, name, real, samples, training, replicas or {})
    style.name_rows(panels, cells.columns if axes is None else 1, "events per bin [%]", "ratio")
    style.legend_above(figure, handles, title, None if axes is None else panels[0][0])
    return figure


def _column(
    upper: Axes,
    lower: Axes,
    name: str,
    real: EventTable,
    samples: Samples,
    training: EventTable | None,
    replicas: Replicas,
) -> dict[str, Any]:
    """Draw one column; return the legend entries."""
    values = np.concatenate([table.column(name) for table in samples.values()])
    texts = real.categories.get(name)
    edges = (
        column_edges(real.column(name), values)
        if texts is None
        else np.arange(len(texts) + 1) - 0.5
    )
    truth = Shape.of(real.column(name), real.weight, edges)
    handles = {"real": draw_real(upper, truth)}
    shapes: list[tuple[Shape, str, Any]] = []
    for (label, table), (color, dashes) in zip(samples.items(), style.lines(), strict=False):
        made = Shape.of(table.column(name), table.weight, edges)
        if (replica := replicas.get(label)) is not None:
            errors = bin_errors(table.column(name), replica, edges, table.weight)
            made = replace(made, total=100.0 * errors.total)
        handles[label] = line(upper, made, color, dashes)
        shapes.append((made, color, dashes))
    scale(upper, truth, [made for made, _, _ in shapes])
    if training is not None:
        floor = Shape.of(training.column(name), training.weight, edges)
        handles[TRAINING] = line(upper, floor, style.TRAINING, style.TRAINING_DASHES)
        shapes.insert(0, (floor, style.TRAINING, style.TRAINING_DASHES))
    ratios(lower, truth, shapes)
    style.quiet_ticks(upper)
    lower.set_xlabel(style.label(name, real.unit(name)))
    upper.set_xlim(edges[0], edges[-1])
    if texts is None:
        lower.locator_params(axis="x", nbins=6)
    else:
        name_categories(lower, texts)
    return handles


MOST_CATEGORIES = 25
"""Categories that an axis names."""


def name_categories(axes: Axes, texts: Sequence[str]) -> None:
    """Write the names of categories at the x axis, shortened where they are long."""
    shown = [text if len(text) <= 14 else f"{text[:13]}\u2026" for text in texts]
    places = range(len(shown)) if len(shown) <= MOST_CATEGORIES else []
    upright = sum(map(len, shown)) > 24
    axes.set_xticks(
        places,
        [shown[i].replace("$", r"\$") for i in places],
        rotation=90 if upright else 0,
        fontsize=6 if upright else None,
    )
    axes.tick_params(axis="x", length=0)


def draw_real(axes: Axes, shape: Shape) -> Any:
    """Draw the real events: grey area, dark outline, hatched statistical band."""
    area = axes.stairs(
        shape.share, shape.edges, fill=True, facecolor="#dedede", edgecolor=style.REAL, lw=1.0
    )
    axes.stairs(shape.share, shape.edges, color=style.REAL, lw=1.0)
    return area


def line(axes: Axes, shape: Shape, color: str, dashes: Any) -> Any:
    """Draw an outline and its statistical band, and around it that with the error of the model."""
    for error, alpha in ((shape.error, 0.25), (shape.total, 0.15)):
        if error is not None:
            low, high = np.maximum(shape.share - error, 0.0), shape.share + error
            axes.stairs(high, shape.edges, baseline=low, fill=True, color=color, alpha=alpha, lw=0)
    return axes.stairs(shape.share, shape.edges, color=color, lw=1.4, linestyle=dashes)


def scale(axes: Axes, truth: Shape, made: Sequence[Shape]) -> None:
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


def ratios(axes: Axes, truth: Shape, shapes: list[tuple[Shape, str, Any]]) -> None:
    """Draw every shape over the truth; the grey band is the error of the truth."""
    known = truth.error < 0.3 * truth.share  # about 11 events: with fewer a ratio says nothing
    safe = np.where(known, truth.share, 1.0)
    band = np.where(known, truth.error / safe, 0.0)
    axes.stairs(
        1 + band, truth.edges, baseline=1 - band, fill=True, color=style.BAND, lw=0, zorder=0
    )
    axes.axhline(1.0, color=style.REAL, lw=0.7, zorder=1)
    reach, drawn = 0.05, []
    for shape, color, dashes in shapes:
        ratio = np.where(known, shape.share / safe, np.nan)
        for each, alpha in ((shape.total, 0.15), (shape.error, 0.25)):
            if each is None:
                continue
            error = np.where(known, each / safe, np.nan)
            low, high = ratio - error, ratio + error
            axes.stairs(high, truth.edges, baseline=low, fill=True, color=color, alpha=alpha)
        axes.stairs(ratio, truth.edges, color=color, lw=1.1, linestyle=dashes, baseline=None)
        reach = max(reach, _reach(ratio, error, truth))
        drawn.append((ratio, color))
    tick = next((step for step in (0.05, 0.1, 0.2) if reach <= 1.4 * step), 0.5)
    limit = 1.7 * tick
    axes.set_ylim(1 - limit, 1 + limit)
    axes.set_yticks([1 - tick, 1.0, 1 + tick])
    for ratio, color in drawn:
        _off_scale(axes, ratio, truth.edges, color, limit)


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
    real: EventTable,
    generated: EventTable,
    training: EventTable | None = None,
    name: str = "generated",
    axes: Any = None,
) -> Figure:
    """Return the difference of the Pearson correlations to real, beside the floor if known.

    ``name`` is what the generated events are called; ``axes`` are one or, with a floor, two. Call
    it inside `style.drawing`.
    """
    truth = correlation_matrix(real.x, real.weight)
    others = {f"{name} - real": generated}
    if training is not None:
        others["training - real (floor)"] = training
    differences = {
        title: correlation_matrix(table.x, table.weight) - truth for title, table in others.items()
    }
    worst = np.max([np.abs(d).max(axis=0) for d in differences.values()], axis=0)
    kept = np.sort(np.argsort(-worst, kind="stable")[:MOST_SHOWN])
    cut = {title: d[np.ix_(kept, kept)] for title, d in differences.items()}
    return matrices(cut, [style.label(real.names[i]) for i in kept], axes)


CELL = 0.42
"""Inches of a matrix element that holds a number."""
MOST_BESIDE, MOST_SHOWN = 9, 24
"""Columns up to which matrices stand beside each other, and of wider tables that are shown."""


def matrices(
    differences: Mapping[str, np.ndarray], labels: Sequence[str], axes: Any = None
) -> Figure:
    """Return matrices (d, d) beside each other in one scale of colours, by title.

    Margins are in inches, after the longest label: what is laid out automatically loses the titles
    of panels of a fixed shape. Or ``axes`` for each are given. Call it inside `style.drawing`.
    """
    limit = max(0.02, *(float(np.abs(d).max()) for d in differences.values()))
    if axes is not None:
        figure, (row,) = style.subplots(axes, (1, len(differences)), (0.0, 0.0))
        for place, (title, difference) in zip(row, differences.items(), strict=True):
            image = _matrix(place, difference, labels, limit)
            place.set_title(title)
        figure.colorbar(image, ax=list(row), label="difference of correlation")
        return figure
    size = max(2.2, CELL * len(labels))
    written = max(map(style.width_of, labels))
    left, below, above = written + 0.2, written + 0.5, 0.35
    across = len(differences) if len(labels) <= MOST_BESIDE else 1
    down = len(differences) // across
    width, tall = across * (left + size) + 1.1, size + below + above
    height = down * tall
    figure = style.new_figure(width, height)
    for k, (title, difference) in enumerate(differences.items()):
        i, j = k % across, down - 1 - k // across
        place = ((i + 1) * left + i * size, j * tall + below, size, size)
        axes = figure.add_axes(tuple(np.array(place) / (width, height, width, height)))
        image = _matrix(axes, difference, labels, limit)
        axes.set_title(title)
    bottom = (height - tall + below + 0.1 * size) / height
    bar = figure.add_axes((1 - 0.95 / width, bottom, 0.16 / width, 0.8 * size / height))
    figure.colorbar(image, cax=bar, label="difference of correlation")
    return figure


def _matrix(axes: Axes, matrix: np.ndarray, labels: Sequence[str], limit: float) -> Any:
    """Draw a matrix; small ones with their numbers (x100), for greyscale and exact reading."""
    image = axes.imshow(matrix, cmap="PuOr", vmin=-limit, vmax=limit)
    axes.tick_params(length=0)
    ticks = range(len(labels))
    axes.set_xticks(ticks, labels, rotation=90)
    axes.set_yticks(ticks, labels)
    axes.set_xlabel(r"numbers: difference $\times$ 100")
    for (i, j), value in np.ndenumerate(matrix):
        if i != j:
            color = "white" if abs(value) > 0.6 * limit else "black"
            text = f"{100 * value:.1f}".replace("-0.0", "0.0")
            axes.text(j, i, text, ha="center", va="center", fontsize=7.5, color=color)
    return image


def pair_figure(
    real: EventTable, samples: Samples, pairs: Sequence[tuple[str, str]], axes: Any = None
) -> Figure:
    """Return for each pair of columns or conditions the densities, and the profile of the second.

    The profile is the mean in bins of the first with its error, and the quantiles of 16 and 84%.
    ``axes`` are, for each pair, one for real events, each sample, and the profile. Call it inside
    `style.drawing`.
    """
    shape = (len(pairs), len(samples) + 2)
    size = (3.1 * shape[1], 3.0 * shape[0])
    figure, grid = style.subplots(axes, shape, size, "constrained")
    tables = {"real": real, **samples}
    for (first, second), row in zip(pairs, grid, strict=True):
        x, y = (real.by_name()[name] for name in (first, second))
        edges = [_pair_edges(real, name, values) for name, values in ((first, x), (second, y))]
        shares = {}
        for label, table in tables.items():
            known = table.by_name()
            weight = checks.relative_or_ones(table.weight, table.n)
            counts = np.histogram2d(known[first], known[second], bins=edges, weights=weight)[0]
            shares[label] = 100 * counts / weight.sum()
        most = max(float(share.max()) for share in shares.values())
        for place, (label, share) in zip(row, shares.items(), strict=False):
            shown = np.where(share > 0, share, np.nan).T
            mesh = place.pcolormesh(*edges, shown, cmap="viridis", vmin=0.0, vmax=most)
            place.set_title(label)
        figure.colorbar(mesh, ax=row[-2], label="events per bin [%]")
        looks = [(style.REAL, "-"), *zip(style.SAMPLES, style.DASHES, strict=True)]
        for (label, table), (color, dashes) in zip(tables.items(), looks, strict=False):
            known = table.by_name()
            _draw_profile(row[-1], known[first], known[second], edges[0], label, color, dashes)
        row[-1].legend(fontsize=7)
        row[-1].set_title("mean; 16 and 84%")
        for place in row:
            place.set_xlabel(style.label(first))
            place.set_xlim(edges[0][0], edges[0][-1])
            place.set_ylim(edges[1][0], edges[1][-1])
            for axis, name in ((place.xaxis, first), (place.yaxis, second)):
                if texts := real.categories.get(name):
                    axis.set_ticks(range(len(texts)), [text[:8] for text in texts])
        row[0].set_ylabel(style.label(second))
    return figure


FEW = 8
"""Values of a column up to which its quantiles say nothing."""


def _pair_edges(real: EventTable, name: str, values: np.ndarray) -> np.ndarray:
    if texts := real.categories.get(name):
        return np.arange(len(texts) + 1) - 0.5
    edges = column_edges(values)
    return edges if len(edges) <= BINS else np.linspace(edges[0], edges[-1], 31)


def _draw_profile(
    axes: Axes, x: np.ndarray, y: np.ndarray, edges: np.ndarray, label: str, color: str, dashes: Any
) -> None:
    """Draw mean and quantiles of y in at most 12 bins of x."""
    wide = edges if len(edges) <= 13 else np.linspace(edges[0], edges[-1], 13)
    places = np.searchsorted(wide, x, side="right") - 1
    bins = [y[places == i] for i in range(len(wide) - 1)]
    kept = [i for i, inside in enumerate(bins) if len(inside) >= 12]
    centres = (wide[:-1] + wide[1:])[kept] / 2
    means = [bins[i].mean() for i in kept]
    errors = [bins[i].std() / np.sqrt(len(bins[i])) for i in kept]
    axes.errorbar(centres, means, errors, color=color, linestyle=dashes, lw=1.2, label=label)
    for quantile in (0.16, 0.84) if len(np.unique(y)) > FEW else ():
        ends = [np.quantile(bins[i], quantile) for i in kept]
        axes.plot(centres, ends, color=color, linestyle=dashes, lw=0.6)


def demo_figure(
    real: EventTable,
    generated: EventTable,
    path: str | Path,
    auc_text: str = "",
    columns: tuple[str, ...] = ("mass", "pt", "tau21", "tau32", "d12", "ecf2"),
    axes: Any = None,
) -> Figure:
    """Write and return one compact figure of up to six columns, real against generated with ratios.

    The ending of ``path`` chooses the format (.png, .svg, .pdf), ``auc_text`` is the headline,
    such as "AUC 0.56, floor 0.51", and ``columns`` that the tables lack are replaced by their first
    others. ``axes`` are two for each. Raises MissingExtra if matplotlib is not installed.
    """
    known = [name for name in columns if name in real.names]
    others = [name for name in real.names if name not in known]
    names = tuple([*known, *others][: len(columns)])
    with style.drawing():
        made: Samples = {"generated": generated}
        page = column_page(names, real, made, None, height=2.6, title=auc_text, axes=axes)
        save(page, path)
        return page


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure whole or not at all, without a date, so that equal figures are equal files."""
    path = Path(path)
    kind = path.suffix.lstrip(".").lower() or "png"
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    with atomic(path) as part:
        figure.savefig(part, format=kind, metadata=metadata)
