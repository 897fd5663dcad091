"""OmniFold: weights of simulated events, by classifiers at detector level and at truth level.

In each iteration step 1 learns the ratio of the data to the simulation at detector level, step 2
turns it into a function of truth. A simulated event has a weight w0 f(truth); expected at detector
level are these events, fakes and background, and data over expected is the ratio of step 1. At
convergence it is 1.

- A *miss* is worth what reconstructed events of the same truth are: step 2 learns from those that
  pass both levels and is applied to all truth. This divides by the efficiency as a function of
  truth, as in D'Agostini's method, and is the average weight of the paper without a regression.
- *Fakes* keep their distribution at detector level, and their share of the simulation that was
  selected, or their rate.
- *Background* stands beside the simulation in step 1 with its own fixed weights, so that nothing
  is subtracted and no weight is negative.

A. Andreassen et al., "OmniFold", arXiv 1911.09107, and "Scaffolding simulations with deep learning
for high-dimensional deconvolution", arXiv 2105.04448.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np

from ...tables.event_table import EventTable
from .acceptance import first_scale
from .inputs import UnfoldingInputs
from .method import Method, Weighed
from .odds import CrossFittedOdds, folds

BINS = 256
"""Of a column in step 2: a bin of simulated events alone may be a large part of the unfolded."""


@dataclass(frozen=True, eq=False)
class Iteration:
    """The state after an iteration.

    Parameters
    ----------
    weight : ndarray (n,), of the simulated events, in events of the data: unfolded truth where they
        pass it; fakes have theirs, all others 0
    n_trees : of steps 1 and 2
    """

    weight: np.ndarray
    n_trees: tuple[int, int]
    _step_2: CrossFittedOdds
    _factor: float

    def change(self, truth: np.ndarray, fold: np.ndarray) -> np.ndarray:
        """Return by what this iteration multiplies any truth (k, t) of folds (k,).

        Ask before the next iteration, whose trees take the place of these.
        """
        return self._factor * np.exp(self._step_2.predict(truth, fold))


class OmniFold(Method):
    """Classifiers of both steps for some inputs; tables of bins are made once for all weights."""

    def _prepare(self) -> None:
        inputs, settings, n_threads = self.inputs, self.settings, self.n_threads
        trees, seed = settings.trees, settings.seed
        simulated = folds(inputs.n, trees.n_folds, seed, "folds of the simulation")
        self._seen, self._both = inputs.pass_reco, inputs.both
        parts = [inputs.data.x, inputs.reco.x[self._seen]]
        of = [folds(inputs.data.n, trees.n_folds, seed, "folds of the data"), simulated[self._seen]]
        if inputs.background is not None:
            parts.append(inputs.background.x)
            n = inputs.background.n
            of.append(folds(n, trees.n_folds, seed, "folds of the background"))
        growth = trees, seed, n_threads
        self._step_1 = CrossFittedOdds(np.concatenate(parts), np.concatenate(of), *growth)
        truth = inputs.truth.x
        self._step_2 = CrossFittedOdds(truth[self._both], simulated[self._both], *growth, BINS)
        self._rest = inputs.pass_truth & ~inputs.pass_reco
        self._rest_fold = simulated[self._rest]

    @property
    def rows(self) -> EventTable:
        return self.inputs.truth.take(self.inputs.pass_truth)

    def weigh(self, inputs: UnfoldingInputs, n_iterations: int) -> Weighed:
        grown = []
        for state in islice(self.iterations(inputs), n_iterations):
            grown.append(list(state.n_trees))
        return Weighed(state.weight[inputs.pass_truth], state.weight, {"trees": grown})

    def choose(self) -> tuple[int, list[dict[str, float]]]:
        from .iterations import tradeoffs

        chosen, table = tradeoffs(self)
        return chosen, [asdict(row) for row in table]

    def first_weight(self, inputs: UnfoldingInputs) -> np.ndarray:
        """Return the weights (n,) before any iteration, see `Iteration`."""
        weight = np.where(inputs.pass_truth | inputs.pass_reco, inputs.weight, 0.0)
        scale = first_scale(inputs, self.settings.fakes)
        share = self.settings.fakes == "share"
        return weight * (scale if share else np.where(inputs.fakes, 1.0, scale))

    def iterations(self, inputs: UnfoldingInputs) -> Iterator[Iteration]:
        """Iterate for ever; ``inputs`` are the same events with other weights."""
        both, seen, is_fake = self._both, self._seen, inputs.fakes
        data, background = inputs.data_weight, inputs.background_weight
        weight = self.first_weight(inputs)
        is_data = np.arange(len(data) + seen.sum() + len(background)) < len(data)
        while True:
            expected = np.concatenate([np.zeros(len(data)), weight[seen], background])
            observed = np.concatenate([data, np.zeros(len(expected) - len(data))])
            ratio = np.exp(self._step_1.fit(observed, expected))[~is_data]
            pulled = expected[~is_data] * ratio
            pulled *= data.sum() / pulled.sum()
            pulled = pulled[: seen.sum()][both[seen]]
            log_ratio = self._step_2.fit(pulled, weight[both])
            new = weight.copy()
            new[both] *= np.exp(log_ratio)
            factor = pulled.sum() / new[both].sum()
            new[both] *= factor
            trees = self._step_1.n_trees, self._step_2.n_trees
            state = Iteration(new, trees, self._step_2, factor)
            new[self._rest] *= state.change(inputs.truth.x[self._rest], self._rest_fold)
            if self.settings.fakes == "share":
                new[is_fake] *= pulled.sum() / weight[both].sum()
            weight = new
            yield state
