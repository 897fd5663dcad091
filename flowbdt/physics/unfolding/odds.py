"""Log odds of two weighted samples by boosted trees, learned without the rows that are asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...seeding import derive, row_uniform
from ...trees.binned_rows import binned
from ...trees.xgboost_on_demand import xgb


@dataclass(frozen=True)
class Trees:
    """How the classifiers of an unfolding are grown.

    Parameters
    ----------
    most_trees : at most
    least_trees : at least: what is left of the prior after later iterations is too small to be
        seen in the loss, and would stay
    patience : stop when so many trees did not lower the loss of the folds, taken together
    n_folds : an event's odds come from trees that were grown without its fold
    least_weight : of a leaf; an event counts a quarter at most
    """

    most_trees: int = 100
    least_trees: int = 8
    patience: int = 5
    n_folds: int = 2
    max_depth: int = 3
    learning_rate: float = 0.25
    least_weight: float = 20.0


class CrossFittedOdds:
    """Classifier of the same rows with changing weights; tables of bins are made once.

    Parameters
    ----------
    x : ndarray (n, d)
    fold : ndarray (n,), whole numbers below ``trees.n_folds``
    most_bins : of a column, with equally many rows: more where the weights crowd among few rows
    """

    def __init__(
        self,
        x: np.ndarray,
        fold: np.ndarray,
        trees: Trees,
        seed: int,
        n_threads: int,
        most_bins: int = 64,
    ) -> None:
        self._trees, self._fold = trees, fold
        self._x = np.ascontiguousarray(x, dtype=np.float32)
        self._n_threads = n_threads
        self._settings = {
            "objective": "binary:logistic",
            "tree_method": "hist",
            "base_score": 0.5,
            "max_depth": trees.max_depth,
            "learning_rate": trees.learning_rate,
            "min_child_weight": trees.least_weight,
            "max_bin": most_bins,
            "seed": derive(seed, "unfolding-trees"),
            "nthread": n_threads,
            "disable_default_eval_metric": 1,
        }
        self._tables = []
        for k in range(trees.n_folds):
            rest, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            label = np.zeros(len(rest))
            table = binned(self._x[rest], label, max_bin=most_bins, nthread=n_threads)
            self._tables.append((rest, held, table))
        self._boosters: list[xgb.Booster] = []
        self.n_trees = 0

    def fit(self, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """Learn log of the density of the rows with weights ``upper`` over that with ``lower``.

        A row may count for both. Returns the log ratio (n,) of every row, from trees grown without
        it; densities are normalised.
        """
        share = upper / upper.sum(), lower / lower.sum()
        count = min(1 / (s**2).sum() for s in share)  # as many events as the weights are worth
        weight = count * (share[0] + share[1])
        label = np.divide(count * share[0], weight, out=np.zeros_like(weight), where=weight > 0)
        self._boosters, margins = [], []
        for rest, held, table in self._tables:
            table.set_label(label[rest])
            table.set_weight(weight[rest])
            self._boosters.append(xgb.Booster(self._settings, [table]))
            margins.append(np.zeros(len(held), dtype=np.float32))
        best, losses = [m.copy() for m in margins], [np.inf]
        trees, since = self._trees, 0
        for i in range(trees.most_trees):
            loss = 0.0
            for k, (_, held, table) in enumerate(self._tables):
                self._boosters[k].update(table, i)
                margins[k] = margins[k] + self._margin(k, self._x[held], (i, i + 1))
                loss += _loss(margins[k], label[held], weight[held])
            if loss < min(losses) or i < trees.least_trees:
                best, since, self.n_trees = [m.copy() for m in margins], 0, i + 1
            losses.append(loss)
            since += 1
            if since > trees.patience:
                break
        found = np.zeros(len(self._x))
        for (_, held, _), margin in zip(self._tables, best, strict=True):
            found[held] = margin
        return found

    def predict(self, x: np.ndarray, fold: np.ndarray) -> np.ndarray:
        """Return the log ratio (k,) of other rows (k, d), by the trees of their folds (k,)."""
        found = np.zeros(len(x))
        x = np.ascontiguousarray(x, dtype=np.float32)
        for k in range(self._trees.n_folds):
            rows = fold == k
            if rows.any():
                found[rows] = self._margin(k, x[rows], (0, self.n_trees))
        return found

    def _margin(self, k: int, x: np.ndarray, trees: tuple[int, int]) -> np.ndarray:
        return np.asarray(
            self._boosters[k].inplace_predict(x, iteration_range=trees, predict_type="margin")
        )


def _loss(margin: np.ndarray, label: np.ndarray, weight: np.ndarray) -> float:
    softplus = np.maximum(margin, 0) + np.log1p(np.exp(-np.abs(margin)))
    return float(weight @ (softplus - label * margin))


def folds(n: int, n_folds: int, seed: int, purpose: str) -> np.ndarray:
    """Return the folds (n,) of the rows of a table, by a keyed hash of their numbers."""
    return (row_uniform(n, derive(seed, purpose)) * n_folds).astype(int)
