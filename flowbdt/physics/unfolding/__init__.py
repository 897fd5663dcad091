"""Unfolding: from data at detector level to the spectrum at truth level, event by event."""

from __future__ import annotations

from .inputs import UnfoldingInputs
from .unfold import unfold
from .unfolded import Unfolded

__all__ = ["Unfolded", "UnfoldingInputs", "unfold"]
