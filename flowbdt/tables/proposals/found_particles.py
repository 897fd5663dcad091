"""Particles that names of columns suggest and their numbers confirm."""

from __future__ import annotations

import keyword
import re

import numpy as np

from ..coordinates.particle_coordinates import is_missing, why_not_learned
from ..event_table import EventTable
from ..formulas.particles import Particle, azimuth, proposed_particles, pseudorapidity
from .proposed_cuts import is_surprising

FEWEST = 100
"""Rows from which on numbers confirm a name."""

PARTS = 8
LEAST = 0.25
"""Parts of a turn, and the least share of azimuths in each, in units of an even one."""

FURTHEST = 12.0
"""Largest pseudorapidity: no beam goes beyond 10."""


def found_particles(table: EventTable) -> dict[str, dict[str, str | float]]:
    """Return particles of a table as the setting of this name has them, massless if no column says.

    Names suggest them, and the numbers of each must be those of a momentum, see `_is_momentum`: of
    standardised columns, angles in degrees or padded with -999, and components that are only partly
    missing nothing is found. Nor is it with conditions: response is learned relative to these.
    """
    found: dict[str, dict[str, str | float]] = {}
    if table.cond is not None:
        return found
    for suggested, spec in proposed_particles(table.names).items():
        name = re.sub(r"\W", "_", suggested)
        while name in (*table.names, *found) or keyword.iskeyword(name):
            name += "_"
        if _is_momentum(Particle.read(name, spec), table):
            found[name] = spec
    return found


def _is_momentum(one: Particle, table: EventTable) -> bool:
    """Return whether the numbers of a particle are those of a momentum.

    It can be learned in coordinates of particles; its azimuths fill one turn, its pseudorapidities
    are those of a collider; pT and mass are not negative; and an energy is not below the momentum
    of its own event, as it would be with that of another one.
    """
    if why_not_learned(one, table):
        return False
    known = table.take(~is_missing(one, table))
    if known.n < FEWEST:
        return False
    momenta = one.momenta(known.by_name())
    parts = (azimuth(momenta) / (2 * np.pi) % 1.0 * PARTS).astype(int) % PARTS
    if np.bincount(parts, minlength=PARTS).min() < LEAST * known.n / PARTS:
        return False
    if np.abs(pseudorapidity(momenta)).max() > FURTHEST:
        return False
    sizes = [one.components.get(key) for key in ("pt", "mass")]
    if any(known.column(name).min() < 0 for name in sizes if isinstance(name, str)):
        return False
    size = np.linalg.norm(momenta[:, 1:], axis=1)
    return "e" not in one.components or is_surprising(momenta[:, 0], size, 1)
