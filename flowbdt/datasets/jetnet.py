"""Jets in the JetNet layout, and tables of 12 high-level variables (HLV) made from them.

No file is downloaded: name the folder that holds them.

References
----------
R. Kansal et al., "Particle Cloud Generation with Message Passing Generative Adversarial Networks",
arXiv:2106.11535 (the layout); A. J. Larkoski, I. Moult, D. Neill, arXiv:1409.6298 (D2);
J. Thaler, K. Van Tilburg, arXiv:1011.2268 (N-subjettiness).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..table import EventTable
from ..tableio import hdf5, read_table
from ..tableio.read import Rows, row_span
from .base import DATASETS, Dataset, hashed_rows

HLV_COLUMNS = (
    "d12",
    "d23",
    "ecf2",
    "ecf3",
    "d2",
    "tau1",
    "tau2",
    "tau3",
    "tau21",
    "tau32",
    "mass",
    "pt",
)
"""Splitting scales, energy correlation functions and their ratio, N-subjettiness and its ratios,
jet mass and transverse momentum."""
HLV_UNITS = {"d12": "GeV", "d23": "GeV", "mass": "GeV", "pt": "GeV"}
HLV_RELATIONS = ("tau21 = tau2 / tau1", "tau32 = tau3 / tau2", "d2 = ecf3 / ecf2 ** 3")
HLV_TRAIN_ROWS = 25_000
"""Rows before this one are for training, the others for the test."""

JET_FEATURES = ("pt", "eta", "mass", "num_particles")
JET_UNITS = {"pt": "GeV", "mass": "GeV"}
PARTICLE_FEATURES = ("etarel", "phirel", "ptrel", "mask")
_COUNTS = ("num_particles", "mask")


@DATASETS.register("jetnet_hlv")
class JetNetHLV(Dataset):
    """High-level variables of jets: ``{jet}_hlv12.h5``, one data set per column.

    The split is by row: 0 to 24,999 train (take validation events from these), the rest test.
    Some rows are jets of one event; a split by row does not keep these together.

    Parameters
    ----------
    folder : folder that holds the file
    jet : "t" for top quarks, "g" for gluons, or any other that has a file
    train_rows : rows of the train split
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
        self.folder = folder
        self.jet = jet
        self.train_rows = train_rows

    def _load(self, split: str) -> EventTable:
        table = read_table(
            _file(self.folder, f"{self.jet}_hlv12.h5"), columns=HLV_COLUMNS, units=HLV_UNITS
        )
        return split_by_row(table, split, self.train_rows)


@DATASETS.register("jetnet")
class JetNetJets(Dataset):
    """Jets or their particles from ``{jet}.hdf5`` in JetNet's own layout, split by a hash.

    Parameters
    ----------
    folder : folder that holds the file
    jet : "t", "g", "q", "w" or "z"
    what : "jets" or "particles", as in `read_jetnet`
    n_particles : number of the hardest particles that become columns
    seed : int, of the split into 70% train, 15% validation, 15% test
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
        self.folder = folder
        self.jet = jet
        self.what = what
        self.seed = seed
        self.n_particles = n_particles
        self.columns = JET_FEATURES if what == "jets" else particle_names(n_particles)
        self.units = _units(self.columns)

    def _load(self, split: str) -> EventTable:
        table = read_jetnet(_file(self.folder, f"{self.jet}.hdf5"), self.what).select(self.columns)
        if split == "all":
            return table
        fractions = {"train": 0.7, "validation": 0.15, "test": 0.15}
        return table.take(hashed_rows(table.n, fractions, self.seed)[split])


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


def read_jetnet(path: str | Path, what: str = "jets", rows: Rows = None) -> EventTable:
    """Read a file in JetNet's own layout as a flat table.

    Parameters
    ----------
    path : .hdf5 file with ``jet_features`` (N, 4) and ``particle_features`` (N, P, 4)
    what : "jets" for pt [GeV], eta, mass [GeV], num_particles; "particles" for the 4 P columns
        etarel_0, phirel_0 [rad], ptrel_0, mask_0, etarel_1, ...
    rows : slice or (start, stop); None for all

    Returns
    -------
    EventTable; num_particles and masks are integer columns, the others float32

    Raises
    ------
    InputError
        If ``what`` is unknown, or a data set is missing or of another shape.
    FormatError
        If the file is truncated or foreign.
    """
    features = {"jets": JET_FEATURES, "particles": PARTICLE_FEATURES}
    if what not in features:
        raise InputError(f"what to read must be 'jets' or 'particles', got {what!r}")
    key = "jet_features" if what == "jets" else "particle_features"
    values = _features(Path(path), key, 2 if what == "jets" else 3, rows)
    names = JET_FEATURES if what == "jets" else particle_names(values.shape[1])
    try:
        table = EventTable.of(values.reshape(len(values), -1), names, units=_units(names))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return _with_counts(table)


def _features(path: Path, key: str, n_dimensions: int, rows: Rows) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path} is not a file: check the name and the working folder")
    with hdf5.opened(path) as handle:
        if key not in handle:
            found = ", ".join(sorted(handle)) or "nothing"
            raise InputError(
                f"{path} must hold {key!r} as JetNet files do, but holds {found}; read a table with"
                " one data set per column by flowbdt.read_table"
            )
        shape: tuple[int, ...] = getattr(handle[key], "shape", ())
        if len(shape) != n_dimensions or shape[-1] != 4 or 0 in shape:
            expected = "(N, 4)" if n_dimensions == 2 else "(N, P, 4)"
            raise InputError(f"{path}: {key!r} must have the shape {expected}, got {shape}")
        span = row_span(rows, shape[0], path)
        return hdf5.read_columns(handle, [key], span, path)[key]


def _with_counts(table: EventTable) -> EventTable:
    """Give counts the type of integers, so that they are generated as such."""
    dtypes = tuple(
        "int32" if name.startswith(_COUNTS) else dtype
        for name, dtype in zip(table.names, table.dtypes, strict=True)
    )
    return replace(table, dtypes=dtypes)


def _file(folder: str | Path, name: str) -> Path:
    path = Path(folder) / name
    if not path.is_file():
        raise InputError(
            f"{path} is not there: name the folder that holds {name}; flowbdt downloads nothing"
        )
    return path
