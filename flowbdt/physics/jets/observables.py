"""Observables by name, as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...errors import InputError
from ...registry import unknown
from ...tables.event_table import EventTable
from .clustering import ClusteredJets, SoftDrop
from .constituents import Constituents

GEV = frozenset({"mass", "pt", "d12", "d23"})
"""Observables in the unit of transverse momentum."""


class _Jets:
    """Jets with a clustering that is made when first needed."""

    def __init__(self, jets: Constituents, radius: float) -> None:
        self.plain = jets
        self.radius = radius
        self._clustered: ClusteredJets | None = None
        self._groomed: SoftDrop | None = None

    @property
    def clustered(self) -> ClusteredJets:
        if self._clustered is None:
            self._clustered = ClusteredJets(self.plain)
        return self._clustered

    @property
    def groomed(self) -> SoftDrop:
        if self._groomed is None:
            self._groomed = self.clustered.soft_drop(radius=self.radius)
        return self._groomed


OBSERVABLES: dict[str, Callable[[_Jets], np.ndarray]] = {
    "mass": lambda jets: jets.plain.mass(),
    "pt": lambda jets: jets.plain.transverse_momentum(),
    "multiplicity": lambda jets: jets.plain.multiplicity(),
    "width": lambda jets: jets.plain.width(),
    "ecf2": lambda jets: jets.plain.ecf2(),
    "ecf3": lambda jets: jets.plain.ecf3(),
    "d2": lambda jets: jets.plain.d2(),
    "tau1": lambda jets: jets.clustered.subjettiness(1),
    "tau2": lambda jets: jets.clustered.subjettiness(2),
    "tau3": lambda jets: jets.clustered.subjettiness(3),
    "d12": lambda jets: jets.clustered.splitting_scale(1),
    "d23": lambda jets: jets.clustered.splitting_scale(2),
    "rho_g": lambda jets: jets.groomed.radius / jets.radius,
    "z_g": lambda jets: jets.groomed.z,
}
"""Name -> function of the jets; definitions at the methods that are called."""


def jet_observables(
    jets: np.ndarray,
    names: Sequence[str] | None = None,
    *,
    pt_scale: np.ndarray | float = 1.0,
    radius: float = 0.8,
) -> EventTable:
    """Return observables of jets in JetNet's layout as a table.

    Parameters
    ----------
    jets : ndarray (n, P, 3 or 4), etarel, phirel, ptrel, mask
    names : of `OBSERVABLES`; None for all
    pt_scale : ndarray (n,) or float, transverse momentum that ptrel is relative to [GeV]; with 1
        mass, pt, d12 and d23 are relative to the jet's too
    radius : of the jets, for soft drop (z_cut = 0.1, beta = 0) and rho_g

    Returns
    -------
    EventTable; multiplicity is an integer column

    Raises
    ------
    InputError
        If a name is unknown or the jets are not as expected.
    MissingExtra
        If a clustering is needed and fastjet is not installed.

    Examples
    --------
    >>> two = [[[0.1, 0.0, 0.5, 1], [-0.1, 0.0, 0.5, 1]]]
    >>> jet_observables(two, ["ecf2", "multiplicity"]).x.round(3).tolist()
    [[0.05, 2.0]]
    """
    wanted = list(OBSERVABLES) if names is None else list(names)
    for name in wanted:
        if name not in OBSERVABLES:
            raise InputError(str(unknown("observable", name, OBSERVABLES)))
    source = _Jets(Constituents.of(jets, pt_scale), radius)
    columns = {name: OBSERVABLES[name](source) for name in wanted}
    units = {} if np.ndim(pt_scale) == 0 and pt_scale == 1.0 else dict.fromkeys(GEV, "GeV")
    return EventTable.of(
        np.column_stack(list(columns.values())),
        wanted,
        units={name: unit for name, unit in units.items() if name in columns},
    )
