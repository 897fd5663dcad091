"""What a step learns from: points on the way from noise to data, and their velocities."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .. import seeding
from ..flow.couplings import COUPLINGS, Coupling, MinibatchOT
from ..flow.paths import PATHS, Path
from ..flow.step_inputs import StepInputs
from ..flow.torchcfm_reference import TorchcfmMatcher
from ..registry import spec_name
from ..trees.base import Batch

SMALLEST_SPREAD = 1e-6
"""Below this b(t) a point can have come from one event only."""


@dataclass(frozen=True)
class Events:
    """The events of one split in latent space; arrays may be mapped files.

    z (n, m) float32; cond (n, c), weight (n,), source (n, m) float32 or None. ``rows`` are the
    rows that belong to the split, so that nothing is copied before a batch needs it. ``source``
    are events to start from instead of noise, or the noise of a student's pairs.
    """

    z: np.ndarray
    rows: np.ndarray
    cond: np.ndarray | None = None
    weight: np.ndarray | None = None
    source: np.ndarray | None = None


@dataclass(frozen=True)
class Interval:
    """Where in time a step is: its number, its time t, and the next time of the grid.

    ``mean_target`` asks for the mean velocity over [t, t_next] instead of that at t.
    """

    step: int
    t: float
    t_next: float
    mean_target: bool = False


class NoisyPairs:
    """Interpolants (x_t, velocity) of all events, ``n_repeats`` times with other noise.

    A batch is one repetition of one block of events and is made from its own key (seed, purpose,
    step, repetition, block). So every pass gives the same batches in any process, and memory does
    not grow with the number of repetitions. A redrawn source goes on with the next repetitions.
    With ``candidates`` each target is averaged over as many other events (see `averaging`).
    """

    def __init__(
        self,
        events: Events,
        path: Path,
        coupling: Coupling,
        interval: Interval,
        *,
        inputs: StepInputs,
        n_repeats: int,
        seed: int,
        purpose: str,
        candidates: int = 0,
    ) -> None:
        self._events, self._path, self._coupling = events, path, coupling
        self._inputs, self._candidates = inputs, candidates
        self._interval, self._key = interval, (seed, purpose, interval.step)
        self._n_repeats, self._first_repeat = n_repeats, 0
        self.n_rows = len(events.rows) * n_repeats
        self.n_outputs = events.z.shape[1]

    def redrawn(self, draw: int) -> Self:
        """Return the same events with the noise of another draw; draw 0 is the first."""
        other = copy.copy(self)
        other._first_repeat = draw * self._n_repeats
        return other

    def __iter__(self) -> Iterator[Batch]:
        seed, purpose, step = self._key
        for repeat in range(self._first_repeat, self._first_repeat + self._n_repeats):
            for block, low, high in seeding.block_ranges(len(self._events.rows)):
                rng = seeding.stream(seed, purpose, step, repeat, block)
                yield self._batch(self._events.rows[low:high], rng)

    def _batch(self, rows: np.ndarray, rng: np.random.Generator) -> Batch:
        events = self._events
        x1 = events.z[rows]
        cond = None if events.cond is None else events.cond[rows]
        if events.source is None:
            x0 = rng.standard_normal(x1.shape, dtype=np.float32)
        else:
            x0 = events.source[rows]
        x0 = self._coupling.pair(x0, x1, cond, rng)
        x_t, target = self._point_and_target(x0, x1, rng)
        if self._candidates:
            target = self._averaged_target(x_t, x1, rows, rng)
        return self._remainder(x_t, target, rows)

    def _remainder(self, x_t: np.ndarray, target: np.ndarray, rows: np.ndarray) -> Batch:
        """Return what is left for the trees when the closed-form velocity is taken off."""
        events = self._events
        cond = None if events.cond is None else events.cond[rows]
        inputs, velocity = self._inputs(x_t, cond)
        return Batch(
            inputs=inputs,
            target=(target - velocity).astype(np.float32),
            weight=None if events.weight is None else events.weight[rows],
        )

    def _point_and_target(
        self, x0: np.ndarray, x1: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        path, interval = self._path, self._interval
        noisy = max(path.noise_scale(interval.t), path.noise_scale(interval.t_next)) > 0
        noise = rng.standard_normal(x1.shape, dtype=np.float32) if noisy else None
        x_t = path.location(x0, x1, interval.t, noise)
        if interval.mean_target:
            return x_t, path.mean_target(x0, x1, interval.t, interval.t_next, noise)
        return x_t, path.target(x0, x1, interval.t, x_t)

    def _averaged_target(
        self, x_t: np.ndarray, x1: np.ndarray, rows: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Return the target averaged over candidates; it is linear in x1 for a given x_t."""
        events, t = self._events, self._interval.t
        a, b = self._path.scales(t)
        others = rng.choice(events.rows, min(self._candidates, len(events.rows)), replace=False)
        weight = events.weight
        weights = None if weight is None else (weight[rows], weight[others])
        if b > SMALLEST_SPREAD:
            x1 = mean_end_point(x_t, x1, events.z[others], weights, (a, b))
            x0 = (x_t - a * x1) / b
        else:
            x0 = np.zeros_like(x1)  # no other event could have led here
        if self._interval.mean_target:
            return self._path.mean_target(x0, x1, t, self._interval.t_next)
        return self._path.target(x0, x1, t, x_t)


