"""Unfolding by name of the method."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...errors import ConfigError
from ...registry import unknown
from ...seeding import resolve
from .inputs import UnfoldingInputs
from .iterations import MOST_ITERATIONS, tradeoffs
from .odds import Trees
from .omnifold import OmniFold
from .unfolded import Unfolded, truth_table

METHODS = ("omnifold",)


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
    fakes : "share" or "rate", see `OmniFold`
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
    if method not in METHODS:
        raise ConfigError(str(unknown("method", method, METHODS)))
    if n_iterations is not None and n_iterations < 1:
        raise ConfigError(f"n_iterations must be at least 1, got {n_iterations}")
    seed = resolve(random_state)
    omnifold = OmniFold(inputs, trees, fakes=fakes, seed=seed, n_threads=n_threads)
    record: dict[str, Any] = {"method": method, "fakes": fakes, "seed": seed}
    if n_iterations is None:
        n_iterations, table = tradeoffs(omnifold, MOST_ITERATIONS, seed)
        record["tradeoff"] = [asdict(row) for row in table]
    grown = []
    for state, _ in zip(omnifold.iterations(), range(n_iterations), strict=False):
        grown.append(list(state.n_trees))
    record |= {"iterations": n_iterations, "trees": grown}
    return Unfolded(method, truth_table(inputs, state.weight), state.weight, inputs, record)
