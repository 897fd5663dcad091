"""Trained flows for other programs: C++ without any library, ONNX."""

from __future__ import annotations

from .cpp import write_cpp

__all__ = ["write_cpp"]
