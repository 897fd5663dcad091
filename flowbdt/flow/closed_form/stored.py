"""Read closed forms from arrays and files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import numpy as np

from ...errors import ConfigError, FormatError
from .base import FORMAT, PRECONDITIONERS, Preconditioner


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Preconditioner:
    """Return the preconditioner that `Preconditioner.to_arrays` wrote.

    Raises
    ------
    FormatError
        If something is missing or of a version that this release does not know.
    """
    try:
        version = int(arrays["format"])
        if not 1 <= version <= FORMAT:
            raise FormatError(
                f"preconditioner of format {version}; this release reads 1 to {FORMAT}: upgrade"
                " with 'pip install -U flowbdt'"
            )
        name = str(arrays["name"])
        if name == "stages":
            return _of_early_student(arrays)
        restored: Preconditioner = PRECONDITIONERS.get(name).restore(arrays)
        return restored
    except (KeyError, ConfigError) as error:
        raise FormatError(f"not a stored preconditioner: {error}") from error


def _of_early_student(arrays: Mapping[str, np.ndarray]) -> Preconditioner:
    """Return the mixture of a student written before students had one stage only."""
    prefix = "0."
    state = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    restored: Preconditioner = PRECONDITIONERS.get("mixture").restore(state)
    return restored


def from_bytes(content: bytes) -> Preconditioner:
    """Return the preconditioner that `Preconditioner.to_bytes` wrote. Raises FormatError."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(
            f"not a stored preconditioner ({error}); it may be truncated: copy it again"
        ) from error
    return from_arrays(arrays)
