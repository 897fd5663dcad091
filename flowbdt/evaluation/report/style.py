"""Colours, line styles, labels and layouts of all figures; no global setting is changed."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

REAL = "#3b3b3b"
GENERATED = "#d55e00"
TRAINING = "#0072b2"
BAND = "#c9c9c9"
"""Okabe-Ito colours, for the colour-blind; lines also differ in style for greyscale."""

SAMPLES = (GENERATED, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195")
DASHES: tuple[Any, ...] = (
    *("-", (0, (6, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1.5, 1)), (0, (3, 3)), (0, (10, 3))),
)
"""Of the samples in one figure, in their order."""
TRAINING_DASHES: Any = (0, (7, 1.5, 1, 1.5, 1, 1.5))
"""Dash and two dots: unlike any sample, in greyscale too."""


def lines() -> Iterator[tuple[str, Any]]:
    """Yield colour and dashes of one sample after the other, and again from the first."""
    return itertools.cycle(zip(SAMPLES, DASHES, strict=True))


RC = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.7,
    "axes.spines.top": True,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "svg.hashsalt": "flowbdt",
    "pdf.fonttype": 42,
}

LABELS = {
    "mass": "jet mass",
    "m": "mass",
    "pt": r"$p_{\mathrm{T}}$",
    "eta": r"$\eta$",
    "phi": r"$\phi$",
    "d12": r"$\sqrt{d_{12}}$",
    "d23": r"$\sqrt{d_{23}}$",
    "d2": r"$D_2$",
    "ecf2": r"$\mathrm{ECF}_2$",
    "ecf3": r"$\mathrm{ECF}_3$",
    "tau1": r"$\tau_1$",
    "tau2": r"$\tau_2$",
    "tau3": r"$\tau_3$",
    "tau21": r"$\tau_{21}$",
    "tau32": r"$\tau_{32}$",
}
"""How the field writes common observables; any other column keeps its name."""


def label(name: str, unit: str = "") -> str:
    """Return an axis label: the name as the field writes it, and the unit in brackets."""
    text = LABELS.get(name, name.replace("$", r"\$"))
    return f"{text} [{unit}]" if unit else text


def width_of(text: str) -> float:
    """Return the width in inches of a label of ticks, formulas included; inside `drawing`."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(size=float(rcParams["xtick.labelsize"]))
    return float(TextPath((0.0, 0.0), text, prop=font).get_extents().width) / 72.0 if text else 0.0


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Hold our settings while drawing and saving, then give back those of the user.

    Raises MissingExtra when matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra.of("matplotlib", error, "plot") from error
    settings: Any = {**matplotlib.rcParamsDefault, **RC}
    for key in ("backend", "backend_fallback", "interactive", "toolbar"):
        settings.pop(key, None)  # setting these would switch the windows of the user
    with matplotlib.rc_context(settings):
        yield


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Figure:
    """Return a figure (inches) that draws with Agg and belongs to no window and no pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def subplots(
    axes: Any, shape: tuple[int, int], size: tuple[float, float], layout: Any = None, **room: Any
) -> tuple[Figure, Any]:
    """Return a figure and its axes (rows, columns): new ones, or as many that are given.

    ``size`` is in inches. Raises ConfigError if given ones are of another number.
    """
    if axes is None:
        figure = new_figure(*size, layout=layout)
        return figure, figure.subplots(*shape, squeeze=False, **room)
    given = np.array(axes, dtype=object)
    if given.size != shape[0] * shape[1]:
        raise ConfigError(f"axes must be {shape[0]} x {shape[1]} to draw into, got {given.size}")
    grid = given.reshape(shape)
    return grid[0, 0].figure, grid


def round_numbers(low: float, high: float) -> list[float]:
    """Return three to seven round numbers, or a few more, of a logarithmic axis of this range.

    Examples
    --------
    >>> round_numbers(3.0, 70.0)
    [5.0, 10.0, 20.0, 50.0]
    >>> round_numbers(0.31, 0.47)
    [0.35, 0.4, 0.45]
    """
    from matplotlib.ticker import MaxNLocator

    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [float(f"{step}e{power}") for power in powers for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 3:
            return inside
    even = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(f"{tick:.6g}") for tick in even if low <= tick <= high]


def plain_ticks(axis: Axis, ticks: Sequence[float] | None = None) -> None:
    """Write the numbers of a logarithmic axis as people do: these, or a few round ones."""
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    chosen = round_numbers(*axis.get_view_interval()) if ticks is None else [*ticks]
    axis.set_major_locator(FixedLocator(chosen))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def inner_ticks(axis: Axis) -> None:
    """Put two or three round numbers on a short axis, none near its ends: neighbours follow."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    low, high = axis.get_view_interval()
    margin = 0.12 * (high - low)
    for most in (3, 4, 6):
        ticks = MaxNLocator(most).tick_values(low, high)
        inside = [t for t in ticks if low + margin <= t <= high - margin]
        if len(inside) >= 2:
            break
    axis.set_major_locator(FixedLocator(inside))


