"""How functions are compiled.

Numba keeps machine code on disk and makes it anew when the file of a function changes, but not
when that of a function it calls does: so all of it goes when any file of this folder is newer.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import extending

intrinsic: Any = extending.intrinsic
types: Any = numba.types

FUSED = {"contract"}
"""Products may be added without being rounded first."""

ANY_ORDER = {"contract", "reassoc", "nsz", "nnan"}
"""The same, and sums in the order that suits the processor; of the components of one row only."""


def forget_older_code(folder: Path) -> None:
    """Remove numba's indices in a folder's ``__pycache__`` that are older than a source file."""
    newest = max(source.stat().st_mtime for source in folder.glob("*.py"))
    for index in folder.glob("__pycache__/*.nbi"):
        with contextlib.suppress(OSError):  # another process was first, or we may not write
            if index.stat().st_mtime < newest:
                index.unlink()


forget_older_code(Path(__file__).parent)


def compiled(function: Callable[..., Any], merged: set[str] = FUSED) -> Any:
    """Compile when first called; kept on disk where there is a place to write."""
    # no references are counted: arrays come from outside and are never kept
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}
    try:
        return numba.njit(function, cache=True, fastmath=merged, **options)
    except RuntimeError:  # neither the package's folder nor a cache folder can be written
        return numba.njit(function, fastmath=merged, **options)


def in_any_order(function: Callable[..., Any]) -> Any:
    """Compile a function that adds up over components."""
    return compiled(function, ANY_ORDER)


def kept_code(dispatcher: Any, values: tuple[Any, ...]) -> tuple[bytes, bytes, str, int]:
    """Return what numba keeps on disk of a function compiled for such arguments.

    Returns
    -------
    object code, bitcode, name of the function, number of arguments

    Raises
    ------
    AttributeError, KeyError, TypeError, ValueError
        If there is nothing, or this numba keeps its code in another way.
    """
    registry = importlib.import_module("numba.core.registry")
    context = registry.cpu_target.target_context
    signature = tuple(numba.typeof(value) for value in values)
    cache = dispatcher._cache
    found = cache._cache_file.load(cache._index_key(signature, context.codegen()))
    (_, how, (code, bitcode)), described = found[0], found[1]
    if how != "object":
        raise ValueError(f"numba keeps its code as {how}")
    return code, bitcode, described.llvm_func_name, len(described.args)
