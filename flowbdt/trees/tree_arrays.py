"""Boosters as plain arrays: every tree filled up to a complete one of the same depth.

`check_trees` knows how XGBoost stores a tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError
from . import ubjson
from .check_trees import CheckedBooster, Nodes, checked_booster

DEEPEST = 12
"""Deeper trees would fill too much memory as complete ones."""


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees of one depth D that add to the same W outputs.

    Nodes are numbered from 1, the children of k are 2k and 2k + 1; a value goes to the second if
    it is not below the threshold, NaN if ``missing`` is 1. Number 0 is not used. Where a tree
    ends early all leaves below have the value of its leaf.
    """

    feature: np.ndarray  # (T, 2^D) uint16, the input that a node looks at
    threshold: np.ndarray  # (T, 2^D) float32
    missing: np.ndarray  # (T, 2^D) uint8
    leaves: np.ndarray  # (T, 2^D, W) float32
    base: np.ndarray  # (W,) float32, what the sum over the trees begins with
    first: int  # of the outputs that it adds to

    @property
    def depth(self) -> int:
        """Decisions from the root to a leaf."""
        return int(self.feature.shape[1]).bit_length() - 1

    @property
    def width(self) -> int:
        """Number of outputs."""
        return len(self.base)


def forests(content: bytes | CheckedBooster) -> tuple[list[Forest], int]:
    """Return the forests of a step model or classifier as it is stored, and how many inputs it has.

    Raises ConfigError for what is not supported (other boosters than 'gbtree', categories, trees of
    more than `DEEPEST` decisions, more than 65,536 inputs), FormatError if it is not whole.
    """
    result: list[Forest] = []
    for one in ubjson.unpacked(content) if isinstance(content, bytes) else [content]:
        booster = read_booster(one)
        result += _forests(booster, sum(forest.width for forest in result))
    return result, booster.n_inputs


def _forests(booster: StoredBooster, first: int) -> list[Forest]:
    """Return one forest, or one for every output if its trees have one output each.

    ``first`` is the number of the booster's first output.
    """
    trees, base = booster.trees, booster.base
    if any(tree.leaves.shape[1] > 1 for tree in trees):
        return [_complete(trees, base, first)]
    return [
        _complete([trees[k] for k in np.flatnonzero(booster.outputs == i)], base[[i]], first + i)
        for i in range(len(base))
    ]


def leaf_forest(content: bytes, numbers: np.ndarray) -> Forest:
    """Return the first tree of a booster, whose output is the place of its leaf in ``numbers``.

    ``numbers`` are the leaves of the stored tree, rising. Raises as `forests`.
    """
    tree = read_booster(content).trees[0]
    value = np.searchsorted(numbers, np.arange(len(tree.left)))
    leaves = np.arange(len(numbers) + 1, dtype=np.float32)[:, None]
    return _complete([replace(tree, value=value, leaves=leaves)], np.zeros(1, np.float32), 0)


class StoredBooster(NamedTuple):
    """A booster: its trees, and the output that each adds to if not to all."""

    trees: list[Tree]
    outputs: np.ndarray
    base: np.ndarray
    n_inputs: int


def read_booster(content: bytes | CheckedBooster) -> StoredBooster:
    """Return a booster from UBJSON. Raises ConfigError and FormatError as `forests`."""
    booster = checked_booster(content) if isinstance(content, bytes) else content
    if booster.name != "gbtree" or booster.n_inputs > 2**16:
        raise ConfigError("only XGBoost's 'gbtree' with up to 65,536 inputs can be compiled")
    base = booster.base
    if booster.objective == "binary:logistic":  # the margin of a probability
        base = (-np.log((np.float32(1.0) / base - np.float32(1.0)).astype(np.float64))).astype(
            np.float32
        )
    trees = [] if booster.nodes is None else list(_trees(booster.nodes))
    return StoredBooster(trees, np.array(booster.outputs), base, booster.n_inputs)


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree as XGBoost stores it; ``value`` is the row of ``leaves`` that a leaf has."""

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    missing: np.ndarray
    value: np.ndarray
    leaves: np.ndarray


def _trees(nodes: Nodes) -> Iterator[Tree]:
    """Yield the trees, cut from the arrays of all nodes."""
    stop = 0
    for size, vectors in zip(nodes.sizes, nodes.vectors, strict=True):
        rows = slice(stop, stop := stop + int(size))
        value, leaves = np.arange(size), nodes.condition[rows, None]
        if vectors is not None:
            value, leaves = np.maximum(nodes.right[rows], 0), vectors
        yield Tree(
            nodes.left[rows],
            nodes.right[rows],
            nodes.feature[rows],
            nodes.condition[rows],
            1 - nodes.default_left[rows],
            value,
            leaves,
        )


def _complete(trees: list[Tree], base: np.ndarray, first: int) -> Forest:
    """Fill trees up to complete ones of the depth of the deepest."""
    if not trees:
        none = np.zeros((0, 1), np.float32)
        no_leaves = np.zeros((0, 1, len(base)), np.float32)
        return Forest(none.astype("u2"), none, none.astype("u1"), no_leaves, base, first)
    left, right, value = _joined(trees)
    feature, threshold, missing, leaves = (
        np.concatenate([getattr(tree, name) for tree in trees])
        for name in ("feature", "threshold", "missing", "leaves")
    )
    levels = [np.cumsum([0, *(len(tree.left) for tree in trees[:-1])])[:, None]]
    while (left[levels[-1]] >= 0).any():
        if len(levels) > DEEPEST:
            raise ConfigError(f"trees of more than {DEEPEST} decisions cannot be compiled")
        nodes = levels[-1]
        inner = left[nodes] >= 0
        children = [np.where(inner, side[nodes], nodes) for side in (left, right)]
        levels.append(np.stack(children, axis=2).reshape(len(trees), -1))
    bottom = levels.pop()
    nodes = np.hstack([np.zeros((len(trees), 1), dtype=np.int64), *levels])
    used = left[nodes] >= 0
    used[:, 0] = False
    return Forest(
        np.where(used, feature[nodes], 0).astype(np.uint16),
        np.where(used, threshold[nodes], np.float32(np.inf)),
        np.where(used, missing[nodes], 0).astype(np.uint8),
        leaves[value[bottom]].astype(np.float32),
        base,
        first,
    )


def _joined(trees: list[Tree]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return children and leaf values of all trees, numbered through."""
    left, right, value, n_nodes, n_leaves = [], [], [], 0, 0
    for tree in trees:
        inner = tree.left >= 0
        left.append(np.where(inner, tree.left + n_nodes, -1))
        right.append(np.where(inner, tree.right + n_nodes, -1))
        value.append(tree.value + n_leaves)
        n_nodes, n_leaves = n_nodes + len(tree.left), n_leaves + len(tree.leaves)
    return tuple(np.concatenate(each).astype(np.int64) for each in (left, right, value))  # type: ignore[return-value]