def quiet_ticks(axes: Axes) -> None:
    """Hide the labels of the x axis: the panel below carries them."""
    axes.tick_params(labelbottom=False)


@dataclass(frozen=True)
class Cells:
    """Panels of a page, at most so many ``columns`` in a row, each with a panel of ratios below.

    ``width`` and ``height``, of both panels with the room between cells, and margins are in inches;
    the room between columns is ``between`` of a panel's width.
    """

    columns: int = 3
    width: float = 3.35
    height: float = 3.2
    left: float = 0.68
    right: float = 0.2
    bottom: float = 0.52
    top: float = 0.38
    gap: float = 0.55
    between: float = 0.17


def ratio_panels(
    count: int, cells: Cells, names: Sequence[str] = (), axes: Any = None
) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Return a figure and its panels row by row, histogram above and ratio below.

    There is room at the top for a legend of ``names``. Given ``axes`` are two for each panel, in
    this order. Call it inside `drawing`.
    """
    if axes is not None:
        figure, pairs = subplots(axes, (count, 2), (0.0, 0.0))
        return figure, [(upper, lower) for upper, lower in pairs]
    columns = min(cells.columns, count)
    rows = -(-count // columns)
    width = cells.width * columns + 0.3
    top = cells.top + 0.17 * (-(-len(names) // legend_columns(names, width)) - 1)
    height = cells.height * rows + top
    figure = new_figure(width, height)
    outer = figure.add_gridspec(
        rows,
        columns,
        left=cells.left / width,
        right=1 - cells.right / width,
        bottom=cells.bottom / height,
        top=1 - top / height,
        wspace=cells.between,
        hspace=cells.gap / (cells.height - cells.gap),
    )
    panels = []
    for i in range(count):
        cell = outer[divmod(i, columns)].subgridspec(2, 1, height_ratios=(3, 1), hspace=0.0)
        upper = figure.add_subplot(cell[0])
        panels.append((upper, figure.add_subplot(cell[1], sharex=upper)))
    return figure, panels


def name_rows(panels: list[tuple[Axes, Axes]], columns: int, upper: str, lower: str) -> None:
    """Write y labels at the first panels of all rows, at one distance however wide numbers are."""
    for first in panels[::columns]:
        for axes, text in zip(first, (upper, lower), strict=True):
            axes.set_ylabel(text)
            axes.yaxis.set_label_coords(-0.145, 0.5)


def legend_columns(names: Sequence[str], width: float) -> int:
    """Return how many entries of a legend fit beside each other into ``width`` inches."""
    widest = max(map(width_of, names), default=0.0)
    return max(1, min(len(names), int((width - 0.2) / (1.07 * widest + 0.6))))


def legend_above(
    figure: Figure, handles: Mapping[str, Any], title: str = "", within: Axes | None = None
) -> None:
    """Write one legend for all panels at the top of a figure, or ``within`` given axes."""
    if within is not None:
        within.legend(list(handles.values()), list(handles), frameon=False)
        return
    columns = legend_columns(list(handles), figure.get_figwidth())
    look: dict[str, Any] = {"loc": "upper center", "borderaxespad": 0.15, "title_fontsize": 10}
    figure.legend(list(handles.values()), list(handles), ncols=columns, title=title or None, **look)
