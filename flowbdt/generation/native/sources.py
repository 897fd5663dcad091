"""The files that the core is built from, and their digest. Imports nothing: `setup.py` runs it."""

from __future__ import annotations

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent

LIBRARY = FOLDER / "libflowbdt.so"
"""Where the build puts the core, on every system."""


def digest() -> str:
    """Return what tells whether a library was built from the sources beside it."""
    found = hashlib.sha256()
    for path in sorted([FOLDER / "core.cpp", *FOLDER.glob("*.hpp")]):
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:32]