class TorchcfmPairs(NoisyPairs):
    """The same, with points and velocities from torchcfm's matchers (needs the extra 'cfm')."""

    def __init__(self, *arguments: Any, matcher: TorchcfmMatcher, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._matcher = matcher

    def _batch(self, rows: np.ndarray, rng: np.random.Generator) -> Batch:
        events = self._events
        x1 = events.z[rows].astype(np.float64)
        x0 = rng.standard_normal(x1.shape)
        groups = None
        if isinstance(self._coupling, MinibatchOT):
            cond = None if events.cond is None else events.cond[rows]
            groups = self._coupling.groups(len(rows), cond)
        x_t, target, kept = self._matcher.sample(x0, x1, self._interval.t, rng, groups)
        # torchcfm's transport plans repeat some events and drop others
        return self._remainder(x_t, target, rows[kept])


def torchcfm_matcher(path: Any, coupling: Any) -> TorchcfmMatcher:
    """Return torchcfm's matcher for our settings of path and coupling.

    Raises ConfigError if torchcfm has no such matcher, MissingExtra if it is not installed.
    """
    built, sigma = COUPLINGS.build(coupling), getattr(PATHS.build(path), "sigma", 0.0)
    if isinstance(built, MinibatchOT):
        return TorchcfmMatcher(spec_name(path), sigma, ot=True, batch_size=built.batch_size)
    return TorchcfmMatcher(spec_name(path), sigma)


ROWS = 512
"""Rows at a time, so that the table of weights stays in the cache."""


def mean_end_point(
    x_t: np.ndarray,
    x1: np.ndarray,
    others: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray] | None,
    scales: tuple[float, float],
) -> np.ndarray:
    """Return the mean of x1 given x_t over each row's own event and all ``others``.

    Parameters
    ----------
    x_t, x1 : ndarray (n, m), points and the events they were made from, no unit
    others : ndarray (k, m), events drawn from the same table
    weights : event weights of x1 (n,) and others (k,), or None
    scales : a and b of ``x_t = a x1 + b x0`` with standard normal x0; b > 0

    Returns
    -------
    ndarray (n, m), float32

    Notes
    -----
    Cost: n k m multiplications and n k exponentials.

    References
    ----------
    Xu, Tong, Jaakkola, "Stable Target Field for Reduced Variance Score Estimation in Diffusion
    Models", arXiv 2302.00670, eq. 6, for a general affine path.
    """
    a, b = scales
    own, rest = (None, None) if weights is None else (np.log(w) for w in weights)
    result = np.empty(x1.shape, dtype=np.float32)
    others = np.asarray(others, dtype=np.float32)
    for low in range(0, len(x_t), ROWS):
        part = slice(low, low + ROWS)
        scores = _scores(x_t[part], x1[part], others, a) / np.float32(-2 * b * b)
        if own is not None and rest is not None:
            scores[:, 0] += own[part]
            scores[:, 1:] += rest
        scores -= scores.max(axis=1, keepdims=True)
        share = np.exp(scores, out=scores)
        share /= share.sum(axis=1, keepdims=True)
        result[part] = share[:, :1] * x1[part] + share[:, 1:] @ others
    return result


def _scores(x_t: np.ndarray, x1: np.ndarray, others: np.ndarray, a: float) -> np.ndarray:
    """Return |x_t - a x|^2 up to |x_t|^2 for the own event (column 0) and all others."""
    x_t, x1, scale = x_t.astype(np.float32), x1.astype(np.float32), np.float32(a)
    scores = np.empty((len(x_t), len(others) + 1), dtype=np.float32)
    scores[:, 0] = scale * np.einsum("nm,nm->n", x1, scale * x1 - 2 * x_t)
    scores[:, 1:] = (-2 * scale) * (x_t @ others.T)
    scores[:, 1:] += scale**2 * np.einsum("km,km->k", others, others)
    return scores
