"""Events of given row numbers: noise, the way of a flow, back to columns, rejection.

All noise belongs to a row number, so that it does not matter which rows are worked on together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import seeding
from ..errors import plural
from ..flow.solvers import integrate
from ..flow.step_inputs import StepInputs
from ..trees.boosted_trees import BoostedTrees
from ..trees.density_ratio import DensityRatio
from .attempt_warnings import MOST_ATTEMPTS, warn_kept, warn_not_finite, warn_undefined
from .compiled.engine import CompiledTrees

if TYPE_CHECKING:
    from .trained_flow import Flow


def events(
    flow: Flow,
    seed: int,
    parts: list[np.ndarray],
    cond: np.ndarray | None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Return the events (k, d) of some rows.

    Parameters
    ----------
    parts : rising row numbers that are worked on together at first, together (k,)
    cond : ndarray (k, c), or None
    start : ndarray (k, m), latent points to start from instead of noise, or None
    """
    found, low = [], 0
    for rows in parts:
        span = slice(low, low + len(rows))
        found.append(attempt(flow, seed, 0, rows, _of(cond, span), _of(start, span)))
        low += len(rows)
    x = found[0] if len(found) == 1 else np.vstack(found)
    if flow.ratio is not None:
        replace_rejected(flow, flow.ratio, x, seed, np.concatenate(parts), cond)
    return x


def _of(given: np.ndarray | None, rows: slice | np.ndarray) -> np.ndarray | None:
    return None if given is None else given[rows]


def attempt(
    flow: Flow,
    seed: int,
    number: int,
    rows: np.ndarray,
    cond: np.ndarray | None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Return new events (k, d) for rising row numbers (k,), by the noise of one attempt."""
    keys = (number,) if number else ()
    x0 = start
    if x0 is None:
        noise = seeding.RowNoise(seed, "sample", rows, keys, once=True)
        x0 = noise.standard_normal((len(rows), flow.plan["n_latent"]))
    if flow.whole is not None:
        return back(flow, flow.whole.run(x0, cond))
    rng, sampler = seeding.RowNoise(seed, "solver", rows, keys), flow.sampler
    way = integrate(sampler.solver, flow.field, x0, sampler.boundaries, cond=cond, rng=rng)
    return back(flow, way.x)


def back(flow: Flow, z: np.ndarray) -> np.ndarray:
    """Return latent points (n, m) as columns (n, d)."""
    lost = 1.0 - np.isfinite(z).all(axis=1).mean()
    if lost:
        warn_not_finite(f"{lost:.2%} of {len(z)} events are")
    if flow.way is None or lost:
        return flow.transform.inverse(z)
    x = np.empty((len(z), flow.way.n_columns))
    undefined = flow.way.back(np.ascontiguousarray(z), x)
    if undefined:
        warn_undefined(plural(undefined, "generated event"))
    return x


def replace_rejected(
    flow: Flow,
    ratio: DensityRatio,
    x: np.ndarray,
    seed: int,
    numbers: np.ndarray,
    cond: np.ndarray | None,
) -> None:
    """Draw rejected events (k, d) anew, in place, until all are accepted.

    ``numbers`` (k,) are their row numbers, ``cond`` (k, c) their conditions.
    """
    left = np.arange(len(x))
    for number in range(1, MOST_ATTEMPTS):
        rows, given = numbers[left], _of(cond, left)
        uniform = seeding.RowNoise(seed, "accept", rows, (number,), once=True).random()
        kept = ratio.keeps(classified(x[left], given), uniform)
        left = left[~kept]
        if not len(left):
            return
        x[left] = attempt(flow, seed, number, numbers[left], _of(cond, left))
    warn_kept(len(left))


def classified(x: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
    """Return what rejection is decided by: columns (n, d) and conditions (n, c), float32."""
    parts = [x] if cond is None else [x, cond]
    return np.hstack(parts).astype(np.float32)


class StepModel:
    """The velocity at one time: closed form plus trees."""

    def __init__(self, inputs: StepInputs, trees: BoostedTrees | CompiledTrees) -> None:
        self._inputs, self._trees = inputs, trees

    def __call__(self, x: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Return velocities (n, m), float64."""
        inputs, velocity = self._inputs(x, cond)
        velocity += self._trees.predict(inputs)
        return velocity
