"""Where steps are trained. Every executor writes the same bytes."""

from .base import EXECUTORS, Executor
from .local import Joblib, Serial

__all__ = ["EXECUTORS", "Executor", "Joblib", "Serial"]
