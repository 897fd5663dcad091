"""Read UBJSON as XGBoost writes it: typed arrays become numpy arrays at once.

References
----------
UBJSON draft 12, https://ubjson.org: numbers are big-endian, lengths come as numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import FormatError

NUMBERS = {
    ord(mark): np.dtype(kind)
    for mark, kind in zip("iUIlLdD", (">i1", ">u1", ">i2", ">i4", ">i8", ">f4", ">f8"), strict=True)
}
CONSTANTS = {ord("T"): True, ord("F"): False, ord("Z"): None}
LONG = ord("L")

MOST_NESTED = 32
"""Mappings and arrays within each other."""


Special = Mapping[str, Callable[["Reader"], Any]]


class Reader:
    """A place in the bytes, which every method moves on."""

    def __init__(self, content: bytes, special: Special) -> None:
        self.content, self.at, self.nested, self.special = content, 0, 0, special
        self.long = struct.Struct(">q").unpack_from

    def mark(self) -> int:
        self.at += 1
        return self.content[self.at - 1]

    def number(self, mark: int) -> Any:
        kind = NUMBERS[mark]
        self.at += kind.itemsize
        return np.frombuffer(self.content, kind, 1, self.at - kind.itemsize)[0].item()

    def length(self) -> int:
        """Return how many bytes or entries follow; all take a byte at least."""
        if self.content[self.at] == LONG:  # the usual case, several times as fast
            size = self.long(self.content, self.at + 1)[0]
            self.at += 9
        else:
            size = int(self.number(self.mark()))
        if not 0 <= size <= len(self.content) - self.at:
            raise FormatError("UBJSON ends before it should; train this step again")
        return int(size)

    def text(self) -> str:
        size = self.length()
        self.at += size
        return self.content[self.at - size : self.at].decode()

    def value(self, mark: int) -> Any:
        if mark == ord("S"):
            return self.text()
        if mark in b"{[":
            self.nested += 1
            if self.nested > MOST_NESTED:
                raise FormatError("UBJSON is nested too deeply; train this step again")
            result = self.mapping() if mark == ord("{") else self.array()
            self.nested -= 1
            return result
        return CONSTANTS[mark] if mark in CONSTANTS else self.number(mark)

    def mapping(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while self.content[self.at] != ord("}"):
            name = self.text()
            if name in result:
                raise FormatError(f"UBJSON names {name!r} twice; train this step again")
            special = self.special.get(name)
            result[name] = self.value(self.mark()) if special is None else special(self)
        self.at += 1
        return result

    def array(self) -> Any:
        mark = self.content[self.at]
        if mark == ord("$"):
            kind = NUMBERS[self.content[self.at + 1]]
            if self.content[self.at + 2] != ord("#"):
                raise KeyError("an array without a count")
            self.at += 3
            count = self.length()
            numbers = np.frombuffer(self.content, kind, count, self.at)
            self.at += count * kind.itemsize
            return numbers
        if mark == ord("#"):
            self.at += 1
            return [self.value(self.mark()) for _ in range(self.length())]
        result = []
        while self.content[self.at] != ord("]"):
            result.append(self.value(self.mark()))
        self.at += 1
        return result


def read_ubjson(content: bytes, special: Special | None = None) -> Any:
    """Return the value of ``content``, arrays of one type as numpy arrays of the bytes as they lie.

    ``special`` reads entries of some names by itself. Raises FormatError if the content is not
    whole, or names an entry twice.
    """
    reader = Reader(content, special or {})
    try:
        result = reader.value(reader.mark())
    except (KeyError, IndexError, ValueError, OverflowError, struct.error) as error:
        raise FormatError(f"not whole UBJSON ({error}); train this step again") from error
    if reader.at != len(content):
        raise FormatError("UBJSON goes on behind its end; train this step again")
    return result


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
