"""Growing trees: binned tables whose noise is redrawn, and the boosters of groups of outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..seeding import derive, stream
from .base import BatchSource, kept_bytes
from .binned_rows import Signals, binned, signals_held
from .xgboost_on_demand import xgb

GROWTH = 20
"""After k trees, noise is redrawn after k / 20 more rounds or later. New points need the prediction
of all k trees, so a constant interval would cost time quadratic in the number of trees."""


class Rows(xgb.DataIter):
    """Batches of inputs (b, k) and weights (b,) or None for XGBoost, made anew on every pass.

    ``passes`` starts a pass. An exception in a batch, or of a signal's handler, is kept as
    ``error`` and ends the pass.
    """

    def __init__(self, passes: Callable[[], Iterator[tuple[Any, Any]]]) -> None:
        self._passes = passes
        self.signals = Signals()
        self.error: BaseException | None = None
        super().__init__()

    def reset(self) -> None:
        self._batches = self._passes()

    def next(self, input_data: Callable[..., None]) -> bool:
        try:
            if self.error is None:
                self.signals.deliver()
                for inputs, weight in self._batches:
                    input_data(data=inputs, weight=weight)
                    return True
        except BaseException as error:  # XGBoost would keep an Exception, and Python drop others
            self.error = error
        return False


def binned_passes(
    passes: Callable[[], Iterator[tuple[Any, Any]]], **options: Any
) -> xgb.QuantileDMatrix:
    """Return the binned table of batches; options as XGBoost's. Raises what went wrong in one."""
    rows = Rows(passes)
    with signals_held() as rows.signals:
        try:
            return xgb.QuantileDMatrix(rows, **options)
        finally:
            if rows.error is not None:
                raise rows.error


