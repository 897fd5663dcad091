"""Particles declared by the columns of their momenta, and the kinematics of four-momenta.

A four-momentum is (..., 4) as E, px, py, pz, all in one unit.
"""

from __future__ import annotations

import itertools
import keyword
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ConfigError, InputError
from ...registry import unknown

COMPONENTS = (
    ("pt", "eta", "phi", "mass"),
    ("pt", "eta", "phi", "e"),
    ("e", "px", "py", "pz"),
    ("px", "py", "pz", "mass"),
)
"""Sets of components that give a momentum."""

EXAMPLE = "{pt: pt1, eta: eta1, phi: phi1, mass: 0.000511}"

ALIASES = {"energy": "e", "m": "mass"}
SHOWN = {"e": "E"}

MOST_PAIRED = 5
"""Particles of which all pairs are observables by default: ten masses, ten distances."""


FAR = 4 * np.pi
"""Azimuths of which most distinct values lie farther from 0 are not taken for radians."""


def wrapped(angle: np.ndarray) -> np.ndarray:
    """Return angles [rad] moved by whole turns into [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def squared_mass(momenta: np.ndarray) -> np.ndarray:
    """Return squares of masses of four-momenta (..., 4), negative where E < |p|."""
    return np.asarray(momenta[..., 0] ** 2 - (momenta[..., 1:] ** 2).sum(axis=-1))


def signed_mass(momenta: np.ndarray) -> np.ndarray:
    """Return masses of four-momenta (..., 4); -sqrt(p^2 - E^2) where E < |p|, as ROOT has it."""
    square = squared_mass(momenta)
    return np.copysign(np.sqrt(np.abs(square)), square)


def invariant_mass(momenta: np.ndarray) -> np.ndarray:
    """Return masses of four-momenta (..., 4); 0 where rounding makes the square negative."""
    return np.maximum(signed_mass(momenta), 0.0)


def rapidity(momenta: np.ndarray) -> np.ndarray:
    """Return rapidities of four-momenta (..., 4); 0 for a vanishing one.

    From the transverse mass, which loses no digits for fast particles as E - pz would.
    """
    transverse = np.hypot(transverse_momentum(momenta), invariant_mass(momenta))
    safe = np.where(transverse > 0, transverse, 1.0)
    return np.where(transverse > 0, np.arcsinh(momenta[..., 3] / safe), 0.0)


def transverse_momentum(momenta: np.ndarray) -> np.ndarray:
    """Return transverse momenta of four-momenta (..., 4)."""
    return np.hypot(momenta[..., 1], momenta[..., 2])


def pseudorapidity(momenta: np.ndarray) -> np.ndarray:
    """Return pseudorapidities of four-momenta (..., 4); infinite along the beam."""
    return np.arcsinh(momenta[..., 3] / transverse_momentum(momenta))


def azimuth(momenta: np.ndarray) -> np.ndarray:
    """Return azimuths [rad] of four-momenta (..., 4) in [-pi, pi]."""
    return np.arctan2(momenta[..., 2], momenta[..., 1])


def _delta_phi(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return wrapped(azimuth(a) - azimuth(b))


def _delta_r(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.hypot(pseudorapidity(a) - pseudorapidity(b), _delta_phi(a, b))


OF_SUM: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mass": signed_mass,
    "pt": transverse_momentum,
    "eta": pseudorapidity,
    "phi": azimuth,
    "rapidity": rapidity,
    "energy": lambda momenta: momenta[..., 0],
    "px": lambda momenta: momenta[..., 1],
    "py": lambda momenta: momenta[..., 2],
    "pz": lambda momenta: momenta[..., 3],
}
"""Functions of one or more particles, taken together."""

OF_PAIR: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "deltaR": _delta_r,
    "deltaphi": _delta_phi,
    "deltaeta": lambda a, b: pseudorapidity(a) - pseudorapidity(b),
}
"""Functions of two particles: the first minus the second, deltaphi in [-pi, pi)."""


@dataclass(frozen=True)
class Particle:
    """A particle: component -> name of its column, or a number that all events share."""

    name: str
    components: Mapping[str, str | float]

    @classmethod
    def read(cls, name: str, spec: Any) -> Particle:
        """Read a mapping such as ``{"pt": "pt1", "eta": "eta1", "phi": "phi1", "mass": 0.000511}``.

        Raises ConfigError that says what is wrong or missing.
        """
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise ConfigError(f"a particle is named as a variable is, like e1, not {name!r}")
        if not isinstance(spec, Mapping):
            raise ConfigError(
                f"particle {name!r} must be a mapping such as {EXAMPLE}, got {spec!r}"
            )
        components: dict[str, str | float] = {}
        every = sorted({key for known in COMPONENTS for key in known})
        for key, value in spec.items():
            short = ALIASES.get(str(key).lower(), str(key).lower())
            if short not in every:
                raise unknown(f"component of particle {name!r}:", key, map(_shown, every))
            if short in components:
                raise ConfigError(f"particle {name!r} has its {_shown(short)} twice: leave one out")
            value = value.item() if isinstance(value, np.generic) else value
            is_number = isinstance(value, int | float) and abs(value) < 2**1023
            if isinstance(value, bool) or not (is_number or isinstance(value, str)):
                raise ConfigError(
                    f"particle {name!r}: {key} must be the name of a column or a number, got"
                    f" {str(value)[:60]!r}"
                )
            if is_number and short == "mass" and value < 0:
                raise ConfigError(f"particle {name!r} has a negative mass, {value!r}")
            components[short] = float(value) if is_number else value
        if not any(set(components) == set(known) for known in COMPONENTS):
            ways = "; ".join(", ".join(map(_shown, known)) for known in COMPONENTS)
            raise ConfigError(
                f"particle {name!r} has {', '.join(map(_shown, components)) or 'nothing'}, but a"
                f" momentum is one of: {ways}. For a massless one say mass: 0"
            )
        return cls(name, components)

    @property
    def sources(self) -> set[str]:
        """Names of its columns."""
        return {value for value in self.components.values() if isinstance(value, str)}

    def momenta(self, columns: Mapping[str, Any]) -> np.ndarray:
        """Return its four-momenta (n, 4) from columns (n,) by name."""
        one = {
            key: np.asarray(columns[value] if isinstance(value, str) else value, dtype=np.float64)
            for key, value in self.components.items()
        }
        if "pt" in one:
            pt, phi = one["pt"], one["phi"]
            momentum = [pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(one["eta"])]
            size = pt * np.cosh(one["eta"])
        else:
            momentum = [one["px"], one["py"], one["pz"]]
            size = np.hypot(np.hypot(*momentum[:2]), momentum[2])
        energy = one["e"] if "e" in one else np.hypot(size, one["mass"])
        return np.stack(np.broadcast_arrays(energy, *momentum), axis=-1)


def _shown(component: str) -> str:
    return SHOWN.get(component, component)


Particles = Mapping[str, Particle]
"""Particles by name."""


def read_particles(spec: Mapping[str, Any] | None) -> dict[str, Particle]:
    """Return declared particles by name. Raises ConfigError, see `Particle.read`."""
    if spec is not None and not isinstance(spec, Mapping):
        raise ConfigError(
            f"particles must be a mapping such as {{e1: {EXAMPLE}}}, got {str(spec)[:60]!r}"
        )
    return {name: Particle.read(name, one) for name, one in (spec or {}).items()}


def check_particles(particles: Particles, names: Collection[str]) -> None:
    """Raise ConfigError unless columns of particles are among the names, and no particle is."""
    for particle in particles.values():
        if particle.name in names:
            raise ConfigError(
                f"{particle.name!r} is the name of a column and of a particle; rename the particle"
            )
        for name in sorted(particle.sources - set(names)):
            raise unknown(f"column of particle {particle.name!r}:", name, names)


def check_azimuths(particles: Particles, columns: Mapping[str, np.ndarray]) -> None:
    """Raise InputError where azimuths, columns (n,) by name, cannot be meant in radians."""
    for one in particles.values():
        name = one.components.get("phi")
        values = columns[name] if isinstance(name, str) else np.zeros(0)
        values = np.unique(values[np.isfinite(values)])  # a code for unknown ones counts once
        if len(values) and (np.abs(values) > FAR).mean() > 0.5:
            raise InputError(
                f"particle {one.name!r}: angles are in radians, but {name!r} goes from"
                f" {values[0]:g} to {values[-1]:g}; convert it (from degrees with numpy.radians)"
            )


def default_observables(particles: Sequence[str]) -> list[str]:
    """Return mass and distance of each pair of the first `MOST_PAIRED` particles.

    Examples
    --------
    >>> default_observables(["e1", "e2"])
    ['mass_e1_e2 = mass(e1, e2)', 'deltaR_e1_e2 = deltaR(e1, e2)']
    """
    pairs = itertools.combinations(list(particles)[:MOST_PAIRED], 2)
    return [
        f"{function}_{a}_{b} = {function}({a}, {b})"
        for a, b in pairs
        for function in ("mass", "deltaR")
    ]


_PART = re.compile("(.*?)(pt|eta|phi|mass|energy|px|py|pz|e|m)([_0-9]*)", re.IGNORECASE)
"""A column of a particle: what comes before its component, the component, a number."""


def proposed_particles(names: Sequence[str]) -> dict[str, dict[str, str | float]]:
    """Return particles that names of columns suggest, massless where neither mass nor E is there.

    Examples
    --------
    >>> proposed_particles(["pt1", "eta1", "phi1", "Q1", "mu_E", "mu_px", "mu_py", "mu_pz"])
    {'p1': {'pt': 'pt1', 'eta': 'eta1', 'phi': 'phi1', 'mass': 0}, \
'mu': {'E': 'mu_E', 'px': 'mu_px', 'py': 'mu_py', 'pz': 'mu_pz'}}
    """
    groups: dict[str, dict[str, str]] = {}
    for name in names:
        if (match := _PART.fullmatch(name)) is not None:
            before, component, number = (part.strip("_") for part in match.groups())
            key = ALIASES.get(component.lower(), component.lower())
            groups.setdefault(f"{before}{number}", {}).setdefault(key, name)
    found: dict[str, dict[str, str | float]] = {}
    for group, columns in groups.items():
        known: dict[str, str | float] = {**columns}
        if not {"e", "mass"} & known.keys():
            known["mass"] = 0
        for components in COMPONENTS:
            if set(components) <= known.keys():
                name = group if group.isidentifier() else f"p{group}"
                found[name] = {_shown(key): known[key] for key in components}
                break
    return found
