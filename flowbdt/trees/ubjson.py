"""Read UBJSON as XGBoost writes it: typed arrays become numpy arrays at once.

References
----------
UBJSON draft 12, https://ubjson.org: numbers are big-endian, lengths come as numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import FormatError

_TYPES = {b"i": "i1", b"U": "u1", b"I": "i2", b"l": "i4", b"L": "i8", b"d": "f4", b"D": "f8"}
NUMBERS = {mark: np.dtype(f">{name}") for mark, name in _TYPES.items()}
CONSTANTS = {b"T": True, b"F": False, b"Z": None}


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def take(self, count: int) -> bytes:
        taken = self.content[self.at : self.at + count]
        if len(taken) != count:
            raise FormatError("UBJSON ends before it should; train this step again")
        self.at += count
        return taken

    def number(self, kind: bytes) -> Any:
        dtype = NUMBERS[kind]
        return np.frombuffer(self.take(dtype.itemsize), dtype)[0].item()

    def length(self) -> int:
        return int(self.number(self.take(1)))

    def text(self) -> str:
        return self.take(self.length()).decode()

    def value(self, kind: bytes) -> Any:
        if kind in NUMBERS:
            return self.number(kind)
        if kind in CONSTANTS:
            return CONSTANTS[kind]
        read = {b"S": self.text, b"{": self.mapping, b"[": self.array}.get(kind)
        if read is None:
            raise FormatError(f"UBJSON has an unknown mark {kind!r}; train this step again")
        return read()

    def mapping(self) -> dict[str, Any]:
        result = {}
        while self.content[self.at : self.at + 1] != b"}":
            name = self.text()
            result[name] = self.value(self.take(1))
        self.at += 1
        return result

    def array(self) -> Any:
        mark = self.content[self.at : self.at + 1]
        if mark == b"$":
            self.at += 1
            dtype = NUMBERS[self.take(1)]
            self.take(1)  # the sign of a count
            count = self.length()
            numbers = np.frombuffer(self.take(count * dtype.itemsize), dtype)
            return numbers.astype(dtype.newbyteorder("="))
        if mark == b"#":
            self.at += 1
            return [self.value(self.take(1)) for _ in range(self.length())]
        result = []
        while self.content[self.at : self.at + 1] != b"]":
            result.append(self.value(self.take(1)))
        self.at += 1
        return result


def read_ubjson(content: bytes) -> Any:
    """Return the value of ``content``, arrays of one type as numpy arrays. Raises FormatError."""
    reader = _Reader(content)
    try:
        result = reader.value(reader.take(1))
        if reader.at != len(content):
            raise FormatError("UBJSON goes on after its end; train this step again")
        return result
    except (KeyError, UnicodeDecodeError) as error:
        raise FormatError(f"not UBJSON ({error}); train this step again") from error


BYTES_HEAD = b"[$U#L"
"""UBJSON: an array of unsigned bytes whose length follows as a 64-bit integer, big-endian."""


def packed(models: list[bytes]) -> bytes:
    """Return a single model as it is, more as a UBJSON array of byte arrays."""
    if len(models) == 1:
        return models[0]
    return b"[" + b"".join(BYTES_HEAD + len(m).to_bytes(8, "big") + m for m in models) + b"]"


def unpacked(content: bytes) -> list[bytes]:
    """Return the models that were `packed`. Raises FormatError if they are not whole."""
    if content[:1] != b"[":
        return [content]
    models = read_ubjson(content)
    if not models or any(getattr(model, "dtype", None) != np.uint8 for model in models):
        raise FormatError("not a list of XGBoost models in UBJSON; train this step again")
    return [model.tobytes() for model in models]
