"""What the tests of tuning share: a small table, quick settings, `tune` where Optuna is there."""

from __future__ import annotations

from typing import Any

import pytest

from flowbdt.config import RunConfig
from flowbdt.seeding import stream
from flowbdt.tables.event_table import EventTable

BASE = RunConfig(
    preset="fast",
    n_steps=3,
    preconditioner="gaussian",
    booster={"n_estimators": 4, "max_depth": 2, "max_bin": 32},
    random_state=5,
)


def table(n: int = 600) -> EventTable:
    """Two clumps in two columns."""
    rng = stream(1, "test-tuning")
    x = rng.normal(size=(n, 2)) + 3.0 * (rng.random((n, 1)) < 0.4)
    return EventTable.of(x, ["a", "b"])


def tune(*arguments: Any, **options: Any) -> Any:
    """Call `flowbdt.tuning.tune`; skip the test without Optuna."""
    pytest.importorskip("optuna", reason="tuning needs the extra 'tune'")
    from flowbdt.tuning import tune

    return tune(*arguments, **options)
