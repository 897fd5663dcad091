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
from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from .inputs import UnfoldingInputs
from .odds import CrossFittedOdds, Trees, folds

FAKES = ("share", "rate")


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


class OmniFold:
    """Classifiers of both steps for some inputs; tables of bins are made once for all weights.

    Parameters
    ----------
    fakes : "share": fakes keep their share of the simulation that passes detector level; "rate":
        their weights are the events expected in the data
    """

    def __init__(
        self,
        inputs: UnfoldingInputs,
        trees: Trees | None = None,
        *,
        fakes: str = "share",
        seed: int = 0,
        n_threads: int = 1,
    ) -> None:
        if fakes not in FAKES:
            raise ConfigError(f"fakes must be one of {', '.join(FAKES)}, got {fakes!r}")
        trees = trees or Trees()
        self.inputs, self.fakes = inputs, fakes
        simulated = folds(inputs.n, trees.n_folds, seed, "folds of the simulation")
        self._seen, self._both = inputs.pass_reco, inputs.both
        parts = [inputs.data.x, inputs.reco.x[self._seen]]
        of = [folds(inputs.data.n, trees.n_folds, seed, "folds of the data"), simulated[self._seen]]
        if inputs.background is not None:
            parts.append(inputs.background.x)
            n = inputs.background.n
            of.append(folds(n, trees.n_folds, seed, "folds of the background"))
        settings = trees, seed, n_threads
        self._step_1 = CrossFittedOdds(np.concatenate(parts), np.concatenate(of), *settings)
        truth = inputs.truth.x
        self._step_2 = CrossFittedOdds(truth[self._both], simulated[self._both], *settings)
        self._rest = inputs.pass_truth & ~inputs.pass_reco
        self._rest_fold = simulated[self._rest]

    def iterations(self, inputs: UnfoldingInputs | None = None) -> Iterator[Iteration]:
        """Iterate for ever; ``inputs`` are the same events with other weights."""
        inputs = inputs or self.inputs
        both, seen, is_fake = self._both, self._seen, inputs.fakes
        data, background = inputs.data_weight, inputs.background_weight
        weight = np.where(inputs.pass_truth | seen, inputs.weight, 0.0)
        weight *= self._fakes_scale(weight, data.sum() - background.sum())
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
            rest = self._step_2.predict(inputs.truth.x[self._rest], self._rest_fold)
            new[self._rest] *= np.exp(rest) * factor
            if self.fakes == "share":
                new[is_fake] *= pulled.sum() / weight[both].sum()
            weight = new
            yield Iteration(weight, (self._step_1.n_trees, self._step_2.n_trees))

    def _fakes_scale(self, weight: np.ndarray, selected: float) -> np.ndarray:
        """Return the first factor of each event: as much is expected as there are data."""
        is_fake, signal = self.inputs.fakes, weight[self._both].sum()
        if self.fakes == "share":
            return np.full(len(weight), selected / (signal + weight[is_fake].sum()))
        if (left := selected - weight[is_fake].sum()) <= 0:
            raise ConfigError(
                f"with fakes='rate' the simulated fakes add up to {weight[is_fake].sum():g} events,"
                f" and {selected:g} of the data are no background: scale the simulation's weights"
                " to the data's luminosity, or say fakes='share'"
            )
        return np.where(is_fake, 1.0, left / signal)