class _Passes:
    """Hands a BatchSource to XGBoost and gathers the labels.

    XGBoost passes over the rows four times and more. A closed-form velocity makes a batch dear, so
    inputs made in the first pass are kept for the others, up to ``most`` bytes; of a larger table
    every pass makes the batches anew, so that memory does not grow with the repetitions of noise.
    """

    def __init__(self, source: BatchSource, most: int) -> None:
        self._source, self._most = source, most
        self._kept: list[tuple[np.ndarray, np.ndarray | None]] = []
        self.label = np.empty((source.n_rows, source.n_outputs), dtype=np.float32)

    def __call__(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        return iter(self._kept) if self._kept else self._made()

    def _made(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        row, size, kept = 0, 0, []
        for batch in self._source:
            if not row:
                self.first_row = batch.inputs[:1].copy()
            self.label[row : row + len(batch.target)] = batch.target
            row += len(batch.target)
            size += batch.inputs.nbytes
            kept.append((batch.inputs, batch.weight))
            if size > self._most:
                kept.clear()
            yield batch.inputs, batch.weight
        self._kept = kept if size <= self._most else []

    def released_label(self) -> np.ndarray:
        """Return the labels and forget all rows.

        XGBoost's iterator holds itself in a circle, so what it holds would otherwise stay until
        Python happens to look for circles.
        """
        label = self.label
        self._kept, self.label = [], label[:0]
        return label


class Table:
    """Binned inputs, and the labels of one group of outputs at a time.

    The float inputs are gone before gradients take more room. Labels are set at once: handed
    in by batches, XGBoost's growing buffer would end up to twice as large as they are. ``bins`` is
    a table whose bins are used; None makes them from the rows. ``width`` outputs share a booster.
    """

    def __init__(
        self,
        source: BatchSource,
        width: int,
        max_bin: int,
        n_threads: int,
        bins: xgb.QuantileDMatrix | None = None,
    ) -> None:
        passes = _Passes(source, kept_bytes(source.n_rows, width))
        self.matrix = binned_passes(passes, max_bin=max_bin, ref=bins, nthread=n_threads)
        self.first_row, self._label = passes.first_row, passes.released_label()
        self._n_outputs, self._labelled = source.n_outputs, slice(0, 0)

    def loss_without_trees(self) -> float:
        """Return the root of the mean squared label, by weight; before any group has its labels."""
        weight = self.matrix.get_weight()
        share = weight.astype(np.float64) if len(weight) else np.ones(len(self._label))
        # no inner product: BLAS adds in an order that depends on where the numbers lie in memory
        total = np.sum(share * np.mean(self._label.astype(np.float64) ** 2, axis=1))
        return float(np.sqrt(total / share.sum()))

    def labelled(self, outputs: slice) -> xgb.QuantileDMatrix:
        """Return the matrix with the labels of these outputs (a range without gaps)."""
        if outputs != self._labelled:
            self.matrix.set_label(np.ascontiguousarray(self._label[:, outputs]))
            self._labelled = outputs
            if outputs == slice(0, self._n_outputs):  # no others are needed
                self._label = self._label[:0].copy()
        return self.matrix


class Draws:
    """The training table, one draw of noise at a time; all draws share the bins of the first.

    ``refresh`` is the least number of rounds between two draws; 0: one draw for all.
    """

    def __init__(
        self, source: BatchSource, refresh: int, width: int, max_bin: int, n_threads: int
    ) -> None:
        self._source, self._refresh = source, refresh
        self._options = (width, max_bin, n_threads)
        self.table, self.n_draws = Table(source, *self._options), 1
        if refresh:  # one row keeps the bins while the table itself makes room for the next
            options: dict[str, Any] = {"max_bin": max_bin, "nthread": n_threads}
            self._bins = binned(self.table.first_row, ref=self.table.matrix, **options)

    def until(self, first: int, n_rounds: int) -> int:
        """Return the round up to which a draw is used whose first round is ``first``."""
        if not self._refresh:
            return n_rounds
        return min(first + max(self._refresh, first // GROWTH), n_rounds)

    def redraw(self) -> None:
        """Replace the table by one with other noise."""
        del self.table  # its memory is needed for the next
        source = self._source.redrawn(self.n_draws)
        self.table = Table(source, *self._options, bins=self._bins)
        self.n_draws += 1


class SplitsOnSome(xgb.objective.TreeObjective):
    """Squared error; each tree seeks its splits on ``n_split`` outputs drawn for it.

    Histograms, which decide the cost in high dimension, then have that few sums per bin. Leaf
    values come from the gradient of all outputs.
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
    """A booster for some of the outputs, with its best number of trees.

    One booster goes on from draw to draw. On a table new to it XGBoost starts from its
    prediction of all trees so far (from the bins: equal to that from the numbers), and adds tree
    by tree after that. `xgboost.train` with ``xgb_model`` would copy the model at every draw.
    A tree seeks its splits on ``n_split`` outputs (0: all); growth ends after ``patience`` rounds
    without a better validation loss (0: never).
    """

    def __init__(
        self, number: int, outputs: slice, settings: dict[str, Any], n_split: int, patience: int
    ) -> None:
        self.outputs, self._patience, self.finished = outputs, patience, False
        self._settings = dict(settings)
        if number:  # the same rows and columns need not be left out for all groups
            self._settings["seed"] = derive(settings["seed"], "group", number)
        self._objective: SplitsOnSome | None = None
        if 0 < n_split < outputs.stop - outputs.start:
            self._objective = SplitsOnSome(n_split, self._settings["seed"])
        self._best, self._best_round = np.inf, -1
        self.train_rmse, self.valid_rmse = np.nan, np.nan

    def grow(self, table: Table, checked: Table | None, rounds: range, n_rounds: int) -> None:
        """Add the trees of ``rounds``; finish after the last of all or when patience is over."""
        matrix = table.labelled(self.outputs)
        valid = None if checked is None else checked.labelled(self.outputs)
        if not rounds.start:
            if self._objective is not None:
                self._settings["base_score"] = _mean_label(matrix)
            self.booster = xgb.Booster(self._settings, [matrix])
        for k in rounds:
            if self._objective is None:
                self.booster.update(matrix, k)
            else:  # XGBoost 3.2 annotates built-in objectives as plain functions
                self.booster.boost(matrix, k, fobj=self._objective)  # type: ignore[arg-type]
            if valid is not None and self._patience and self._has_stopped(valid, k):
                break
        if self.finished or rounds.stop == n_rounds:
            self._finish(matrix, valid)
        self.booster.reset()  # lets go of its caches, which the next group needs

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
    """Return the mean of each output: where XGBoost starts with its built-in objective."""
    label = matrix.get_label().reshape(matrix.num_row(), -1)
    weight = matrix.get_weight()
    mean = np.average(label, axis=0, weights=weight if len(weight) else None)
    return list(map(float, mean))


def rmse(booster: xgb.Booster, matrix: xgb.QuantileDMatrix) -> float:
    """Return the root of the mean squared error over rows (by weight) and outputs.

    To 9 digits: XGBoost adds up in as many blocks as there are threads, which must decide neither
    the last bits of a report nor, through them, when to stop.
    """
    return float(f"{float(booster.eval(matrix).split(':')[-1]):.9g}")
