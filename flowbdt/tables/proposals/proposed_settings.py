"""What names and rows of a table suggest and nobody declared, to be looked at by the user."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...config import ModelConfig
from ..event_table import EventTable
from ..formulas.particles import read_particles
from ..formulas.relations import Relation
from .found_particles import found_particles
from .found_relations import FoundRelation, find_relations
from .proposed_cuts import ProposedCut, proposed_cuts

IDENTIFIER = re.compile(
    r"(run|event|evt|luminosity_?block|lumi|ls|entry|row|index|id|uuid)(_?(number|no|nr|num|id))?",
    re.IGNORECASE,
)
"""Names of columns that number events, or the conditions under which they were taken."""


@dataclass(frozen=True)
class Proposals:
    """Particles, relations and cuts that nobody declared.

    ``particles`` are in the form of the setting of this name; ``relations`` exact ones first.
    """

    particles: dict[str, dict[str, str | float]]
    relations: list[FoundRelation]
    cuts: list[ProposedCut]

    @classmethod
    def of(
        cls,
        table: EventTable,
        particles: Mapping[str, Any] | None = None,
        relations: Sequence[str] = (),
        require: Sequence[str] = (),
    ) -> Proposals:
        """Look at a table for what is not among the declared particles, relations and cuts."""
        found = {} if particles else found_particles(table)
        shown = find_relations(table, particles or found, relations)
        known = [*relations, *(one.text for one in shown if one.exact)]
        cuts = proposed_cuts(table, particles or found, known)
        return cls(found, shown, [cut for cut in cuts if cut.text not in require])

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that all rows agree with, as settings of a fit."""
        return {
            "particles": self.particles,
            "relations": [one.text for one in self.relations if one.exact],
            "require": [one.text for one in self.cuts],
        }


def found_settings(table: EventTable, config: ModelConfig) -> dict[str, Any]:
    """Return what the rows of a table say beyond doubt of settings that are left to them ('auto').

    Particles, see `found_particles`; exact relations, but for those that compute a component of a
    particle from its others, which its coordinates hold, and of columns that conditions determine
    altogether the last one, so that something is learned; and, with particles, the sharp edges and
    the order of their momenta, and the sharp edges of masses.
    """
    found: dict[str, Any] = {}
    particles, relations = config.particles, config.relations
    if particles == "auto":
        found["particles"] = particles = found_particles(table)
    known = read_particles(particles)
    if relations == "auto":
        exact = [one.text for one in find_relations(table, particles) if one.exact]
        own = [one.sources for one in known.values()]
        parsed = [Relation.parse(text, known) for text in exact]
        kept = [one for one in parsed if not any({one.target, *one.sources} <= of for of in own)]
        targets = {one.target for one in kept}
        if kept and all(name in targets or not np.ptp(table.column(name)) for name in table.names):
            del kept[-1]  # with all columns from conditions there was nothing to learn
        found["relations"] = relations = [one.text for one in kept]
    if config.require == "auto":
        cuts = proposed_cuts(table, particles, relations, only_sharp=True) if particles else []
        found["require"] = [cut.text for cut in cuts]
    return found


def identifiers(table: EventTable) -> dict[str, str]:
    """Return the columns that number events and teach nothing, with the reason.

    These are integers with the name of such a number, and integers that count rows.
    """
    found = {}
    for name in table.names:
        values = table.column(name)
        if name in table.categories or not np.array_equal(values, np.rint(values)):
            continue
        if IDENTIFIER.fullmatch(name):
            found[name] = "named as a number of events"
        elif table.n > 1 and (np.diff(values) == 1).all():
            found[name] = "counts the rows"
    return found
