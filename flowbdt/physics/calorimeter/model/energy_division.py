"""Energy divided in two, again and again, with exact sums; layers in the order of generation.

The energy of a layer is divided between inner and outer rings until single rings are left, that of
a ring between neighbouring sectors until single voxels are left. Each division is one share
between 0 and 1. A voxel holds nothing or at least the threshold, and so does every segment: the
share counts the energy beyond the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from ....errors import FormatError
from ....trees.share_distribution import ConditionalDistribution, DistributionSettings
from ..geometry import Geometry, Layer

Segments = dict[tuple[int, int], np.ndarray]
"""Energy of the cells from low up to high, by (low, high); arrays of one shape."""

FEW_LAYERS = 8
"""With more layers, features come from the neighbouring ones only."""

REACH = 2
"""Neighbours on either side that count then."""

KNOWN = 2
"""Layers generated before whose shares are features."""

KNOWN_SPLITS = 3
"""Their first splits: inner to outer half, and the halves of these."""

FEWEST = 20
"""With fewer divided segments in the training showers the share is uniform."""


class Split(NamedTuple):
    """A division of the cells low to high - 1 at ``middle``."""

    low: int
    middle: int
    high: int

    @property
    def whole(self) -> tuple[int, int]:
        """The segment that is divided."""
        return self.low, self.high

    @property
    def halves(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The left and the right segment."""
        return (self.low, self.middle), (self.middle, self.high)

    @property
    def kind(self) -> tuple[int, int]:
        """Numbers of cells to the left and to the right."""
        return self.middle - self.low, self.high - self.middle


