"""Shower model: layer energies by a small flow, voxels by exact division of energies."""

from __future__ import annotations

from .shower_model import ShowerModel

__all__ = ["ShowerModel"]
