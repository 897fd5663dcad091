"""Calorimeter showers: layer energies by a small flow, voxels by dividing them exactly."""

from __future__ import annotations

from .model import ShowerModel

__all__ = ["ShowerModel"]
