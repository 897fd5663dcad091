"""Boosters as tree-ensemble operators of ONNX, with XGBoost's comparisons and sums.

Values are compared in float32, and trees are added in float32 in their order, so that on one
thread a sum has the bits that XGBoost gives it. What sums begin with is therefore a tree of its
own, the first one, and not the operator's base values, which are added last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...trees.tree_arrays import Forest
from .onnx_graph import TREES, Graph, Tensor


@dataclass
class _Nodes:
    """The attributes of a tree-ensemble operator, one part for each forest."""

    tree: list[np.ndarray] = field(default_factory=list)
    number: list[np.ndarray] = field(default_factory=list)
    feature: list[np.ndarray] = field(default_factory=list)
    threshold: list[np.ndarray] = field(default_factory=list)
    missing: list[np.ndarray] = field(default_factory=list)
    yes: list[np.ndarray] = field(default_factory=list)
    no: list[np.ndarray] = field(default_factory=list)
    leaf: list[np.ndarray] = field(default_factory=list)
    target_tree: list[np.ndarray] = field(default_factory=list)
    target_node: list[np.ndarray] = field(default_factory=list)
    target: list[np.ndarray] = field(default_factory=list)
    weight: list[np.ndarray] = field(default_factory=list)

    def joined(self, name: str) -> np.ndarray:
        """Return one attribute of all forests."""
        return np.concatenate(getattr(self, name))


def tree_sum(graph: Graph, forests: Sequence[Forest], inputs: Tensor, n_outputs: int) -> Tensor:
    """Return the sum of all trees (n, n_outputs), float32, of inputs (n, p), float32."""
    nodes, n_trees = _Nodes(), 1
    _add_base(nodes, forests)
    for forest in forests:
        _add_forest(nodes, forest, n_trees)
        n_trees += len(forest.feature)
    leaf = nodes.joined("leaf")
    return graph.node(
        "TreeEnsembleRegressor",
        inputs,
        domain=TREES,
        n_targets=n_outputs,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=nodes.joined("tree").tolist(),
        nodes_nodeids=nodes.joined("number").tolist(),
        nodes_featureids=nodes.joined("feature").tolist(),
        nodes_values=nodes.joined("threshold").tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LT").tolist(),
        nodes_missing_value_tracks_true=nodes.joined("missing").tolist(),
        nodes_truenodeids=nodes.joined("yes").tolist(),
        nodes_falsenodeids=nodes.joined("no").tolist(),
        target_treeids=nodes.joined("target_tree").tolist(),
        target_nodeids=nodes.joined("target_node").tolist(),
        target_ids=nodes.joined("target").tolist(),
        target_weights=nodes.joined("weight").tolist(),
    )


def _add_base(nodes: _Nodes, forests: Sequence[Forest]) -> None:
    """Add a tree that is a single leaf, with what the sums begin with."""
    zero = np.zeros(1, dtype=np.int64)
    for name in ("tree", "number", "feature", "missing", "yes", "no"):
        getattr(nodes, name).append(zero)
    nodes.threshold.append(np.zeros(1, dtype=np.float32))
    nodes.leaf.append(np.ones(1, dtype=bool))
    target = np.concatenate([forest.first + np.arange(forest.width) for forest in forests])
    nodes.target_tree.append(np.zeros(len(target), dtype=np.int64))
    nodes.target_node.append(np.zeros(len(target), dtype=np.int64))
    nodes.target.append(target)
    nodes.weight.append(np.concatenate([forest.base for forest in forests]))


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
    nodes.tree.append(tree + first_tree)
    nodes.number.append(names[tree, number])
    nodes.feature.append(np.where(leaf, 0, forest.feature[tree, at]).astype(np.int64))
    nodes.threshold.append(np.where(leaf, np.float32(0), forest.threshold[tree, at]))
    # "tracks true": NaN goes where the comparison would hold, to the first child
    nodes.missing.append(np.where(leaf, 0, 1 - forest.missing[tree, at].astype(np.int64)))
    child = np.where(leaf, 0, 2 * number)
    nodes.yes.append(np.where(leaf, 0, names[tree, child]))
    nodes.no.append(np.where(leaf, 0, names[tree, child + 1]))
    nodes.leaf.append(leaf)
    nodes.target_tree.append(np.repeat(tree[leaf] + first_tree, forest.width))
    nodes.target_node.append(np.repeat(names[tree, number][leaf], forest.width))
    nodes.target.append(np.tile(forest.first + np.arange(forest.width), int(leaf.sum())))
    nodes.weight.append(_vectors(forest, tree[leaf], number[leaf]).ravel())


def _vectors(forest: Forest, tree: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return the vectors (k, W) of leaves, from their numbers in complete trees."""
    level = np.frexp(number.astype(np.float64))[1] - 1  # exact: numbers are below 2^13
    return np.asarray(forest.leaves[tree, (number - (1 << level)) << (forest.depth - level)])
