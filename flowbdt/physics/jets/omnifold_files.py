"""Z + jets at particle and at detector level in the layout of the OmniFold samples (.npz).

Each row is one event: the hardest jet as generated ("gen") and as simulated with the detector
("sim"). ``flowbdt data fetch`` downloads the files.

References
----------
A. Andreassen, P. T. Komiske, E. M. Metodiev, B. Nachman, J. Thaler, "OmniFold: A Method to
Simultaneously Unfold All Observables", arXiv:1911.09107; the record of the data with the
definition of every array, doi:10.5281/zenodo.3548091.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ...errors import FormatError, InputError
from ...registry import unknown
from ...tables.event_table import EventTable
from ..datasets import DATASETS, Dataset, as_integers, hashed_split

DOI = "10.5281/zenodo.3548091"
"""The public record: 17 files for each of Pythia21, Pythia25, Pythia26 and Herwig."""

SIX = ("mass", "width", "multiplicity", "ln_rho", "z_g", "tau21")
"""Jet mass, width, number of constituents, logarithm of the groomed mass squared over the squared
transverse momentum, groomed momentum share, N-subjettiness ratio: those of arXiv:1911.09107."""
MORE = ("pt", "lha", "ang2")
"""Transverse momentum and the angularities of exponent 1/2 (Les Houches) and 2."""
UNITS = {"mass": "GeV", "pt": "GeV"}
COUNTS = ("multiplicity",)
NO_GROOMED_MASS = -20.0
"""ln_rho of a jet that is groomed down to one particle, or to massless ones, in place of the
logarithm of zero. A neutral pion has it at 3 TeV, so no other jet of these samples lies below;
rounding errors in place of zero do, and become the same value."""

Level = Literal["gen", "sim"]
_KEYS = {"multiplicity": "mults", "width": "widths", "z_g": "zgs", "lha": "lhas", "ang2": "ang2s"}
_PT, _MASS = 0, 3


@DATASETS.register("omnifold")
class OmniFoldZJets(Dataset):
    """Jets in Z + jet events: observables at particle level, those at detector level as conditions.

    Reads ``{sample}_Zjet_pTZ-200GeV_0.npz`` and all following numbers. The split is by a hash of
    the row number.

    Parameters
    ----------
    folder : of the files
    sample : "Pythia21", "Pythia25", "Pythia26", "Herwig", or any other with files
    observables : from `SIX` and `MORE`, in order
    conditions : the same at detector level; None for those of ``observables``, () for none
    n_files : how many of the files to read; None for all
    train_fraction : share of the train split, the rest is for the test
    seed : int, of the split
    """

    name = "omnifold"
    source = (
        "Z + jet events at particle level and through a detector simulation, in the layout of"
        f" doi:{DOI} (arXiv:1911.09107); files are yours"
    )
    licence = "that of your files"

    def __init__(
        self,
        folder: str | Path,
        sample: str = "Pythia26",
        observables: Sequence[str] = SIX,
        conditions: Sequence[str] | None = None,
        n_files: int | None = None,
        train_fraction: float = 0.5,
        seed: int = 0,
    ) -> None:
        self.folder, self.sample, self.n_files = folder, sample, n_files
        self.observables, self.conditions = observables, conditions
        self.train_fraction, self.seed = train_fraction, seed
        self.columns = tuple(observables)
        self.units = {name: unit for name, unit in UNITS.items() if name in observables}

    def _load(self, split: str) -> EventTable:
        files = zjets_files(self.folder, self.sample, self.n_files)
        table = read_zjets(files, self.observables, self.conditions)
        fractions = {"train": self.train_fraction, "test": 1 - self.train_fraction}
        return hashed_split(table, split, fractions, self.seed)


def zjets_files(folder: str | Path, sample: str, n_files: int | None = None) -> list[Path]:
    """Return the first ``n_files`` files of a sample. Raises InputError if one is missing."""
    pattern = f"{sample}_Zjet_pTZ-200GeV_{{}}.npz"
    files: list[Path] = []
    while (path := Path(folder) / pattern.format(len(files))).is_file():
        files.append(path)
    wanted = len(files) if n_files is None else n_files
    if not files or wanted > len(files) or wanted < 1:
        raise InputError(
            f"{folder} must hold {pattern.format(0)} and following numbers, {n_files or 'one'} or"
            f" more; {path.name} is missing. 'flowbdt data fetch' downloads public files"
        )
    return files[:wanted]


def read_zjets(
    files: Sequence[str | Path],
    observables: Sequence[str] = SIX,
    conditions: Sequence[str] | None = None,
) -> EventTable:
    """Read files of the OmniFold layout, one after the other, as one table.

    ``observables`` at particle level are from `SIX` and `MORE`, ``conditions`` at detector level
    are named ``sim_...`` (None: those of ``observables``). mass and pt are in GeV, multiplicity is
    an integer column. ln_rho is `NO_GROOMED_MASS` and z_g zero where grooming leaves no mass; tau21
    of a jet without width is zero.

    Raises InputError if an observable is unknown, or an array is missing or of another length;
    FormatError if a file is truncated or foreign.
    """
    names = tuple(observables)
    sim_names = names if conditions is None else tuple(conditions)
    for name in (*names, *sim_names):
        if name not in (*SIX, *MORE):
            raise InputError(str(unknown("observable", name, (*SIX, *MORE))))
    units = {name: unit for name, unit in UNITS.items() if name in names}
    table = EventTable.of(_read(files, "gen", names), names, units=units)
    if sim_names:
        sim = EventTable.of(_read(files, "sim", sim_names), [f"sim_{name}" for name in sim_names])
        table = EventTable.of(table, cond=sim)
    return as_integers(table, COUNTS)


def _read(files: Sequence[str | Path], level: Level, names: Sequence[str]) -> np.ndarray:
    """Return observables (n, d) at one level, one file in memory at a time."""
    arrays = (_arrays(Path(path), level) for path in files)
    return np.concatenate(
        [np.array([_observable(one, name) for name in names]).T for one in arrays]
    )


def _arrays(path: Path, level: Level) -> dict[str, np.ndarray]:
    """Return the arrays of one level by their names without the level, all of one length."""
    wanted = ["jets", "mults", "lhas", "widths", "ang2s", "tau2s", "sdms", "zgs"]
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as handle:
            missing = [f"{level}_{key}" for key in wanted if f"{level}_{key}" not in handle]
            if missing:
                raise InputError(f"{path} must hold {', '.join(missing)}, as OmniFold files do")
            arrays = {key: np.asarray(handle[f"{level}_{key}"], dtype=float) for key in wanted}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, AttributeError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise FormatError(f"{path} is not a whole .npz archive: {error}") from error
    shapes = {key: array.shape for key, array in arrays.items()}
    n = len(arrays["widths"])
    if any(shape != ((n, 4) if key == "jets" else (n,)) for key, shape in shapes.items()):
        raise InputError(f"{path}: all arrays must have one entry per jet, got shapes {shapes}")
    return arrays


def _observable(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name in _KEYS:
        return arrays[_KEYS[name]]
    if name in ("mass", "pt"):
        return arrays["jets"][:, _MASS if name == "mass" else _PT]
    if name == "tau21":
        width = arrays["widths"]
        return np.divide(arrays["tau2s"], width, out=np.zeros_like(width), where=width > 0)
    return ln_rho(arrays["sdms"], arrays["jets"][:, _PT])


def ln_rho(groomed_mass: np.ndarray, pt: np.ndarray) -> np.ndarray:
    """Return ln(m^2 / pt^2) of groomed jets (n,); `NO_GROOMED_MASS` where m is 0 or below."""
    ratio = np.maximum(groomed_mass, 0.0) / pt
    return 2.0 * np.log(np.maximum(ratio, np.exp(NO_GROOMED_MASS / 2)))
