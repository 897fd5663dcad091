"""From noise to latent points in a graph: solver, closed form and trees, every step written out.

Closed form: matrix products and a softmax, in double. A full covariance is whitened by its Cholesky
factor, which is triangular with the conditions last. If only some conditions are known, the inner
variables w of the point stay what they are, and those of the conditions become Q w: with L the
factor of the conditions at a known point, S = L L^T, and E the selection of the known ones,
``Q = L^T E (E^T S E)^-1 E^T L``, a projection. So one graph serves all patterns of known
conditions, with a table of the projections and of the densities' constants.

Trees: values are compared in float32, and trees are added in float32 in their order, so that on
one thread a sum has the bits that XGBoost gives it. The base of the sums is therefore a tree of
a separate one, the first, and not the operator's base values, which are added last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from ...errors import ConfigError
from ...flow.closed_form.base import PreparedNone
from ...flow.closed_form.conditioning import FullKernel, Kernel, LowRankKernel
from ...flow.closed_form.mixture_on_path import PreparedMixture
from ...flow.step_inputs import StepInputs
from ...trees.tree_arrays import Forest
from ..packed.pack_steps import SolverProgram
from .onnx_graph import TREES, Graph, Tensor

MOST_UNKNOWN = 5
"""With more conditions than this there would be too many patterns of known ones for a table."""


def takes_unknown(prepared: object, n_cond: int) -> bool:
    """Return True if conditions may be unknown in the graph of this closed form."""
    if isinstance(prepared, PreparedNone) or not n_cond:
        return True
    full = isinstance(_kernel(prepared, n_cond), FullKernel)
    return full and n_cond <= MOST_UNKNOWN


def _kernel(prepared: object, n_cond: int) -> Kernel:
    if not isinstance(prepared, PreparedMixture):
        raise ConfigError(
            f"a closed form of the kind {type(prepared).__name__} cannot be exported; train with"
            " preconditioner 'none', 'gaussian' or 'mixture'"
        )
    return prepared.kernel(np.ones(n_cond, dtype=bool))


class GraphClosedForm:
    """The closed form of every step, for points and the conditions of all events.

    ``first`` is the closed form of any step, which has the centres of the conditions; ``cond``
    (n, c), float64, is NaN where unknown, and None without conditions.
    """

    def __init__(self, graph: Graph, first: object, cond: Tensor | None, n_cond: int) -> None:
        self._graph, self._n_cond = graph, n_cond
        self._none = isinstance(first, PreparedNone)
        self._known: Tensor | None = None
        self._pattern: Tensor | None = None
        if self._none or cond is None:
            return
        # what is filled in falls out by the projection; the centre keeps it small until then
        missing, centre = cond.is_nan(), _kernel(first, n_cond).centre[-n_cond:]
        self._known = graph.where(missing, centre[None], cond)
        if takes_unknown(first, n_cond):
            places = 1 << np.arange(n_cond, dtype=np.int64)
            self._pattern = (missing.cast(np.int64) * places[None]).sum(axis=1)

    def at(self, step: StepInputs, x: Tensor) -> tuple[Tensor | None, ...]:
        """Return velocity and end point (n, m) and weights (n, K) at the points x (n, m)."""
        if self._none:
            return None, None, None
        prepared = step.prepared
        kernel = _kernel(prepared, self._n_cond)
        assert isinstance(prepared, PreparedMixture)
        turn = prepared.turn()
        assert turn is not None  # only where events start from source events
        known = x if self._known is None else self._graph.join([x, self._known])
        end, weights = self._end_point(prepared, kernel, known - kernel.centre[None])
        return end * turn[0] + x * turn[1], end, weights

    def _end_point(
        self, prepared: PreparedMixture, kernel: Kernel, known: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return E[x1 | known] (n, m) and the weights; ``known`` is centred."""
        graph, k = self._graph, len(kernel.constant)
        m, size = len(kernel.centre) - self._n_cond, kernel.stack.shape[1] // k
        inner = graph.node("Gemm", known, kernel.stack[:-1], kernel.stack[-1])
        inner, constant = (inner.reshape(-1, size, k), graph.constant(kernel.constant[None]))
        if self._pattern is not None:
            inner = self._projected(prepared, kernel, inner, m)
            constant = self._table([p.constant for p in self._patterns(prepared)])
        weights = None
        if k > 1:
            joint = constant - self._square(kernel, inner, known) * 0.5
            weights = graph.node("Softmax", joint, axis=1)
            inner = inner * weights.reshape(-1, 1, k)
        base, gain = kernel.base[:, m : 2 * m], kernel.gain[:, m : 2 * m]
        share = base if weights is None else weights @ base
        end = inner.reshape(-1, size * k) @ gain + share
        if isinstance(kernel, LowRankKernel):
            ratio = kernel.ratio[:, m : 2 * m]
            end = end + known.take(range(m)) * (ratio if weights is None else weights @ ratio)
        return end, weights

    def _square(self, kernel: Kernel, inner: Tensor, known: Tensor) -> Tensor:
        """Return the squared distance of every component, but for a constant (n, K)."""
        square = inner.sum_of_squares(axis=1)
        if isinstance(kernel, LowRankKernel):
            return (known * known) @ kernel.quadratic + known @ kernel.linear - square
        return square

    def _patterns(self, prepared: PreparedMixture) -> list[Kernel]:
        """Return the kernel of each pattern; bit j of its number: condition j is unknown."""
        places = np.arange(self._n_cond)
        return [prepared.kernel((p >> places) & 1 == 0) for p in range(1 << self._n_cond)]

    def _table(self, rows: Sequence[np.ndarray]) -> Tensor:
        """Return the row that belongs to the pattern of each event."""
        assert self._pattern is not None
        return self._graph.node("Gather", np.stack(rows), self._pattern, axis=0)

    def _projected(
        self, prepared: PreparedMixture, kernel: Kernel, inner: Tensor, m: int
    ) -> Tensor:
        """Return the inner variables (n, I, K) with those of the conditions projected."""
        c, k = self._n_cond, len(kernel.constant)
        table = projections(kernel, m, c)
        inner_cond = self._graph.node("Gather", inner, np.arange(m, m + c), axis=1)
        turned = (self._table(list(table)) * inner_cond.reshape(-1, 1, c, k)).sum(axis=2)
        points = self._graph.node("Gather", inner, np.arange(m), axis=1)
        return self._graph.join([points, turned])


