"""Stored boosters, checked before XGBoost or compiled loops see a byte.

XGBoost trusts what it loads: a child out of range or a cycle ends or hangs the process. So all of a
booster is read here first, in the one form in which XGBoost writes it, and what does not fit is
refused.
"""

from __future__ import annotations

import functools
import itertools
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import FormatError
from . import ubjson

KNOWN = (3, 2)
"""The XGBoost whose files are known to the last entry; newer ones may have more."""

DEEPEST = 512
"""Decisions from the root to a leaf: XGBoost follows them by recursion here and there."""

MOST_INPUTS = 2**20
"""XGBoost reserves memory for every input."""

OBJECTIVES = {
    "reg:squarederror": ("reg_loss_param", "scale_pos_weight"),
    "binary:logistic": ("reg_loss_param", "scale_pos_weight"),
    "multi:softprob": ("softmax_multiclass_param", "num_class"),
}
"""Objectives with the entry that has their parameter, and its name."""

NODES = {
    "left_children": ">i4",
    "right_children": ">i4",
    "parents": ">i4",
    "split_indices": ">i4",
    "split_conditions": ">f4",
    "split_type": ">u1",
    "default_left": ">u1",
    "loss_changes": ">f4",
    "sum_hessian": ">f4",
}
"""Arrays with one entry for each node, and their types as stored."""

CATEGORIES = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
"""Arrays that are empty, as no column reaches the trees as categories."""

TREE = frozenset({"base_weights", "id", "tree_param", *NODES, *CATEGORIES})
VECTOR_TREE = TREE | {"leaf_weights"}

ARRAYS = {
    **{name: np.dtype(kind) for name, kind in NODES.items()},
    **dict.fromkeys(("base_weights", "leaf_weights"), np.dtype(">f4")),
    **dict(zip(CATEGORIES, map(np.dtype, (">i4", ">i4", ">i8", ">i8")), strict=True)),
}
MARKS = {">f4": b"d", ">i4": b"l", "|u1": b"U", ">i8": b"L"}


def _text(text: str) -> bytes:
    """Return text as UBJSON has it as the name of an entry."""
    return b"L" + len(text).to_bytes(8, "big") + text.encode()


HEADS = {
    name: _text(name) + b"[$" + MARKS[kind.str] + b"#L" for name, kind in sorted(ARRAYS.items())
}
"""What stands before the length of each array."""

ROOTS = (-1, 2**31 - 1)
"""What stands for the parent of a root."""

DAMAGED = "it is damaged or was made to do harm: train it again, or copy the file again"


@dataclass(frozen=True, eq=False)
class Nodes:
    """All nodes of all trees, one after the other; numbers of nodes are those within their tree.

    The left child of a leaf is -1. The right one is the number of its vector in ``vectors``; where
    a tree has none, the value of the leaf is its ``condition``.
    """

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    condition: np.ndarray  # float32
    default_left: np.ndarray
    sizes: np.ndarray  # nodes of each tree
    vectors: list[np.ndarray | None]  # (leaves, width) of each tree


@dataclass(frozen=True, eq=False)
class CheckedBooster:
    """A booster whose entries fit together."""

    name: str  # "gbtree", "dart" or "gblinear"
    objective: str
    n_inputs: int
    n_outputs: int
    base: np.ndarray  # (n_outputs,), float32, base score of each output
    attributes: dict[str, str]
    outputs: list[int]  # of each tree: the output that it adds to, if not to all
    nodes: Nodes | None  # None without trees


def checked_booster(content: bytes) -> CheckedBooster:
    """Return a booster from UBJSON. Raises FormatError that names the entry that does not fit."""
    parsed = ubjson.read_ubjson(content, {"trees": _read_trees})
    stored = _keys(parsed, ("learner", "version"), "booster")
    made_by = stored["version"]
    _require(
        isinstance(made_by, list) and len(made_by) == 3 and all(map(_is_count, made_by)), "version"
    )
    return _learner(
        stored["learner"], tuple(made_by[:2]) > KNOWN and tuple(made_by[:2]) <= _installed()
    )


@functools.cache
def _installed() -> tuple[int, ...]:
    """Return the version of XGBoost, major and minor."""
    from importlib.metadata import version  # needed for files of an XGBoost that is not known

    return tuple(int(number) for number in re.findall(r"\d+", version("xgboost"))[:2])


