"""Trees, closed form and solver of a trained flow as flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...flow.closed_form.base import PreparedNone
from ...flow.closed_form.conditioning import FullKernel, Kernel, LowRankKernel
from ...flow.closed_form.mixture_on_path import PreparedMixture
from ...flow.fields import VelocityField
from ...flow.parametrisations import Convention
from ...flow.solvers import Solver, evaluations, integrate
from ...flow.step_inputs import StepInputs
from ...trees.tree_arrays import Forest
from .array_file import Arrays, named
from .arrays import (
    BASE,
    FULL,
    GAIN,
    LOW_RANK,
    NONE,
    FormArrays,
    SolverArrays,
    TreeArrays,
    aligned_zeros,
    leaf_width,
    read_only,
)

LEAST = 1e-14
"""A weight that is smaller than this, relative to the largest, is a rounding error."""


@dataclass(frozen=True, eq=False)
class SolverProgram:
    """A solver with fixed steps as plain numbers: points and result as sums of velocities.

    Point e (and last the result) is ``scale[e]`` times the one before, beginning with x0, plus the
    velocities in the slots ``term[terms[e]:terms[e + 1]]`` times their ``weight``. The velocity at
    that point is kept in ``slot[e]``.
    """

    times: np.ndarray  # (E,), of the evaluations
    scale: np.ndarray  # (E + 1,)
    terms: np.ndarray  # (E + 2,), int64
    term: np.ndarray  # (terms[-1],), int64
    weight: np.ndarray  # (terms[-1],)
    slot: np.ndarray  # (E,), int64

    @property
    def n_slots(self) -> int:
        """Number of velocities that have to be kept at a time."""
        return int(self.slot.max()) + 1


class _Symbols(VelocityField):
    """A field whose every velocity is a new unit vector; it keeps the points of evaluation."""

    def __init__(self, n: int, convention: Convention | None) -> None:
        self.n, self.convention = n, convention
        self.points: list[np.ndarray] = []

    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        self.points.append(np.array(x[0]))
        answer = np.zeros((1, self.n + 1))
        answer[0, len(self.points)] = 1.0
        return answer


def solver_program(
    solver: Solver, boundaries: np.ndarray, convention: Convention | None
) -> SolverProgram:
    """Return the sums that ``solver`` computes between the boundaries, by a run on symbols.

    Solvers only add up points and velocities, so coefficients can take the place of numbers: x0 is
    the first unit vector, the velocity of evaluation e the one after the e-th. Raises ConfigError
    if the solver draws random numbers.
    """
    if solver.stochastic:
        raise ConfigError(f"{type(solver).__name__} draws random numbers")
    times = evaluations(solver, boundaries, convention)
    symbols = _Symbols(len(times), convention)
    start = np.zeros((1, len(times) + 1))
    start[0, 0] = 1.0
    end = integrate(solver, symbols, start, boundaries).x
    return _sparse(np.asarray(times), np.vstack([start, *(p[None] for p in symbols.points), end]))


def _sparse(times: np.ndarray, points: np.ndarray) -> SolverProgram:
    """Return the program of ``points`` (E + 2, E + 1), the first being x0."""
    before, after = points[:-1], points[1:]
    has = np.abs(before[:, 0]) > LEAST
    scale = np.where(has, after[:, 0] / np.where(has, before[:, 0], 1.0), 1.0)
    change = after[:, 1:] - scale[:, None] * before[:, 1:]
    size = np.maximum(np.abs(after), np.abs(scale[:, None] * before)).max(axis=1)
    change[np.abs(change) <= LEAST * size[:, None]] = 0.0
    rows, evaluation = np.nonzero(change)
    slot = _slots(len(times), rows, evaluation)
    return SolverProgram(
        times=times,
        scale=scale,
        terms=np.searchsorted(rows, np.arange(len(points))).astype(np.int64),
        term=slot[evaluation],
        weight=change[rows, evaluation],
        slot=slot,
    )


def _slots(n: int, rows: np.ndarray, evaluation: np.ndarray) -> np.ndarray:
    """Return a slot for each evaluation, free again after its last use."""
    last = np.arange(n)
    np.maximum.at(last, evaluation, rows)
    slot, busy = np.zeros(n, dtype=np.int64), dict[int, int]()
    for e in range(n):
        # the velocity is written after the point of row e was made
        busy = {place: until for place, until in busy.items() if until > e}
        slot[e] = next(place for place in range(n) if place not in busy)
        busy[int(slot[e])] = int(last[e])
    return slot


LEAST_SCALE = 0.01
"""Where less of the data than this is in a point, the score says too little about its end."""


def pack_trees(forests: Sequence[Forest]) -> TreeArrays:
    """Return the trees of some forests one after the other."""
    table = np.zeros((len(forests), 7), dtype=np.int64)
    nodes = leaves = outputs = 0
    for row, forest in zip(table, forests, strict=True):
        row[:4] = len(forest.feature), forest.depth, forest.width, forest.first
        row[4:] = nodes, leaves, outputs
        n_leaves = forest.feature.size  # a tree without a split has one of each
        nodes, leaves = nodes + n_leaves, leaves + n_leaves * leaf_width(forest.width)
        outputs += forest.width

    def joined(name: str, dtype: Any) -> np.ndarray:
        nodes = [getattr(forest, name)[:, _order(forest.depth)].ravel() for forest in forests]
        return read_only(np.concatenate([np.zeros(0, dtype), *nodes]), dtype)

    return TreeArrays(
        read_only(table, np.int64),
        joined("feature", np.uint16),
        joined("threshold", np.float32),
        joined("missing", np.uint8),
        read_only(_leaves(forests, leaves), np.float32),
        read_only(np.concatenate([np.zeros(0), *(forest.base for forest in forests)]), np.float32),
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
    result, at = aligned_zeros(size), 0
    for forest in forests:
        count, width = forest.feature.size, leaf_width(forest.width)
        rows = result[at : at + count * width].reshape(count, width)
        order = _backwards(forest.depth)
        rows[:, : forest.width] = forest.leaves[:, order].reshape(count, forest.width)
        at += count * width
    return result


def pack_form(steps: Sequence[StepInputs], observed: np.ndarray) -> FormArrays:
    """Return the closed form of all steps where just the conditions ``observed``, bool, are known.

    Raises ConfigError if it is of a kind that the loops do not know.
    """
    prepared = [step.prepared for step in steps]
    places = read_only(np.flatnonzero(observed), np.int64)
    if all(isinstance(p, PreparedNone) for p in prepared):
        nothing = read_only(np.zeros((len(steps), 8)), np.int64)
        empty = read_only(np.zeros(0), np.float64)
        turn = read_only(np.zeros((len(steps), 4)), np.float64)
        return FormArrays(NONE, 0, 0, 0, 0, 0, 0, places, turn, nothing, empty)
    kernels = [p.kernel(observed) for p in prepared if isinstance(p, PreparedMixture)]
    kinds = {type(kernel) for kernel in kernels}
    if len(kernels) < len(steps) or len(kinds) > 1 or not kinds <= {FullKernel, LowRankKernel}:
        raise ConfigError("this closed form cannot be compiled")
    turns = [_turn(p) for p in prepared if isinstance(p, PreparedMixture)]
    simple = None not in turns
    turn = np.array(turns, dtype=np.float64) if simple else np.zeros((len(steps), 4))
    numbers = [
        _step_numbers(k, simple, scale > 0) for k, scale in zip(kernels, turn[:, 2], strict=True)
    ]
    sizes = np.array([[array.size for array in step] for step in numbers])
    where = np.concatenate([[0], np.cumsum(sizes)[:-1]]).reshape(sizes.shape)
    where[:, GAIN] = np.where(sizes[:, GAIN] > 0, where[:, GAIN], -1)
    n_known, n_components = len(kernels[0].centre), len(kernels[0].constant)
    n_used = kernels[0].gain.shape[1] // (2 if simple else 1)
    return FormArrays(
        FULL if kinds == {FullKernel} else LOW_RANK,
        n_known - len(places),
        n_known,
        kernels[0].stack.shape[1] // n_components,
        n_components,
        _filled(n_used),
        n_used,
        places,
        read_only(turn, np.float64),
        read_only(where, np.int64),
        read_only(
            np.concatenate([array.ravel() for step in numbers for array in step]), np.float64
        ),
    )


def _filled(count: int) -> int:
    return -(-count // 8) * 8


def _turn(prepared: PreparedMixture) -> tuple[float, ...] | None:
    turn = prepared.turn()
    return turn and (*turn[:2], turn[2] if turn[2] >= LEAST_SCALE else 0.0, turn[3])


def _step_numbers(kernel: Kernel, simple: bool, by_score: bool) -> list[np.ndarray]:
    """Return the arrays of one step in the order of `FormArrays.where`."""
    k, low_rank = len(kernel.constant), isinstance(kernel, LowRankKernel)
    n_inner = kernel.stack.shape[1] // k
    whole = kernel.stack.reshape(-1, n_inner, k)
    rows = [whole[-1], *(array[0 if low_rank else j :] for j, array in enumerate(whole[:-1]))]
    forms = [kernel.quadratic.T, kernel.linear.T] if isinstance(kernel, LowRankKernel) else []
    numbers = [kernel.centre, np.vstack(rows), kernel.constant, *forms]
    outputs = [np.zeros(0)] * 3 if by_score else _outputs(kernel, simple, n_inner)
    return [*numbers, *([np.zeros(0)] * (BASE - len(numbers))), *outputs]


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


def step_arrays(
    program: SolverProgram,
    step: np.ndarray,
    inputs: Sequence[StepInputs],
    forests: Sequence[Sequence[Forest]],
    n_cond: int,
) -> Arrays:
    """Return all of a flow from noise to latent points, for a file.

    ``step`` (E,) is the step model of each evaluation of the solver; ``inputs`` and ``forests`` are
    those of each step model. Raises ConfigError for a closed form that the core does not know.
    """
    flat = [forest for each in forests for forest in each]
    edges = np.cumsum([0, *map(len, forests)])
    m = max(forest.first + forest.width for forest in flat)
    form = pack_form(inputs, np.ones(n_cond, dtype=bool))
    solver = pack_solver(program, step, edges, inputs, form, n_cond > 0)
    views = solver.latent, solver.end_point, solver.components
    seen = m * (solver.latent + solver.end_point) + len(solver.to_columns) + n_cond
    seen += form.n_components * solver.components
    return {
        **named("walk", solver, m, n_cond, program.n_slots, *views),
        **form_arrays(form),
        **named("trees", pack_trees(flat), seen, m),
        **(_mixture(inputs) if n_cond and form.kind != NONE and form.turn.any() else {}),
    }


def form_arrays(form: FormArrays) -> Arrays:
    """Return a closed form for a file."""
    sizes = form.n_points, form.n_known, form.n_inner, form.n_components, form.n_out, form.n_used
    return named("form", form, form.kind, *sizes)


def _mixture(inputs: Sequence[StepInputs]) -> Arrays:
    """Return the mixture, which the closed form needs where some conditions are unknown.

    All steps share it. ``motion`` (steps, 2) is the factor of the end point in the point of a step,
    and the variance of the noise in it.
    """
    prepared = [step.prepared for step in inputs if isinstance(step.prepared, PreparedMixture)]
    motion: list[Any] = [
        (1.0, 0.0) if each.layout.has_source else each.turn()[2:]  # type: ignore[index]
        for each in prepared
    ]
    mixture = prepared[0].mixture
    arrays = {
        "log_weights": mixture.log_weights,
        "means": mixture.means,
        **vars(mixture.covariances),
        "motion": np.array(motion),
    }
    return {f"mixture.{name}": np.asarray(a, dtype=np.float64) for name, a in arrays.items()}


def pack_solver(
    program: SolverProgram,
    step: np.ndarray,
    forests: np.ndarray,
    inputs: Sequence[StepInputs],
    form: FormArrays,
    conditional: bool,
) -> SolverArrays:
    """Return the solver and the views of the steps.

    ``step`` (E,) is the step model of each evaluation, ``forests`` (S + 1,) where the forests of
    each step model begin, and their end; ``conditional``: there are conditions, known or not.
    """
    views, columns = inputs[0].views, inputs[0].to_columns
    return SolverArrays(
        read_only(program.scale, np.float64),
        read_only(program.terms, np.int64),
        read_only(program.term, np.int64),
        read_only(program.weight, np.float64),
        read_only(program.slot, np.int64),
        read_only(step, np.int64),
        read_only(forests, np.int64),
        "latent" in views,
        read_only(np.zeros((0, 0)) if columns is None else columns.T, np.float64),
        read_only([s.silent and not conditional for s in inputs], np.uint8),
        "end_point" in views and form.kind != NONE,
        "components" in views and form.n_components > 1,
    )
