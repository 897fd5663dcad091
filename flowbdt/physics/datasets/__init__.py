"""Named tables with units, source, licence and disjoint splits.

Reading them downloads nothing; `flowbdt.physics.datasets.download` does, when it is asked to.
"""

from __future__ import annotations

from ..calorimeter.geometry import Geometry, geometry, read_binning
from ..calorimeter.shower_files import (
    CaloChallenge,
    ShowerFile,
    Showers,
    read_showers,
    write_showers,
)
from ..calorimeter.toy_showers import toy_showers
from ..jets.jetnet_files import HLV_RELATIONS, JetNetHLV, JetNetJets, read_jetnet
from ..jets.omnifold_files import OmniFoldZJets, read_zjets
from .base import DATASETS, Dataset, hashed_rows
from .bundled import BundledTopJets, bundled
from .toys import Gaussian, Mixed, Mixture, Moons

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
