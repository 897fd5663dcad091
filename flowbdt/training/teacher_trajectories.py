"""What a student learns from: where a teacher carries noise, at the times of the student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import atomic_files
from ..config import ModelConfig
from ..flow.closed_form import PRECONDITIONERS
from ..flow.closed_form.student_stages import Stages
from ..registry import spec_name
from ..seeding import derive, split_mask
from ..tables.transforms import TableTransform


@dataclass(frozen=True)
class Ways:
    """Points on the ways of a teacher, in its latent space.

    points (k + 1, n, m) float32: noise, then where it is at the end of each of k stages. ``real``:
    latent training events of the teacher with their conditions and weights under the names
    ``real``, ``real_cond``, ``real_weight``, for a rejection; empty for none.
    """

    points: np.ndarray
    transform: TableTransform
    cond: np.ndarray | None
    real: dict[str, np.ndarray]

    def fitted(self, config: ModelConfig, boundaries: np.ndarray, seed: int) -> dict[str, Any]:
        """Return the arrays and files of the student's plan; see `training.plan`."""
        valid = split_mask(self.points.shape[1], config.validation_fraction, derive(seed, "split"))
        arrays = {"z": self.points[-1], "ways": self.points, "cond": self.cond, **self.real}
        stored = {k: np.asarray(a, dtype=np.float32) for k, a in arrays.items() if a is not None}
        closed = self._closed_form(config.preconditioner, boundaries, ~valid, seed)
        written = {
            "transform.json": atomic_files.json_bytes(self.transform.to_json()),
            "preconditioner.npz": closed.to_bytes(),
        }
        return {"arrays": {**stored, "valid": valid}, "files": written}

    def _closed_form(self, spec: Any, boundaries: np.ndarray, train: np.ndarray, seed: int) -> Any:
        seed, points = derive(seed, "preconditioner"), self.points[:, train]
        if spec_name(spec) == "none":
            return PRECONDITIONERS.build("none").fit(points[-1], seed=seed)
        cond = None if self.cond is None else self.cond[train]
        return Stages(spec, boundaries).fit(points[1:], source=points[:-1], cond=cond, seed=seed)