def _learner(stored: Any, newer: bool) -> CheckedBooster:
    names = ("attributes", "feature_names", "feature_types", "gradient_booster")
    learner = _keys(stored, (*names, "learner_model_param", "objective"), "learner", newer)
    for name in ("feature_names", "feature_types"):
        _require(learner[name] == [], name)
    attributes = learner["attributes"]
    _require(isinstance(attributes, dict), "attributes")
    _require(all(isinstance(value, str) for value in attributes.values()), "attributes")
    shape = ("base_score", "boost_from_average", "num_class", "num_feature", "num_target")
    param = _keys(learner["learner_model_param"], shape, "learner_model_param", newer)
    n_inputs, n_outputs = _count(param, "num_feature"), _count(param, "num_target")
    _require(0 < n_inputs <= MOST_INPUTS, "num_feature")
    _require(n_outputs > 0, "num_target")
    _require(_count(param, "boost_from_average") <= 1, "boost_from_average")
    objective = learner["objective"]
    _require(isinstance(objective, dict) and objective.get("name") in OBJECTIVES, "objective")
    entry, number = OBJECTIVES[objective["name"]]
    _keys(objective, ("name", entry), "objective", newer)
    loss = _keys(objective[entry], (number,), entry, newer)
    _require(np.isfinite(_numbers(loss[number], number)).all(), "objective")
    n_classes = _count(param, "num_class")
    if number == "num_class":
        _require(n_outputs == 1 and 1 < n_classes == _count(loss, number), "num_class")
        n_outputs = n_classes
    else:
        _require(n_classes == 0, "num_class")
    base = _numbers(param["base_score"], "base_score")
    _require(len(base) == n_outputs and np.isfinite(base).all(), "base_score")
    if objective["name"] == "binary:logistic":
        _require(((base > 0) & (base < 1)).all(), "base_score")
    booster = learner["gradient_booster"]
    _require(isinstance(booster, dict), "gradient_booster")
    name, outputs = booster.get("name"), list[int]()
    nodes: Nodes | None = None
    if name == "gbtree":
        outputs, nodes = _gbtree(booster, n_inputs, n_outputs, newer)
    elif name == "dart":
        _keys(booster, ("gbtree", "name", "weight_drop"), "gradient_booster", newer)
        outputs, nodes = _gbtree(booster["gbtree"], n_inputs, n_outputs, newer)
        dropped = booster["weight_drop"]
        _require(isinstance(dropped, list) and len(dropped) == len(outputs), "weight_drop")
        _require(all(type(w) is float and np.isfinite(w) for w in dropped), "weight_drop")
    elif name == "gblinear":
        _keys(booster, ("model", "name"), "gradient_booster", newer)
        model = _keys(booster["model"], ("boosted_rounds", "weights"), "model", newer)
        _require(_is_count(model["boosted_rounds"]), "boosted_rounds")
        _require(_is_array(model["weights"], ">f4", (n_inputs + 1) * n_outputs), "weights")
        _require(np.isfinite(model["weights"]).all(), "weights")
    else:
        raise _refused("gradient_booster.name")
    kind = objective["name"]
    return CheckedBooster(name, kind, n_inputs, n_outputs, base, attributes, outputs, nodes)


def _gbtree(
    booster: Any, n_inputs: int, n_outputs: int, newer: bool
) -> tuple[list[int], Nodes | None]:
    """Return the output that each tree of a checked ensemble adds to, and all their nodes."""
    _keys(booster, ("model", "name"), "gradient_booster", newer)
    names = ("cats", "gbtree_model_param", "iteration_indptr", "tree_info", "trees")
    model = _keys(booster["model"], names, "model", newer)
    _require(booster["name"] == "gbtree", "gradient_booster.name")
    cats = _keys(model["cats"], ("enc", "feature_segments", "sorted_idx"), "cats", newer)
    for value in cats.values():
        _require(isinstance(value, (list, np.ndarray)) and len(value) == 0, "cats")
    sizes = ("num_parallel_tree", "num_trees")
    param = _keys(model["gbtree_model_param"], sizes, "gbtree_model_param", newer)
    trees, outputs, rounds = model["trees"], model["tree_info"], model["iteration_indptr"]
    for name, values in (("trees", trees), ("tree_info", outputs), ("iteration_indptr", rounds)):
        _require(isinstance(values, list), name)
    _require(_count(param, "num_parallel_tree") > 0, "num_parallel_tree")
    _require(_count(param, "num_trees") == len(trees), "num_trees")
    _require(len(outputs) == len(trees) and all(map(_is_count, outputs)), "tree_info")
    _require(max(outputs, default=0) < n_outputs, "tree_info")
    _require(all(map(_is_count, rounds)) and rounds[:1] == [0], "iteration_indptr")
    rising = all(a < b for a, b in itertools.pairwise(rounds))
    _require(rising and rounds[-1] == len(trees), "iteration_indptr")
    for number, tree in enumerate(trees):
        _check_shapes(tree, number, n_inputs, n_outputs, newer)
    return outputs, _checked_nodes(trees, n_inputs) if trees else None


