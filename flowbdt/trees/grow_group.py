"""Growing the trees of one group of outputs, with splits sought on all of them or on a few."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import xgboost as xgb
from xgboost.objective import TreeObjective

from ..seeding import derive, stream
from .binned_tables import Table


class SplitsOnSome(TreeObjective):
    """Squared error; each tree seeks its splits on a few outputs drawn for it.

    Histograms, which decide the cost in high dimension, then have that few sums per bin. Leaf
    values come from the gradient of all outputs.

    Parameters
    ----------
    n_split : outputs drawn for a tree, fewer than there are
    seed : of the draws, keyed by the number of the tree
    """

    def __init__(self, n_split: int, seed: int) -> None:
        self._n_split, self._seed = n_split, seed

    def __call__(
        self, iteration: int, y_pred: np.ndarray, dtrain: xgb.DMatrix
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return first and second derivatives (n, m), float32, of all outputs."""
        gradient = y_pred - dtrain.get_label().reshape(y_pred.shape)
        weight = dtrain.get_weight() if len(dtrain.get_weight()) else np.ones(len(y_pred), "f4")
        gradient *= weight[:, None]
        return gradient, np.broadcast_to(weight[:, None], gradient.shape)

    def split_grad(
        self, iteration: int, grad: np.ndarray, hess: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the derivatives (n, n_split) of the outputs that decide tree ``iteration``."""
        rng = stream(self._seed, "split-outputs", iteration)
        drawn = np.sort(rng.choice(grad.shape[1], self._n_split, replace=False))
        return np.ascontiguousarray(grad[:, drawn]), hess[:, : self._n_split]


def ranges(n_outputs: int, width: int) -> list[slice]:
    """Return neighbouring outputs in groups of at most ``width``, of near equal size; 0: one."""
    n_groups = -(-n_outputs // width) if width else 1
    edges = [n_outputs * g // n_groups for g in range(n_groups + 1)]
    return [slice(low, high) for low, high in itertools.pairwise(edges)]


class Group:
    """A booster for some of the outputs, with its own best number of trees.

    One booster goes on from draw to draw. On a table new to it XGBoost starts from its own
    prediction of all trees so far (from the bins: equal to that from the numbers), and adds tree
    by tree after that. `xgboost.train` with ``xgb_model`` would copy the model at every draw.

    Parameters
    ----------
    number, outputs : which group, and its outputs
    settings : XGBoost's parameters
    n_split : outputs on which a tree seeks its splits; 0: all
    patience : rounds without a better validation loss after which it stops; 0: never
    """

    def __init__(
        self, number: int, outputs: slice, settings: dict[str, Any], n_split: int, patience: int
    ) -> None:
        self.outputs, self._patience, self.finished = outputs, patience, False
        self._settings = dict(settings)
        if number:  # the same rows and columns need not be left out for all groups
            self._settings["seed"] = derive(settings["seed"], "group", number)
        few = 0 < n_split < outputs.stop - outputs.start
        self._objective = SplitsOnSome(n_split, self._settings["seed"]) if few else None
        self._best, self._best_round = np.inf, -1
        self.train_rmse, self.valid_rmse = np.nan, np.nan

    def grow(self, table: Table, checked: Table | None, rounds: range, n_rounds: int) -> None:
        """Add the trees of ``rounds``; finish after the last of all or when patience is over."""
        matrix = table.labelled(self.outputs)
        valid = None if checked is None else checked.labelled(self.outputs)
        if not rounds.start:
            self.booster = self._start(matrix)
        for k in rounds:
            self._add_tree(matrix, k)
            if valid is not None and self._patience and self._has_stopped(valid, k):
                break
        if self.finished or rounds.stop == n_rounds:
            self._finish(matrix, valid)
        self.booster.reset()  # lets go of its caches, of which the next group has its own

    def _start(self, matrix: xgb.QuantileDMatrix) -> xgb.Booster:
        if self._objective is not None:
            self._settings["base_score"] = _mean_label(matrix)
        return xgb.Booster(self._settings, [matrix])

    def _add_tree(self, matrix: xgb.QuantileDMatrix, k: int) -> None:
        if self._objective is None:
            self.booster.update(matrix, k)
        else:
            # XGBoost 3.2 annotates its own objectives as plain functions
            self.booster.boost(matrix, k, fobj=self._objective)  # type: ignore[arg-type]

    def _has_stopped(self, valid: xgb.QuantileDMatrix, k: int) -> bool:
        loss = rmse(self.booster, valid)
        if loss < self._best:
            self._best, self._best_round = loss, k
        self.finished = k - self._best_round >= self._patience
        return self.finished

    def _finish(self, matrix: xgb.QuantileDMatrix, valid: xgb.QuantileDMatrix | None) -> None:
        """Keep the trees up to and including the best round; note the losses."""
        self.finished = True
        if self._best_round >= 0:
            self.booster = self.booster[: self._best_round + 1]
        self.train_rmse = rmse(self.booster, matrix)
        if valid is not None:
            self.valid_rmse = rmse(self.booster, valid)


def _mean_label(matrix: xgb.QuantileDMatrix) -> list[float]:
    """Return the mean of each output: where XGBoost starts by itself with its own objective."""
    label = matrix.get_label().reshape(matrix.num_row(), -1)
    weight = matrix.get_weight()
    mean = np.average(label, axis=0, weights=weight if len(weight) else None)
    return [float(value) for value in mean]


def rmse(booster: xgb.Booster, matrix: xgb.QuantileDMatrix) -> float:
    """Return the root of the mean squared error over rows (by weight) and outputs.

    To 9 digits: XGBoost adds up in as many parts as there are threads, which must decide neither
    the last bits of a report nor, through them, when to stop.
    """
    return float(f"{float(booster.eval(matrix).split(':')[-1]):.9g}")
