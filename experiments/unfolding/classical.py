"""Unfolding by weights: iterative Bayesian unfolding, OmniFold, and iterated posteriors.

All return weights of events that exist already; only the last also needs a posterior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flowbdt.physics.unfolding.bayes import iterate_bayes

Ratio = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Trees:
    """Classifier of boosted trees whose odds are a ratio of densities.

    Parameters
    ----------
    n_trees : at most
    patience : stop when so many trees did not lower the loss of a fifth of the events, kept
        apart; 0 grows all trees
    """

    n_trees: int = 50
    max_depth: int = 3
    learning_rate: float = 0.1
    least_weight: float = 20.0
    patience: int = 0

    def ratio(
        self,
        upper: np.ndarray,
        lower: np.ndarray,
        weight_upper: np.ndarray,
        weight_lower: np.ndarray,
        seed: int,
    ) -> Ratio:
        """Return a function that estimates density of ``upper`` over that of ``lower``.

        Parameters
        ----------
        upper, lower : ndarray (n, d), (k, d)
        weight_upper, weight_lower : ndarray (n,), (k,), non-negative, of any scale
        """
        from xgboost import XGBClassifier

        x = np.vstack([upper, lower]).astype(np.float32)
        label = np.repeat([1, 0], [len(upper), len(lower)])
        total = (weight_upper > 0).sum()  # as many events as there are, not as the weights add to
        parts = [total * w / w.sum() for w in (weight_upper, weight_lower)]
        weight = np.concatenate(parts)
        held = np.zeros(len(x), dtype=bool)
        if self.patience:
            held = np.random.default_rng(seed).random(len(x)) < 0.2
        model = XGBClassifier(
            n_estimators=self.n_trees,
            max_depth=self.max_depth,
            learning_rate=self.learning_rate,
            min_child_weight=self.least_weight,
            subsample=0.7,
            max_bin=64,
            tree_method="hist",
            n_jobs=1,
            random_state=seed,
            early_stopping_rounds=self.patience or None,
        )
        watched = [(x[held], label[held])] if self.patience else None
        model.fit(
            x[~held],
            label[~held],
            sample_weight=weight[~held],
            eval_set=watched,
            sample_weight_eval_set=[weight[held]] if self.patience else None,
            verbose=False,
        )
        return lambda z: np.exp(model.predict(z.astype(np.float32), output_margin=True))


PUBLISHED = Trees(n_trees=500, max_depth=4, patience=10)
"""The stopping rule of the published code: patience of 10 on a fifth of the events."""


def omnifold(
    gen: np.ndarray,
    sim: np.ndarray,
    data: np.ndarray,
    n_iterations: int,
    trees: Trees,
    *,
    from_start: bool,
    seed: int,
) -> list[np.ndarray]:
    """Return the weights of the simulated events after each iteration.

    Step 1 weights the simulation to the data at detector level; step 2 turns the weight of each
    event into a function of its particle level, by a classifier of the weighted events against
    the same events with their first (``from_start``) or previous weights.

    Parameters
    ----------
    gen, sim : ndarray (n, d), (n, c), the two levels of the simulation, row by row
    data : ndarray (k, c), detector level

    Returns
    -------
    list of ndarray (n,), mean 1

    References
    ----------
    A. Andreassen et al., arXiv 1911.09107, the two steps of each iteration; its code offers both
    kinds of step 2 and starts from the first weights by default.
    """
    ones = np.ones(len(gen))
    weight, found = ones, []
    for i in range(n_iterations):
        pulled = weight * trees.ratio(data, sim, np.ones(len(data)), weight, seed + 2 * i)(sim)
        before = ones if from_start else weight
        weight = before * trees.ratio(gen, gen, pulled, before, seed + 2 * i + 1)(gen)
        weight = weight / weight.mean()
        found.append(weight)
    return found


def iterated_posteriors(
    draws: np.ndarray, prior: np.ndarray, n_iterations: int, trees: Trees, seed: int
) -> list[np.ndarray]:
    """Return weights of posterior draws after each change of the prior to the unfolded result.

    With another prior p_k in place of the p_0 of the training, the posterior of an event is that
    of the training times p_k / p_0, normalised again: no flow is trained anew. Each iteration
    learns the ratio of what was unfolded to the present prior and multiplies it in.

    Parameters
    ----------
    draws : ndarray (k, n, d), k draws of the posterior of each of n data events
    prior : ndarray (j, d), events of the training prior p_0

    Returns
    -------
    list of ndarray (k, n); the weights of the draws of each event have mean 1

    References
    ----------
    M. Backes et al., "An unfolding method based on conditional invertible neural networks using
    iterative training", arXiv 2212.08674, which trains the posterior anew instead. Weights by
    Bayes' theorem: derived here.
    """
    k, n, d = draws.shape
    flat = draws.reshape(k * n, d)
    change, change_prior = np.ones(k * n), np.ones(len(prior))
    weight, found = np.ones((k, n)), []
    # draws of one event are not independent: a leaf needs as many events as without repetition
    several = Trees(trees.n_trees, trees.max_depth, trees.learning_rate, k * trees.least_weight)
    for i in range(n_iterations):
        ratio = several.ratio(flat, prior, weight.ravel(), change_prior, seed + i)
        change, change_prior = change * ratio(flat), change_prior * ratio(prior)
        weight = change.reshape(k, n) / change.reshape(k, n).mean(axis=0)
        found.append(weight)
    return found


def bayes_weights(
    gen: np.ndarray, sim: np.ndarray, data: np.ndarray, n_bins: int = 40, n_iterations: int = 5
) -> np.ndarray:
    """Return weights (n, d) of the simulated events, each column unfolded by itself in bins.

    Bins hold equal numbers of simulated events at either level; a repeated value is one bin.
    """
    weights = np.ones(gen.shape)
    for column in range(gen.shape[1]):
        upper, lower = (_edges(level[:, column], n_bins) for level in (gen, sim))
        true_bin = np.searchsorted(upper, gen[:, column], side="right")
        seen_bin = np.searchsorted(lower, sim[:, column], side="right")
        response = np.zeros((len(lower) + 1, len(upper) + 1))
        np.add.at(response, (seen_bin, true_bin), 1.0)
        counts = np.bincount(
            np.searchsorted(lower, data[:, column], side="right"), minlength=len(lower) + 1
        )
        truth = iterate_bayes(response, counts.astype(float), n_iterations)
        prior = response.sum(axis=0)
        change = np.divide(truth, prior, out=np.zeros_like(truth), where=prior > 0)
        weights[:, column] = change[true_bin]
    return weights / weights.mean(axis=0)


def _edges(values: np.ndarray, n_bins: int) -> np.ndarray:
    inner = np.quantile(values, np.arange(1, n_bins) / n_bins, method="inverted_cdf")
    return np.unique(inner)
