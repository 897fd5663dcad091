"""Write the twelve observables of jets in JetNet's own layout, as the study reads them.

    flowbdt data fetch jetnet t.hdf5 -o FOLDER/jetnet
    python -m experiments.jetnet_hlv.make FOLDER/jetnet/t.hdf5

writes ``FOLDER/jetnet/t_hlv12.h5``. Needs fastjet. From the (up to) 30 hardest particles, taken as
massless; jets for which a ratio is not defined (fewer than three particles) are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py
import numpy as np

from flowbdt.atomic_files import atomic
from flowbdt.physics import read_jetnet
from flowbdt.physics.jets import jet_observables
from flowbdt.physics.jets.jetnet_files import HLV_COLUMNS, HLV_UNITS

N_PARTICLES = 30
BLOCK = 10_000
RATIOS = {"tau21": ("tau2", "tau1"), "tau32": ("tau3", "tau2")}


def observables(source: Path, rows: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return the twelve columns of some jets, float32; ratios are those of the stored values."""
    jets = read_jetnet(source, rows=rows)
    particles = read_jetnet(source, "particles", rows, n_particles=N_PARTICLES)
    names = [name for name in HLV_COLUMNS if name not in (*RATIOS, "d2")]
    x = particles.x.reshape(particles.n, -1, 4)
    table = jet_observables(x, names, pt_scale=jets.column("pt"))
    columns = {name: table.column(name).astype(np.float32) for name in names}
    with np.errstate(all="ignore"):
        for name, (above, below) in RATIOS.items():
            columns[name] = columns[above] / columns[below]
        columns["d2"] = columns["ecf3"] / columns["ecf2"] ** 3
    good = np.all([np.isfinite(values) for values in columns.values()], axis=0)
    return {name: columns[name][good] for name in HLV_COLUMNS}


def make(source: Path, most: int | None = None) -> tuple[Path, int]:
    """Write the table beside its source; return its path and how many jets were left out."""
    target = source.with_name(f"{source.stem.removesuffix('150')}_hlv12.h5")
    if target.exists():
        raise SystemExit(f"{target} is there already: move it away first")
    with h5py.File(source) as handle:
        n = min(len(handle["jet_features"]), most or 10**9)
    blocks = [observables(source, (i, min(i + BLOCK, n))) for i in range(0, n, BLOCK)]
    with atomic(target) as part, h5py.File(part, "w") as handle:
        for name in HLV_COLUMNS:
            values = np.concatenate([block[name] for block in blocks])
            handle.create_dataset(name, data=values, compression="gzip", shuffle=True)
            handle[name].attrs["unit"] = HLV_UNITS.get(name, "")
        kept = len(values)
    return target, n - kept


def main() -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="such as t.hdf5 or t150.hdf5")
    parser.add_argument("--jets", type=int, help="only the first so many")
    options = parser.parse_args()
    target, lost = make(options.source, options.jets)
    print(f"{target}: {lost} jets without all ratios left out")


if __name__ == "__main__":
    main()
