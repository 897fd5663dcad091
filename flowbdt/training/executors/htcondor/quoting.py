"""How text is written into a submit description.

Arguments and environment are one quoted text each: double quotes around all, single quotes around
what has blanks, and both kinds doubled where they are meant literally. A dollar sign would start a
macro, so that it is written as one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ....errors import ConfigError

MACROS = ("number", "name", "memory")
"""What differs between the jobs of one description."""

_DOLLAR = re.compile(rf"\$(?!\((?:{'|'.join(MACROS)})\))")


def plain(text: str) -> str:
    """Return text for the right side of ``name = value``. Raises ConfigError for line breaks."""
    if "\n" in text or "\r" in text or text != text.strip():
        raise ConfigError(
            f"HTCondor descriptions hold no line breaks and no blanks at the ends, got {text!r}"
        )
    return _DOLLAR.sub("$(DOLLAR)", text)


def arguments(words: Sequence[str]) -> str:
    """Return words as the quoted value of ``arguments``; no words give ``""``."""
    return '"' + " ".join(_word(word) for word in words) + '"'


def environment(variables: Mapping[str, str]) -> str:
    """Return variables as the quoted value of ``environment``. Raises ConfigError for bad names."""
    for name in variables:
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConfigError(f"{name!r} is no name of an environment variable")
    return '"' + " ".join(f"{name}={_word(str(v))}" for name, v in variables.items()) + '"'


def _word(word: str) -> str:
    text = _DOLLAR.sub("$(DOLLAR)", word).replace('"', '""')
    if "\n" in word or "\r" in word:
        raise ConfigError(f"HTCondor takes no line breaks in arguments, got {word!r}")
    if not text or re.search(r"[\s']", text):
        return "'" + text.replace("'", "''") + "'"
    return text


def string(text: str) -> str:
    """Return text as a ClassAd string."""
    return '"' + plain(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def file_list(names: Sequence[str]) -> str:
    """Return names for ``transfer_input_files``. Raises ConfigError for commas, which divide."""
    for name in names:
        if "," in name or '"' in name:
            raise ConfigError(
                f"HTCondor cannot copy a file with a comma or a quote in its name: {name};"
                " rename it, or use a shared file system (executor.transfer=false)"
            )
    return ", ".join(plain(name) for name in names)
