"""Columns that a cut keeps in order, such as ``j1_pt >= j2_pt``: learned by their difference.

The greater is learned as its distance above the lesser one, which is never negative, so that no
event has to be drawn anew for the cut.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from ...errors import ConfigError
from ..event_table import EventTable
from ..formulas.expressions import Expression
from ..formulas.particles import Particles
from ..formulas.relations import written
from ..transforms.choose import DISCRETE, choose
from .learned_columns import Coordinates


def orders(require: Sequence[str], particles: Particles) -> Iterator[tuple[str, str]]:
    """Yield the greater and the lesser column of each cut that compares two of them."""
    for text in require:
        match Expression.parse(text, "cut", particles).tree:
            case ast.Compare(
                left=ast.Name(id=first),
                ops=[ast.Gt() | ast.GtE() | ast.Lt() | ast.LtE() as compared],
                comparators=[ast.Name(id=second)],
            ):
                above = isinstance(compared, ast.Gt | ast.GtE)
                yield (first, second) if above else (second, first)


def with_differences(
    coordinates: Coordinates,
    table: EventTable,
    require: Sequence[str],
    left: Collection[str] = (),
    particles: Particles | None = None,
) -> Coordinates:
    """Return coordinates with the differences of columns that cuts keep in order.

    Columns ``left`` stay as they are, as do discrete ones, those with missing values, and those
    that the coordinates compute already.
    """
    learned = [one.text for one in coordinates.learned.values()]
    relations = [one.text for one in coordinates.relations]
    taken, result = {*table.names, *table.cond_names, *coordinates.names}, coordinates
    for above, below in orders(require, particles or {}):
        if above in result.targets or not all(
            _is_smooth(name, table) and name not in left for name in (above, below)
        ):
            continue
        name = re.sub(r"\W", "_", f"{above}_above_{below}")
        if name in taken:
            continue
        learned_now = [*learned, f"{name} = {written(above)} - {written(below)}"]
        relations_now = [*relations, f"{written(above)} = {written(below)} + {name}"]
        try:
            result = Coordinates.parse(
                learned_now, relations_now, table.names, coordinates.conditions
            )
        except ConfigError:  # a circle, or a name that no expression has
            continue
        learned, relations = learned_now, relations_now
        taken.add(name)
    return result


def _is_smooth(name: str, table: EventTable) -> bool:
    if name not in table.names or name in table.categories:
        return False
    values = table.column(name)
    kind = table.dtypes[table.names.index(name)]
    return not np.isnan(values).any() and choose(values, kind)[0]["name"] not in DISCRETE
