"""Learning rates along the training, as parts of the largest one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..registry import unknown

RATES = ("constant", "cosine", "one_cycle", "inverse_sqrt", "plateau")
"""constant; cosine: to 0 at the end; one_cycle: up and down on cosines; inverse_sqrt: falls as one
over the root of the step (arXiv 2312.02696); plateau: a tenth whenever the training loss of an
epoch did not improve for ``patience`` epochs. All but one_cycle rise linearly during warm-up."""


@dataclass(frozen=True)
class Rate:
    """The factor of the learning rate at a step.

    Parameters
    ----------
    name : one of `RATES`
    n_steps : of the training
    warmup : steps of linear rise (one_cycle: of the rise on a cosine)
    patience : epochs without improvement, for plateau
    """

    name: str
    n_steps: int
    warmup: int
    patience: int = 15

    def __post_init__(self) -> None:
        if self.name not in RATES:
            raise unknown("learning-rate schedule", self.name, RATES)

    def __call__(self, step: int, epoch_losses: Sequence[float] = ()) -> float:
        """Return the factor of the step (0 is the first); ``epoch_losses`` so far, for plateau."""
        rise = (step + 1) / max(self.warmup, 1)
        left = (step - self.warmup) / max(self.n_steps - self.warmup, 1)
        if self.name == "one_cycle":
            if step < self.warmup:
                return 0.04 + 0.96 * 0.5 * (1.0 - math.cos(math.pi * step / self.warmup))
            return max(0.5 * (1.0 + math.cos(math.pi * left)), 1e-5)
        rise = min(rise, 1.0)
        if self.name == "cosine":
            return rise * 0.5 * (1.0 + math.cos(math.pi * max(left, 0.0)))
        if self.name == "inverse_sqrt":
            return rise * math.sqrt(max(self.warmup, 1) / max(step + 1, self.warmup, 1))
        if self.name == "plateau":
            return rise * 0.1 ** self._falls(epoch_losses)
        return rise

    def _falls(self, epoch_losses: Sequence[float]) -> int:
        """Return how often the loss stayed above its best for more than ``patience`` epochs."""
        best, waited, falls = math.inf, 0, 0
        for loss in epoch_losses:
            waited = 0 if loss < best * (1.0 - 1e-4) else waited + 1
            best = min(best, loss)
            if waited > self.patience:
                falls, waited = falls + 1, 0
        return falls
