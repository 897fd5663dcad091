"""The sample of top-quark jets that comes with the package: real examples without a download."""

from __future__ import annotations

from importlib import resources

from ...tables.event_table import EventTable
from ...tables.formats import read_table
from ..jets.jetnet_files import HLV_COLUMNS, HLV_RELATIONS, HLV_TRAIN_ROWS, HLV_UNITS, split_by_row
from .base import DATASETS, Dataset

FILE = "top_jets_hlv12.h5"


@DATASETS.register("bundled")
class BundledTopJets(Dataset):
    """40,000 top-quark jets with 12 high-level variables; rows 0 to 24,999 are the train split."""

    name = "bundled"
    source = (
        "Pythia 8.317 top pairs at 13 TeV, anti-kT R = 0.8 jets in the JetNet layout, no detector;"
        " self-generated, not the public JetNet data"
    )
    licence = "free to use and redistribute with this project"
    relations = HLV_RELATIONS
    columns = HLV_COLUMNS
    units = HLV_UNITS

    def _load(self, split: str) -> EventTable:
        with resources.as_file(resources.files("flowbdt.physics.data") / FILE) as path:
            return split_by_row(read_table(path), split, HLV_TRAIN_ROWS)


def bundled() -> BundledTopJets:
    """Return the bundled data set; ``bundled().load()`` gives its 40,000 jets.

    Columns and units: d12, d23, mass, pt in GeV; ecf2, ecf3, d2, tau1, tau2, tau3, tau21, tau32
    without. tau21, tau32 and d2 are ratios of others (``bundled().relations``).
    """
    return BundledTopJets()
