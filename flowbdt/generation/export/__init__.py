"""Trained flows for other programs: C++ without any library, functions of a library, ONNX."""

from __future__ import annotations

from .lamarr import write_lamarr
from .write_cpp import write_cpp
from .write_onnx import write_onnx

__all__ = ["write_cpp", "write_lamarr", "write_onnx"]
