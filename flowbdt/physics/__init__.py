"""What is particular to particle physics: data sets, jets and calorimeter showers.

The names below are data sets, named tables with units, source, licence and disjoint splits, and
what
reads them. Reading downloads nothing; `flowbdt.physics.datasets.download` does, when called.
"""

from __future__ import annotations

from .calorimeter.geometry import Geometry, geometry, read_binning
from .calorimeter.shower_files import (
    CaloChallenge,
    ShowerFile,
    Showers,
    read_showers,
    write_showers,
)
from .calorimeter.toy_showers import toy_showers
from .datasets.base import DATASETS, Dataset, hashed_rows
from .datasets.bundled import BundledTopJets, bundled
from .datasets.toys import Gaussian, Mixed, Mixture, Moons
from .jets.jetnet_files import HLV_RELATIONS, JetNetHLV, JetNetJets, read_jetnet
from .jets.omnifold_files import OmniFoldZJets, read_zjets

__all__ = [
    "DATASETS",
    "HLV_RELATIONS",
    "BundledTopJets",
    "CaloChallenge",
    "Dataset",
    "Gaussian",
    "Geometry",
    "JetNetHLV",
    "JetNetJets",
    "Mixed",
    "Mixture",
    "Moons",
    "OmniFoldZJets",
    "ShowerFile",
    "Showers",
    "bundled",
    "geometry",
    "hashed_rows",
    "read_binning",
    "read_jetnet",
    "read_showers",
    "read_zjets",
    "toy_showers",
    "write_showers",
]
