"""Unfolding by draws from p(truth | reco), weighed until the prior is what they unfold to.

A flow with the detector level as condition draws truth for every event of the data, with the
simulation's spectrum as prior. With another prior p_k in place of p_0 the posterior is that of the
training times p_k / p_0, normalised again, so that nothing is trained anew: each change of the
prior learns the ratio of what is unfolded to the present prior, and multiplies it in. The method of
M. Backes et al., arXiv 2212.08674, which trains the posterior anew instead; weights by Bayes'
theorem: derived here. They are shared out among the draws of one event, so that few draws keep a
part of the prior, about one over their number.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...seeding import derive
from ...tables.event_table import EventTable
from ...tables.transforms import TableTransform
from .acceptance import Acceptance, first_scale
from .inputs import UnfoldingInputs
from .method import Method, Settings, Weighed
from .odds import CrossFittedOdds, folds

CHANGES = 3
"""Of the prior, unless told otherwise: most settle after the second, many more add noise."""


class Posterior(Method):
    """Draws for every event of the data, and one for every simulated event that passes both."""

    least_iterations = 0

    def _prepare(self) -> None:
        if not self.state:
            self.state = drawn(self.inputs, self.settings, self.n_threads)

    @property
    def rows(self) -> EventTable:
        return replace(self.inputs.truth, x=self.state["draws"])

    def choose(self) -> tuple[int, list[dict[str, float]]]:
        return CHANGES, []

    def weigh(self, inputs: UnfoldingInputs, n_iterations: int) -> Weighed:
        settings, draws, prior = self.settings, self.state["draws"], self.state["prior"]
        trees, seed, m = settings.trees, settings.seed, inputs.data.n
        k = len(draws) // m
        both, passes = inputs.both, inputs.pass_truth
        of_data = np.tile(folds(m, trees.n_folds, seed, "folds of the data"), k)
        fold = folds(inputs.n, trees.n_folds, seed, "folds of the simulation")
        known = Acceptance.of(inputs, settings, draws, of_data, self.n_threads)
        signal = first_scale(inputs, settings.fakes) * inputs.weight
        odds = CrossFittedOdds(
            np.concatenate([draws, prior]),
            np.concatenate([of_data, fold[both]]),
            trees,
            seed,
            self.n_threads,
        )
        change, of_prior, of_truth = np.ones(len(draws)), np.ones(both.sum()), np.ones(passes.sum())
        fakes_scale, grown = 1.0, []
        weight = self._weights(inputs, known, change, fakes_scale)
        for _ in range(n_iterations):
            present = signal[both] * of_prior
            log_ratio = odds.fit(
                np.append(weight, np.zeros(len(prior))), np.append(np.zeros(len(draws)), present)
            )
            norm = weight.sum() / present.sum()
            change = change * norm * np.exp(log_ratio[: len(draws)])
            of_prior = of_prior * norm * np.exp(log_ratio[len(draws) :])
            of_truth *= norm * np.exp(odds.predict(inputs.truth.x[passes], fold[passes]))
            if settings.fakes == "share":
                fakes_scale = weight.sum() / signal[both].sum()
            weight = self._weights(inputs, known, change, fakes_scale)
            grown.append(odds.n_trees)
        simulation = np.where(inputs.fakes, signal * fakes_scale, 0.0)
        if settings.fakes == "rate":
            simulation = np.where(inputs.fakes, inputs.weight, 0.0)
        simulation[passes] = signal[passes] * of_truth
        return Weighed(weight / known.efficiency, simulation, {"trees": grown})

    @staticmethod
    def _weights(
        inputs: UnfoldingInputs, known: Acceptance, change: np.ndarray, fakes_scale: float
    ) -> np.ndarray:
        """Return weights of the draws: of the data, shared by the posterior, less what is none."""
        of_event = change.reshape(-1, inputs.data.n)
        evidence = of_event.mean(axis=0)
        purity = evidence / (evidence + fakes_scale * known.fakes + known.background)
        return (inputs.data_weight * purity * of_event / of_event.sum(axis=0)).ravel()


def drawn(inputs: UnfoldingInputs, settings: Settings, n_threads: int) -> dict[str, np.ndarray]:
    """Train the flow, and draw: "draws" (k m, t) of the data, "prior" (j, t) of the simulation."""
    from ...model import FlowBDT

    both, seed = inputs.both, settings.seed
    ranks = TableTransform({"*": "rank", "joint": "none"}, seed=seed)
    seen = inputs.reco.take(both)
    cond = ranks.fit(seen).forward(seen)
    executor: dict[str, Any] = {"name": "serial", "n_threads": n_threads}
    model = FlowBDT(**{"random_state": seed, "executor": executor, **settings.flow})
    model.fit(inputs.truth.take(both), cond=cond, sample_weight=inputs.weight[both])

    def draws(conditions: np.ndarray, purpose: str) -> np.ndarray:
        return model.sample(
            len(conditions), cond=conditions, outside=None, random_state=derive(seed, purpose)
        ).x

    asked = np.tile(ranks.forward(inputs.data), (settings.n_draws, 1))
    return {"draws": draws(asked, "draws of the data"), "prior": draws(cond, "draws of the prior")}
