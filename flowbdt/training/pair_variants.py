"""Variants of the training pairs, and the choice between them by the settings of a task."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..flow.couplings import COUPLINGS, MinibatchOT
from ..flow.paths import PATHS
from ..flow.step_inputs import StepInputs
from ..flow.torchcfm_reference import TorchcfmMatcher
from ..registry import spec_name
from .noise_draws import n_turns
from .noisy_pairs import LatentEvents, NoisyPairs, TimeStep

SMALLEST_SPREAD = 1e-6
"""Below this b(t) a point can have come from one event only."""

ROWS = 512
"""Rows at a time, so that the table of weights stays in the cache."""

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]


def pairs_of_task(
    task: dict[str, Any], events: LatentEvents, inputs: StepInputs, purpose: str, n_repeats: int
) -> NoisyPairs:
    """Return the pairs that a task learns from (purpose 'train') or is validated on ('valid')."""
    noise = task["noise"]
    step = TimeStep(task["step"], task["time"], task["next_time"], noise["target"] == "mean")
    pairs: Callable[..., NoisyPairs] = NoisyPairs
    if noise["flow_matcher"] == "torchcfm":
        pairs = partial(TorchcfmPairs, matcher=torchcfm_matcher(task["path"], task["coupling"]))
    elif events.source is not None:
        pairs = SourcePairs
    elif noise["candidates"] and purpose == "train":
        # the validation loss is that of single events: what training minimises on average
        pairs = partial(AveragedPairs, candidates=noise["candidates"])
    return pairs(
        events,
        PATHS.build(task["path"]),
        COUPLINGS.build(task["coupling"]),
        step,
        inputs=inputs,
        n_repeats=n_repeats,
        seed=task["seed"],
        purpose=purpose,
        turns=n_turns(noise, len(events.rows)) if purpose == "train" else 1,
    )


class SourcePairs(NoisyPairs):
    """Pairs with known starting points: events of a source table, or noise of a student's pairs."""

    def starts(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        assert self.events.source is not None
        return self.events.source[rows]


class AveragedPairs(NoisyPairs):
    """Pairs whose velocity is averaged over ``candidates`` other events that may have led to x_t.

    The velocity is linear in x1 at a fixed x_t, so it is enough to average x1.
    """

    def __init__(self, *arguments: Any, candidates: int, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.candidates = candidates

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> Drawn:
        x_t, _, _ = super().draw(rows, rng)
        events, step = self.events, self.step
        a, b = self.path.scales(step.t)
        others = rng.choice(events.rows, min(self.candidates, len(events.rows)), replace=False)
        weight, x1 = events.weight, events.z[rows]
        if b > SMALLEST_SPREAD:
            weights = None if weight is None else (weight[rows], weight[others])
            x1 = mean_end_point(x_t, x1, events.z[others], weights, (a, b))
            x0 = (x_t - a * x1) / b
        else:
            x0 = np.zeros_like(x1)  # no other event could have led here
        if step.mean_target:
            return x_t, self.path.mean_target(x0, x1, step.t, step.t_next), rows
        return x_t, self.path.target(x0, x1, step.t, x_t), rows


def mean_end_point(
    x_t: np.ndarray,
    x1: np.ndarray,
    others: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray] | None,
    scales: tuple[float, float],
) -> np.ndarray:
    """Return the mean (n, m), float32, of x1 at x_t over the event of each row and all ``others``.

    x_t and x1 (n, m) are points and the events they were made from; ``others`` (k, m) are drawn
    from the same table; ``weights`` are those of x1 (n,) and others (k,), or None; ``scales`` are a
    and b > 0 of ``x_t = a x1 + b x0`` with standard normal x0. Cost: n k m multiplications and n k
    exponentials.

    Source: Xu, Tong, Jaakkola, "Stable Target Field for Reduced Variance Score Estimation in
    Diffusion Models", arXiv 2302.00670, eq. 6, for a general affine path.
    """
    a, b = scales
    log_weights = None if weights is None else [np.log(w) for w in weights]
    result = np.empty(x1.shape, dtype=np.float32)
    others = np.asarray(others, dtype=np.float32)
    for low in range(0, len(x_t), ROWS):
        block = slice(low, low + ROWS)
        scores = _distances(x_t[block], x1[block], others, a) / np.float32(-2 * b * b)
        if log_weights is not None:
            scores[:, 0] += log_weights[0][block]
            scores[:, 1:] += log_weights[1]
        scores -= scores.max(axis=1, keepdims=True)
        share = np.exp(scores, out=scores)
        share /= share.sum(axis=1, keepdims=True)
        result[block] = share[:, :1] * x1[block] + share[:, 1:] @ others
    return result


def _distances(x_t: np.ndarray, x1: np.ndarray, others: np.ndarray, a: float) -> np.ndarray:
    """Return |x_t - a x|^2 - |x_t|^2 for the row's event x (column 0) and all others."""
    x_t, x1, scale = x_t.astype(np.float32), x1.astype(np.float32), np.float32(a)
    result = np.empty((len(x_t), len(others) + 1), dtype=np.float32)
    result[:, 0] = scale * np.einsum("nm,nm->n", x1, scale * x1 - 2 * x_t)
    result[:, 1:] = (-2 * scale) * (x_t @ others.T)
    result[:, 1:] += scale**2 * np.einsum("km,km->k", others, others)
    return result


class TorchcfmPairs(NoisyPairs):
    """Pairs drawn by torchcfm's matchers (needs the extra 'cfm')."""

    def __init__(self, *arguments: Any, matcher: TorchcfmMatcher, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._matcher = matcher

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> Drawn:
        x1 = self.events.z[rows].astype(np.float64)
        x0 = rng.standard_normal(x1.shape)
        groups = None
        if isinstance(self.coupling, MinibatchOT):
            groups = self.coupling.groups(len(rows), self.conditions(rows))
        x_t, target, kept = self._matcher.sample(x0, x1, self.step.t, rng, groups)
        return x_t, target, rows[kept]  # its transport plans repeat some events and drop others


def torchcfm_matcher(path: Any, coupling: Any) -> TorchcfmMatcher:
    """Return torchcfm's matcher for our settings of path and coupling.

    Raises ConfigError if torchcfm has no such matcher, MissingExtra if it is not installed.
    """
    built, sigma = COUPLINGS.build(coupling), getattr(PATHS.build(path), "sigma", 0.0)
    if isinstance(built, MinibatchOT):
        return TorchcfmMatcher(spec_name(path), sigma, ot=True, batch_size=built.batch_size)
    return TorchcfmMatcher(spec_name(path), sigma)
