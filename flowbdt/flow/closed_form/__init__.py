"""Preconditioners: the closed-form velocity, fitted, stored and read back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...atomic_files import read_arrays
from ...errors import FormatError, reading
from . import mixture  # noqa: F401  (it enters itself in PRECONDITIONERS)
from .base import FORMAT, PRECONDITIONERS, Preconditioner, Prepared

__all__ = ["PRECONDITIONERS", "Preconditioner", "Prepared", "from_arrays", "from_bytes"]


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Preconditioner:
    """Return the preconditioner that `Preconditioner.to_arrays` wrote.

    Raises FormatError if something is missing, damaged, or of a version that this release does not
    know.
    """
    with reading("the stored preconditioner"):
        version = int(arrays["format"])
        if not 1 <= version <= FORMAT:
            raise FormatError(
                f"preconditioner of format {version}; this release reads 1 to {FORMAT}: upgrade"
                " with 'pip install -U flowbdt'"
            )
        name = str(arrays["name"])
        if name == "stages":  # an early student, which had a prefix for its one stage
            known = {k.removeprefix("0."): a for k, a in arrays.items() if k.startswith("0.")}
            name, arrays = "mixture", known
        restored: Preconditioner = PRECONDITIONERS.get(name).restore(arrays)
        return restored


def from_bytes(content: bytes) -> Preconditioner:
    """Return the preconditioner that `Preconditioner.to_bytes` wrote. Raises FormatError."""
    return from_arrays(read_arrays(content, "the stored preconditioner"))
