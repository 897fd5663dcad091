"""Cuts that training rows keep without having been told: edges, ordered columns, E >= |p|."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import plural
from ..event_table import EventTable
from ..formulas.expressions import Expression
from ..formulas.particles import MOST_PAIRED, Particles, read_particles
from ..formulas.relations import Relation, written
from ..transforms.choose import FEW_VALUES, choose_continuous, ends_at, hard_edges
from .found_relations import UNLIKELY

MOST_ORDERED = 64
"""Columns up to which pairs are held against each other."""
SMEARED_ROWS = 2000
"""Rows from which an edge may be smeared, see `_is_smeared`."""
SMEARED = 0.42
"""Distance from the 97 to the 99.9% quantile below which an edge is one, over that of 70 to 90%."""

NEAR_ZERO = 0.12
"""Of the median: positive numbers that begin below have no edge there but their end."""
EDGE_ROWS = 1000
"""Rows from which ends are told: with 400, 1 in 100 normal tails looked like an edge."""
SHARP_ROWS = 2000
"""Rows from which nobody needs to look at a sharp end: of flat distributions whose ends are smeared
by an eighth of their half width 9% had one with 1,000 rows, .5% with 2,000, none of 400 with 3,000;
of eight other shapes, from normal to Breit-Wigner, none of 100 to 200 with 1,000 to 20,000."""
SURE = 0.25
"""Rows expected beyond an end that is called an edge, over those that tell, see `hard_edges`: with
fewer, one rapidity of Z bosons or jets in 20 to 100, which has no end, had a cut."""


@dataclass(frozen=True)
class ProposedCut:
    """A condition that all rows meet, such as ``require`` takes, and what it is, in words."""

    text: str
    reason: str


def proposed_cuts(
    table: EventTable,
    particles: Mapping[str, Any] | None = None,
    relations: Sequence[str] = (),
    only_sharp: bool = False,
) -> list[ProposedCut]:
    """Return cuts that the rows of a table keep, with evidence that they are none of chance.

    Looked at are what the transforms of single columns do not keep by themselves: pT, |eta|, masses
    and distances of particles, columns that ``relations`` compute, pairs of columns in order, and
    energies above momenta. An edge is one as `hard_edges` has it, or smeared; it is moved outwards
    to a round number nearer than a few rows are to each other. ``only_sharp`` leaves out smeared
    edges, energies, and orders of columns other than those of particles.
    """
    known = read_particles(particles)
    parsed = [Relation.parse(text, known) for text in relations]
    columns = table.by_name()
    texts = _expressions(table, known, parsed)
    cuts = [cut for text in texts for cut in _edges(text, columns, known, not only_sharp)]
    if only_sharp:
        momenta = {name for one in known.values() for name in one.sources}
        ordered = table.select([name for name in table.names if name in momenta])
        return [*cuts, *ordered_columns(ordered, parsed, known)]
    return [*cuts, *_energies(columns, known), *ordered_columns(table, parsed, known)]


# ---- edges


def _expressions(
    table: EventTable, particles: Particles, relations: Sequence[Relation]
) -> Iterator[str]:
    """Yield what may have edges of its own, as expressions."""
    seen = set()
    for name, one in particles.items():
        if not one.sources <= set(table.names):
            continue
        for component, call in (("pt", f"pt({name})"), ("eta", f"eta({name})")):
            column = one.components.get(component, call)
            text = written(str(column)) if column != call else call
            if not isinstance(column, float):
                seen.add(text)
                yield f"abs({text})" if component == "eta" else text
    targets = {relation.target: relation for relation in relations}
    for name in targets:
        if name not in seen:
            yield written(name)
    computed = {relation.text.partition("=")[2].strip() for relation in relations}
    for a, b in itertools.combinations(list(particles)[:MOST_PAIRED], 2):
        for call in (f"mass({a}, {b})", f"deltaR({a}, {b})"):
            if call not in computed and particles[a].sources | particles[b].sources <= set(
                table.names
            ):
                yield call


def _edges(
    text: str, columns: Mapping[str, Any], particles: Particles, smears: bool
) -> Iterator[ProposedCut]:
    """Yield the cut at the ends of an expression, sharp ones, and with ``smears`` smeared ones."""
    every = Expression.parse(text, "cut", particles).numbers(columns)
    values = every[~np.isnan(every)]
    fewest = EDGE_ROWS if smears else SHARP_ROWS
    if len(values) < fewest or len(np.unique(values)) <= FEW_VALUES:
        return
    if not np.isfinite(values).all():
        return
    if choose_continuous(values)[0]["name"] == "circular":
        return
    found = hard_edges(values, SURE)
    ends: dict[str, float] = {}
    beyond, is_sharp = "", True
    for side, sign in (("low", -1.0), ("high", 1.0)):
        rising = np.sort(sign * values)
        scales = [values, np.log(values)] if values.min() > 0 else [values]
        smeared = smears and all(_is_smeared(np.sort(sign * scale)) for scale in scales)
        if not (found[side] or smeared):
            continue
        if side == "low" and _begins_at_zero(values):
            continue
        ends[side] = sign * _outwards(rising)
        is_sharp &= found[side]
        beyond += _stray(rising, sign)
    if not ends:
        return
    less = {
        side: "<" if end not in (values.min(), values.max()) else "<=" for side, end in ends.items()
    }
    if len(ends) == 2:
        cut = f"{ends['low']:.10g} {less['low']} {text} {less['high']} {ends['high']:.10g}"
    elif "low" in ends:
        cut = f"{text} {less['low'].replace('<', '>')} {ends['low']:.10g}"
    else:
        cut = f"{text} {less['high']} {ends['high']:.10g}"
    if len(values) < len(every):
        cut = f"isnan({text}) or {cut}"
    what = "sharp" if is_sharp else "smeared"
    reason = f"a {what} edge" if len(ends) == 1 else f"{what} edges"
    yield ProposedCut(cut, reason + beyond)


def _begins_at_zero(values: np.ndarray) -> bool:
    """Return whether numbers begin where positive ones do anyway, but for rounding."""
    middle, least = float(np.median(values)), float(values.min())
    step = float(np.diff(np.unique(values)).min())
    return middle > 0 and -NEAR_ZERO * middle <= least <= max(NEAR_ZERO * middle, 1.01 * step)


def _is_smeared(rising: np.ndarray) -> bool:
    """Return whether the upper end of rising values falls too fast for a tail.

    From 70 to 90% and from 97 to 99.9% a normal distribution has distances that stand as 1 to 1.6,
    heavier tails have longer ones outside, an end as that of x^2 1 to .9, as that of x 1 to .5 to
    .6, a uniform one 1 to .14. Derived here; |eta| of electrons cut at the calorimeter, not at the
    vertex, has .3 to .36.
    """
    if len(rising) < SMEARED_ROWS:
        return False
    inner, middle, outer = np.diff(np.quantile(rising, [0.70, 0.90, 0.97, 0.999]))
    return bool(outer < SMEARED * inner and middle < 0.6 * inner)


def _stray(rising: np.ndarray, sign: float) -> str:
    """Return words about a few rows that lie alone beyond an edge; empty if there are none."""
    few = max(1, len(rising) // 10_000)
    inside = rising[:-few]
    if rising[-1] - inside[-1] < 0.5 * (inside[-1] - np.quantile(rising, 0.97)):
        return ""
    end = _outwards(inside)
    count = plural(int((rising > end).sum()), "row")
    return f", at {sign * end:.10g} but for {count}: leave out?" if rising[-1] > end else ""


def _outwards(rising: np.ndarray) -> float:
    """Return the roundest number at or above the last of rising values, a few rows' room away."""
    last = float(rising[-1])
    near = min(200, len(rising) // 10)
    room = 5 * (last - float(rising[-1 - near])) / near
    for decimals in range(-6, 12):
        number = math.ceil(last * 10.0**decimals - 1e-9) / 10.0**decimals
        if last <= number <= last + room:
            return number + 0.0
    return last


# ---- energies and orders


def _energies(columns: Mapping[str, Any], particles: Particles) -> Iterator[ProposedCut]:
    """Yield that energies are not below momenta, of particles that have both in columns."""
    for name, one in particles.items():
        if "e" not in one.components or not one.sources <= columns.keys():
            continue
        momenta = one.momenta(columns)
        energy, momentum = momenta[:, 0], np.sqrt((momenta[:, 1:] ** 2).sum(axis=1))
        if not np.isfinite(momenta).all() or not is_surprising(energy, momentum, 1):
            continue
        mass = Expression.parse(f"mass({name})", "cut", particles).numbers(columns)
        lowest = float(mass.min())
        if lowest >= 0:
            yield ProposedCut(f"mass({name}) >= 0", "E >= |p|")
        elif (energy - momentum >= -1e-4 * momentum).all():
            bound = -_outwards(np.sort(-mass))
            yield ProposedCut(f"mass({name}) >= {bound:.10g}", "E >= |p| but for rounding")


def ordered_columns(
    table: EventTable, relations: Sequence[Relation], particles: Particles
) -> Iterator[ProposedCut]:
    """Yield pairs of columns of which one is never below the other, without what follows.

    Columns of one relation or one particle are in order for reasons of their own.
    """
    together = [{one.target, *one.sources} for one in relations]
    together += [one.sources for one in particles.values()]
    names = [
        name
        for name in table.names
        if name not in table.categories
        and not np.isnan(table.column(name)).any()
        and len(np.unique(table.column(name))) > FEW_VALUES
    ]
    if not 1 < len(names) <= MOST_ORDERED:
        return
    few = table.select(names).take(slice(0, 500)).x
    maybe = (few[:, :, None] >= few[:, None, :]).all(axis=0)
    above: dict[str, set[str]] = {name: set() for name in names}
    for i, j in np.argwhere(maybe).tolist():
        a, b = names[i], names[j]
        known = i == j or any({a, b} <= columns for columns in together)
        if not known and _are_ordered(table.column(a), table.column(b), len(names) ** 2):
            above[a].add(b)
    for a in names:
        beyond = set().union(*(above[b] for b in above[a]))
        for b in sorted(above[a] - beyond, key=names.index):
            yield ProposedCut(f"{written(a)} >= {written(b)}", "ordered")


def is_surprising(above: np.ndarray, below: np.ndarray, tries: int) -> bool:
    """Return whether one column above the other in all rows (n,) is none of chance.

    Chance is that of shuffled rows: columns that do not overlap say nothing.
    """
    share = np.searchsorted(np.sort(below), above, side="right").mean() / len(below)
    return bool(-len(above) * math.log(max(share, 1e-300)) > UNLIKELY + math.log(tries))


def _are_ordered(above: np.ndarray, below: np.ndarray, tries: int) -> bool:
    """Return whether one column is never below the other, and their difference ends sharply at 0.

    Of positive columns their ratio must, too: a difference may vanish only where both do.
    """
    difference = above - below
    if (difference < 0).any() or not is_surprising(above, below, tries):
        return False
    distances = [difference]
    if (below >= 0).all():
        distances.append(difference / np.maximum(above, np.finfo(float).tiny))
    return all(ends_at(0.0, distance) for distance in distances)
