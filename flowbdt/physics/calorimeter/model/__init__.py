"""Calorimeter showers: layer energies by a small flow, voxels by dividing them exactly."""

from __future__ import annotations

from .shower_model import ShowerModel

__all__ = ["ShowerModel"]
