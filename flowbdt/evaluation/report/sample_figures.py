"""Pictures of generated events beside real ones, by kind, as `flowbdt.FlowBDT.plot` gives them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ...registry import unknown
from ...tables.event_table import EventTable, with_same_codes
from . import style
from .curves import corner_figure
from .figures import Samples, column_page, column_pages, pair_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sample_figures(
    kind: str, real: EventTable, generated: EventTable, axes: Any = None
) -> list[Figure]:
    """Return figures of a kind of two tables with the same columns, or that of given axes.

    Raises ConfigError for an unknown kind and for axes that do not fit, MissingExtra if matplotlib
    is not installed.
    """
    if kind not in KINDS:
        raise unknown("kind of plot", kind, KINDS)
    real, generated = with_same_codes([real, generated])
    with style.drawing():
        return KINDS[kind](real, {"generated": generated}, axes)


def _columns(real: EventTable, made: Samples, axes: Any) -> list[Figure]:
    if axes is None:
        return column_pages(real, made)
    return [column_page(real.names, real, made, None, axes=axes)]


def _corner(real: EventTable, made: Samples, axes: Any) -> list[Figure]:
    return [corner_figure(real, made, real.names, axes)]


def _pairs(real: EventTable, made: Samples, axes: Any) -> list[Figure]:
    return [pair_figure(real, made, list(pairwise(real.names)), axes)]


KINDS: dict[str, Callable[[EventTable, Samples, Any], list[Figure]]] = {
    "columns": _columns,
    "corner": _corner,
    "pairs": _pairs,
}
