"""Jet observables from constituents: closed forms in numpy, clustering by FastJet.

Jets are arrays (n, P, 3 or 4) in JetNet's layout: pseudorapidity and azimuth relative to the jet
axis, transverse momentum relative to the jet's, and a mask; a slot of mask 0 is empty.
"""

from __future__ import annotations

from .constituents import EFP_DEGREES, Constituents, energy_flow_polynomials, prime_polynomials
from .observables import OBSERVABLES, ClusteredJets, SoftDrop, jet_observables

__all__ = [
    "EFP_DEGREES",
    "OBSERVABLES",
    "ClusteredJets",
    "Constituents",
    "SoftDrop",
    "energy_flow_polynomials",
    "jet_observables",
    "prime_polynomials",
]
