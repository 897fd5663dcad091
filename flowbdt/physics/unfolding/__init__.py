"""Unfolding: from data at detector level to the spectrum at truth level, event by event."""

from __future__ import annotations

from .inputs import UnfoldingInputs
from .uncertainties import UnfoldingErrors, unfolding_errors
from .unfold import unfold
from .unfolded import Unfolded

__all__ = ["Unfolded", "UnfoldingErrors", "UnfoldingInputs", "unfold", "unfolding_errors"]
