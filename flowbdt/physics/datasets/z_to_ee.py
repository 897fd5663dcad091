"""Electron pairs around the Z that CMS recorded: real data that come with the package."""

from __future__ import annotations

from importlib import resources
from typing import Any, ClassVar

from ...tables.event_table import EventTable
from ...tables.formats import read_table
from . import DATASETS, Dataset, hashed_split


@DATASETS.register("z_to_ee")
class ZToEE(Dataset):
    """18,885 pairs of electrons, with charge and part of the calorimeter (EB barrel, EE endcap).

    Half of the rows, by a hash of the row number, are the train split. ``particles`` and
    ``observables`` are settings of `FlowBDT`, and so is ``require``: cuts that all rows meet.
    """

    name = "z_to_ee"
    source = "CMS at 7 TeV, CERN Open Data record 545, https://opendata.cern.ch/record/545"
    licence = "CC0"
    columns = tuple(f"{name}{i}" for i in (1, 2) for name in ("pt", "eta", "phi", "Q", "type"))
    units = {"pt1": "GeV", "pt2": "GeV", "phi1": "rad", "phi2": "rad"}  # noqa: RUF012
    particles: ClassVar[dict[str, dict[str, Any]]] = {
        f"e{i}": {"pt": f"pt{i}", "eta": f"eta{i}", "phi": f"phi{i}", "mass": 0.000511}
        for i in (1, 2)
    }
    observables = ("mee = mass(e1, e2)", "ptee = pt(e1 + e2)")
    require = ("25 < pt1 < 300", "25 < pt2 < 300", "60 < mee < 120")

    def _load(self, split: str) -> EventTable:
        source = resources.files("flowbdt.physics") / "data" / "z_to_ee.h5"
        with resources.as_file(source) as path:
            return hashed_split(read_table(path), split, {"train": 0.5, "test": 0.5}, 0)
