"""Jets as flat tables: three columns for each particle, by falling transverse momentum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from experiments.jetnet_particles.model import as_jets
from experiments.jetnet_particles.splittings import place
from flowbdt import EventTable, FlowBDT
from flowbdt.physics.jets import Constituents
from flowbdt.seeding import derive
from flowbdt.tables.formulas.particles import invariant_mass, wrapped

Log = Callable[[str], None]


def silent(text: str) -> None:
    """Print nothing."""


def names(slots: int) -> list[str]:
    """Return the names of the columns."""
    return [f"{kind}_{i}" for kind in ("log_pt", "eta", "phi") for i in range(slots)]


def filled(jets: Constituents) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log pt, eta, phi (n, P); an empty slot is a copy of the softest particle."""
    softest = np.where(jets.mask, jets.pt, np.inf).argmin(axis=1)[:, None]
    slot = np.where(jets.mask, np.arange(jets.mask.shape[1]), softest)
    columns = (np.log(jets.pt + 1e-12), jets.eta, jets.phi)
    log_pt, eta, phi = (np.take_along_axis(column, slot, axis=1) for column in columns)
    return log_pt, eta, phi


class Reference:
    """The published recipe: the columns as they are, min-max scaled, trees without closed form.

    ``settings`` go to `FlowBDT`.
    """

    def __init__(self, settings: dict[str, Any], seed: int = 0) -> None:
        self.settings, self.seed = settings, seed

    def fit(self, jets: np.ndarray, log: Log = silent) -> Self:
        """Learn from jets (n, P, 4) in JetNet's layout."""
        table = np.hstack(filled(Constituents.of(jets)))
        self.slots_ = jets.shape[1]
        self.share_ = jets[..., 3].mean(axis=0)
        self.flow_ = FlowBDT(**self.settings, random_state=derive(self.seed, "reference"))
        self.flow_.fit(EventTable.of(table, names(self.slots_)))
        return self

    def sample(self, n: int, seed: int = 0) -> tuple[np.ndarray, None]:
        """Return jets (n, P, 4); all slots are filled, as nearly all real ones are."""
        x = self.flow_.sample(n, random_state=seed).x
        log_pt, eta, phi = np.split(x, 3, axis=1)
        pt = np.exp(log_pt)
        order = np.argsort(-pt, axis=1)
        columns = [np.take_along_axis(a, order, axis=1) for a in (eta, phi, pt)]
        return np.stack([*columns, np.ones_like(pt)], axis=-1), None


class Projected:
    """Two stages: momentum, mass and softest particle of a jet; then all particles, given these.

    Columns are relative to the jet: log share of its transverse momentum, distances to its axis.
    Generated particles are scaled to the jet's mass and boosted into its momentum, so that these
    come out exactly. ``first`` and ``rest`` are settings of `FlowBDT`.
    """

    def __init__(self, first: dict[str, Any], rest: dict[str, Any], seed: int = 0) -> None:
        self.first, self.rest, self.seed = first, rest, seed

    def fit(self, jets: np.ndarray, log: Log = silent) -> Self:
        """Learn from jets (n, P, 4) in JetNet's layout."""
        parts = Constituents.of(jets)
        pt, y, phi = place(parts.total)
        softest = np.where(parts.mask, parts.pt, np.inf).min(axis=1)
        jet = np.column_stack([np.log(pt), y, phi, np.log(parts.mass() / pt), np.log(softest)])
        columns = ("log_pt", "rapidity", "phi", "log_mass", "log_softest")
        self.jets_ = FlowBDT(**self.first, random_state=derive(self.seed, "first"))
        self.jets_.fit(EventTable.of(jet, columns))
        log("first stage")
        log_pt, eta, azimuth = filled(parts)
        relative = (log_pt - np.log(pt)[:, None], eta - y[:, None], azimuth - phi[:, None])
        self.slots_ = jets.shape[1]
        self.particles_ = FlowBDT(**self.rest, random_state=derive(self.seed, "particles"))
        self.particles_.fit(EventTable.of(np.hstack(relative), names(self.slots_)), cond=jet)
        log("particles")
        return self

    def sample(self, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return jets (n, P, 4) and their momenta (n, 4) of the first stage."""
        jet = self.jets_.sample(n, random_state=derive(seed, "first")).x
        pt = np.exp(jet[:, 0])
        mass = pt * np.exp(jet[:, 3])
        across = np.hypot(pt, mass)
        parts = (np.cosh(jet[:, 1]) * across, pt * np.cos(jet[:, 2]), pt * np.sin(jet[:, 2]))
        total = np.column_stack([*parts, np.sinh(jet[:, 1]) * across])
        key = derive(seed, "particles")
        made = self.particles_.sample(cond=jet, outside=None, random_state=key).x
        log_pt, eta, phi = np.split(made, 3, axis=1)
        ones = np.ones_like(eta)
        angles = (eta + jet[:, 1:2], wrapped(phi + jet[:, 2:3]))
        flat = np.stack([*angles, np.exp(log_pt) * pt[:, None], ones], axis=-1)
        momenta = onto(Constituents.of(flat).momenta, total)
        rows = np.repeat(np.arange(n), self.slots_)
        return as_jets(momenta.reshape(-1, 4), rows, (n, self.slots_)), total


def onto(momenta: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return massless momenta (n, P, 4) scaled and boosted so that they add up to (n, 4).

    The scale brings their mass to that of the total; the boost leads through the rest frame.
    """
    found = momenta.sum(axis=1)
    scale = invariant_mass(total) / invariant_mass(found)
    at_rest = boosted(momenta * scale[:, None, None], found, inverse=True)
    return boosted(at_rest, total)


def boosted(momenta: np.ndarray, frame: np.ndarray, inverse: bool = False) -> np.ndarray:
    """Return momenta (n, P, 4) seen from where what has momentum ``frame`` (n, 4) is at rest.

    Without ``inverse`` the other way: from its rest frame into the one in which it moves.
    """
    mass = invariant_mass(frame)[:, None]
    gamma = frame[:, :1] / mass
    velocity = (frame[:, 1:] / mass) * (-1.0 if inverse else 1.0)  # times gamma
    along = np.einsum("npi,ni->np", momenta[..., 1:], velocity)
    energy = gamma * momenta[..., 0] + along
    push = momenta[..., 0] + along / (1 + gamma)
    return np.concatenate(
        [energy[..., None], momenta[..., 1:] + push[..., None] * velocity[:, None]], axis=-1
    )
