"""One file of named arrays that a C++ program reads in one go.

::

    0   magic "FLOWBDT\\0"              8 bytes
    8   version of the format           uint32
    12  ORDER, as this machine has it   uint32
    16  size of the whole file          uint64
    24  CRC-32 of all from 64 on        uint32
    28  number of arrays                uint32
    64  one entry of 64 bytes per array: name (40 bytes, filled with zeros), kind (uint32), zero
        (uint32), where it begins (uint64), number of elements (uint64)
    ... the arrays, each at a multiple of 64 bytes

Everything is little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np

MAGIC = b"FLOWBDT\0"
VERSION = 1
"""Raised when a reader of before would misread the file."""

ORDER = 0x01020304
"""Read as another number where bytes stand in another order."""

ALIGNMENT, NAME_LENGTH = 64, 40

KINDS = {"uint8": 0, "uint16": 1, "int64": 2, "float32": 3, "float64": 4}


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return arrays of the types in `KINDS` as the bytes of one file, in their order."""
    entries, parts = [], []
    at = _up(ALIGNMENT * (1 + len(arrays)))
    for name, array in arrays.items():
        kind = KINDS[array.dtype.name]
        content = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        entries.append(struct.pack(f"<{NAME_LENGTH}sIIQQ", name.encode(), kind, 0, at, array.size))
        parts.append(content + bytes(_up(len(content)) - len(content)))
        at += len(parts[-1])
    body = b"".join([*entries, *parts])
    head = struct.pack("<8sIIQII", MAGIC, VERSION, ORDER, at, zlib.crc32(body), len(arrays))
    return head + bytes(ALIGNMENT - len(head)) + body


def _up(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def texts(values: list[str] | tuple[str, ...]) -> np.ndarray:
    """Return texts as UTF-8, each ended by a zero byte, uint8."""
    content = b"".join(value.encode().replace(b"\0", b" ") + b"\0" for value in values)
    return np.frombuffer(content, dtype=np.uint8)
