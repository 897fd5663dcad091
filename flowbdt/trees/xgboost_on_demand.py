"""XGBoost, imported when it is first used, and in the program without scikit-learn.

XGBoost imports scikit-learn, and so pandas and most of scipy, for estimators that nothing here
uses; without them it is there in a quarter of the CPU time and in 130 MiB less. Where other code
runs too, which may use them, it is imported whole.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

PROGRAM = "FLOWBDT_PROGRAM"
"""Environment variable: set in processes that run nothing but the program ``flowbdt``."""


class _OnDemand:
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by inspection, not by a use
            raise AttributeError(name)
        return getattr(_imported(), name)


def _imported() -> Any:
    alone = PROGRAM in os.environ and not {"xgboost", "sklearn"} & set(sys.modules)
    if alone:
        sys.modules["sklearn"] = None  # type: ignore[assignment]  # an import of it fails
    try:
        return importlib.import_module("xgboost")
    finally:
        if alone:
            del sys.modules["sklearn"]


if TYPE_CHECKING:
    import xgboost as xgb
else:
    xgb = _OnDemand()

__all__ = ["PROGRAM", "xgb"]
