"""Showers in the files of the CaloChallenge: read whole or in blocks, write, split.

A file has ``incident_energies`` (N, 1) and ``showers`` (N, voxels), both in MeV. ``flowbdt data
fetch`` downloads the public files (dataset 1: https://doi.org/10.5281/zenodo.8099322).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic_files import atomic
from ...errors import FormatError, InputError
from ...seeding import split_mask
from ...tables.event_table import EventTable
from ...tables.formats import hdf5
from ...tables.formats.table_files import Rows, row_span
from ..datasets import DATASETS, Dataset
from .geometry import Geometry, geometry_of
from .geometry import geometry as named_geometry

ENERGIES, SHOWERS = "incident_energies", "showers"
FORMAT = 1
BLOCK_VALUES = 4_000_000
"""Voxels per block: 16 MB as float32, whatever the geometry."""


@dataclass(frozen=True)
class Showers:
    """Showers in memory."""

    energies: np.ndarray  # (n,), float64, MeV, of the incident particle
    voxels: np.ndarray  # (n, geometry.n_voxels), MeV, float32 as read
    geometry: Geometry

    @classmethod
    def of(cls, energies: Any, voxels: Any, geometry: Geometry | str | None = None) -> Showers:
        """Return showers with checked values; geometry None: from the number of voxels.

        Raises InputError for shapes that do not fit, values that are negative or not finite, and
        incident energies that are not positive.
        """
        energies = np.asarray(energies, dtype=np.float64).reshape(-1)
        voxels = np.asarray(voxels)
        if voxels.ndim != 2 or len(energies) != len(voxels):
            raise InputError(
                "showers must have the shape (n, voxels) with one incident energy each, got"
                f" {voxels.shape} and {len(energies)} energies"
            )
        shape = _resolved(geometry, voxels.shape[1])
        shape.check(voxels)
        if not (energies > 0).all() or not np.isfinite(energies).all():
            raise InputError("incident energies must be positive and finite, in MeV")
        if len(voxels) and not (voxels.min() >= 0 and np.isfinite(voxels.max())):
            raise InputError(
                "energies in voxels must be finite and not negative, in MeV; set noise below 0 to 0"
            )
        return cls(energies, voxels, shape)

    @property
    def n(self) -> int:
        """Number of showers."""
        return len(self.energies)

    def take(self, rows: Any) -> Showers:
        """Return some of the showers, by a slice, a mask or numbers."""
        return replace(self, energies=self.energies[rows], voxels=self.voxels[rows])

    def above(self, threshold: float | None = None) -> Showers:
        """Return showers with voxels below ``threshold`` [MeV] as 0; None: the official value."""
        cut = self.geometry.min_energy if threshold is None else threshold
        return replace(self, voxels=np.where(self.voxels < cut, 0, self.voxels))

    def table(self) -> EventTable:
        """Return a table of one column per voxel, and the incident energy as condition."""
        names = self.geometry.names()
        units = dict.fromkeys(names, "MeV")
        table = EventTable.of(self.voxels, names, units=units, cond=self.energies[:, None])
        return replace(table, cond_names=("incident_energy",))

    def __iter__(self) -> Iterator[Showers]:
        """Yield blocks of rows, in order."""
        size = block_rows(self.geometry)
        return (self.take(slice(start, start + size)) for start in range(0, self.n, size))


def block_rows(geometry: Geometry) -> int:
    """Return the number of showers of a block."""
    return max(1, BLOCK_VALUES // geometry.n_voxels)


class ShowerFile:
    """Showers in an .hdf5 file of the challenge; every iteration reads it again, block by block.

    ``geometry`` is a Geometry, its name, or None: from the number of voxels; ``key`` the name of
    the showers in the file. Raises InputError if data sets are missing, or their shapes do not fit
    each other or the geometry; FormatError if the file is no whole HDF5 file, or of a newer format.
    """

    def __init__(
        self, path: str | Path, geometry: Geometry | str | None = None, key: str = SHOWERS
    ) -> None:
        self.path = Path(path)
        self.key = key
        if not self.path.is_file():
            raise InputError(f"{path} is not a file: check the name and the working folder")
        with hdf5.opened(self.path) as handle:
            if handle.attrs.get("flowbdt_showers", FORMAT) > FORMAT:
                raise FormatError(f"{path} is of a newer format: update flowbdt")
            shapes: dict[str, tuple[int, ...]] = {
                name: getattr(handle.get(name), "shape", ()) for name in (ENERGIES, key)
            }
            holds = ", ".join(sorted(handle)) or "nothing"
        if len(shapes[key]) != 2 or shapes[ENERGIES][:1] != shapes[key][:1]:
            raise InputError(
                f"{path} must hold {ENERGIES!r} (N, 1) and {key!r} (N, voxels), but holds {holds}"
                f" with the shapes {shapes}"
            )
        self.n = int(shapes[key][0])
        self.geometry = _resolved(geometry, int(shapes[key][1]))
        if self.geometry.n_voxels != shapes[key][1]:
            raise InputError(
                f"{path}: showers of {self.geometry.name} have {self.geometry.n_voxels} voxels,"
                f" the file has {shapes[key][1]}"
            )

    def read(self, rows: Rows = None) -> Showers:
        """Return the showers of ``rows``, a slice or (start, stop); None for all."""
        with hdf5.opened(self.path) as handle:
            span = row_span(rows, self.n, self.path)
            columns = hdf5.read_columns(handle, [ENERGIES, self.key], span, self.path)
        try:
            voxels = columns[self.key].astype(np.float32)
            return Showers.of(columns[ENERGIES], voxels, self.geometry)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error

    def __iter__(self) -> Iterator[Showers]:
        """Yield blocks of rows, in order."""
        size = block_rows(self.geometry)
        for start in range(0, self.n, size):
            yield self.read((start, min(start + size, self.n)))


def read_showers(
    path: str | Path, geometry: Geometry | str | None = None, rows: Rows = None, key: str = SHOWERS
) -> Showers:
    """Read showers from a file of the challenge, float32; parameters as for `ShowerFile`."""
    return ShowerFile(path, geometry, key).read(rows)


def read_energies(path: str | Path) -> np.ndarray:
    """Return the incident energies (n,), float64, MeV, of a file; it needs no showers.

    Raises InputError if it holds none.
    """
    with hdf5.opened(Path(path)) as handle:
        if ENERGIES not in handle:
            raise InputError(f"{path} must hold {ENERGIES!r} (N, 1), in MeV")
        return np.asarray(handle[ENERGIES][()], dtype=np.float64).reshape(-1)


def write_showers(
    path: str | Path, showers: Iterable[Showers], attributes: Mapping[str, Any] | None = None
) -> None:
    """Write showers, or blocks of them, for the official evaluation; whole or not at all.

    ``attributes`` are provenance, numbers or texts, stored at the root beside the format number;
    the official code ignores them. Raises InputError if there is no shower, or blocks differ in
    geometry; RunError if the file cannot be written.
    """
    import h5py

    with atomic(path) as partial, h5py.File(partial, "w", libver=("earliest", "v110")) as handle:
        handle.attrs["flowbdt_showers"] = FORMAT
        handle.attrs.update(dict(sorted((attributes or {}).items())))
        n = 0
        for block in showers:
            n = _append(handle, block, n)
        if n == 0:
            raise InputError("there must be at least one shower to write, got none")


def _append(handle: Any, block: Showers, n: int) -> int:
    if n == 0:
        sizes = ((ENERGIES, 1, np.float64), (SHOWERS, block.geometry.n_voxels, np.float32))
        for name, width, dtype in sizes:
            handle.create_dataset(
                name,
                shape=(0, width),
                maxshape=(None, width),
                chunks=(max(1, 250_000 // width), width),
                dtype=dtype,
                compression="gzip",
                shuffle=True,
                track_times=False,
            )
    block.geometry.check(np.empty((0, handle[SHOWERS].shape[1])), "blocks of showers")
    stop = n + block.n
    for name, values in ((ENERGIES, block.energies[:, None]), (SHOWERS, block.voxels)):
        handle[name].resize(stop, axis=0)
        handle[name][n:stop] = values
    return stop


def _resolved(geometry: Geometry | str | None, n_voxels: int) -> Geometry:
    if geometry is None:
        return geometry_of(n_voxels)
    return named_geometry(geometry) if isinstance(geometry, str) else geometry


@DATASETS.register("calochallenge")
class CaloChallenge(Dataset):
    """Showers of a file as a table: a column per voxel [MeV], the incident energy as condition.

    Split by a hash of the row number: about half to train and half to test.

    Parameters
    ----------
    path : .hdf5 file, such as dataset_1_photons_1.hdf5
    seed : int, of the split
    """

    name = "calochallenge"
    source = "Showers in the layout of the CaloChallenge (arXiv:2410.21611); files are yours"
    licence = "that of your files"

    def __init__(self, path: str | Path, seed: int = 0) -> None:
        self.path, self.seed = path, seed
        self.columns = ShowerFile(path).geometry.names()
        self.units = dict.fromkeys(self.columns, "MeV")

    def showers(self, split: str = "all") -> Showers:
        """Return the showers of a split: "train", "test" or "all". Raises InputError for others."""
        self.check_split(split)
        showers = read_showers(self.path)
        if split == "all":
            return showers
        train = split_mask(showers.n, 0.5, self.seed)
        return showers.take(train if split == "train" else ~train)

    def _load(self, split: str) -> EventTable:
        return self.showers(split).table()
