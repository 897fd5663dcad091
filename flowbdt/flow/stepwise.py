"""The velocity field of trained step models."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ConfigError, InputError
from .fields import TOLERANCE, VelocityField
from .parametrisations import Convention
from .time_grid import TimeGrid

StepVelocity = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""A model of one time: (x (n, m), cond (n, c) or None) -> velocity (n, m)."""


class Stepwise(VelocityField):
    """One trained model per time of a grid, loaded when first needed.

    Parameters
    ----------
    grid : TimeGrid
    predictors : callable, step number -> model; a model maps points (n, m) float64 and
        conditions (n, c) or None to velocities (n, m)
    keep : int, how many models to hold in memory, the least recently used go first; None for all
    convention : scales of data and noise, or None with the reason ``why_not``
    interpolate : False: a time without a model is an error. True: between two trained times the
        velocity is interpolated linearly, at the price of two models per evaluation and an error
        that falls with the square of their distance; outside them it is still an error

    Raises
    ------
    ConfigError
        If keep is less than 1.

    Notes
    -----
    Not safe to share between threads; use one per thread.
    """

    def __init__(
        self,
        grid: TimeGrid,
        predictors: Callable[[int], StepVelocity],
        keep: int | None = None,
        *,
        convention: Convention | None = None,
        why_not: str | None = None,
        interpolate: bool = False,
    ) -> None:
        if keep is not None and keep < 1:
            raise ConfigError(f"keep must be at least 1 model, or None for all, got {keep!r}")
        self.grid = grid
        self.times = None if interpolate else grid.times
        self.span = (float(grid.times[0]), float(grid.times[-1]))
        self.convention = convention
        self.why_not = why_not or VelocityField.why_not
        self.predictors = predictors
        self.keep = keep
        self._loaded: OrderedDict[int, StepVelocity] = OrderedDict()

    @property
    def n_loaded(self) -> int:
        """Number of models in memory."""
        return len(self._loaded)

    def __call__(self, t: float, x: Any, cond: Any = None) -> np.ndarray:
        """Return the velocity (n, m), float64.

        Raises GridError if no model was trained at t, InputError if shapes do not fit.
        """
        if self.times is None:
            return self._between(t, x, cond)
        return self._velocity(self.grid.locate(t), x, cond)

    def _between(self, t: float, x: Any, cond: Any) -> np.ndarray:
        """Return the velocity interpolated between the two trained times around t."""
        self.require([t])
        times = self.grid.times
        above = int(np.searchsorted(times, t - TOLERANCE))
        if above < len(times) and abs(times[above] - t) <= TOLERANCE:
            return self._velocity(above, x, cond)
        share = (t - times[above - 1]) / (times[above] - times[above - 1])
        before, after = (self._velocity(i, x, cond) for i in (above - 1, above))
        return (1.0 - share) * before + share * after

    def _velocity(self, index: int, x: Any, cond: Any) -> np.ndarray:
        v = np.asarray(self._model(index)(np.asarray(x, dtype=np.float64), cond))
        if v.shape != x.shape:
            raise InputError(
                f"the model at t = {self.grid.times[index]:g} must return one velocity per event"
                f" and column, shape {x.shape}, but returned {v.shape}; was it trained on this"
                " table?"
            )
        return v.astype(np.float64)

    def _model(self, index: int) -> StepVelocity:
        if index in self._loaded:
            self._loaded.move_to_end(index)
            return self._loaded[index]
        if self.keep is not None and len(self._loaded) >= self.keep:
            self._loaded.popitem(last=False)  # before loading, so that memory never exceeds keep
        self._loaded[index] = self.predictors(index)
        return self._loaded[index]
