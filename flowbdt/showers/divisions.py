"""What the two stages that divide energies share: their distributions, and how these are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from ..regressors.distribution import ConditionalDistribution, DistributionSettings
from .layers import LayerPlan

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
