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
from .posterior import Posterior
from .transport import Transport
from .unfolded import Unfolded

METHODS: dict[str, type[Method]] = {
    "omnifold": OmniFold,
    "posterior": Posterior,
    "transport": Transport,
}


def unfold(
    inputs: UnfoldingInputs,
    method: str = "omnifold",
    *,
    n_iterations: int | None = None,
    fakes: str = "share",
    trees: Trees | None = None,
    n_draws: int = 16,
    flow: Mapping[str, Any] | None = None,
    random_state: Any = 0,
    n_threads: int = 1,
) -> Unfolded:
    """Unfold data.

    Parameters
    ----------
    inputs : UnfoldingInputs
    method : "omnifold", weights of simulated events; "posterior", draws of a flow of truth given
        reco, weighed until the prior is the result; "transport", a flow from reco to truth, one
        answer for each event of the data
    n_iterations : of "omnifold", by default chosen by cross-validation, see `tradeoffs`; changes of
        the prior of "posterior", by default 3, 0 keeps the simulation's
    fakes : "share": fakes keep their share of the simulation that passes detector level; "rate":
        their weights are the events expected in the data
    trees : of the classifiers
    n_draws : of "posterior", for every event of the data
    flow : parameters of `FlowBDT` for the flow of "posterior" and "transport"
    random_state : seed of folds and trees; the result does not depend on ``n_threads``

    Returns
    -------
    Unfolded; its ``record`` has the number of iterations, the trees of both steps, and the
    trade-off where the number was chosen

    Raises
    ------
    ConfigError
        If the method or treatment of fakes is unknown, there are too few iterations, or transport
        has another number of columns at the two levels.
    """
    if method not in METHODS:
        raise ConfigError(str(unknown("method", method, list(METHODS))))
    least = METHODS[method].least_iterations
    if n_iterations is not None and n_iterations < least:
        raise ConfigError(
            f"n_iterations of {method!r} must be at least {least}, got {n_iterations}"
        )
    seed, own = resolve(random_state), dict(flow or {})
    settings = Settings(method, fakes, seed, trees or Trees(), n_draws, own)
    prepared = prepare(inputs, settings, n_threads)
    record: dict[str, Any] = {"method": method, "fakes": fakes, "seed": settings.seed}
    if n_iterations is None:
        n_iterations, table = prepared.choose()
        record |= {"tradeoff": table} if table else {}
    found = prepared.weigh(inputs, n_iterations)
    record |= {"iterations": n_iterations, **found.record}
    rows = replace(prepared.rows, weight=found.rows)
    return Unfolded(settings, rows, found.simulation, inputs, record, prepared.state)


def prepare(
    inputs: UnfoldingInputs,
    settings: Settings,
    n_threads: int = 1,
    state: Mapping[str, np.ndarray] | None = None,
) -> Method:
    """Return a method, ready to weigh."""
    return METHODS[settings.method](inputs, settings, n_threads, state)
