"""Training pairs of a student: noise, and the end point to which its teacher carries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import atomic_files
from ..config import ModelConfig
from ..flow.closed_form import PRECONDITIONERS
from ..seeding import derive, split_mask
from ..tables.transforms import TableTransform


@dataclass(frozen=True)
class TeacherPairs:
    """Noise and end points (n, m), float32, in the latent space of a teacher.

    ``cond`` (n, c): their conditions, or None. ``real``: latent training events of the teacher
    with their conditions and weights under the names ``real``, ``real_cond``, ``real_weight``, from
    which a rejection is learned; empty for none.
    """

    noise: np.ndarray
    end: np.ndarray
    transform: TableTransform
    cond: np.ndarray | None
    real: dict[str, np.ndarray]

    def fitted(self, config: ModelConfig, seed: int) -> dict[str, Any]:
        """Return the arrays and files of the student's plan; see `training.plan`."""
        valid = split_mask(len(self.end), config.validation_fraction, derive(seed, "split"))
        arrays = {"z": self.end, "noise": self.noise, "cond": self.cond, **self.real}
        stored = {k: np.asarray(a, dtype=np.float32) for k, a in arrays.items() if a is not None}
        closed_form = PRECONDITIONERS.build(config.preconditioner or "none").fit(
            self.end[~valid],
            source=self.noise[~valid],
            cond=None if self.cond is None else self.cond[~valid],
            seed=derive(derive(seed, "preconditioner"), "stage", 0),
        )
        files = {
            "transform.json": atomic_files.json_bytes(self.transform.to_json()),
            "preconditioner.npz": closed_form.to_bytes(),
        }
        return {"arrays": {**stored, "valid": valid}, "files": files}
