"""Name -> class tables. Command-line choices and error texts come from here, never from a list."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from .errors import ConfigError

T = TypeVar("T")


@functools.cache  # slow, and asked again and again
def _parameters(entry: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a class or function by name."""
    if getattr(entry, "__init__", None) is object.__init__ and entry.__new__ is object.__new__:
        return {}
    return inspect.signature(entry).parameters


def unknown(kind: str, name: object, known: Iterable[str]) -> ConfigError:
    """Build the error for an unknown name: what came, the nearest known one, all known ones."""
    import difflib  # only where something is wrong

    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return ConfigError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known) or 'none'}.")


def spec_name(spec: str | Mapping[str, Any]) -> Any:
    """Return the name in a plug-in specification: text, or a mapping with 'name'; None if open."""
    return spec if isinstance(spec, str) else spec.get("name")


class Registry(Generic[T]):
    """A table of classes (or functions) of one plug-in kind.

    Examples
    --------
    >>> SHAPES = Registry("shape")
    >>> @SHAPES.register("disc")
    ... class Disc:
    ...     def __init__(self, radius=1.0):
    ...         self.radius = radius
    >>> SHAPES.build({"name": "disc", "radius": 2.0}).radius
    2.0
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[Any], Any]:
        """Return a decorator that enters a class under ``name``; a second one is refused."""

        def enter(entry: Any) -> Any:
            if name in self._entries:
                raise ConfigError(f"{self.kind} {name!r} is registered already")
            self._entries[name] = entry
            return entry

        return enter

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def names(self) -> list[str]:
        """Return all known names, sorted."""
        return sorted(self._entries)

    def get(self, name: str) -> Any:
        """Return the entry called ``name``. Raises ConfigError that lists the known names."""
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def parameters(self, name: str) -> list[str]:
        """Return the names of the parameters that ``name`` takes."""
        return list(_parameters(self.get(name)))

    def build(self, spec: str | Mapping[str, Any]) -> T:
        """Build an instance from ``"name"`` or ``{"name": ..., parameter: value}``."""
        spec = {"name": spec} if isinstance(spec, str) else spec
        if not isinstance(spec, Mapping) or "name" not in spec:
            raise ConfigError(
                f"a {self.kind} is a name or a mapping with the key 'name', not {spec!r}"
            )
        arguments = dict(spec)
        entry = self.get(name := arguments.pop("name"))
        allowed = _parameters(entry)
        for key in arguments:
            if key not in allowed:
                raise unknown(f"parameter of {self.kind} {name!r}:", key, allowed)
        missing = [p.name for p in allowed.values() if p.default is p.empty and p.name not in spec]
        if missing:
            options = ", ".join(f"{key!r}: ..." for key in missing)
            raise ConfigError(
                f"{self.kind} {name!r} needs {', '.join(missing)}, for example"
                f" {{'name': {name!r}, {options}}}"
            )
        return entry(**arguments)