def projections(kernel: Kernel, m: int, n_cond: int) -> np.ndarray:
    """Return Q of every pattern of unknown conditions, (2^c, c, c, K). See the module."""
    k = len(kernel.constant)
    whole = kernel.stack[:-1].reshape(m + n_cond, -1, k)  # (input, inner, component)
    factor = np.linalg.inv(whole[m:, m:].transpose(2, 1, 0))
    cov = factor @ factor.swapaxes(1, 2)
    result = np.zeros((1 << n_cond, n_cond, n_cond, k))
    for pattern in range(1 << n_cond):
        known = np.flatnonzero((pattern >> np.arange(n_cond)) & 1 == 0)
        if pattern == 0:
            result[0] = np.eye(n_cond)[:, :, None]
        elif len(known):
            rows = factor[:, known]
            inverse = np.linalg.inv(cov[:, known[:, None], known])
            result[pattern] = (rows.swapaxes(1, 2) @ inverse @ rows).transpose(1, 2, 0)
    return result


NODE_NUMBERS = (
    *("nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_truenodeids"),
    *("nodes_falsenodeids", "nodes_missing_value_tracks_true"),
)

_Nodes = dict[str, list[np.ndarray]]
"""Attributes of a tree-ensemble operator, one array for each forest."""


def tree_sum(graph: Graph, forests: Sequence[Forest], inputs: Tensor, n_outputs: int) -> Tensor:
    """Return the sum of all trees (n, n_outputs), float32, of inputs (n, p), float32."""
    nodes, n_trees = defaultdict[str, list[np.ndarray]](list), 1
    _add_base(nodes, forests)
    for forest in forests:
        _add_forest(nodes, forest, n_trees)
        n_trees += len(forest.feature)
    joined = {name: np.concatenate(arrays).tolist() for name, arrays in nodes.items()}
    return graph.node(
        "TreeEnsembleRegressor",
        inputs,
        domain=TREES,
        n_targets=n_outputs,
        aggregate_function="SUM",
        post_transform="NONE",
        **joined,
    )


def _add_base(nodes: _Nodes, forests: Sequence[Forest]) -> None:
    """Add a tree that is a single leaf, with what the sums begin with."""
    target = np.concatenate([forest.first + np.arange(forest.width) for forest in forests])
    for name in NODE_NUMBERS:
        nodes[name].append(np.zeros(1, dtype=np.int64))
    for name in ("target_treeids", "target_nodeids"):
        nodes[name].append(np.zeros(len(target), dtype=np.int64))
    nodes["nodes_values"].append(np.zeros(1, dtype=np.float32))
    nodes["nodes_modes"].append(np.array(["LEAF"]))
    nodes["target_ids"].append(target)
    nodes["target_weights"].append(np.concatenate([forest.base for forest in forests]))


