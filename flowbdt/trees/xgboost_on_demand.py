"""XGBoost, imported when it is first used, and in the program without scikit-learn.

XGBoost imports scikit-learn, and so pandas and most of scipy, for estimators that nothing here
uses; without them it is there in a quarter of the CPU time and in 130 MiB less. Where other code
runs too, which may use them, it is imported whole.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

PROGRAM = "FLOWBDT_PROGRAM"
"""Environment variable: set in processes that run nothing but the program ``flowbdt``."""


class _OnDemand:
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by inspection, not by a use
            raise AttributeError(name)
        return getattr(_imported(), name)


class _WithoutSklearn:
    """A finder that finds no scikit-learn for the thread that made it; others import it as ever."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "sklearn" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is not needed", name=name)


def _imported() -> Any:
    if PROGRAM not in os.environ or {"xgboost", "sklearn"} & set(sys.modules):
        return importlib.import_module("xgboost")
    without: Any = _WithoutSklearn()
    sys.meta_path.insert(0, without)
    try:
        return importlib.import_module("xgboost")
    finally:
        sys.meta_path.remove(without)


if TYPE_CHECKING:
    import xgboost as xgb
else:
    xgb = _OnDemand()

__all__ = ["PROGRAM", "xgb"]
