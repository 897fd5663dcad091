"""Binned tables for XGBoost: made from batches, redrawn while trees are grown."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import xgboost as xgb

from .base import BatchSource

GROWTH = 20
"""After k trees, noise is redrawn after k / 20 more rounds or later. New points need the prediction
of all k trees, so a constant interval would cost time quadratic in the number of trees."""


KEPT_BYTES = 2**25
"""Inputs up to 32 MiB are kept while the bins are made."""


class _Passes(xgb.DataIter):
    """Hands a BatchSource to XGBoost and gathers the labels on the way.

    XGBoost passes over the rows four times and more. A closed-form velocity makes a batch dear, so
    inputs made in the first pass are kept for the others, up to `KEPT_BYTES`; of a larger table
    every pass makes the batches anew, so that memory does not grow with the repetitions of noise.
    """

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        self._kept: list[tuple[np.ndarray, np.ndarray | None]] = []
        self.label = np.empty((source.n_rows, source.n_outputs), dtype=np.float32)
        super().__init__()

    def reset(self) -> None:
        self._batches = iter(self._kept) if self._kept else self._made()

    def _made(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        row, size, kept = 0, 0, []
        for batch in self._source:
            self.label[row : row + len(batch.target)] = batch.target
            row += len(batch.target)
            size += batch.inputs.nbytes
            kept.append((batch.inputs, batch.weight))
            if size > KEPT_BYTES:
                kept.clear()
            yield batch.inputs, batch.weight
        self._kept = kept if size <= KEPT_BYTES else []

    def released_label(self) -> np.ndarray:
        """Return the labels and forget all rows.

        XGBoost's iterator holds itself in a circle, so what it holds would otherwise stay until
        Python happens to look for circles.
        """
        label = self.label
        self._kept, self.label = [], label[:0]
        self._batches = iter(())
        return label

    def next(self, input_data: Callable[..., None]) -> bool:
        inputs, weight = next(self._batches, (None, None))
        if inputs is None:
            return False
        input_data(data=inputs, weight=weight)
        return True


class Table:
    """Binned inputs, and the labels of one group of outputs at a time.

    The float inputs are gone before gradients take more room. Labels are set in one piece: handed
    in by batches, XGBoost's growing buffer would end up to twice as large as they are.

    Parameters
    ----------
    source : rows to bin
    max_bin, n_threads : as XGBoost's
    bins : a table whose bins are used; None makes them from the rows
    """

    def __init__(
        self,
        source: BatchSource,
        max_bin: int,
        n_threads: int,
        bins: xgb.QuantileDMatrix | None = None,
    ) -> None:
        passes = _Passes(source)
        self.matrix = xgb.QuantileDMatrix(passes, max_bin=max_bin, ref=bins, nthread=n_threads)
        self._label = passes.released_label()
        self._n_outputs, self._labelled = source.n_outputs, slice(0, 0)

    def labelled(self, outputs: slice) -> xgb.QuantileDMatrix:
        """Return the matrix with the labels of these outputs (a range without gaps)."""
        if outputs != self._labelled:
            self.matrix.set_label(np.ascontiguousarray(self._label[:, outputs]))
            self._labelled = outputs
            if outputs == slice(0, self._n_outputs):  # nobody will ask for others
                self._label = self._label[:0].copy()
        return self.matrix


class Draws:
    """The training table, one draw of noise at a time; all draws share the bins of the first.

    Parameters
    ----------
    refresh : least number of rounds between two draws; 0: one draw for all
    """

    def __init__(self, source: BatchSource, refresh: int, max_bin: int, n_threads: int) -> None:
        self._source, self._refresh = source, refresh
        self._options = (max_bin, n_threads)
        self.table, self.n_draws = Table(source, *self._options), 1
        if refresh:  # one row keeps the bins while the table itself makes room for the next
            row = next(iter(source)).inputs[:1]
            self._bins = xgb.QuantileDMatrix(
                row, ref=self.table.matrix, max_bin=max_bin, nthread=n_threads
            )

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
