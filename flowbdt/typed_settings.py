"""Check plain settings against type annotations: one error for files, options and parameters."""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from .errors import ConfigError, FormatError
from .registry import unknown

AtLeastZero = Annotated[int, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]

WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "|": "or",
    ">=": "of at least",
    ">": "above",
    "<=": "of at most",
    "<": "below",
}
"""The words of msgspec's messages, for people who write no Python."""


def check_settings(
    settings: Mapping[str, Any], owner: type, kind: str = "setting"
) -> dict[str, Any]:
    """Return settings converted to the annotations of ``owner``, a class with annotated fields.

    Raises ConfigError for an unknown name (with the nearest known one) or a wrong type.
    """
    hints = field_types(owner)
    for name in settings:
        if name not in hints:
            raise unknown(kind, name, hints)
    return {k: check_value(v, hints[k], f"{kind} {k!r}") for k, v in settings.items()}


def check_fields(owner: Any, kind: str) -> None:
    """Check the fields of a dataclass instance against their types, and store them converted."""
    vars(owner).update(check_settings(vars(owner), type(owner), kind))


def check_value(value: Any, hint: Any, name: str) -> Any:
    """Return a value converted to a type. Raises ConfigError with what was expected and what came.

    A whole number may become a float and a number of numpy one of Python, nothing else changes
    its type. Numbers are finite.
    """
    value = value.item() if getattr(value, "shape", None) == () else value
    kinds = [h for h in (hint, *typing.get_args(hint)) if typing.get_origin(h) is typing.Literal]
    options = [option for kind in kinds for option in typing.get_args(kind)]
    if options and isinstance(value, str) and value not in options:
        raise unknown(name, value, options)
    try:
        result = msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name} must be {_wanted(str(error))}, got {value!r}") from None
    if isinstance(result, float) and not math.isfinite(result):
        raise ConfigError(f"{name} must be a finite number, got {value!r}")
    return result


def _wanted(message: str) -> str:
    """Return what msgspec expected, from ``Expected `int | null`, got `str` - at `$[1]```."""
    wanted, _, place = message.removeprefix("Expected ").partition(" - at `$")
    words = wanted.split(", got")[0].replace("`", "").split()
    text = " ".join(WORDS.get(word, word) for word in words)
    return f"{text} at {place.rstrip('`')}" if place else text


@functools.cache
def field_types(owner: type) -> dict[str, Any]:
    """Return the types of a class's fields."""
    return typing.get_type_hints(owner, include_extras=True)


class Stored(msgspec.Struct, forbid_unknown_fields=True):
    """Entries of a stored mapping: none without a default may be missing, none may be unknown."""


def check_stored(content: Any, schema: type, what: str) -> None:
    """Hold parsed JSON against a schema, a `Stored` class.

    Raises FormatError that names the entry that is missing, unknown, of another type, out of range
    or no finite number.
    """
    stack = [(content, "")]
    while stack:
        value, place = stack.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise FormatError(f"{what}: entry {place.strip('.')} is no finite number")
        if isinstance(value, dict):
            stack += [(item, f"{place}.{key}") for key, item in value.items()]
        elif isinstance(value, list) and not all(type(item) is str for item in value):
            stack += [(item, f"{place}[{i}]") for i, item in enumerate(value)]
    try:
        msgspec.convert(content, schema)
    except msgspec.ValidationError as error:
        wanted, _, place = str(error).partition(" - at `$")
        where = place.strip("`.") or "at the top"
        raise FormatError(f"{what}: entry {where}: {wanted}; the file is damaged") from None
