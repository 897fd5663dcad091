"""Trees, closed form and solver of a trained flow as the flat arrays of `arrays`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...flow.closed_form.base import PreparedNone
from ...flow.closed_form.conditioning import FullKernel, Kernel, LowRankKernel
from ...flow.closed_form.mixture_on_path import PreparedMixture
from ...flow.step_inputs import StepInputs
from ...trees.tree_arrays import Forest
from ..compiled.arrays import (
    BASE,
    FULL,
    GAIN,
    LOW_RANK,
    NONE,
    Form,
    Trees,
    Walk,
    aligned,
    filled,
    locked,
)
from .pack_solver import Program

LEAST_SCALE = 0.01
"""Where less of the data than this is in a point, the score says too little about its end."""


def pack_trees(forests: Sequence[Forest]) -> Trees:
    """Return the trees of some forests one after the other."""
    table = np.zeros((len(forests), 7), dtype=np.int64)
    nodes = leaves = outputs = 0
    for row, forest in zip(table, forests, strict=True):
        row[:] = (
            len(forest.feature),
            forest.depth,
            forest.width,
            forest.first,
            nodes,
            leaves,
            outputs,
        )
        n_leaves = forest.feature.size  # a tree without a split has one of each
        nodes, leaves = nodes + n_leaves, leaves + n_leaves * filled(forest.width)
        outputs += forest.width

    def joined(name: str, dtype: Any) -> np.ndarray:
        parts = [getattr(forest, name)[:, _order(forest.depth)].ravel() for forest in forests]
        return locked(np.concatenate([np.zeros(0, dtype), *parts]), dtype)

    return Trees(
        locked(table, np.int64),
        joined("feature", np.uint16),
        joined("threshold", np.float32),
        joined("missing", np.uint8),
        locked(_leaves(forests, leaves), np.float32),
        locked(np.concatenate([np.zeros(0), *(forest.base for forest in forests)]), np.float32),
    )


def _order(depth: int) -> np.ndarray:
    """Return which node of a `Forest` stands where: those of each level by their decisions.

    The first decision is the lowest bit, so that the second children of a level of n nodes follow
    n places after the first ones.
    """
    return np.concatenate([[0], *((1 << level) + _backwards(level) for level in range(depth))])


def _backwards(n_bits: int) -> np.ndarray:
    """Return the numbers of so many bits, each read from the other end."""
    number, result = np.arange(1 << n_bits), np.zeros(1 << n_bits, dtype=np.int64)
    for bit in range(n_bits):
        result |= ((number >> bit) & 1) << (n_bits - 1 - bit)
    return result


def _leaves(forests: Sequence[Forest], size: int) -> np.ndarray:
    """Return the leaves of all forests, each filled up with zeros."""
    result, at = aligned(size), 0
    for forest in forests:
        count, width = forest.feature.size, filled(forest.width)
        part = result[at : at + count * width].reshape(count, width)
        order = _backwards(forest.depth)
        part[:, : forest.width] = forest.leaves[:, order].reshape(count, forest.width)
        at += count * width
    return result


def pack_form(steps: Sequence[StepInputs], observed: np.ndarray) -> Form:
    """Return the closed form of all steps where just the conditions ``observed``, bool, are known.

    Raises
    ------
    ConfigError
        If it is of a kind that the loops do not know.
    """
    prepared = [step.prepared for step in steps]
    places = locked(np.flatnonzero(observed), np.int64)
    if all(isinstance(p, PreparedNone) for p in prepared):
        nothing = locked(np.zeros((len(steps), 8)), np.int64)
        empty = locked(np.zeros(0), np.float64)
        turn = locked(np.zeros((len(steps), 4)), np.float64)
        return Form(NONE, 0, 0, 0, 0, 0, 0, places, turn, nothing, empty)
    kernels = [p.kernel(observed) for p in prepared if isinstance(p, PreparedMixture)]
    kinds = {type(kernel) for kernel in kernels}
    if len(kernels) < len(steps) or len(kinds) > 1 or not kinds <= {FullKernel, LowRankKernel}:
        raise ConfigError("this closed form cannot be compiled")
    turns = [_turn(p) for p in prepared if isinstance(p, PreparedMixture)]
    simple = None not in turns
    turn = np.array(turns, dtype=np.float64) if simple else np.zeros((len(steps), 4))
    parts = [
        _form_parts(k, simple, scale > 0) for k, scale in zip(kernels, turn[:, 2], strict=True)
    ]
    sizes = np.array([[part.size for part in step] for step in parts])
    where = np.concatenate([[0], np.cumsum(sizes)[:-1]]).reshape(sizes.shape)
    where[:, GAIN] = np.where(sizes[:, GAIN] > 0, where[:, GAIN], -1)
    n_seen, n_components = len(kernels[0].centre), len(kernels[0].constant)
    n_used = kernels[0].gain.shape[1] // (2 if simple else 1)
    return Form(
        FULL if kinds == {FullKernel} else LOW_RANK,
        n_seen - len(places),
        n_seen,
        kernels[0].stack.shape[1] // n_components,
        n_components,
        _filled(n_used),
        n_used,
        places,
        locked(turn, np.float64),
        locked(where, np.int64),
        locked(np.concatenate([part.ravel() for step in parts for part in step]), np.float64),
    )


def _filled(count: int) -> int:
    return -(-count // 8) * 8


def _turn(prepared: PreparedMixture) -> tuple[float, ...] | None:
    found = prepared.turn()
    if found is None:
        return None
    velocity, pull, scale, variance = found
    return (velocity, pull, scale if scale >= LEAST_SCALE else 0.0, variance)


def _form_parts(kernel: Kernel, simple: bool, by_score: bool) -> list[np.ndarray]:
    """Return the arrays of one step in the order of `Form.where`."""
    k, low_rank = len(kernel.constant), isinstance(kernel, LowRankKernel)
    n_inner = kernel.stack.shape[1] // k
    whole = kernel.stack.reshape(-1, n_inner, k)
    rows = [whole[-1], *(part[0 if low_rank else j :] for j, part in enumerate(whole[:-1]))]
    forms = [kernel.quadratic.T, kernel.linear.T] if isinstance(kernel, LowRankKernel) else []
    parts = [kernel.centre, np.vstack(rows), kernel.constant, *forms]
    outputs = [np.zeros(0)] * 3 if by_score else _outputs(kernel, simple, n_inner)
    return [*parts, *([np.zeros(0)] * (BASE - len(parts))), *outputs]


def _outputs(kernel: Kernel, simple: bool, n_inner: int) -> list[np.ndarray]:
    """Return base, gain and ratio; of the end point only, if ``simple``."""
    gain = kernel.gain.reshape(n_inner, len(kernel.constant), -1).transpose(1, 0, 2)
    arrays = [kernel.base, gain]
    arrays += [kernel.ratio] if isinstance(kernel, LowRankKernel) else []
    kept = [array[..., array.shape[-1] // 2 :] if simple else array for array in arrays]
    width = kept[0].shape[-1]
    filled = [
        np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, _filled(width) - width)]) for array in kept
    ]
    filled[1] = filled[1] if filled[1].any() else np.zeros(0)
    return [*filled, *([np.zeros(0)] * (3 - len(filled)))]


def pack_walk(
    found: Program,
    step: np.ndarray,
    forests: np.ndarray,
    inputs: Sequence[StepInputs],
    form: Form,
    given: bool,
) -> Walk:
    """Return the solver and the views of the steps.

    Parameters
    ----------
    found : the solver
    step : ndarray (E,), the step model of each evaluation
    forests : ndarray (S + 1,), where the forests of each step model begin, and their end
    inputs : of the step models
    form : the closed form
    given : whether there are conditions, known or not
    """
    views, columns = inputs[0].views, inputs[0].to_columns
    return Walk(
        locked(found.scale, np.float64),
        locked(found.terms, np.int64),
        locked(found.term, np.int64),
        locked(found.weight, np.float64),
        locked(found.slot, np.int64),
        locked(step, np.int64),
        locked(forests, np.int64),
        "latent" in views,
        locked(np.zeros((0, 0)) if columns is None else columns.T, np.float64),
        locked([s.silent and not given for s in inputs], np.uint8),
        "end_point" in views and form.kind != NONE,
        "components" in views and form.n_components > 1,
    )
