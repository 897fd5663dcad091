"""Scores of many samplers of one trained run, from the same noise and against the same events."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # comes with scikit-learn

from .. import seeding
from ..errors import ConfigError, GridError
from ..flow.solvers import integrate
from ..flow.time_grid import Sampler
from ..generation.trained_flow import Flow
from ..tables.event_table import EventTable
from ..training.run_directory import Source
from .differences import Binned, Difference, separation_differences
from .metrics import Result
from .score_events import OPTIONS, condition_table, score_objectives, weighted_as

MOST_EVENTS = 20_000
"""Real events, and as many generated ones, of a judgement; of a larger table the first ones."""


class Bench:
    """Generates with any sampler of a trained run, from the same noise, and scores.

    ``real`` are held-out events, ``metric`` is one of `score_events.SCORES`, ``seed`` that of noise
    and judge.
    """

    def __init__(
        self, source: Source, real: EventTable, metric: str, *, seed: int, n_threads: int
    ) -> None:
        self.real = real.take(slice(0, MOST_EVENTS))
        self.metric, self.seed, self.n_threads = metric, seed, n_threads
        self.flow = Flow(source, n_threads, sampler={"interpolate": True}).single("a sampler")
        if "source" in self.flow.plan["fingerprint"]["events"]:
            raise ConfigError("this run starts from source events; samplers are tuned from noise")
        self.cond = self.flow.checked_conditions(condition_table(self.real), self.real.n)
        self.convention = self.flow.field.convention
        self.cpu_s = 0.0

    def events(self, sampler: Mapping[str, Any], seed: int | None = None) -> EventTable:
        """Return as many events as real ones, each from the same noise whatever the sampler."""
        seed = self.seed if seed is None else seed
        start = time.process_time()
        chosen = self._sampler(sampler)
        ranges = seeding.block_ranges(self.real.n)
        with threadpool_limits(1, user_api="blas"):
            blocks = [self._block(chosen, np.arange(low, high), seed) for _, low, high in ranges]
        self.cpu_s += time.process_time() - start
        return weighted_as(self.flow.as_table(np.vstack(blocks), self.cond), self.real)

    def _sampler(self, spec: Mapping[str, Any]) -> Sampler:
        return Sampler.of(spec, self.flow.settings, self.flow.grid, self.convention)

    def _block(self, sampler: Sampler, rows: np.ndarray, seed: int) -> np.ndarray:
        """Return the events (k, d) of some rows, from the noise that generation gives them."""
        noise = seeding.RowNoise(seed, "sample", rows, once=True)
        cond = None if self.cond is None else self.cond[rows]
        x = integrate(
            sampler.solver,
            self.flow.field,
            noise.standard_normal((len(rows), self.flow.plan["n_latent"])),
            sampler.boundaries,
            cond=cond,
            rng=seeding.RowNoise(seed, "solver", rows),
        ).x
        return self.flow.generator.columns_of(x, seed, rows, cond)

    def score(self, sampler: Mapping[str, Any], seed: int | None = None) -> float:
        """Return the score of a sampler; infinite if it cannot be used or leaves the finite."""
        try:
            made = self.events(sampler, seed)
        except (GridError, ConfigError):
            return math.inf
        if not np.isfinite(made.x).all():
            return math.inf
        start = time.process_time()
        result = self._scored(made, {**OPTIONS, "column": {"n_bootstrap": 2}})
        self.cpu_s += time.process_time() - start
        return float(result.value)

    def _scored(self, made: EventTable, options: Mapping[str, Mapping[str, Any]]) -> Result:
        names = [self.metric]
        scores = score_objectives(self.real, made, names, self.seed, self.n_threads, options)
        return scores[self.metric]

    def boundaries(self, sampler: Mapping[str, Any]) -> np.ndarray:
        """Return the boundaries (n_steps + 1,) of a sampler."""
        return self._sampler(sampler).boundaries

    def result(self, sampler: Mapping[str, Any]) -> Result:
        """Return the score with its error; ``cpu_s`` is that of the generation then."""
        self._block(self._sampler(sampler), np.arange(1), self.seed)  # loads the step models
        self.cpu_s = 0.0
        return self._scored(self.events(sampler), OPTIONS)

    def separations(self, samplers: list[Mapping[str, Any]]) -> tuple[list[float], Difference]:
        """Return the mean separation of two samplers, and the second minus the first.

        Real events and noise, common to both, do not contribute to the error.
        """
        first, second = (Binned.of(self.real, self.events(sampler)) for sampler in samplers)
        values, errors = separation_differences(first, second, same_noise=True, seed=self.seed)
        plain = [float(one.separations().mean()) for one in (first, second)]
        names, value, error = ("start", "tuned"), float(values[-1]), float(errors[-1])
        return plain, Difference("separation", None, *names, value, error, paired=True)
