"""Compiled where that can be, else XGBoost: the same events, but for a few that rounding moves.

A closed form that differs in the last digits may carry a point over a cut of a tree, or an event
past its rejection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...errors import ConfigError, MissingExtra
from ...flow.parametrisations import Convention
from ...flow.sampler import Sampler
from ...flow.step_inputs import StepInputs
from ...flow.time_grid import TimeGrid
from ...tables.transforms import TableTransform
from ...trees.boosted_trees import BoostedTrees
from ...trees.tree_arrays import Forest, forests
from ..packed.pack_solver import program
from .engine import CompiledFlow, CompiledTrees, CompiledWay, available, say_once, why_not


def may_compile(asked: bool | None) -> bool:
    """Return whether to compile; None asks for it where it can be.

    Raises
    ------
    MissingExtra
        If it was asked for and numba is not installed.
    """
    if asked is False:
        return False
    if not available():
        reason = f"numba cannot be used ({why_not()}): pip install 'flowbdt[compiled]'"
        if asked:
            raise MissingExtra(f"compiled generation: {reason}")
        say_once(reason)
    return available()


def load_trees(content: bytes, compiled: bool, n_threads: int) -> BoostedTrees | CompiledTrees:
    """Return the trees of one step from their stored form; XGBoost's if they are too deep."""
    if compiled:
        try:
            return CompiledTrees(*forests(content))
        except ConfigError as error:
            say_once(str(error))
    trees = BoostedTrees.from_bytes(content)
    trees.set_threads(n_threads)
    return trees


def whole_flow(
    sampler: Sampler,
    grid: TimeGrid,
    convention: Convention | None,
    inputs: Callable[[int], StepInputs],
    trees: Callable[[int], Sequence[Forest]],
    n_threads: int,
) -> CompiledFlow | None:
    """Return all steps in one compiled pass, or None where the sampler or a step does not allow it.

    Parameters
    ----------
    sampler, grid, convention : of the run
    inputs : number of a step -> what its trees see
    trees : number of a step -> its trees
    n_threads : int
    """
    if sampler.solver.stochastic or sampler.interpolate:
        return None
    found = program(sampler.solver, sampler.boundaries, convention)
    asked = [grid.locate(float(t)) for t in found.times]
    steps = sorted(set(asked))
    try:
        return CompiledFlow(
            found,
            np.searchsorted(steps, asked),
            [inputs(step) for step in steps],
            [trees(step) for step in steps],
            n_threads,
        )
    except ConfigError as error:
        say_once(str(error))
        return None


def compiled_way(transform: TableTransform) -> CompiledWay | None:
    """Return the compiled way back to columns, or None if a column has none."""
    try:
        return CompiledWay(transform)
    except ConfigError:  # numpy does it nearly as fast for many events
        return None
