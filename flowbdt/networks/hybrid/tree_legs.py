"""Trees for legs: step models of chosen times, and a corrector of end points."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np

from ... import seeding
from ...config import BOOSTER_DEFAULTS
from ...errors import ConfigError, DataWarning, InputError
from ...flow.fields import VelocityField
from ...flow.solvers.base import check_boundaries
from ...model import FlowBDT
from ...trees.base import Batch
from ...trees.boosted_trees import BoostedTrees


def train_trees(
    table: Any,
    solver: Any,
    boundaries: Any,
    *,
    cond: Any = None,
    sample_weight: Any = None,
    **settings: Any,
) -> FlowBDT:
    """Train step models for just the times that ``solver`` asks along ``boundaries``.

    Parameters
    ----------
    table, cond, sample_weight : as for `FlowBDT.fit`
    solver, boundaries : of the leg; boundaries need not cover [0, 1]
    settings : further parameters of `FlowBDT`; with equal transforms, relations and random_state
        several trainings share their latent space

    Returns
    -------
    model : its field is `tree_field`; its own `sample` means little where it does not cover [0, 1]
    """
    steps = check_boundaries(boundaries)
    way = {"spacing": steps, "n_steps": len(steps) - 1, "rejection": False}
    model = FlowBDT(solver=solver, **{**settings, **way})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the time grid covers", DataWarning)
        return model.fit(table, cond=cond, sample_weight=sample_weight)


def tree_field(model: FlowBDT) -> VelocityField:
    """Return the field of a fitted model's step models, in latent space."""
    return model.flow().field


class Corrector:
    """Trees that learn what few steps of a network get wrong.

    They see where an event began (x0), where few steps brought it, and the conditions; they learn
    the way from there to where many steps bring it.

    Parameters
    ----------
    booster : XGBoost parameters, see `flowbdt.config.BOOSTER_DEFAULTS`
    n_threads : does not change the result
    """

    def __init__(self, booster: Mapping[str, Any] | None = None, n_threads: int = 1) -> None:
        self.booster = {**BOOSTER_DEFAULTS, **(booster or {})}
        self.n_threads = n_threads
        self.trees_: BoostedTrees | None = None

    def fit(
        self, x0: np.ndarray, few: np.ndarray, many: np.ndarray, cond: Any = None, seed: int = 0
    ) -> Self:
        """Learn from the same noise x0 (n, m), brought to ``few`` and ``many`` (n, m)."""
        if not np.shape(x0) == np.shape(few) == np.shape(many):
            raise InputError("x0, few and many must have the same shape: they are the same events")
        rows = _Rows(self._inputs(x0, few, cond), np.asarray(many - few, dtype=np.float32))
        trees = BoostedTrees(self.booster)
        self.trees_ = trees.fit(rows, None, seed=seed, n_threads=self.n_threads)
        return self

    def __call__(self, x0: np.ndarray, x: np.ndarray, cond: Any = None) -> np.ndarray:
        """Return corrected points (n, m)."""
        if self.trees_ is None:
            raise ConfigError("this corrector is not fitted yet: call fit")
        return np.asarray(x + self.trees_.predict(self._inputs(x0, x, cond)))

    @staticmethod
    def _inputs(x0: Any, x: Any, cond: Any) -> np.ndarray:
        parts = [x, x0] if cond is None else [x, x0, cond]
        return np.hstack(parts).astype(np.float32)


class _Rows:
    """Rows in memory as a batch source."""

    def __init__(self, inputs: np.ndarray, target: np.ndarray) -> None:
        self.inputs, self.target = inputs, target
        self.n_rows, self.n_outputs = target.shape

    def redrawn(self, draw: int) -> _Rows:
        """Return the same rows: they have no noise of their own."""
        return self

    def __iter__(self) -> Iterator[Batch]:
        for _, low, high in seeding.block_ranges(self.n_rows):
            yield Batch(self.inputs[low:high], self.target[low:high], None)
