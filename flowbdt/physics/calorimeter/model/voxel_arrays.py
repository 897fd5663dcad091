"""All distributions and divisions of a shower model as flat arrays, for the compiled loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ....trees.share_distribution import ConditionalDistribution
from ....trees.tree_arrays import Tree, read_booster
from .energy_division import Split, ancestors, splits
from .layer_plan import KNOWN, KNOWN_SPLITS, LayerPlan

LOCATION, SCALE, BEND, LEAF = 0, 2, 4, 6
"""Columns of `Distributions.trees`: first and one past the last tree of each use; one tree."""

N_BEND, N_KNOTS, ENDS, KNOTS = 7, 8, 9, 10
"""Further columns: numbers of levels and of quantiles per leaf, where the leaves begin."""

NOTHING = -1
"""No segment, no distribution."""


class Distributions(NamedTuple):
    """Distributions, one per row of ``trees``; see `flowbdt.trees.share_distribution`.

    A node has a left child below 0 if it is a leaf; ``value`` is then where its values begin in
    ``values``, or, of the tree with the quantiles, the number of the leaf.
    """

    trees: np.ndarray
    base: np.ndarray
    roots: np.ndarray
    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    missing: np.ndarray
    value: np.ndarray
    values: np.ndarray
    ends: np.ndarray
    knots: np.ndarray


class Collector:
    """Collects the parts of `Distributions`."""

    def __init__(self) -> None:
        self.trees: list[list[int]] = []
        self.base: list[list[float]] = []
        self.parts: dict[str, list[np.ndarray]] = {name: [] for name in Distributions._fields[2:]}
        self.sizes = dict.fromkeys(("roots", "nodes", "values", "ends", "knots"), 0)

    def add(self, distribution: ConditionalDistribution) -> int:
        """Take one in and return its number."""
        arrays = distribution.to_arrays()
        row = [0] * (KNOTS + 1)
        base = [0.0, 0.0]
        for name, at in (("location", LOCATION), ("scale", SCALE), ("bend", BEND)):
            content = arrays.get(f"booster_{name}")
            if content is not None:
                row[at], row[at + 1], first = self._booster(content)
                if name != "bend":
                    base[at // 2] = first
                else:
                    row[N_BEND] = distribution.settings.cdf_knots
        row[LEAF] = self._booster(arrays["booster_tree"], arrays["numbers"])[0]
        row[N_KNOTS], row[ENDS], row[KNOTS] = (
            arrays["knots"].shape[1],
            self.sizes["ends"],
            self.sizes["knots"],
        )
        self._append("ends", arrays["ends"], "ends")
        self._append("knots", arrays["knots"].ravel(), "knots")
        self.trees.append(row)
        self.base.append(base)
        return len(self.trees) - 1

    def add_all(self, distributions: Mapping[Any, ConditionalDistribution]) -> dict[Any, int]:
        """Take several in and return their numbers by the same keys."""
        return {key: self.add(one) for key, one in distributions.items()}

    def _append(self, name: str, array: np.ndarray, size: str) -> None:
        self.parts[name].append(array)
        self.sizes[size] += len(array)

    def _booster(
        self, content: np.ndarray, numbers: np.ndarray | None = None
    ) -> tuple[int, int, float]:
        """Take in the trees of a booster; return first, one past the last, and the base."""
        booster = read_booster(content.tobytes())
        first = self.sizes["roots"]
        for tree in booster.trees:
            self._tree(tree, numbers)
        return first, self.sizes["roots"], float(booster.base[0])

    def _tree(self, tree: Tree, numbers: np.ndarray | None) -> None:
        start, leaf = self.sizes["nodes"], tree.left < 0
        value = self.sizes["values"] + tree.value * tree.leaves.shape[1]
        values = tree.leaves.ravel()
        if numbers is not None:
            value, values = np.searchsorted(numbers, np.arange(len(leaf))), values[:0]
        self._append("roots", np.array([start]), "roots")
        self._append("left", np.where(leaf, -1, tree.left + start), "nodes")
        self.parts["right"].append(np.where(leaf, -1, tree.right + start))
        self.parts["feature"].append(tree.feature)
        self.parts["threshold"].append(tree.threshold)
        self.parts["missing"].append(tree.missing)
        self.parts["value"].append(value)
        self._append("values", values, "values")

    def finished(self) -> Distributions:
        """Return everything in one piece."""
        kinds: dict[str, Any] = {"threshold": np.float32, "values": np.float32}
        kinds |= {"ends": np.float64, "knots": np.float64, "missing": np.uint8}
        arrays = {
            name: np.concatenate(parts or [np.zeros((0, 2) if name == "ends" else 0)])
            for name, parts in self.parts.items()
        }
        typed = {
            name: np.ascontiguousarray(array, dtype=kinds.get(name, np.int32))
            for name, array in arrays.items()
        }
        trees = np.array(self.trees, dtype=np.int64).reshape(-1, KNOTS + 1)
        return Distributions(trees, np.array(self.base, np.float32).reshape(-1, 2), **typed)


class RingWay(NamedTuple):
    """Divisions of all layers into rings, one per row, in their order.

    Parameters
    ----------
    steps : int64 (s, 7 + 2 KNOWN KNOWN_SPLITS): layer, whole, left and right segment, two larger
        segments, distribution; then part and whole of the fractions of layers before
    start : int64 (layers,), segment that is the whole of a layer
    rings : int64 (all rings,), segments that are single rings, layer by layer
    n_segments : int
    """

    steps: np.ndarray
    start: np.ndarray
    rings: np.ndarray
    n_segments: int


class SectorWay(NamedTuple):
    """Divisions of a ring into sectors, for one layer.

    Parameters
    ----------
    steps : int64 (s, 5): whole, left and right segment, the next larger one, distribution
    away : float64 (s, 2), cosine and sine of the direction from right to left in the frame
    turn : float64 (n_alpha, 2), the same of the first sector's lower edge
    cells : int64 (n_alpha,), segments that are single sectors
    where : int64 (3,): layer, its first voxel, its number of rings
    """

    steps: np.ndarray
    away: np.ndarray
    turn: np.ndarray
    cells: np.ndarray
    where: np.ndarray


def ring_way(plan: LayerPlan, numbers: Mapping[tuple[int, Split], int]) -> RingWay:
    """Return the divisions into rings; ``numbers`` are those of the distributions."""
    slots: dict[tuple[int, tuple[int, int]], int] = {}
    for position, layer in enumerate(plan.geometry.layers):
        for segment in ancestors(layer.n_r):
            slots[position, segment] = len(slots)
    steps = []
    for position in plan.order:
        n = plan.layer(position).n_r
        above, group = ancestors(n), plan.group(position)
        before = _fractions(plan, position, slots)
        for split in splits(n):
            larger = [slots[position, one] for one in above[split.whole][:2]]
            row = [position, *(slots[position, one] for one in (split.whole, *split.parts))]
            row += larger + [NOTHING] * (2 - len(larger)) + [numbers.get((group, split), NOTHING)]
            steps.append(row + before)
    layers = plan.geometry.layers
    start = [slots[i, (0, layer.n_r)] for i, layer in enumerate(layers)]
    rings = [slots[i, (r, r + 1)] for i, layer in enumerate(layers) for r in range(layer.n_r)]
    width = 7 + 2 * KNOWN * KNOWN_SPLITS
    return RingWay(_int(steps).reshape(-1, width), _int(start), _int(rings), len(slots))


def _fractions(
    plan: LayerPlan, position: int, slots: Mapping[tuple[int, tuple[int, int]], int]
) -> list[int]:
    """Return part and whole of each fraction of layers before that is a feature."""
    found: list[int] = []
    for one in plan.known(position):
        first = splits(plan.layer(one).n_r)[:KNOWN_SPLITS]
        for split in first:
            found += [slots[one, split.parts[0]], slots[one, split.whole]]
        found += [NOTHING] * (2 * (KNOWN_SPLITS - len(first)))
    return found + [NOTHING] * (2 * KNOWN * KNOWN_SPLITS - len(found))


def sector_way(
    plan: LayerPlan, position: int, numbers: Mapping[tuple[int, tuple[int, int]], int]
) -> SectorWay:
    """Return the divisions of the rings of a layer."""
    layer, group = plan.layer(position), plan.group(position)
    n = layer.n_alpha
    above = ancestors(n)
    slots = {segment: number for number, segment in enumerate(above)}
    steps, away = [], []
    width = 2 * np.pi / n
    for split in splits(n):
        larger = [slots[one] for one in above[split.whole][:1]] or [NOTHING]
        row = [slots[one] for one in (split.whole, *split.parts)]
        steps.append([*row, *larger, numbers.get((group, split.kind), NOTHING)])
        middles = [0.5 * (low + high) * width for low, high in split.parts]
        towards = np.exp(1j * middles[0]) - np.exp(1j * middles[1])
        away.append(towards / abs(towards))
    turn = np.exp(1j * (np.arange(n) * width - np.pi))
    cells = [slots[place, place + 1] for place in range(n)]
    where = [position, layer.first, layer.n_r]
    return SectorWay(_int(steps), _pairs(np.array(away)), _pairs(turn), _int(cells), _int(where))


def _int(rows: Sequence[Any]) -> np.ndarray:
    return np.ascontiguousarray(rows, dtype=np.int64)


def _pairs(numbers: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.column_stack([numbers.real, numbers.imag]))
