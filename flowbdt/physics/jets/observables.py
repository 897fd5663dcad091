"""Jet observables by name, as a table; kT subjets and soft drop by FastJet.

References
----------
M. Cacciari, G. P. Salam, G. Soyez, "FastJet user manual", arXiv:1111.6097; S. Catani et al., Nucl.
Phys. B406 (1993) 187 and S. D. Ellis, D. E. Soper, hep-ph/9305266 (kT); A. J. Larkoski et al.,
"Soft Drop", arXiv:1402.2657; J. Thaler, K. Van Tilburg, arXiv:1011.2268 (N-subjettiness).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import InputError, MissingExtra
from ...registry import unknown
from ...tables.event_table import EventTable
from ...tables.formulas.particles import rapidity
from .constituents import Constituents

GEV = frozenset({"mass", "pt", "d12", "d23"})
"""Observables in the unit of transverse momentum."""


class _Jets:
    """Jets with a clustering that is made when first needed."""

    def __init__(self, jets: Constituents, radius: float) -> None:
        self.plain, self.radius = jets, radius

    @cached_property
    def clustered(self) -> ClusteredJets:
        return ClusteredJets(self.plain)

    @cached_property
    def groomed(self) -> SoftDrop:
        return self.clustered.soft_drop(radius=self.radius)


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
"""Name -> function of the jets; the methods have the definitions."""


def jet_observables(
    jets: np.ndarray,
    names: Sequence[str] | None = None,
    *,
    pt_scale: np.ndarray | float = 1.0,
    radius: float = 0.8,
) -> EventTable:
    """Return observables of jets in JetNet's layout as a table; multiplicity is an integer column.

    Raises InputError if a name is unknown or the jets are invalid; MissingExtra if the observables
    need fastjet and it is not installed.

    Parameters
    ----------
    jets : ndarray (n, P, 3 or 4), etarel, phirel, ptrel, mask
    names : of `OBSERVABLES`; None for all
    pt_scale : ndarray (n,) or float, transverse momentum [GeV] that multiplies ptrel; 1 leaves
        mass, pt, d12 and d23 relative to the jet's
    radius : of the jets, for soft drop (z_cut = 0.1, beta = 0) and rho_g

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


RADIUS = 1000.0
"""FastJet's largest radius: no particle is nearer to the beam than to another one, so every jet is
clustered as a whole. FastJet divides its scales by the radius squared."""

COMPONENTS = ("E", "px", "py", "pz")

ATLAS_FACTOR = 1.5
"""Splitting scales are 1.5 sqrt(d), near the mass of a particle that decays into two."""


@dataclass(frozen=True)
class SoftDrop:
    """Soft-drop groomed jets, arrays (n,); radius and z are zero where no splitting passes."""

    radius: np.ndarray  # distance of the two prongs; over the jet radius it is rho_g (or theta_g)
    z: np.ndarray  # share of the softer prong in their transverse momenta
    mass: np.ndarray  # of the groomed jet, in the unit of pt


class ClusteredJets:
    """Jets clustered as a whole, in one call of FastJet. Raises MissingExtra without fastjet."""

    def __init__(self, jets: Constituents) -> None:
        try:
            import awkward
            import fastjet
        except ImportError as error:
            raise MissingExtra.of("fastjet", error, "jets") from error
        self.jets, self._fastjet, self._awkward = jets, fastjet, awkward

    def _cluster(self, algorithm: str, rows: np.ndarray | None = None) -> Any:
        """Return FastJet's cluster sequences of the jets, or of some of them."""
        ak, fj = self._awkward, self._fastjet
        jets = self.jets if rows is None else self.jets.take(rows)
        counts = jets.mask.sum(axis=1)
        flat = jets.momenta[jets.mask]
        columns = {name: ak.unflatten(flat[:, i], counts) for i, name in enumerate(COMPONENTS)}
        events = ak.zip(columns, with_name="Momentum4D")
        kind = {"kt": fj.kt_algorithm, "cambridge": fj.cambridge_algorithm}[algorithm]
        return fj.ClusterSequence(events, fj.JetDefinition(kind, RADIUS))

    @cached_property
    def _kt(self) -> Any:
        return self._cluster("kt")

    def splitting_scale(self, n: int) -> np.ndarray:
        """Return 1.5 sqrt(d) (n_jets,) of the merge from n + 1 to n subjets; in the unit of pt.

        d = min(pT_a^2, pT_b^2) dR_ab^2. n = 1 gives d12, n = 2 d23. 0 with n particles or fewer.
        """
        d = self._awkward.to_numpy(self._kt.exclusive_dmerge(n))
        d = np.where(self.jets.multiplicity() > n, d, 0.0)
        return ATLAS_FACTOR * RADIUS * np.sqrt(np.maximum(d, 0.0))

    def subjets(self, n: int) -> np.ndarray:
        """Return the momenta (n_jets, n, 4) of n kT subjets; of fewer, the last is repeated."""
        counts = np.minimum(self.jets.multiplicity(), n)
        result = np.empty((len(self.jets), n, 4))
        for count in np.unique(counts):
            rows = np.flatnonzero(counts == count)
            whole = len(rows) == len(counts)
            sequence = self._kt if whole else self._cluster("kt", rows)
            with warnings.catch_warnings():  # it warns of kT, for which exclusive jets are made
                warnings.simplefilter("ignore", UserWarning)
                subjets = sequence.exclusive_jets(int(count))
            columns = [np.asarray(self._awkward.to_regular(subjets[k])) for k in COMPONENTS]
            momenta = np.stack(columns, axis=-1)
            result[rows] = momenta[:, np.minimum(np.arange(n), count - 1)]
        return result

    def subjettiness(self, n: int) -> np.ndarray:
        """Return tau_n (n_jets,): sum_i pT_i min_k dR(i, axis_k) / sum_i pT_i.

        The axes are the n exclusive kT subjets; beta = 1, no division by the jet radius.
        """
        axes = self.subjets(n)
        near = self.jets.distance_to(rapidity(axes), np.arctan2(axes[..., 2], axes[..., 1]))
        return (self.jets.share * near.min(axis=-1)).sum(axis=1)

    def soft_drop(self, z_cut: float = 0.1, beta: float = 0.0, radius: float = 0.8) -> SoftDrop:
        """Groom: the first Cambridge/Aachen splitting with z > z_cut (dR / radius)^beta."""
        groomed = self._cluster("cambridge").exclusive_jets_softdrop_grooming(
            njets=1, beta=beta, symmetry_cut=z_cut, R0=radius
        )
        distance, z, mass = (
            np.asarray(self._awkward.to_numpy(groomed[name])).reshape(-1)
            for name in ("deltaRsoftdrop", "symmetrysoftdrop", "msoftdrop")
        )
        return SoftDrop(np.maximum(distance, 0.0), np.maximum(z, 0.0), np.maximum(mass, 0.0))
