"""Data sets of particle physics: jets, calorimeter showers and toys, and their readers.

A data set is a named table with units, source, licence and disjoint splits. Nothing is downloaded
but by `flowbdt.physics.datasets.records.fetch_file`.
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
from .datasets import DATASETS, Dataset, hashed_rows
from .datasets.toys import Gaussian, Mixed, Moons, TwoPeaks, toy_showers
from .datasets.z_to_ee import ZToEE
from .jets.jetnet_files import (
    HLV_RELATIONS,
    BundledTopJets,
    JetNetHLV,
    JetNetJets,
    bundled,
    read_jetnet,
)
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
    "Moons",
    "OmniFoldZJets",
    "ShowerFile",
    "Showers",
    "TwoPeaks",
    "ZToEE",
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
