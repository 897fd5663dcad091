"""The generative methods: what a flow starts from and what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.unfolding.samples import Coordinates
from flowbdt import EventTable, FlowBDT


@dataclass(frozen=True)
class Recipe:
    """How a flow goes to the particle level.

    Parameters
    ----------
    start : "noise", "detector" for the detector-level jet of the same event, or "transport" for
        detector-level jets that optimal transport assigned
    told : whether the detector level is a condition
    """

    start: str
    told: bool


FLOWS = {  # with the columns of the published table that they correspond to
    "noise, told": Recipe("noise", True),  # Flow-Diffu
    "noise": Recipe("noise", False),  # unconditional
    "detector": Recipe("detector", False),  # conditional, Flow-OT with given pairs
    "detector, told": Recipe("detector", True),  # the same
    "transport": Recipe("transport", False),  # Flow-OT
}

SMOKE: dict[str, Any] = {
    "preset": "fast",
    "n_steps": 4,
    "booster": {"n_estimators": 3, "max_depth": 2},
    "preconditioner": "gaussian",
}


class UnfoldingFlow:
    """A flow trained on simulated pairs, applied to detector-level jets."""

    def __init__(self, recipe: Recipe, train: EventTable, seed: int, smoke: bool) -> None:
        self.recipe, self.coordinates = recipe, Coordinates(train, seed)
        coupling = "independent" if recipe.start == "noise" else "given"
        settings = {"coupling": coupling, **(SMOKE if smoke else {})}
        threads = {"name": "serial", "n_threads": 1}
        self.model = FlowBDT(**settings, random_state=seed, executor=threads)
        self.model.fit(
            self.coordinates.events(train),
            cond=self.coordinates.conditions(train) if recipe.told else None,
            source=self._start(train, training=True),
        )

    def _start(self, table: EventTable, training: bool = False) -> EventTable | None:
        if self.recipe.start == "noise":
            return None
        if training and self.recipe.start == "transport":
            return self.coordinates.transported(table)
        return self.coordinates.detector(table)

    def draw(
        self, table: EventTable, n_draws: int, seed: int, rejection: bool = True
    ) -> np.ndarray:
        """Return particle-level jets (n_draws, n, 6) for the detector level of ``table``.

        A flow that starts from the detector level gives one answer per jet: its draws are equal.
        """
        repeats = 1 if self.recipe.start != "noise" else n_draws
        cond = self.coordinates.conditions(table) if self.recipe.told else None
        start = self._start(table)
        plain = None if rejection else {"solver": self.model.solver}
        found = self.model.sample(
            repeats * table.n,
            cond=None if cond is None else np.tile(cond, (repeats, 1)),
            source=start,
            sampler=plain,
            outside=None,  # normal numbers, whose largest differ from sample to sample
            random_state=seed,
        )
        x = self.coordinates.back(found.x).reshape(repeats, table.n, -1)
        return np.repeat(x, n_draws, axis=0) if repeats < n_draws else x
