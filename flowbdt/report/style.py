"""Colours, line styles, labels and the only way to matplotlib: no global setting is touched."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from ..errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REAL = "#3b3b3b"
GENERATED = "#d55e00"
TRAINING = "#0072b2"
BAND = "#c9c9c9"
"""Okabe-Ito colours, told apart by the colour-blind; lines also differ in style for greyscale."""

SAMPLES = (GENERATED, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195")
DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1.5, 1)), (0, (3, 3)), "-")
"""Of several samples in one figure, in their order."""


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


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Hold our settings while drawing and saving, then give back those of the user.

    Raises MissingExtra when matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra("figures need matplotlib: pip install 'flowbdt[plot]'") from error
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


def quiet_ticks(axes: Axes) -> None:
    """Hide the labels of the x axis: the panel below carries them."""
    axes.tick_params(labelbottom=False)
