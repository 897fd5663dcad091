"""What is asked of a trained run: a velocity at one time, and what rejection sees of events."""

from __future__ import annotations

import numpy as np

from .compiled.engine import CompiledTrees
from .inputs import StepInputs
from .regressors.base import StepRegressor


def classified(x: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
    """Return what rejection is decided by: columns (n, d) and conditions (n, c), float32."""
    parts = [x] if cond is None else [x, cond]
    return np.hstack(parts).astype(np.float32)


class StepModel:
    """The velocity at one time: closed form plus trees."""

    def __init__(self, inputs: StepInputs, trees: StepRegressor | CompiledTrees) -> None:
        self._inputs, self._trees = inputs, trees

    def __call__(self, x: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Return velocities (n, m), float64."""
        inputs, velocity = self._inputs(x, cond)
        velocity += self._trees.predict(inputs)
        return velocity
