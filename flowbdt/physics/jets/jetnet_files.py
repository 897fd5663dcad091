"""Jets in the JetNet layout, tables of 12 high-level variables (HLV), and the bundled sample.

Readers take the folder that holds the files; ``flowbdt data fetch jetnet`` downloads them.

References
----------
R. Kansal et al., "Particle Cloud Generation with Message Passing Generative Adversarial Networks",
arXiv:2106.11535 (the layout); A. J. Larkoski, I. Moult, D. Neill, arXiv:1409.6298 (D2);
J. Thaler, K. Van Tilburg, arXiv:1011.2268 (N-subjettiness).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from ...errors import FormatError, InputError
from ...tables.event_table import EventTable
from ...tables.formats import hdf5, read_table
from ...tables.formats.table_files import Rows, row_span
from ..datasets import DATASETS, Dataset, as_integers, hashed_split

HLV_COLUMNS = (
    "d12", "d23", "ecf2", "ecf3", "d2", "tau1", "tau2", "tau3", "tau21", "tau32", "mass", "pt",
)  # fmt: skip
"""Splitting scales, energy correlation functions and their ratio, N-subjettiness and its ratios,
jet mass and transverse momentum."""

HLV_UNITS = {"d12": "GeV", "d23": "GeV", "mass": "GeV", "pt": "GeV"}
HLV_RELATIONS = ("tau21 = tau2 / tau1", "tau32 = tau3 / tau2", "d2 = ecf3 / ecf2 ** 3")

HLV_TRAIN_ROWS = 25_000
"""Rows before this one are for training, the others for the test."""

JET_FEATURES = ("pt", "eta", "mass", "num_particles")
JET_UNITS = {"pt": "GeV", "mass": "GeV"}
PARTICLE_FEATURES = ("etarel", "phirel", "ptrel", "mask")

SHORT = 30
"""Particles per jet in the smaller of the two public sets of files; 150 in the larger."""


@DATASETS.register("jetnet_hlv")
class JetNetHLV(Dataset):
    """High-level variables of jets: ``{jet}_hlv12.h5`` in a folder, one data set per column.

    The split is by row: 0 to 24,999 train (take validation events from these), the rest test.
    Some rows are jets of one event; a split by row does not keep these together. ``jet`` is "t" for
    top quarks, "g" for gluons, or any other that has a file.
    """

    name = "jetnet_hlv"
    source = "Jets in the JetNet layout, variables from up to 30 particles per jet; files are yours"
    licence = "that of your files"
    relations = HLV_RELATIONS
    columns = HLV_COLUMNS
    units = HLV_UNITS

    def __init__(
        self, folder: str | Path, jet: str = "t", train_rows: int = HLV_TRAIN_ROWS
    ) -> None:
        self.folder, self.jet, self.train_rows = folder, jet, train_rows

    def _load(self, split: str) -> EventTable:
        path = _file(self.folder, f"{self.jet}_hlv12.h5")
        table = read_table(path, columns=HLV_COLUMNS, units=HLV_UNITS)
        return split_by_row(table, split, self.train_rows)


@DATASETS.register("jetnet")
class JetNetJets(Dataset):
    """Jets or their particles in JetNet's layout; 70% train, 15% validation, 15% test, by a hash.

    The file is ``{jet}.hdf5`` (up to 30 particles) or ``{jet}150.hdf5`` (up to 150): the second for
    more than 30 particles, or if there is no other. ``jet`` is "t", "g", "q", "w" or "z"; ``what``
    and ``n_particles``, the hardest that are read and counted, are as in `read_jetnet`.
    """

    name = "jetnet"
    source = "Jets in the JetNet layout (arXiv:2106.11535); files are yours"
    licence = "that of your files"
    splits = ("train", "validation", "test")

    def __init__(
        self,
        folder: str | Path,
        jet: str = "t",
        what: str = "jets",
        n_particles: int = 30,
        seed: int = 0,
    ) -> None:
        self.folder, self.jet, self.what = folder, jet, what
        self.seed, self.n_particles = seed, n_particles
        self.columns = JET_FEATURES if what == "jets" else particle_names(n_particles)
        self.units = _units(self.columns)

    def _load(self, split: str) -> EventTable:
        table = read_jetnet(self._path(), self.what, n_particles=self.n_particles)
        fractions = {"train": 0.7, "validation": 0.15, "test": 0.15}
        return hashed_split(table, split, fractions, self.seed)

    def _path(self) -> Path:
        names = [f"{self.jet}.hdf5", f"{self.jet}150.hdf5"]
        if self.n_particles > SHORT:
            names.reverse()
        present = [name for name in names if (Path(self.folder) / name).is_file()]
        return _file(self.folder, (present or names)[0])


def split_by_row(table: EventTable, split: str, train_rows: int) -> EventTable:
    """Return the rows before ``train_rows`` for "train", the others for "test", or all."""
    if split == "all":
        return table
    return table.take(slice(0, train_rows) if split == "train" else slice(train_rows, None))


def particle_names(n_particles: int) -> tuple[str, ...]:
    """Return etarel_0, phirel_0, ptrel_0, mask_0, etarel_1, ..."""
    return tuple(f"{name}_{i}" for i in range(n_particles) for name in PARTICLE_FEATURES)


def _units(names: tuple[str, ...]) -> dict[str, str]:
    angles = {name: "rad" for name in names if name.startswith("phirel")}
    return {**angles, **{name: unit for name, unit in JET_UNITS.items() if name in names}}


def read_jetnet(
    path: str | Path, what: str = "jets", rows: Rows = None, *, n_particles: int | None = None
) -> EventTable:
    """Read a file in JetNet's own layout as a flat table.

    Raises InputError if ``what`` is unknown, a data set is missing or of another shape, a count or
    mask is no whole number, or the file has fewer than ``n_particles`` particles; FormatError if
    the file is truncated or foreign.

    Parameters
    ----------
    path : .hdf5 file with ``jet_features`` (N, 4) and ``particle_features`` (N, P, 4), such as
        ``t.hdf5`` (P = 30) or ``t150.hdf5`` (P = 150)
    what : "jets" for pt [GeV], eta, mass [GeV], num_particles; "particles" for the 4 P columns
        etarel_0, phirel_0 [rad], ptrel_0, mask_0, etarel_1, ...
    rows : slice or (start, stop); None for all
    n_particles : read the hardest only, which come first in the files, and count no more per jet;
        None for all

    Returns
    -------
    EventTable; num_particles and masks are integer columns, the others as stored (float32)
    """
    if what not in ("jets", "particles"):
        raise InputError(f"what to read must be 'jets' or 'particles', got {what!r}")
    if n_particles is not None and n_particles < 1:
        raise InputError(f"n_particles must be at least 1, got {n_particles}")
    if what == "jets":
        values = _read(Path(path), "jet_features", rows, None)
        if n_particles is not None:
            values[:, 3] = np.minimum(values[:, 3], n_particles)
    else:
        values = _read(Path(path), "particle_features", rows, n_particles)
    names = JET_FEATURES if what == "jets" else particle_names(values.shape[1])
    try:
        table = EventTable.of(values.reshape(len(values), -1), names, units=_units(names))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    counts = [name for name in names if name.startswith(("num_particles", "mask"))]
    numbers = table.select(counts).x
    if not np.array_equal(numbers, np.round(numbers)):
        raise InputError(f"{path}: masks and numbers of particles must be whole numbers")
    return as_integers(table, counts)


def _read(path: Path, key: str, rows: Rows, n_particles: int | None) -> np.ndarray:
    """Return features (N, 4) of jets or (N, P, 4) of the first particles, and read no others."""
    if not path.is_file():
        raise InputError(f"{path} is not a file: check the name and the working folder")
    with hdf5.opened(path) as handle:
        if key not in handle:
            holds = ", ".join(sorted(handle)) or "nothing"
            raise InputError(
                f"{path} must hold {key!r} as JetNet files do, but holds {holds}; read a table with"
                " one data set per column by flowbdt.read_table"
            )
        shape: tuple[int, ...] = getattr(handle[key], "shape", ())
        expected = "(N, 4)" if key == "jet_features" else "(N, P, 4)"
        if len(shape) != expected.count(",") + 1 or shape[-1] != 4 or 0 in shape:
            raise InputError(f"{path}: {key!r} must have the shape {expected}, got {shape}")
        if n_particles is not None and n_particles > shape[1]:
            raise InputError(
                f"{path} has {shape[1]} particles per jet, fewer than {n_particles}: the public"
                " files with 150 are t150.hdf5 and the like"
            )
        try:
            span = row_span(rows, shape[0], path)
            return np.asarray(handle[key][span, : n_particles or shape[1]])
        except OSError as error:
            raise FormatError(
                f"{path} is damaged ({error}); it may be truncated: copy or make it again"
            ) from error


def _file(folder: str | Path, name: str) -> Path:
    path = Path(folder) / name
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: give the folder that holds {name}; 'flowbdt data fetch'"
            " downloads public files"
        )
    return path


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
        source = resources.files("flowbdt.physics") / "data" / "top_jets_hlv12.h5"
        with resources.as_file(source) as path:
            return split_by_row(read_table(path), split, HLV_TRAIN_ROWS)


def bundled() -> BundledTopJets:
    """Return the bundled data set: 40,000 jets, with splitting scales, mass and pt in GeV."""
    return BundledTopJets()
