"""Jet observables from constituents: closed forms in numpy, clustering through fastjet.

Jets are arrays (n, P, 3 or 4) in JetNet's layout: pseudorapidity and azimuth relative to the jet
axis, transverse momentum relative to the jet's, and a mask; a slot of mask 0 is empty.
"""

from __future__ import annotations

from .clustering import ClusteredJets, SoftDrop
from .constituents import Constituents
from .energy_flow_polynomials import EFP_DEGREES, energy_flow_polynomials, prime_polynomials
from .observables import OBSERVABLES, jet_observables

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
