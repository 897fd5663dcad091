"""Invertible transforms of columns and tables: from physical values to latent ones and back."""

from __future__ import annotations

from . import discrete, rank, smooth  # noqa: F401  (they enter themselves in TRANSFORMS)
from .base import TRANSFORMS, ColumnTransform, build_column
from .choose import choose
from .joint_transform import JointTransform
from .table_transform import TableTransform

__all__ = [
    "TRANSFORMS",
    "ColumnTransform",
    "JointTransform",
    "TableTransform",
    "build_column",
    "choose",
]