def splits(n: int) -> list[Split]:
    """Return the n - 1 halvings that lead from n cells to single ones, larger ones first."""
    result: list[Split] = []
    level = [(0, n)]
    while level:
        new = [Split(low, (low + high) // 2, high) for low, high in level if high - low > 1]
        result += new
        level = [half for split in new for half in split.halves]
    return result


def ancestors(n: int) -> dict[tuple[int, int], tuple[tuple[int, int], ...]]:
    """Return for every segment those that contain it, the smallest first."""
    result: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {(0, n): ()}
    for split in splits(n):
        for half in split.halves:
            result[half] = (split.whole, *result[split.whole])
    return result


def summed(cells: np.ndarray) -> Segments:
    """Return the energies of all segments from those of the cells, (..., n)."""
    n = cells.shape[-1]
    result = {(0, n): cells.sum(axis=-1)}
    for split in splits(n):
        for low, high in split.halves:
            result[low, high] = cells[..., low:high].sum(axis=-1)
    return result


def share(left: np.ndarray, whole: np.ndarray, threshold: float) -> np.ndarray:
    """Return shares: 0 and 1 if all is on one side, else of the energy beyond the threshold."""
    inner = (left - threshold) / np.maximum(whole - 2 * threshold, 1e-12)
    inner = np.clip(inner, 1e-9, 1 - 1e-9)
    # sums in another order leave one in a billion of the energy in an empty segment
    empty = whole - left <= 1e-9 * whole
    return np.where(left <= 1e-9 * whole, 0.0, np.where(empty, 1.0, inner))


def left_energy(share: np.ndarray, whole: np.ndarray, threshold: float) -> np.ndarray:
    """Return the energy of the left segment: the inverse of `share`.

    Too little energy for two segments goes to the side that has the larger share.
    """
    left = threshold + share * (whole - 2 * threshold)
    left = np.where(whole < 2 * threshold, np.where(share > 0.5, whole, 0.0), left)
    return np.where(share <= 0, 0.0, np.where(share >= 1, whole, left))


def fraction(energy: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return energy / whole; NaN where the whole is empty."""
    return np.where(whole > 0, energy / np.where(whole > 0, whole, 1.0), np.nan)


def log_energy(energy: np.ndarray) -> np.ndarray:
    """Return the logarithm; NaN where there is no energy."""
    return np.where(energy > 0, np.log(np.where(energy > 0, energy, 1.0)), np.nan)


def divide(segments: Segments, split: Split, shares: np.ndarray, threshold: float) -> None:
    """Enter the two halves of a split from its shares."""
    whole = segments[split.whole]
    left = np.where(whole > 0, left_energy(shares, whole, threshold), 0.0)
    segments[split.halves[0]], segments[split.halves[1]] = left, whole - left


def cells(segments: Mapping[tuple[int, int], np.ndarray], n: int) -> np.ndarray:
    """Return the energies of the n cells, (..., n)."""
    return np.stack([segments[cell, cell + 1] for cell in range(n)], axis=-1)


def first_shares(segments: Segments, n: int) -> list[np.ndarray]:
    """Return the left fractions of a layer's first splits, NaN for missing ones."""
    first = [fraction(segments[s.halves[0]], segments[s.whole]) for s in splits(n)[:KNOWN_SPLITS]]
    missing = np.full(segments[0, n].shape, np.nan)
    return first + [missing] * (KNOWN_SPLITS - len(first))


def of_whole(
    segments: Segments, split: Split, larger: tuple[tuple[int, int], ...], n_larger: int
) -> list[np.ndarray]:
    """Return the fractions of the larger segments that a segment holds, the smallest first."""
    energy = segments[split.whole]
    fractions = [fraction(energy, segments[one]) for one in larger[:n_larger]]
    return fractions + [np.full(energy.shape, np.nan)] * (n_larger - len(fractions))


@dataclass(frozen=True)
class LayerPlan:
    """Groups of equal layers of a geometry, and the order of generation."""

    geometry: Geometry
    groups: tuple[tuple[int, ...], ...]  # positions of layers of equal rings and sectors
    order: tuple[int, ...]  # positions of all layers, in the order of generation

    @classmethod
    def of(cls, geometry: Geometry, layer_energies: np.ndarray) -> LayerPlan:
        """Return the plan for energies (n, layers); the largest first, if all layers differ."""
        alike: dict[tuple[object, ...], list[int]] = {}
        for position, layer in enumerate(geometry.layers):
            alike.setdefault((layer.r_edges, layer.n_alpha), []).append(position)
        groups = tuple(tuple(members) for members in alike.values())
        order = np.arange(len(geometry.layers))
        if len(groups) == len(order):
            order = np.argsort(-layer_energies.mean(axis=0), kind="stable")
        return cls(geometry, groups, tuple(int(position) for position in order))

    def check(self) -> None:
        """Raise FormatError unless order and groups have every layer once, groups equal ones."""
        every = list(range(len(self.geometry.layers)))
        members = [position for group in self.groups for position in group]
        if sorted(self.order) != every or sorted(members) != every or () in self.groups:
            raise FormatError("order and groups must have every layer once")
        for group in self.groups:
            if len({(self.layer(i).n_r, self.layer(i).n_alpha) for i in group}) != 1:
                raise FormatError(f"the layers {group} of a group differ in their voxels")

    def layer(self, position: int) -> Layer:
        """Return a layer by its position."""
        return self.geometry.layers[position]

    def group(self, position: int) -> int:
        """Return the number of the group of a layer."""
        return next(i for i, members in enumerate(self.groups) if position in members)

    @property
    def n_features(self) -> int:
        """Number of features of a layer that all its divisions have."""
        n = len(self.geometry.layers)
        return 2 + (n if n <= FEW_LAYERS else 2 * REACH + 1)

    def known(self, position: int) -> tuple[int, ...]:
        """Return the layers generated before whose shares are features of this one."""
        before = self.order[: self.order.index(position)]
        return before[::-1][:KNOWN] if len(self.groups) < len(self.order) else before[:KNOWN]


@dataclass(frozen=True)
class ShowerEnergies:
    """Incident energies (n,) and layer energies (n, layers), MeV: the features of all divisions."""

    plan: LayerPlan
    incident: np.ndarray
    layers: np.ndarray

    def take(self, rows: np.ndarray | slice) -> ShowerEnergies:
        """Return some of the showers."""
        return ShowerEnergies(self.plan, self.incident[rows], self.layers[rows])

    def features(self, position: int) -> np.ndarray:
        """Return log energy, position in the group, log shares of near layers, (n, k)."""
        return self._features([position])[:, 0]

    def all_features(self) -> np.ndarray:
        """Return the features of all layers, (n, layers, k)."""
        return self._features(list(range(self.layers.shape[1])))

    def _features(self, positions: list[int]) -> np.ndarray:
        log_incident = np.log(self.incident)
        log_share = log_energy(self.layers) - log_incident[:, None]
        n = self.layers.shape[1]
        result = np.full((len(self.incident), len(positions), self.plan.n_features), np.nan)
        near = self.plan.n_features - 2
        for number, position in enumerate(positions):
            result[:, number, 0] = log_incident
            result[:, number, 1] = position
            first = 0 if n <= FEW_LAYERS else position - REACH
            low, high = max(first, 0), min(first + near, n)
            result[:, number, 2 + low - first : 2 + high - first] = log_share[:, low:high]
        return result


class Divisions:
    """Distributions by group of layers and kind of division, from ``most_rows`` rows at most."""

    def __init__(self, settings: DistributionSettings, most_rows: int) -> None:
        self.settings, self.most_rows = settings, most_rows
        self.models: dict[tuple[int, tuple[int, ...]], ConditionalDistribution] = {}
        self.plan: LayerPlan
        self.threshold: float

    n_features: ClassVar[int]
    """Inputs of the trees besides those of `ShowerEnergies.features`."""

    def learn(
        self,
        group: int,
        kind: tuple[int, ...],
        x: np.ndarray,
        y: np.ndarray,
        key: int,
        threads: int,
    ) -> None:
        """Fit the distribution of one kind of division, unless there are too few rows."""
        if len(y) >= FEWEST:
            model = ConditionalDistribution(self.settings)
            self.models[group, kind] = model.fit(x, y, seed=key, n_threads=threads)

    def state(self) -> dict[str, Any]:
        """Return the distributions as arrays, by group and kind."""
        return {
            "_".join(map(str, (group, *kind))): model.to_arrays()
            for (group, kind), model in self.models.items()
        }

    def restore(self, state: Mapping[str, Any], plan: LayerPlan, threshold: float) -> Self:
        """Take back what `state` returned."""
        self.plan, self.threshold = plan, threshold
        for name, arrays in state.items():
            group, *kind = map(int, name.split("_"))
            if group >= len(plan.groups) or tuple(kind) not in self.kinds(plan, group):
                raise FormatError(f"there is no division {name!r} in this geometry")
            model = self.models[group, tuple(kind)] = ConditionalDistribution.from_arrays(arrays)
            n_near = len(plan.order) if len(plan.order) <= FEW_LAYERS else 2 * REACH + 1
            if model.n_inputs != 2 + n_near + self.n_features:
                raise FormatError(f"the trees of division {name!r} have {model.n_inputs} inputs")
        return self

    def kinds(self, plan: LayerPlan, group: int) -> set[tuple[int, ...]]:
        """Return the kinds of division of a group of layers."""
        raise NotImplementedError
