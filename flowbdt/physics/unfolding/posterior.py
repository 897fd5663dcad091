"""Unfolding by draws from p(truth | reco), weighed until the prior is what they unfold to.

A flow with the detector level as condition draws truth for every event of the data, with the
simulation's spectrum as prior. With another prior p_k in place of p_0 the posterior is that of the
training times p_k / p_0, normalised again, so that nothing is trained anew. The ratio is that of
OmniFold's iterations (arXiv 1911.09107): their step 2 holds simulated events against themselves
with other weights, while draws of the data held against draws of the simulation bring in the
fluctuations of both, which every further change of the prior repeats. A prior that is the unfolded
spectrum: M. Backes et al., arXiv 2212.08674, who train the posterior anew; weights by Bayes'
theorem: derived here. They are shared out among the draws of one event, so that few draws keep a
part of the prior, about one over their number.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from ...seeding import derive
from ...tables.event_table import EventTable
from ...tables.transforms import TableTransform
from .acceptance import Acceptance
from .inputs import UnfoldingInputs
from .method import Method, Settings, Weighed
from .odds import folds
from .omnifold import OmniFold

CHANGES = 3
"""Of the prior, unless told otherwise: few gain from more, which add noise."""


class Posterior(Method):
    """Draws for every event of the data, and iterations of OmniFold for their prior."""

    least_iterations = 0

    def _prepare(self) -> None:
        if not self.state:
            self.state = {"draws": drawn(self.inputs, self.settings, self.n_threads)}
        self._prior = OmniFold(self.inputs, self.settings, self.n_threads)

    @property
    def rows(self) -> EventTable:
        return replace(self.inputs.truth, x=self.state["draws"])

    def choose(self) -> tuple[int, list[dict[str, float]]]:
        return CHANGES, []

    def weigh(self, inputs: UnfoldingInputs, n_iterations: int) -> Weighed:
        settings, draws, both = self.settings, self.state["draws"], inputs.both
        fold = folds(inputs.data.n, settings.trees.n_folds, settings.seed, "folds of the data")
        fold = np.tile(fold, len(draws) // inputs.data.n)
        known = Acceptance.of(inputs, settings, draws, fold, self.n_threads)
        weight = self._prior.first_weight(inputs)
        change, first, grown = np.ones(len(draws)), weight[both].sum(), []
        for state in islice(self._prior.iterations(inputs), n_iterations):
            change *= state.change(draws, fold)
            weight = state.weight
            grown.append(list(state.n_trees))
        fakes_scale = weight[both].sum() / first if settings.fakes == "share" else 1.0
        of_data = self._weights(inputs, known, change, fakes_scale) / known.efficiency
        return Weighed(of_data, weight, {"trees": grown})

    @staticmethod
    def _weights(
        inputs: UnfoldingInputs, known: Acceptance, change: np.ndarray, fakes_scale: float
    ) -> np.ndarray:
        """Return weights of the draws: of the data, shared by the posterior, less what is none."""
        of_event = change.reshape(-1, inputs.data.n)
        evidence = of_event.mean(axis=0)
        purity = evidence / (evidence + fakes_scale * known.fakes + known.background)
        return (inputs.data_weight * purity * of_event / of_event.sum(axis=0)).ravel()


def drawn(inputs: UnfoldingInputs, settings: Settings, n_threads: int) -> np.ndarray:
    """Train the flow, and draw truth (k m, t) of the data's events."""
    from ...model import FlowBDT

    both, seed = inputs.both, settings.seed
    ranks = TableTransform({"*": "rank", "joint": "none"}, seed=seed)
    seen = inputs.reco.take(both)
    cond = ranks.fit(seen).forward(seen)
    executor: dict[str, Any] = {"name": "serial", "n_threads": n_threads}
    model = FlowBDT(**{"random_state": seed, "executor": executor, **settings.flow})
    model.fit(inputs.truth.take(both), cond=cond, sample_weight=inputs.weight[both])
    asked = np.tile(ranks.forward(inputs.data), (settings.n_draws, 1))
    purpose = derive(seed, "draws of the data")
    return model.sample(len(asked), cond=asked, outside=None, random_state=purpose).x
