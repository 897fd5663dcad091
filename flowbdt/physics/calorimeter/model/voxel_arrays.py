"""All distributions and divisions of a shower model as flat arrays, for compiled loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ....trees.share_distribution import ConditionalDistribution
from ....trees.tree_arrays import Tree, read_booster
from .energy_division import KNOWN, KNOWN_SPLITS, LayerPlan, ancestors, splits

LOCATION, SCALE, BEND, LEAF = 0, 2, 4, 6
"""Columns of `Distributions.trees`: first and one past the last tree of each use; one tree."""

N_BEND, N_KNOTS, ENDS, KNOTS = 7, 8, 9, 10
"""Further columns: numbers of levels and of quantiles per leaf, where the leaves begin."""

NOTHING = -1
"""The number of a missing segment or distribution."""

Numbers = Mapping[tuple[int, tuple[int, ...]], int]
"""Numbers of the distributions by group of layers and kind of division."""


class Distributions(NamedTuple):
    """Distributions, one per row of ``trees``; see `flowbdt.trees.share_distribution`.

    The left child of a leaf is below 0; ``value`` is then the index of its first value in
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
    """Collects distributions into `Distributions`."""

    def __init__(self) -> None:
        self.trees: list[list[int]] = []
        self.base: list[list[float]] = []
        self.blocks: dict[str, list[np.ndarray]] = {name: [] for name in Distributions._fields[2:]}
        self.sizes = dict.fromkeys(self.blocks, 0)

    def add(self, distribution: ConditionalDistribution) -> int:
        """Append a distribution and return its number."""
        arrays = distribution.to_arrays()
        row, base = [0] * (KNOTS + 1), [0.0, 0.0, 0.0]
        for name, at in (("location", LOCATION), ("scale", SCALE), ("bend", BEND)):
            if f"booster_{name}" in arrays:
                row[at], row[at + 1], base[at // 2] = self._booster(arrays[f"booster_{name}"])
        if "booster_bend" in arrays:
            row[N_BEND] = distribution.settings.cdf_knots
        row[LEAF] = self._booster(arrays["booster_tree"], arrays["numbers"])[0]
        row[N_KNOTS] = arrays["knots"].shape[1]
        row[ENDS], row[KNOTS] = self.sizes["ends"], self.sizes["knots"]
        self._append(ends=arrays["ends"], knots=arrays["knots"].ravel())
        self.trees.append(row)
        self.base.append(base[:2])
        return len(self.trees) - 1

    def _append(self, **arrays: np.ndarray) -> None:
        for name, array in arrays.items():
            self.blocks[name].append(array)
            self.sizes[name] += len(array)

    def _booster(
        self, content: np.ndarray, numbers: np.ndarray | None = None
    ) -> tuple[int, int, float]:
        """Append the trees of a booster; return first, one past the last, and the base."""
        booster = read_booster(content.tobytes())
        first = self.sizes["roots"]
        for tree in booster.trees:
            self._tree(tree, numbers)
        return first, self.sizes["roots"], float(booster.base[0])

    def _tree(self, tree: Tree, numbers: np.ndarray | None) -> None:
        start, leaf = self.sizes["left"], tree.left < 0
        value = self.sizes["values"] + tree.value * tree.leaves.shape[1]
        values = tree.leaves.ravel()
        if numbers is not None:
            value, values = np.searchsorted(numbers, np.arange(len(leaf))), values[:0]
        left, right = (np.where(leaf, -1, child + start) for child in (tree.left, tree.right))
        self._append(roots=np.array([start]), left=left, right=right, value=value, values=values)
        self._append(feature=tree.feature, threshold=tree.threshold, missing=tree.missing)

    def finished(self) -> Distributions:
        """Return all distributions as contiguous arrays."""
        kinds: dict[str, Any] = {"threshold": np.float32, "values": np.float32}
        kinds |= {"ends": np.float64, "knots": np.float64, "missing": np.uint8}
        typed = {}
        for name, blocks in self.blocks.items():
            joined = np.concatenate(blocks or [np.zeros((0, 2) if name == "ends" else 0)])
            typed[name] = np.ascontiguousarray(joined, dtype=kinds.get(name, np.int32))
        trees = np.array(self.trees, dtype=np.int64).reshape(-1, KNOTS + 1)
        return Distributions(trees, np.array(self.base, np.float32).reshape(-1, 2), **typed)


class RingSteps(NamedTuple):
    """Divisions of all layers into rings, one per row, in their order.

    A step is the layer, the whole, left and right segment, two larger segments and the
    distribution; then left half and whole of the fractions of layers before.
    """

    steps: np.ndarray  # int64 (s, 7 + 2 KNOWN KNOWN_SPLITS)
    start: np.ndarray  # int64 (layers,), segment of a whole layer
    rings: np.ndarray  # int64 (all rings,), segments that are single rings, layer by layer
    n_segments: int


class SectorSteps(NamedTuple):
    """Divisions of a ring into sectors, for one layer.

    A step is the whole, left and right segment, the next larger one and the distribution.
    """

    steps: np.ndarray  # int64 (s, 5)
    away: np.ndarray  # float64 (s, 2), cosine and sine of the direction from right to left
    turn: np.ndarray  # float64 (n_alpha, 2), the same of the first sector's lower edge
    cells: np.ndarray  # int64 (n_alpha,), segments that are single sectors
    where: np.ndarray  # int64 (3,): layer, its first voxel, its number of rings


def ring_steps(plan: LayerPlan, numbers: Numbers) -> RingSteps:
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
            row = [position, *(slots[position, one] for one in (split.whole, *split.halves))]
            row += larger + [NOTHING] * (2 - len(larger)) + [numbers.get((group, split), NOTHING)]
            steps.append(row + before)
    layers = plan.geometry.layers
    start = [slots[i, (0, layer.n_r)] for i, layer in enumerate(layers)]
    rings = [slots[i, (r, r + 1)] for i, layer in enumerate(layers) for r in range(layer.n_r)]
    width = 7 + 2 * KNOWN * KNOWN_SPLITS
    return RingSteps(_int(steps).reshape(-1, width), _int(start), _int(rings), len(slots))


def _fractions(
    plan: LayerPlan, position: int, slots: Mapping[tuple[int, tuple[int, int]], int]
) -> list[int]:
    """Return left half and whole of each fraction of layers before that is a feature."""
    pairs: list[int] = []
    for one in plan.known(position):
        first = splits(plan.layer(one).n_r)[:KNOWN_SPLITS]
        for split in first:
            pairs += [slots[one, split.halves[0]], slots[one, split.whole]]
        pairs += [NOTHING] * (2 * (KNOWN_SPLITS - len(first)))
    return pairs + [NOTHING] * (2 * KNOWN * KNOWN_SPLITS - len(pairs))


def sector_steps(plan: LayerPlan, position: int, numbers: Numbers) -> SectorSteps:
    """Return the divisions of the rings of a layer."""
    layer, group = plan.layer(position), plan.group(position)
    n = layer.n_alpha
    above = ancestors(n)
    slots = {segment: number for number, segment in enumerate(above)}
    steps, away = [], []
    width = 2 * np.pi / n
    for split in splits(n):
        larger = [slots[one] for one in above[split.whole][:1]] or [NOTHING]
        row = [slots[one] for one in (split.whole, *split.halves)]
        steps.append([*row, *larger, numbers.get((group, split.kind), NOTHING)])
        middles = [0.5 * (low + high) * width for low, high in split.halves]
        towards = np.exp(1j * middles[0]) - np.exp(1j * middles[1])
        away.append(towards / abs(towards))
    turn = np.exp(1j * (np.arange(n) * width - np.pi))
    cells = [slots[place, place + 1] for place in range(n)]
    where = [position, layer.first, layer.n_r]
    return SectorSteps(_int(steps), _pairs(np.array(away)), _pairs(turn), _int(cells), _int(where))


def _int(rows: Sequence[Any]) -> np.ndarray:
    return np.ascontiguousarray(rows, dtype=np.int64)


def _pairs(numbers: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.column_stack([numbers.real, numbers.imag]))
