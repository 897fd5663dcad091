"""Events of many samplers through one trained run, judged on the same real events and noise."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # comes with scikit-learn

from .. import seeding
from ..errors import ConfigError, GridError
from ..flow.sampler import Sampler
from ..flow.solvers import integrate
from ..generation.trained_flow import Flow
from ..tables.event_table import EventTable
from ..training.run_directory import Source
from . import score_events
from .differences import Binned, Difference, separation_differences
from .metrics import Result

MOST_EVENTS = 20_000
"""Real events, and as many generated ones, of a judgement; of a larger table the first ones."""


class Bench:
    """Generates with any sampler, from the same noise, and scores.

    Parameters
    ----------
    source : trained run
    real : held-out events
    metric : one of `judge.SCORES`
    seed : of noise and judge
    n_threads : for prediction
    """

    def __init__(
        self, source: Source, real: EventTable, metric: str, *, seed: int, n_threads: int
    ) -> None:
        self.real = real.take(slice(0, MOST_EVENTS))
        self.metric, self.seed, self.n_threads = metric, seed, n_threads
        self.flow = Flow(source, n_threads, sampler={"interpolate": True})
        if "source" in self.flow.plan["fingerprint"]["events"]:
            raise ConfigError("this run starts from given events; samplers are tuned from noise")
        self.cond = self.flow.checked_conditions(self._conditions(), self.real.n)
        self.convention = self.flow.field.convention
        self.cpu_s = 0.0

    def _conditions(self) -> Any:
        return (
            None if self.real.cond is None else score_events.conditions_of(self.real, self.real.n)
        )

    def events(self, way: Mapping[str, Any], seed: int | None = None) -> EventTable:
        """Return as many events as real ones, each from its own noise, whatever the sampler."""
        seed = self.seed if seed is None else seed
        start = time.process_time()
        sampler = Sampler.of(way, self.flow.settings, self.flow.grid, self.convention)
        ranges = seeding.block_ranges(self.real.n)
        with threadpool_limits(1, user_api="blas"):
            parts = [self._block(sampler, np.arange(low, high), seed) for _, low, high in ranges]
        self.cpu_s += time.process_time() - start
        return score_events.weighted_as(self.flow.as_table(np.vstack(parts), self.cond), self.real)

    def _block(self, sampler: Sampler, rows: np.ndarray, seed: int) -> np.ndarray:
        """Return the events (k, d) of some rows, from the noise that generation gives them."""
        noise = seeding.RowNoise(seed, "sample", rows, once=True)
        x = integrate(
            sampler.solver,
            self.flow.field,
            noise.standard_normal((len(rows), self.flow.plan["n_latent"])),
            sampler.boundaries,
            cond=None if self.cond is None else self.cond[rows],
            rng=seeding.RowNoise(seed, "solver", rows),
        ).x
        return self.flow.transform.inverse(x)

    def score(self, way: Mapping[str, Any], seed: int | None = None) -> float:
        """Return the score of a sampler; infinite if it cannot be used or leaves the finite.

        ``seed`` is that of the noise, by default the one of this bench.
        """
        try:
            made = self.events(way, seed)
        except (GridError, ConfigError):
            return math.inf
        if not np.isfinite(made.x).all():
            return math.inf
        start = time.process_time()
        options = {**score_events.OPTIONS, "column": {"n_bootstrap": 2}}
        result = score_events.scores(
            self.real, made, [self.metric], self.seed, self.n_threads, options
        )  # fmt: skip
        self.cpu_s += time.process_time() - start
        return float(result[self.metric].value)

    def boundaries(self, way: Mapping[str, Any]) -> np.ndarray:
        """Return the boundaries (n_steps + 1,) of a sampler."""
        return Sampler.of(way, self.flow.settings, self.flow.grid, self.convention).boundaries

    def result(self, way: Mapping[str, Any]) -> Result:
        """Return the score with its error; ``cpu_s`` is that of the generation then."""
        sampler = Sampler.of(way, self.flow.settings, self.flow.grid, self.convention)
        self._block(sampler, np.arange(1), self.seed)  # loads the step models
        self.cpu_s = 0.0
        made = self.events(way)
        found = score_events.scores(self.real, made, [self.metric], self.seed, self.n_threads)
        return found[self.metric]

    def separations(self, ways: list[Mapping[str, Any]]) -> tuple[list[float], Difference]:
        """Return the mean separation of two samplers, and the second minus the first.

        What both have in common, real events and noise, does not count for the error.
        """
        first, second = (Binned.of(self.real, self.events(way)) for way in ways)
        values, errors = separation_differences(first, second, same_noise=True, seed=self.seed)
        plain = [float(one.separations().mean()) for one in (first, second)]
        names = ("start", "tuned")
        value, error = float(values[-1]), float(errors[-1])
        return plain, Difference("separation", None, *names, value, error, paired=True)
