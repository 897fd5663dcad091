"""Tables in .npy (one 2-d or structured array) and .npz (one array per column)."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic_files import json_bytes, save_array
from ...errors import FormatError, InputError, plural
from ..checks import unique_names
from .base import (
    FORMATS,
    PlainFormat,
    StoredColumns,
    WholeFormat,
    checked_description,
    unreadable,
)

DESCRIPTION = "__flowbdt__"
"""The array of a .npz file that holds units, categories and attributes as JSON."""


@FORMATS.register(".npy")
class Npy(PlainFormat):
    """A 2-d array (events, columns) or a structured array, mapped from the file."""

    def read(self, path: Path) -> StoredColumns:
        try:
            array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception:
            array = _load(path)  # its error says what is wrong with the file
        if not isinstance(array, np.ndarray):
            raise FormatError(f"{path} must be one .npy array, but is a .npz archive: call it .npz")
        if array.dtype.names is not None:
            arrays = {name: array[name] for name in array.dtype.names}
        else:
            arrays = _split_matrix(array, None, path)
        return StoredColumns.described(arrays, self.description(path))

    def write_values(self, part: Path, columns: StoredColumns) -> None:
        dtype = [(name, values.dtype) for name, values in columns.arrays.items()]
        array = np.empty(len(next(iter(columns.arrays.values()))), dtype=dtype)
        for name, values in columns.arrays.items():
            array[name] = values
        with open(part, "wb") as handle:
            save_array(handle, array)


@FORMATS.register(".npz")
class Npz(WholeFormat):
    """An archive with an array (n,) per column, or ``x`` (n, d) with ``names``."""

    def read(self, path: Path) -> StoredColumns:
        arrays = _load(path)
        if isinstance(arrays, np.ndarray):
            raise FormatError(f"{path} must be a .npz archive, but holds one array: call it .npy")
        described = arrays.pop(DESCRIPTION, None)
        if "x" in arrays and arrays["x"].ndim == 2 and set(arrays) <= {"x", "names"}:
            names = arrays.get("names")
            arrays = _split_matrix(arrays["x"], None if names is None else list(names), path)
        if described is None:
            return StoredColumns(arrays)
        try:
            content = json.loads(described.tobytes())
        except ValueError as error:
            raise unreadable(path, error) from error
        return StoredColumns.described(arrays, checked_description(content, path))

    def write(self, part: Path, path: Path, columns: StoredColumns) -> None:
        # np.savez takes names as keyword arguments, so a column called "file" would break it.
        described = np.frombuffer(json_bytes(columns.description), dtype=np.uint8)
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, values in {**columns.arrays, DESCRIPTION: described}.items():
                # A plain ZipInfo is dated 1980: equal tables give equal bytes.
                entry = zipfile.ZipInfo(f"{name}.npy")
                entry.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(entry, "w", force_zip64=True) as handle:
                    np.lib.format.write_array(handle, np.asarray(values), allow_pickle=False)


def _load(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """Return the array of a .npy, or the arrays of a .npz file."""
    try:
        with open(path, "rb") as handle:
            loaded = np.load(handle, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return {name: array for name, array in loaded.items() if isinstance(array, np.ndarray)}
    except Exception as error:  # a damaged header ends in errors of many kinds
        raise unreadable(path, error) from error


def _split_matrix(x: np.ndarray, names: list[Any] | None, path: Path) -> dict[str, np.ndarray]:
    if x.ndim != 2 or x.dtype.kind not in "biuf":
        raise InputError(
            f"{path} must hold a 2-d array of real numbers (events, columns), got"
            f" {plural(x.ndim, 'dimension')} of {x.dtype}; write text columns as .csv, or as"
            " one array per column in .npz"
        )
    known = [f"x{i}" for i in range(x.shape[1])] if names is None else names
    checked = unique_names(known, x.shape[1], str(path))
    return {name: x[:, i] for i, name in enumerate(checked)}
