"""Invertible transforms of columns and tables: from physical values to latent ones and back."""

from __future__ import annotations

from . import columns, discrete, rank  # noqa: F401  (they enter themselves in TRANSFORMS)
from .auto import choose
from .base import TRANSFORMS, ColumnTransform, build_column
from .joint import JointTransform
from .table_transform import TableTransform

__all__ = [
    "TRANSFORMS",
    "ColumnTransform",
    "JointTransform",
    "TableTransform",
    "build_column",
    "choose",
]
