"""Which layers are alike, which are generated first, and what is known about a shower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ....trees.share_distribution import ConditionalDistribution, DistributionSettings
from ..geometry import Geometry, Layer
from .energy_division import Segments, Split, fraction, log_energy, splits

FEW_LAYERS = 8
"""With more layers features come from the neighbouring ones only."""


REACH = 2
"""Neighbours on either side that count then."""


KNOWN = 2
"""Layers generated before whose shares are features."""


KNOWN_SPLITS = 3
"""Their first splits: inner to outer half, and the halves of these."""


@dataclass(frozen=True)
class LayerPlan:
    """Layers of a geometry by likeness, and the order in which they are generated.

    Parameters
    ----------
    groups : positions of the layers that have equal rings and sectors and share their trees
    order : positions of all layers, in the order of generation
    """

    geometry: Geometry
    groups: tuple[tuple[int, ...], ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, geometry: Geometry, layer_energies: np.ndarray) -> LayerPlan:
        """Return the plan: alike layers in their order, else those of most energy first.

        Parameters
        ----------
        layer_energies : ndarray (n, layers), of training showers
        """
        alike: dict[tuple[object, ...], list[int]] = {}
        for position, layer in enumerate(geometry.layers):
            alike.setdefault((layer.r_edges, layer.n_alpha), []).append(position)
        groups = tuple(tuple(members) for members in alike.values())
        order = np.arange(len(geometry.layers))
        if len(groups) == len(order):
            order = np.argsort(-layer_energies.mean(axis=0), kind="stable")
        return cls(geometry, groups, tuple(int(position) for position in order))

    def layer(self, position: int) -> Layer:
        """Return a layer by its position."""
        return self.geometry.layers[position]

    def group(self, position: int) -> int:
        """Return the number of the group of a layer."""
        return next(i for i, members in enumerate(self.groups) if position in members)

    def known(self, position: int) -> tuple[int, ...]:
        """Return the layers generated before whose shares are features of this one."""
        at = self.order.index(position)
        before = self.order[:at]
        return before[::-1][:KNOWN] if len(self.groups) < len(self.order) else before[:KNOWN]


@dataclass(frozen=True)
class Known:
    """What is known about showers before their voxels: incident energy and layer energies.

    Parameters
    ----------
    plan : LayerPlan
    energies : ndarray (n,), MeV, incident
    layers : ndarray (n, layers), MeV
    """

    plan: LayerPlan
    energies: np.ndarray
    layers: np.ndarray

    def take(self, rows: np.ndarray | slice) -> Known:
        """Return some of the showers."""
        return Known(self.plan, self.energies[rows], self.layers[rows])

    def features(self, position: int) -> np.ndarray:
        """Return log energy, position in the group, log shares of near layers, (n, k)."""
        return self._features([position])[:, 0]

    def all_features(self) -> np.ndarray:
        """Return the features of all layers, (n, layers, k)."""
        return self._features(list(range(self.layers.shape[1])))

    def _features(self, positions: list[int]) -> np.ndarray:
        log_incident = np.log(self.energies)
        log_share = log_energy(self.layers) - log_incident[:, None]
        n = self.layers.shape[1]
        near = n if n <= FEW_LAYERS else 2 * REACH + 1
        result = np.full((len(self.energies), len(positions), 2 + near), np.nan)
        for number, position in enumerate(positions):
            result[:, number, 0] = log_incident
            result[:, number, 1] = position
            first = 0 if n <= FEW_LAYERS else position - REACH
            low, high = max(first, 0), min(first + near, n)
            result[:, number, 2 + low - first : 2 + high - first] = log_share[:, low:high]
        return result


def first_shares(segments: Segments, n: int) -> list[np.ndarray]:
    """Return the left fractions of a layer's first splits, NaN where there is none."""
    found = [fraction(segments[s.parts[0]], segments[s.whole]) for s in splits(n)[:KNOWN_SPLITS]]
    missing = np.full(segments[0, n].shape, np.nan)
    return found + [missing] * (KNOWN_SPLITS - len(found))


def of_whole(
    segments: Segments, split: Split, larger: tuple[tuple[int, int], ...], n_larger: int
) -> list[np.ndarray]:
    """Return the fractions that a segment has of the segments it is a part of, smallest first."""
    energy = segments[split.whole]
    found = [fraction(energy, segments[one]) for one in larger[:n_larger]]
    return found + [np.full(energy.shape, np.nan)] * (n_larger - len(found))


FEWEST = 20
"""Fewer divided segments in the training showers teach nothing: the share is uniform then."""


class Divisions:
    """Distributions of shares, by group of layers and by what is divided.

    Parameters
    ----------
    settings : DistributionSettings
    most_rows : rows at most that a distribution learns from
    """

    def __init__(self, settings: DistributionSettings, most_rows: int) -> None:
        self.settings, self.most_rows = settings, most_rows
        self.models: dict[tuple[int, tuple[int, ...]], ConditionalDistribution] = {}
        self.plan: LayerPlan
        self.threshold: float

    def state(self) -> dict[str, Any]:
        """Return the distributions by group and by what is divided."""
        return {
            "_".join(map(str, (group, *divided))): model.to_arrays()
            for (group, divided), model in self.models.items()
        }

    def restore(self, state: Mapping[str, Any], plan: LayerPlan, threshold: float) -> Self:
        """Take back what `state` returned."""
        self.plan, self.threshold = plan, threshold
        for name, arrays in state.items():
            group, *divided = map(int, name.split("_"))
            self.models[group, tuple(divided)] = ConditionalDistribution.from_arrays(arrays)
        return self
