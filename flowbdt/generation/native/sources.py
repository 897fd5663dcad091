"""The files that the core is built from, and their digest. Imports nothing: `setup.py` runs it."""

from __future__ import annotations

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent

COMPILED = (
    "core.cpp",
    "lanes.cpp",
    "lanes_avx2.cpp",
    "lanes_avx512.cpp",
    "lanes_plain.cpp",
)
"""What is compiled, in this order; kernels once for each set of instructions."""

INSTRUCTIONS = {
    "lanes_avx2.cpp": ["-mavx2", "-mfma"],
    "lanes_avx512.cpp": ["-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
    "lanes_plain.cpp": ["-O1"],
}
"""What only these files may use on x86-64; the core looks at the processor before it calls them.
Hardly any processor is left there that runs the plain ones, which are built in less time."""

LIBRARY = FOLDER / "libflowbdt.so"
"""Where the build puts the core, on every system."""


def digest() -> str:
    """Return what tells whether a library was built from the sources beside it."""
    found = hashlib.sha256()
    for path in sorted([*(FOLDER / name for name in COMPILED), *FOLDER.glob("*.hpp")]):
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:32]
