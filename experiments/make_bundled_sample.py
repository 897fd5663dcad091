"""Make flowbdt/physics/data/top_jets_hlv12.h5, the sample that comes with the package, from its
source.

    python experiments/make_bundled_sample.py path/to/t_hlv12.h5
    flowbdt/physics/data/top_jets_hlv12.h5

The source is a table of 50,000 jets (see flowbdt/physics/data/README.md). The first 40,000 rows
are kept,
in their order, so that the file stays below 1.9 MB. The same source gives the same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from flowbdt.atomic_files import digest_file
from flowbdt.physics.jets.jetnet_files import HLV_COLUMNS, HLV_RELATIONS, HLV_UNITS
from flowbdt.tables.formats import read_table, write_table

N_ROWS = 40_000
PROVENANCE = {
    "title": "Top-quark jets, 12 high-level variables",
    "generator": "Pythia 8.317.2, Monash tune, underlying event on, seed 1001; no detector",
    "process": "pp 13 TeV, gg and qqbar to ttbar, W to quarks, partons at 0.99-1.01 TeV",
    "jets": "fastjet 3.5.2.0, anti-kT R = 0.8, 0.8 < pt < 1.6 TeV, |eta| < 2.5",
    "variables": "from the (up to) 30 hardest particles, taken as massless; see README.md",
    "note": "self-generated in the JetNet layout; not the public JetNet data",
    "licence": "free to use and redistribute with this project",
    "relations": list(HLV_RELATIONS),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the source, keep the first rows, write them with units and provenance."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="HDF5 file with the 12 columns")
    parser.add_argument("target", help="file to write")
    parser.add_argument("--rows", type=int, default=N_ROWS, help="rows to keep (default 40000)")
    given = parser.parse_args(arguments)
    table = read_table(given.source, HLV_COLUMNS, rows=(0, given.rows), units=HLV_UNITS)
    provenance = {
        **PROVENANCE,
        "rows": f"0 to {given.rows - 1} of the source",
        "source_sha256": digest_file(given.source),
    }
    write_table(given.target, table, provenance)


if __name__ == "__main__":
    main()
