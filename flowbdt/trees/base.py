"""Batches of rows, the one form in which trees receive what they learn from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

KEPT_BYTES = 2**28
GRADIENT_BYTES = 20
"""Inputs up to this size are kept while the bins are made, larger ones as long as gradients take
more once the inputs are gone: so many bytes for each row and output of vector leaves."""


def kept_bytes(n_rows: int, width: int) -> int:
    """Return up to which size the inputs of rows are kept; ``width`` outputs share a booster."""
    return max(KEPT_BYTES, GRADIENT_BYTES * n_rows * width)


class Batch(NamedTuple):
    """Rows to learn from: inputs (b, m + c), targets (b, m), float32; weights (b,) or None."""

    inputs: np.ndarray
    target: np.ndarray
    weight: np.ndarray | None


class BatchSource(Protocol):
    """Batches that come out the same on every pass.

    XGBoost reads its data more than once. If a pass drew new noise, inputs and targets would not
    belong together, so an implementation makes each batch anew from its key.
    """

    n_rows: int
    n_outputs: int

    def __iter__(self) -> Iterator[Batch]: ...

    def redrawn(self, draw: int) -> BatchSource:
        """Return the same events with the noise of another draw; draw 0 is this source itself."""
