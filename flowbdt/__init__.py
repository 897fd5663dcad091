"""flowBDT: gradient-boosted flow matching for fast simulation and unfolding on CPUs.

The public names are loaded when first used, so that ``import flowbdt`` costs nothing and pulls
in neither xgboost nor matplotlib.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

__version__ = "0.1.0"

# Threads that wait asleep, not spinning: beside other work on the machine a fit of two spinning
# threads took many times the time. Read when XGBoost's or scikit-learn's OpenMP is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOME = {
    "FlowBDT": "model",
    "EventTable": "tables.event_table",
    "read_table": "tables.formats",
    "write_table": "tables.formats",
    "RunConfig": "config",
    "RunDirectory": "training.run_directory",
    "Relation": "tables.formulas.relations",
    "TableTransform": "tables.transforms",
    "TimeGrid": "flow.time_grid",
    "VelocityField": "flow.fields",
    "integrate": "flow.solvers",
    "open_sampler": "generation.one_event",
    "evaluate": "evaluation.evaluate",
    "write_report": "evaluation.report",
    "FlowbdtError": "errors",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'flowbdt' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
