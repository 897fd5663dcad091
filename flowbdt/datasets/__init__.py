"""Named tables with units, source, licence and disjoint splits. Nothing is downloaded."""

from __future__ import annotations

from .base import DATASETS, Dataset, hashed_rows
from .bundled import BundledTopJets, bundled
from .jetnet import HLV_RELATIONS, JetNetHLV, JetNetJets, read_jetnet
from .toys import Gaussian, Mixed, Mixture, Moons

__all__ = [
    "DATASETS",
    "HLV_RELATIONS",
    "BundledTopJets",
    "Dataset",
    "Gaussian",
    "JetNetHLV",
    "JetNetJets",
    "Mixed",
    "Mixture",
    "Moons",
    "bundled",
    "hashed_rows",
    "read_jetnet",
]
