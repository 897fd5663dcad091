"""Unfolding by a flow that starts from the detector level of an event and ends at its truth.

One answer for each event of the data and no prior to iterate; what is no signal is removed by the
simulation's purity, and what is not seen restored by its efficiency.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...seeding import derive
from ...tables.event_table import EventTable
from .acceptance import Acceptance, first_scale
from .inputs import UnfoldingInputs
from .method import Method, Settings, Weighed
from .odds import CrossFittedOdds, folds


class Transport(Method):
    """Answers for every event of the data."""

    least_iterations = 0

    def _prepare(self) -> None:
        inputs = self.inputs
        if len(inputs.truth.names) != len(inputs.reco.names):
            raise ConfigError(
                "'transport' carries each column of reco to one of truth, got"
                f" {len(inputs.reco.names)} and {len(inputs.truth.names)}: name as many, or use"
                " another method"
            )
        if not self.state:
            self.state = {"answers": answers(inputs, self.settings, self.n_threads)}

    @property
    def rows(self) -> EventTable:
        return replace(self.inputs.truth, x=self.state["answers"])

    def weigh(self, inputs: UnfoldingInputs, n_iterations: int) -> Weighed:
        settings, x, m = self.settings, self.state["answers"], inputs.data.n
        trees, seed, passes = settings.trees, settings.seed, inputs.pass_truth
        of_data = folds(m, trees.n_folds, seed, "folds of the data")
        known = Acceptance.of(inputs, settings, x, of_data, self.n_threads)
        purity = 1 / (1 + known.fakes + known.background)
        weight = inputs.data_weight * purity / known.efficiency
        of_truth = folds(inputs.n, trees.n_folds, seed, "folds of the simulation")[passes]
        both_rows = np.concatenate([x, inputs.truth.x[passes]])
        odds = CrossFittedOdds(both_rows, np.append(of_data, of_truth), trees, seed, self.n_threads)
        before = inputs.weight[passes]
        log_ratio = odds.fit(
            np.append(weight, np.zeros(len(before))), np.append(np.zeros(m), before)
        )
        scale = first_scale(inputs, settings.fakes) if settings.fakes == "share" else 1.0
        simulation = np.where(inputs.fakes, scale * inputs.weight, 0.0)
        after = before * np.exp(log_ratio[m:])
        simulation[passes] = after * (weight.sum() / after.sum())
        return Weighed(weight, simulation, {"trees": [odds.n_trees]})


def answers(inputs: UnfoldingInputs, settings: Settings, n_threads: int) -> np.ndarray:
    """Train the flow on simulated pairs, and carry the data to truth: (m, t)."""
    from ...model import FlowBDT

    both, names = inputs.both, inputs.truth.names
    start, end = (replace(table, names=names) for table in (inputs.reco.take(both), inputs.data))
    executor: dict[str, Any] = {"name": "serial", "n_threads": n_threads}
    given = {"random_state": settings.seed, "executor": executor, **settings.flow}
    model = FlowBDT(**given, coupling="given")
    truth = inputs.truth.take(both)
    model.fit(truth, source=start, sample_weight=inputs.weight[both])
    seed = derive(settings.seed, "answers")
    end = replace(end, weight=None, dtypes=truth.dtypes)
    return np.asarray(model.sample(inputs.data.n, source=end, random_state=seed).x)
