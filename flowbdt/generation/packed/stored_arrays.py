"""The packed arrays that a model file brings, checked once against the rest of it."""

from __future__ import annotations

import hashlib
from typing import Any

from ... import atomic_files
from ...errors import FormatError
from ...training import run_directory
from ..native import core
from .array_file import is_current, read_array


def stored_arrays(
    source: run_directory.Source, manifest: dict[str, Any], stated: str | None
) -> memoryview | None:
    """Return the packed arrays of a file; None if it has none that can be used here.

    ``manifest`` is that of the file, ``stated`` the hash that it states of them. Raises FormatError
    if they are damaged.
    """
    if stated is None or not isinstance(source, run_directory.Archive):
        return None
    memory = source.mapped(run_directory.PACKED)
    if memory is None or core.why_not() or not is_current(memory):
        return None
    if stated != hashlib.sha256(memory).hexdigest():
        raise FormatError(
            f"{source.path}: {run_directory.PACKED} is damaged; copy the file or save it again"
        )
    about = read_array(memory, "text.about", "uint8")
    belongs = f"\0{atomic_files.digest(manifest)}\0".encode()
    return memory if about is not None and about.tobytes().endswith(belongs) else None


def require_sizes(got: Any, wanted: Any, name: str) -> None:
    """Raise FormatError unless a part of packed arrays has the sizes that its model asks for."""
    if got != wanted:
        raise FormatError(f"{name}: its packed arrays are of another model; save the model anew")
