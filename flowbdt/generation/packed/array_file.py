"""A file of named arrays, as the core reads it.

The file is little-endian::

    0   magic "FLOWBDT\\0"              8 bytes
    8   version of the format           uint32
    12  ORDER, as this machine has it   uint32
    16  size of the whole file          uint64
    24  CRC-32 of all from 64 on        uint32
    28  number of arrays                uint32
    64  one entry of 64 bytes per array: name (40 bytes, filled with zeros), kind (uint32), zero
        (uint32), where it begins (uint64), number of elements (uint64)
    ... the arrays, each at a multiple of 64 bytes

Names are those of the fields in `arrays`, after the name of the tuple: ``form.where``; and
``form.sizes``, int64, the sizes and other whole numbers of it, in the order in which they are given
to `named`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

MAGIC = b"FLOWBDT\0"
VERSION, DRAWN_VERSION, TURNED_VERSION = VERSIONS = 3, 4, 5
"""Raised when a reader of before would misread the file; the second of a model for C++ whose
classifiers draw columns, the third of one whose events turn or must meet cuts."""

ORDER = 0x01020304
"""Read as another number where bytes stand in another order."""

ALIGNMENT, NAME_LENGTH = 64, 40

KINDS = {"uint8": 0, "uint16": 1, "int64": 2, "float32": 3, "float64": 4}

Arrays = dict[str, np.ndarray]


def named(name: str, packed: Any, *sizes: int) -> Arrays:
    """Return the arrays of a tuple of `arrays` under their names, with sizes."""
    fields = packed._asdict().items()
    arrays = {f"{name}.{field}": value for field, value in fields if isinstance(value, np.ndarray)}
    return {f"{name}.sizes": np.array(sizes, dtype=np.int64), **arrays}


def file_bytes(arrays: Mapping[str, np.ndarray], version: int = VERSION) -> bytes:
    """Return arrays of the types in `KINDS` as the bytes of one file, in their order."""
    entries, contents = [], []
    at = ALIGNMENT * (1 + len(arrays))
    for name, array in arrays.items():
        kind = KINDS[array.dtype.name]
        content = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        entries.append(struct.pack(f"<{NAME_LENGTH}sIIQQ", name.encode(), kind, 0, at, array.size))
        contents.append(content + bytes(-len(content) % ALIGNMENT))
        at += len(contents[-1])
    body = b"".join([*entries, *contents])
    head = struct.pack("<8sIIQII", MAGIC, version, ORDER, at, zlib.crc32(body), len(arrays))
    return head.ljust(ALIGNMENT, b"\0") + body


def texts(values: list[str] | tuple[str, ...]) -> np.ndarray:
    """Return texts as UTF-8, each ended by a zero byte, uint8."""
    content = b"".join(value.encode().replace(b"\0", b" ") + b"\0" for value in values)
    return np.frombuffer(content, dtype=np.uint8)


def is_current(content: bytes | memoryview) -> bool:
    """Return whether content begins like a file of a version that this release writes."""
    heads = [struct.pack("<8sII", MAGIC, v, ORDER) for v in VERSIONS]
    return bytes(content[:16]) in heads


def read_array(content: bytes | memoryview, name: str, kind: str) -> np.ndarray | None:
    """Return one array of a file that the core has checked; None if there is none of this name."""
    (count,) = struct.unpack_from("<I", content, 28)
    wanted = name.encode().ljust(NAME_LENGTH, b"\0")
    for at in range(ALIGNMENT, ALIGNMENT * (1 + count), ALIGNMENT):
        if content[at : at + NAME_LENGTH] == wanted:
            code, _, begin, size = struct.unpack_from("<IIQQ", content, at + NAME_LENGTH)
            if code == KINDS[kind]:
                return np.frombuffer(content, kind, size, begin)
    return None
