"""What a step needs from a regressor, and what a regressor gets to learn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from ..registry import Registry


class Batch(NamedTuple):
    """Rows to learn from: inputs (b, m + c), targets (b, m), float32; weights (b,) or None."""

    inputs: np.ndarray
    target: np.ndarray
    weight: np.ndarray | None


class BatchSource(Protocol):
    """Batches that come out the same on every pass.

    XGBoost reads its data several times. If a pass drew new noise, inputs and targets would part
    company, so an implementation makes each batch anew from its own key.
    """

    n_rows: int
    n_outputs: int

    def __iter__(self) -> Iterator[Batch]: ...

    def redrawn(self, draw: int) -> BatchSource:
        """Return the same events with the noise of another draw; draw 0 is this source itself.

        Only asked for with ``fit(..., refresh=...)`` above 0.
        """


class StepRegressor(ABC):
    """Learns the velocity at one time: (point, conditions) -> velocity."""

    summary: dict[str, Any]
    """What the report of the step says about the fit: trees used, losses."""

    @abstractmethod
    def fit(
        self,
        train: BatchSource,
        valid: BatchSource | None,
        *,
        seed: int,
        n_threads: int,
        refresh: int = 0,
    ) -> Self:
        """Learn; with ``valid`` and early stopping, keep what was best on it.

        ``refresh`` is the least number of rounds between two draws of the training noise; 0 keeps
        the first draw throughout. ``valid`` is never redrawn.
        """

    @abstractmethod
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return velocities (n, m) float32 for inputs (n, m + c) float32."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Return the model as bytes; equal fits give equal bytes."""

    @classmethod
    @abstractmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Restore a model. Raises FormatError for a truncated or foreign file."""


REGRESSORS: Registry[StepRegressor] = Registry("regressor")
