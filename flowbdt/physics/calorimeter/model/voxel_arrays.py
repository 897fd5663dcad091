"""All distributions and divisions of a shower model as flat arrays, for the core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ....generation.packed.array_file import Arrays, named
from ....generation.packed.pack_steps import pack_trees
from ....trees.share_distribution import ConditionalDistribution
from ....trees.tree_arrays import Forest, forests, leaf_forest
from .energy_division import KNOWN, KNOWN_SPLITS, LayerPlan, ancestors, splits
from .rings import Rings
from .sectors import Sectors

NOTHING = -1
"""The number of a missing segment, forest or distribution."""

Numbers = Mapping[tuple[int, tuple[int, ...]], int]
"""Numbers of the distributions by group of layers and kind of division."""


class VoxelArrays(NamedTuple):
    """What `showers.hpp` reads beside the trees.

    distributions (k, 9): forest that tells the leaf, that of the location (the scale follows), that
    of the bend and its levels; leaves and where their ends begin, quantiles of each and where these
    begin; forest of the probabilities of 0 and 1 in place of those of leaves. ends (leaves, 2):
    probabilities of 0 and 1; knots: quantiles, leaf by leaf.
    layers (layers, 6): rings, sectors, first voxel; first division of a ring into sectors, one past
    the last, first cell. ring_steps (s, 7 + 2 f), in their order: layer; whole, left and right
    segment; two larger segments; distribution; left half and whole of the fractions of layers
    before. start (layers,): segment of a whole layer; rings: segments that are single rings.
    sector_steps (t, 5): whole, left and right segment, the next larger one, distribution; away
    (t, 2): cosine and sine of the direction from right to left. cells: segments that are single
    sectors, layer by layer; turn (cells, 2): direction of the lower edge of each sector. Whole
    numbers are int64, others float64.
    """

    distributions: np.ndarray
    ends: np.ndarray
    knots: np.ndarray
    layers: np.ndarray
    ring_steps: np.ndarray
    start: np.ndarray
    rings: np.ndarray
    sector_steps: np.ndarray
    away: np.ndarray
    cells: np.ndarray
    turn: np.ndarray


class _Collector:
    """Distributions in the order in which they are added."""

    def __init__(self) -> None:
        self.forests: list[Forest] = []
        self.rows: list[list[int]] = []
        self.ends: list[np.ndarray] = [np.zeros((0, 2))]
        self.knots: list[np.ndarray] = [np.zeros(0)]

    def add(self, distribution: ConditionalDistribution) -> int:
        """Append a distribution and return its number."""
        arrays = distribution.to_arrays()
        content = {name: a.tobytes() for name, a in arrays.items() if name.startswith("booster_")}
        location = bend = ends = NOTHING
        leaf = self._add([leaf_forest(content["booster_tree"], arrays["numbers"])])
        if "booster_location" in content:
            moments = (forests(content[f"booster_{name}"])[0] for name in ("location", "scale"))
            location = self._add([forest for both in moments for forest in both])
        if "booster_bend" in content:
            bend = self._add(forests(content["booster_bend"])[0])
        if "booster_ends" in content:
            ends = self._add(forests(content["booster_ends"])[0])
        n_leaves, n_knots = arrays["knots"].shape
        at = (sum(map(len, self.ends)), sum(map(len, self.knots)))
        row = [leaf, location, bend, distribution.settings.cdf_knots]
        self.rows.append([*row, n_leaves, at[0], n_knots, at[1], ends])
        self.ends.append(arrays["ends"])
        self.knots.append(arrays["knots"].ravel())
        return len(self.rows) - 1

    def _add(self, forests: Sequence[Forest]) -> int:
        self.forests += forests
        return len(self.forests) - len(forests)


def voxel_arrays(plan: LayerPlan, rings: Rings, sectors: Sectors) -> Arrays:
    """Return all arrays of the divisions of a model.

    Raises ConfigError if trees are too deep for the core.
    """
    collected = _Collector()
    of_rings, of_sectors = (
        {key: collected.add(model) for key, model in stage.models.items()}
        for stage in (rings, sectors)
    )
    steps, start, single, n_segments = ring_steps(plan, of_rings)
    layers, parts = (
        [],
        [(_int([]).reshape(0, 5), _pairs(np.zeros(0)), _int([]), _pairs(np.zeros(0)))],
    )
    for position, layer in enumerate(plan.geometry.layers):
        first, cell = sum(len(part[0]) for part in parts), sum(len(part[2]) for part in parts)
        if layer.n_alpha > 1:
            parts.append(sector_steps(plan, position, of_sectors))
        last = sum(len(part[0]) for part in parts)
        layers.append([layer.n_r, layer.n_alpha, layer.first, first, last, cell])
    joined = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    numbers = (
        _int(collected.rows),
        np.concatenate(collected.ends),
        np.concatenate(collected.knots),
    )
    arrays = VoxelArrays(*numbers, _int(layers), steps, start, single, *joined)
    n_known = plan.n_features
    width = n_known + max(5, 3 + (steps.shape[1] - 7) // 2)
    trees = pack_trees(collected.forests)
    n_outputs = max((forest.width for forest in collected.forests), default=0)
    sizes = n_known, n_segments, steps.shape[1]
    return named("trees", trees, width, n_outputs) | named("showers", arrays, *sizes)


def ring_steps(plan: LayerPlan, numbers: Numbers) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return steps, start and rings as in `VoxelArrays`, and the number of segments."""
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
    return _int(steps).reshape(-1, width), _int(start), _int(rings), len(slots)


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


def sector_steps(
    plan: LayerPlan, position: int, numbers: Numbers
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return steps, directions, cells and turns of the rings of a layer, as in `VoxelArrays`."""
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
    return _int(steps), _pairs(np.array(away)), _int(cells), _pairs(turn)


def _int(rows: Sequence[Any]) -> np.ndarray:
    return np.ascontiguousarray(rows, dtype=np.int64)


def _pairs(numbers: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.column_stack([numbers.real, numbers.imag]))
