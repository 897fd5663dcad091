"""How docstrings are read for the reference: what follows ``name : `` is one text.

The docstrings of this project say type, shape, unit and meaning in one sentence, where the parser
takes the rest of the first line for a type and what comes below for the meaning.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \w+)*) : (.*)$")
SECTIONS = ("Parameters", "Attributes")


def joined(text: str) -> str:
    """Return a docstring with the texts of its parameters and attributes below their names."""
    lines = text.splitlines()
    inside = False
    result: list[str] = []
    for number, line in enumerate(lines):
        below = lines[number + 1] if number + 1 < len(lines) else ""
        if line.strip() and re.fullmatch(r"-{3,}", below.strip()):
            inside = line.strip() in SECTIONS
        entry = ENTRY.match(line) if inside else None
        result += [entry[1], f"    {entry[2]}"] if entry else [line]
    return "\n".join(result)


class Joined(Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of an object, if it has one."""
        if obj.docstring is not None:
            obj.docstring.value = joined(obj.docstring.value)
