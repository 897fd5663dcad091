"""Numbers and arrays in one piece of memory that can be mapped from a file.

Eight bytes with the length of a description in JSON, the description, and the arrays, each at a
multiple of 64 bytes from the beginning.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

LINE = 64
"""Bytes of a line of the cache."""


def _after(size: int) -> int:
    return -(-size // LINE) * LINE


def pack(content: dict[str, Any]) -> bytes:
    """Return a mapping of numbers, texts, lists, tuples and arrays as bytes."""
    arrays: list[bytes] = []
    at = 0

    def described(value: Any) -> Any:
        nonlocal at
        if isinstance(value, np.ndarray):
            place, raw = at, np.ascontiguousarray(value).tobytes()
            arrays.append(raw + bytes(_after(len(raw)) - len(raw)))
            at += len(arrays[-1])
            return {"array": [value.dtype.str, list(value.shape), place]}
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
        if what == "tuple":
            return tuple(restored(each) for each in inner)
        return {name: restored(each) for name, each in inner.items()}

    found: dict[str, Any] = restored(json.loads(bytes(memory[8 : 8 + size])))
    return found


def _mapped(memory: memoryview, start: int, dtype: str, shape: list[int], at: int) -> np.ndarray:
    count = math.prod(shape)  # in whole numbers of any size: no product can overflow
    if min(shape, default=0) < 0 or at < 0:
        raise ValueError(f"an array of shape {shape} at {at}")
    if not count:
        array = np.zeros(shape, dtype)
    else:
        array = np.frombuffer(memory, dtype, count, start + at).reshape(shape)
    array.flags.writeable = False
    return array
