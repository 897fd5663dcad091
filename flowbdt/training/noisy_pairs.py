"""Training examples of one time step: noisy points and the velocities of their paths.

A booster learns, at one time t, to predict from the point x_t the velocity with which the path
moves there. Each event x1 gives as many examples as noise is drawn for it. Averaged targets, source
events, pairs of a teacher and torchcfm are variants of this in
`flowbdt.training.pair_variants`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from .. import seeding
from ..flow.couplings import Coupling
from ..flow.paths import Path
from ..flow.step_inputs import StepInputs
from ..trees.base import Batch


@dataclass(frozen=True)
class LatentEvents:
    """The events of one split in latent space; arrays may be mapped files.

    z (n, m) float32; cond (n, c), weight (n,), source (n, m) float32 or None. ``rows`` are the
    rows that belong to the split, so that nothing is copied before a batch needs it.
    ``source`` also holds the noise of a student's pairs.
    """

    z: np.ndarray
    rows: np.ndarray
    cond: np.ndarray | None = None
    weight: np.ndarray | None = None
    source: np.ndarray | None = None


@dataclass(frozen=True)
class TimeStep:
    """Number and time t of a step, and the next time of the grid.

    ``mean_target``: learn the mean velocity over [t, t_next] instead of that at t.
    """

    number: int
    t: float
    t_next: float
    mean_target: bool = False


class NoisyPairs:
    """Pairs (x_t, velocity) of all events, ``n_repeats`` times with other noise.

    A batch is one repetition of one block of events and is made from its own key (seed, purpose,
    step, repetition, block). So every pass gives the same batches in any process, and memory does
    not grow with the number of repetitions. A redrawn source continues with the next repetitions,
    and with the next of ``turns`` parts of the events.
    ``inputs`` gives what the trees see of x_t, and the closed-form velocity that they add to.
    """

    def __init__(
        self,
        events: LatentEvents,
        path: Path,
        coupling: Coupling,
        step: TimeStep,
        *,
        inputs: StepInputs,
        n_repeats: int,
        seed: int,
        purpose: str,
        turns: int = 1,
    ) -> None:
        self._all, self.path, self.coupling, self.step = events, path, coupling, step
        self._inputs, self._key = inputs, (seed, purpose, step.number)
        self._n_repeats, self.turns = n_repeats, turns
        self.n_outputs = events.z.shape[1]
        self._draw(0)

    def _draw(self, number: int) -> None:
        self.events, self._first_repeat = self._all, number * self._n_repeats
        if self.turns > 1:
            rng = seeding.stream(self._key[0], "turns")
            turn = rng.integers(self.turns, size=len(self._all.rows))
            rows = self._all.rows[turn == number % self.turns]
            self.events = dataclasses.replace(self._all, rows=rows)
        self.n_rows = len(self.events.rows) * self._n_repeats

    def redrawn(self, draw: int) -> Self:
        """Return the events of another draw, with other noise; draw 0 is the first."""
        other = copy.copy(self)
        other._draw(draw)
        return other

    def __iter__(self) -> Iterator[Batch]:
        seed, purpose, step = self._key
        for repeat in range(self._first_repeat, self._first_repeat + self._n_repeats):
            for block, low, high in seeding.block_ranges(len(self.events.rows)):
                rng = seeding.stream(seed, purpose, step, repeat, block)
                yield self._batch(*self.draw(self.events.rows[low:high], rng))

    def draw(
        self, rows: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return points x_t (n, m), their velocities (n, m), and the rows they belong to."""
        x1, cond = self.events.z[rows], self.conditions(rows)
        x0 = self.coupling.pair(self.starts(rows, rng), x1, cond, rng)
        path, step = self.path, self.step
        noisy = max(path.noise_scale(step.t), path.noise_scale(step.t_next)) > 0
        noise = rng.standard_normal(x1.shape, dtype=np.float32) if noisy else None
        x_t = path.location(x0, x1, step.t, noise)
        if step.mean_target:
            return x_t, path.mean_target(x0, x1, step.t, step.t_next, noise), rows
        return x_t, path.target(x0, x1, step.t, x_t), rows

    def starts(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the starting points x0 (n, m): standard normal noise."""
        return rng.standard_normal((len(rows), self.n_outputs), dtype=np.float32)

    def conditions(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the conditions (n, c) of some rows, or None if the table has none."""
        return None if self.events.cond is None else self.events.cond[rows]

    def _batch(self, x_t: np.ndarray, velocity: np.ndarray, rows: np.ndarray) -> Batch:
        """Return inputs of the trees and what remains to learn beyond the closed form."""
        inputs, known = self._inputs(x_t, self.conditions(rows))
        weight = self.events.weight
        return Batch(
            inputs=inputs,
            target=(velocity - known).astype(np.float32),
            weight=None if weight is None else weight[rows],
        )