def _add_forest(nodes: _Nodes, forest: Forest, first_tree: int) -> None:
    """Add the trees of a forest. A node of a complete tree that decides nothing is a leaf."""
    n_trees, n_leaves = forest.feature.shape
    if not n_trees:
        return
    split = np.isfinite(forest.threshold)
    split[:, 0] = False
    split = np.hstack([split, np.zeros((n_trees, n_leaves), dtype=bool)])  # numbers 2^D and up
    there = np.zeros_like(split)
    there[:, 1] = True
    for k in range(2, 2 * n_leaves):
        there[:, k] = split[:, k // 2]
    names = np.cumsum(there, axis=1) - 1  # operators want numbers without gaps
    tree, number = np.nonzero(there)
    leaf, at = ~split[tree, number], np.minimum(number, n_leaves - 1)
    nodes["nodes_treeids"].append(tree + first_tree)
    nodes["nodes_nodeids"].append(names[tree, number])
    nodes["nodes_featureids"].append(np.where(leaf, 0, forest.feature[tree, at]).astype(np.int64))
    nodes["nodes_values"].append(np.where(leaf, np.float32(0), forest.threshold[tree, at]))
    # "tracks true": NaN goes where the comparison would hold, to the first child
    nodes["nodes_missing_value_tracks_true"].append(
        np.where(leaf, 0, 1 - forest.missing[tree, at].astype(np.int64))
    )
    child = np.where(leaf, 0, 2 * number)
    nodes["nodes_truenodeids"].append(np.where(leaf, 0, names[tree, child]))
    nodes["nodes_falsenodeids"].append(np.where(leaf, 0, names[tree, child + 1]))
    nodes["nodes_modes"].append(np.where(leaf, "LEAF", "BRANCH_LT"))
    nodes["target_treeids"].append(np.repeat(tree[leaf] + first_tree, forest.width))
    nodes["target_nodeids"].append(np.repeat(names[tree, number][leaf], forest.width))
    nodes["target_ids"].append(np.tile(forest.first + np.arange(forest.width), int(leaf.sum())))
    nodes["target_weights"].append(_vectors(forest, tree[leaf], number[leaf]).ravel())


def _vectors(forest: Forest, tree: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return the vectors (k, W) of leaves, from their numbers in complete trees."""
    level = np.frexp(number.astype(np.float64))[1] - 1  # exact: numbers are below 2^13
    return np.asarray(forest.leaves[tree, (number - (1 << level)) << (forest.depth - level)])


class GraphSteps:
    """The velocities of all step models.

    ``inputs`` (with the closed form) and ``trees`` are called with step numbers; ``cond`` as in
    `GraphClosedForm`.
    """

    def __init__(
        self,
        graph: Graph,
        inputs: Callable[[int], StepInputs],
        trees: Callable[[int], Sequence[Forest]],
        cond: Tensor | None = None,
        n_cond: int = 0,
    ) -> None:
        self._graph, self._inputs, self._trees, self._cond = graph, inputs, trees, cond
        self._form = GraphClosedForm(graph, inputs(0).prepared, cond, n_cond)

    def velocity(self, step: int, x: Tensor) -> Tensor:
        """Return the velocity (n, m) of one step model at the points x (n, m)."""
        inputs, trees = self._inputs(step), self._trees(step)
        closed, end_point, weights = self._form.at(inputs, x)
        silent = inputs.silent and self._cond is None
        views = [x] if "latent" in inputs.views else []  # as `StepInputs`
        if inputs.to_columns is not None:
            views.append(x @ np.ascontiguousarray(inputs.to_columns))
        for name, extra in (("end_point", end_point), ("components", weights)):
            if name in inputs.views and extra is not None:
                views.append(extra * 0.0 if silent else extra)
        if self._cond is not None:
            views.append(self._cond)
        width = max(forest.first + forest.width for forest in trees)
        joined = self._graph.join(views).cast(np.float32)
        sums = tree_sum(self._graph, trees, joined, width).cast(np.float64)
        return sums if closed is None else closed + sums

    def carry(self, program: SolverProgram, step: Sequence[int], noise: Tensor) -> Tensor:
        """Return where the solver carries the noise (n, m) by these step models."""
        x, slots = noise, dict[int, Tensor]()
        for e, number in enumerate(step):
            x = _moved(program, e, x, slots)
            slots[int(program.slot[e])] = self.velocity(number, x)
        return _moved(program, len(step), x, slots)


def _moved(program: SolverProgram, e: int, x: Tensor, slots: dict[int, Tensor]) -> Tensor:
    """Return the point of evaluation ``e``. See `compiled.program.Program`."""
    if program.scale[e] != 1.0:
        x = x * float(program.scale[e])
    for q in range(program.terms[e], program.terms[e + 1]):
        x = x + slots[int(program.term[q])] * float(program.weight[q])
    return x
