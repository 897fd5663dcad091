"""Preconditioners: the part of the velocity that is known in closed form."""

from __future__ import annotations

from . import mixture  # noqa: F401  (it enters itself in PRECONDITIONERS)
from .base import PRECONDITIONERS, Preconditioner, Prepared
from .stored import from_arrays, from_bytes

__all__ = ["PRECONDITIONERS", "Preconditioner", "Prepared", "from_arrays", "from_bytes"]
