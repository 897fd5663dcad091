"""Trained flows for other programs: C++ without any library, ONNX."""

from __future__ import annotations

from .cpp import write_cpp
from .onnx import write_onnx

__all__ = ["write_cpp", "write_onnx"]
