"""Inputs of the trees of one time, and the closed-form velocity that the trees add to.

Training and generation share them: trees predict from the inputs they were trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..tables.transforms import JointTransform
from .closed_form import Preconditioner, Prepared
from .paths import PATHS

VIEWS = ("latent", "columns", "end_point", "components")
"""latent: the point itself. columns: the point turned back to the single columns, where whitening
mixed them; a tree cuts along its inputs, so both directions help. end_point: the closed-form
E[x1 | x_t]. components: the probability of each Gaussian. Conditions are always inputs."""


def check_views(views: Sequence[str]) -> None:
    """Refuse unknown or repeated views, and none at all. Raises ConfigError."""
    if not views or len(set(views)) < len(views) or not set(views) <= set(VIEWS):
        raise ConfigError(
            f"inputs must be some of {', '.join(VIEWS)}, each once, got {list(views)!r}"
        )


class StepInputs:
    """Inputs of one step's trees, and the velocity added to their prediction.

    ``views`` are some of `VIEWS`, in any order; what a model does not have (weights of a single
    Gaussian, columns where nothing was mixed) is left out. ``exact`` is False for models of format
    1, whose trees may have split on rounding errors of an end point that is the same for every
    point. Otherwise end point and components are then ``silent``: zeros, without conditions.
    ``to_columns`` (m, columns) is the matrix from a point to the single columns, or None.
    """

    def __init__(
        self, prepared: Prepared, joint: JointTransform, views: Sequence[str], exact: bool = True
    ) -> None:
        self.prepared, self.views = prepared, views
        self._m = joint.axes.shape[1]
        extra = prepared.features(np.vstack([-np.ones(self._m), np.ones(self._m)]), None)[1]
        self._n_extra = extra.shape[1]
        # An end point that is the same for every point, as for pure noise, differs by rounding
        # only, which depends on the machine: trees must not split on it.
        constant = self._n_extra == 0 or float(np.ptp(extra, axis=0).max()) < 1e-9
        self.silent = exact and constant
        mixed = joint.name == "whiten" and "columns" in views
        # from whitened axes to standardised columns; linear, so it acts on points at any time
        self.to_columns = (joint.axes * joint.spread).T if mixed else None

    def n_inputs(self, n_cond: int) -> int:
        """Return the number of inputs of the trees, with ``n_cond`` conditions."""
        ends = min(self._m, self._n_extra)
        widths = {"latent": self._m, "end_point": ends, "components": self._n_extra - ends}
        mixed = 0 if self.to_columns is None else self.to_columns.shape[1]
        return sum(width for view, width in widths.items() if view in self.views) + mixed + n_cond

    def __call__(self, x: np.ndarray, cond: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs (n, p) float32 and velocity (n, m) float64 at x (n, m), cond (n, c)."""
        m = x.shape[1]
        velocity, extra = self.prepared.features(x, cond)
        if self.silent and cond is None:
            extra = np.zeros_like(extra)
        inputs = [x] if "latent" in self.views else []
        if self.to_columns is not None:
            # Not x @ to_columns: its order of sums depends on the number of rows, and the last
            # bit decides on which side of a cut a point is.
            point = np.asarray(x, dtype=np.float64)
            inputs.append(np.einsum("nm,mk->nk", point, self.to_columns, optimize=False))
        if "end_point" in self.views:
            inputs.append(extra[:, :m])
        if "components" in self.views:
            inputs.append(extra[:, m:])
        if cond is not None:
            inputs.append(cond)
        return np.concatenate(inputs, axis=1, dtype=np.float32, casting="unsafe"), velocity


def step_inputs(
    preconditioner: Preconditioner,
    joint: JointTransform,
    settings: Mapping[str, Any],
    t: float,
    t_next: float,
    version: int,
) -> StepInputs:
    """Return the inputs at time ``t``, from the settings and the format version of a run."""
    until = t_next if settings["noise"]["target"] == "mean" else None
    prepared = preconditioner.at(PATHS.build(settings["path"]), t, until)
    return StepInputs(prepared, joint, settings["inputs"], exact=version >= 2)