def _check_shapes(tree: Any, number: int, n_inputs: int, n_outputs: int, newer: bool) -> None:
    """Check the entries of one tree: types, and lengths against each other."""
    if isinstance(tree, _LikeFirst):
        return
    vector = isinstance(tree, dict) and "leaf_weights" in tree
    _keys(tree, VECTOR_TREE if vector else TREE, "tree", newer)
    sizes = ("num_deleted", "num_feature", "num_nodes", "size_leaf_vector")
    param = _keys(tree["tree_param"], sizes, "tree_param", newer)
    n, width = _count(param, "num_nodes"), _count(param, "size_leaf_vector")
    _require(n > 0 and _count(param, "num_deleted") == 0, "num_nodes")
    _require(_count(param, "num_feature") == n_inputs, "num_feature of a tree")
    _require(width == n_outputs > 1 if vector else width <= 1, "size_leaf_vector")
    _require(type(tree["id"]) is int and tree["id"] == number, "id of a tree")
    for name, kind in NODES.items():
        if not _is_array(tree[name], kind, n):
            raise _refused(name)
    for name in CATEGORIES:
        _require(_is_array(tree[name], None, 0), name)
    split_widths = range(1, max(width, 1) + 1)
    # of the outputs that decided on splits: all, or some of them
    _require(
        any(_is_array(tree["base_weights"], ">f4", n * k) for k in split_widths), "base_weights"
    )
    if vector:
        _require(_is_array(tree["leaf_weights"], ">f4", (n + 1) // 2 * width), "leaf_weights")


class _LikeFirst(dict[str, Any]):
    """A tree with the entries of the first tree of its booster, in the same order."""


def _read_trees(reader: ubjson.Reader) -> Any:
    """Read trees, all but the first by comparing with the bytes that must come next.

    That is several times as fast as to read entry by entry, which is done where they differ.
    """
    if reader.content[reader.at : reader.at + 3] != b"[#L":
        return reader.value(reader.mark())
    reader.at += 2
    trees: list[Any] = []
    entries: dict[int, list[tuple[bytes, str, int]]] = {}
    for number in range(reader.length()):
        tree = _read_like(reader, trees[0], number, entries) if trees else None
        trees.append(reader.value(reader.mark()) if tree is None else tree)
    return trees


def _read_like(
    reader: ubjson.Reader, first: Any, number: int, entries: dict[int, list[tuple[bytes, str, int]]]
) -> _LikeFirst | None:
    """Return the next tree; None, and stay there, if it is not like the first."""
    if number > 32767:  # numbers of two bytes end here
        return None
    content, at, tree = reader.content, reader.at, _LikeFirst()
    try:
        size = reader.long(content, at + 1 + len(HEADS["base_weights"]))[0]
        if size not in entries:
            entries[size] = list(_entries(size, first))
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, struct.error):
        return None
    for before, name, length in entries[size]:
        expected = before
        if name == "id":
            expected += b"i" + bytes([number]) if number < 127 else b"I" + number.to_bytes(2, "big")
        if not content.startswith(expected, at):
            return None
        at += len(expected)
        if length:
            tree[name] = np.frombuffer(content, ARRAYS[name], length, at)
            at += length * ARRAYS[name].itemsize
    reader.at = at
    return tree


def _entries(size: int, first: Mapping[str, Any]) -> Iterator[tuple[bytes, str, int]]:
    """Yield the entries of a tree like the first: what stands before, name, length of an array.

    ``size`` : length of ``base_weights``
    """
    width = int(first["tree_param"]["size_leaf_vector"])
    n = size // (len(first["base_weights"]) // len(first["left_children"]))
    sizes = {"base_weights": size, "leaf_weights": (n + 1) // 2 * width}
    before = b"{"
    for name, head in HEADS.items():
        if name == "leaf_weights":
            yield _text("id"), "id", 0
            if name not in first:
                continue
        size = 0 if name in CATEGORIES else sizes.get(name, n)
        yield before + head + size.to_bytes(8, "big"), name, size
        before = b""
    param = {**first["tree_param"], "num_nodes": str(n)}
    texts = b"".join(_text(name) + b"S" + _text(text) for name, text in param.items())
    yield _text("tree_param") + b"{" + texts + b"}}", "tree_param", 0


def _checked_nodes(trees: list[dict[str, Any]], n_inputs: int) -> Nodes:
    """Check all nodes together: one way from the root to each of them, inputs, finite numbers."""

    def joined(name: str, kind: Any) -> np.ndarray:
        return np.concatenate([tree[name] for tree in trees], dtype=kind)

    left, right, parents, feature = (
        joined(name, np.int64)
        for name in ("left_children", "right_children", "parents", "split_indices")
    )
    sizes = np.array([len(tree["left_children"]) for tree in trees])
    roots = np.cumsum(sizes) - sizes
    first, size = np.repeat(roots, sizes), np.repeat(sizes, sizes)
    node, inner = np.arange(len(left)) - first, left != -1
    above = np.flatnonzero(inner)
    # children come after their parents, so that no way leads back
    for child in (left[above], right[above]):
        _require(((node[above] < child) & (child < size[above])).all(), "children")
    vectors = [
        tree["leaf_weights"].reshape((len(tree["left_children"]) + 1) // 2, -1)
        if "leaf_weights" in tree
        else None
        for tree in trees
    ]
    # the second child of a leaf of vectors is the number of its vector
    vector = np.repeat([one is not None for one in vectors], sizes)
    leaf = np.where(vector, (right >= 0) & (right <= size // 2), right == -1)
    _require((leaf | inner).all(), "leaves")
    below = np.concatenate([left[above] + first[above], right[above] + first[above]])
    _require(np.array_equal(np.bincount(below, minlength=len(left)), node > 0), "children")
    _require((parents[below].reshape(2, -1) == node[above]).all(), "parents")
    _require(((parents[roots] == ROOTS[0]) | (parents[roots] == ROOTS[1])).all(), "parents")
    _require(((feature >= 0) & (feature < n_inputs)).all(), "split_indices")
    level = roots
    for _ in range(DEEPEST):
        level = level[inner[level]]
        level = np.concatenate([left[level] + first[level], right[level] + first[level]])
        if not len(level):
            break
    _require(not len(level), f"depth of a tree (over {DEEPEST})")
    condition, default_left = joined("split_conditions", np.float32), joined("default_left", "u1")
    _require(default_left.max() <= 1, "default_left")
    _require(not joined("split_type", "u1").any(), "split_type")
    for array in (condition, joined("base_weights", np.float32)):
        _require(np.isfinite(array).all(), "split_conditions and base_weights")
    _require(all(one is None or np.isfinite(one).all() for one in vectors), "leaf_weights")
    return Nodes(left, right, feature, condition, default_left, sizes, vectors)


def _keys(stored: Any, names: Collection[str], where: str, newer: bool = False) -> dict[str, Any]:
    """Return a mapping that has these keys and, unless it is of a newer XGBoost, no others."""
    if not isinstance(stored, dict):
        raise _refused(where)
    missing, more = set(names) - stored.keys(), stored.keys() - set(names)
    if missing or (more and not newer):
        what = f"misses {sorted(missing)}" if missing else f"has unknown entries {sorted(more)}"
        raise FormatError(f"the {where} of a stored XGBoost model {what[:200]}; {DAMAGED}")
    return stored


def _is_array(value: Any, kind: str | None, size: int) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.shape == (size,)
        and (kind is None or value.dtype == kind)
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _count(stored: Mapping[str, Any], name: str) -> int:
    """Return a whole number of at least 0 that XGBoost stores as text."""
    text = stored[name]
    _require(isinstance(text, str) and re.fullmatch(r"[0-9]{1,10}", text), name)
    return int(text)


def _numbers(text: Any, name: str) -> np.ndarray:
    """Return numbers (n,), float32, from text such as ``[1E0,2.5E-1]``."""
    _require(isinstance(text, str), name)
    try:
        return np.array(text.removeprefix("[").removesuffix("]").split(","), dtype=np.float32)
    except ValueError:
        raise _refused(name) from None


def _require(good: Any, name: str) -> None:
    if not good:
        raise _refused(name)


def _refused(name: str) -> FormatError:
    return FormatError(f"the {name} of a stored XGBoost model is not what it must be; {DAMAGED}")
