"""Detector response as a chain of conditional models: from generated to reconstructed events."""

from __future__ import annotations

from .chain import ResponseChain
from .declaration import Declaration
from .events import Events
from .exported_stages import exported_stages
from .judge_response import judge_response

__all__ = ["Declaration", "Events", "ResponseChain", "exported_stages", "judge_response"]
