"""Unfolding by name of the method, with or without errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...registry import unknown
from ...seeding import resolve
from .inputs import UnfoldingInputs
from .method import Method, Settings
from .odds import Trees
from .omnifold import OmniFold
from .unfolded import Unfolded

METHODS: dict[str, type[Method]] = {"omnifold": OmniFold}


def unfold(
    inputs: UnfoldingInputs,
    method: str = "omnifold",
    *,
    n_iterations: int | None = None,
    fakes: str = "share",
    trees: Trees | None = None,
    random_state: Any = 0,
    n_threads: int = 1,
) -> Unfolded:
    """Unfold data.

    Parameters
    ----------
    inputs : UnfoldingInputs
    method : "omnifold"
    n_iterations : None chooses by cross-validation, see `tradeoffs`
    fakes : "share": fakes keep their share of the simulation that passes detector level; "rate":
        their weights are the events expected in the data
    trees : of the classifiers
    random_state : seed of folds and trees; the result does not depend on ``n_threads``

    Returns
    -------
    Unfolded; its ``record`` has the number of iterations, the trees of both steps, and the
    trade-off where the number was chosen

    Raises
    ------
    ConfigError
        If the method or treatment of fakes is unknown, or there would be no iteration.
    """
    if n_iterations is not None and n_iterations < 1:
        raise ConfigError(f"n_iterations must be at least 1, got {n_iterations}")
    settings = Settings(method, fakes, resolve(random_state), trees or Trees())
    prepared = prepare(inputs, settings, n_threads)
    record: dict[str, Any] = {"method": method, "fakes": fakes, "seed": settings.seed}
    if n_iterations is None:
        n_iterations, record["tradeoff"] = prepared.choose()
    found = prepared.weigh(inputs, n_iterations)
    record |= {"iterations": n_iterations, **found.record}
    table = replace(prepared.rows, weight=found.rows)
    return Unfolded(settings, table, found.simulation, inputs, record, prepared.state)


def prepare(
    inputs: UnfoldingInputs,
    settings: Settings,
    n_threads: int = 1,
    state: Mapping[str, np.ndarray] | None = None,
) -> Method:
    """Return a method, ready to weigh. Raises ConfigError if it is unknown."""
    if settings.method not in METHODS:
        raise ConfigError(str(unknown("method", settings.method, list(METHODS))))
    return METHODS[settings.method](inputs, settings, n_threads, state)
