"""Numbers and arrays in one piece of memory that can be mapped from a file.

Eight bytes with the length of a description in JSON, the description, and the arrays, each at a
multiple of 64 bytes from the beginning.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

LINE = 64
"""Bytes of a line of the cache."""


class Zeros:
    """An array that is only working memory: its shape is stored, not its numbers."""

    def __init__(self, array: np.ndarray) -> None:
        self.dtype, self.shape = array.dtype, array.shape


def _after(size: int) -> int:
    return -(-size // LINE) * LINE


def pack(content: dict[str, Any]) -> bytes:
    """Return a mapping of numbers, texts, lists, tuples, arrays and `Zeros` as bytes."""
    arrays: list[bytes] = []
    at = 0

    def described(value: Any) -> Any:
        nonlocal at
        if isinstance(value, np.ndarray):
            place, raw = at, np.ascontiguousarray(value).tobytes()
            arrays.append(raw + bytes(_after(len(raw)) - len(raw)))
            at += len(arrays[-1])
            return {"array": [value.dtype.str, list(value.shape), place]}
        if isinstance(value, Zeros):
            return {"zeros": [value.dtype.str, list(value.shape)]}
        if isinstance(value, tuple):
            return {"tuple": [described(each) for each in value]}
        if isinstance(value, dict):
            return {"dict": {name: described(each) for name, each in value.items()}}
        return value.item() if isinstance(value, np.generic) else value

    head = json.dumps(described(content)).encode()
    head = len(head).to_bytes(8, "little") + head
    return b"".join([head, bytes(_after(len(head)) - len(head)), *arrays])


def unpack(memory: memoryview) -> dict[str, Any]:
    """Return what `pack` got; arrays lie where they are, and cannot be written to.

    Raises
    ------
    ValueError, KeyError
        If it is something else.
    """
    size = int.from_bytes(memory[:8], "little")
    start = _after(8 + size)

    def restored(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ((what, inner),) = value.items()
        if what == "array":
            return _mapped(memory, start, *inner)
        if what == "zeros":
            return zeros(inner[1], np.dtype(inner[0]))
        if what == "tuple":
            return tuple(restored(each) for each in inner)
        return {name: restored(each) for name, each in inner.items()}

    found: dict[str, Any] = restored(json.loads(bytes(memory[8 : 8 + size])))
    return found


def _mapped(memory: memoryview, start: int, dtype: str, shape: list[int], at: int) -> np.ndarray:
    count = int(np.prod(shape, dtype=np.int64))
    if not count:
        array = np.zeros(shape, dtype)
    else:
        array = np.frombuffer(memory, dtype, count, start + at).reshape(shape)
    array.flags.writeable = False
    return array


def zeros(shape: list[int], dtype: np.dtype[Any]) -> np.ndarray:
    """Return zeros that begin with a line of the cache."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    room = np.zeros(size + LINE, np.uint8)
    first = -room.ctypes.data % LINE
    return room[first : first + size].view(dtype).reshape(shape)
