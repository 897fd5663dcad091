"""Scores of many samplers of one field, from the same noise and against the same events."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # comes with scikit-learn

from .. import seeding
from ..errors import ConfigError, GridError
from ..flow.fields import VelocityField
from ..flow.solvers import integrate
from ..flow.time_grid import Sampler, TimeGrid
from ..generation.trained_flow import Flow
from ..tables.event_table import EventTable
from ..training.run_directory import Source
from .differences import Binned, Difference, separation_differences
from .metrics import Result
from .score_events import OPTIONS, condition_table, score_objectives, weighted_as

MOST_EVENTS = 20_000
"""Real events, and as many generated ones, of a judgement; of a larger table the first ones."""


class FieldBench(ABC):
    """Generates with any sampler of a velocity field, from the same noise, and scores.

    A subclass says which events the ends of the flow are.

    Parameters
    ----------
    field : on a path with ``settings``, the solver and the spacing of `grid`, which is used where
        a sampler names none
    n_latent : numbers that the flow moves per event
    real, cond : held-out events, and the conditions that the field takes for each, or None
    metric : one of `score_events.SCORES`
    seed : of noise and judge
    """

    trained: list[float] | None = None
    """Times to stay at; None where the field knows all."""

    def __init__(
        self,
        field: VelocityField,
        settings: Mapping[str, Any],
        grid: TimeGrid,
        n_latent: int,
        real: EventTable,
        cond: np.ndarray | None,
        metric: str,
        *,
        seed: int,
        n_threads: int,
    ) -> None:
        self.field, self.settings, self.grid, self.n_latent = field, settings, grid, n_latent
        self.real, self.cond, self.metric = real, cond, metric
        self.seed, self.n_threads = seed, n_threads
        self.convention = field.convention
        self.cpu_s = 0.0

    @abstractmethod
    def columns_of(self, x: np.ndarray, seed: int, rows: np.ndarray) -> np.ndarray:
        """Return the columns (k, d) of the events with these numbers from the ends of the flow."""

    @abstractmethod
    def as_table(self, columns: np.ndarray) -> EventTable:
        """Return all events as a table like the real ones."""

    def events(self, sampler: Mapping[str, Any], seed: int | None = None) -> EventTable:
        """Return as many events as real ones, each from the same noise whatever the sampler."""
        seed = self.seed if seed is None else seed
        start = time.process_time()
        chosen = self._sampler(sampler)
        ranges = seeding.block_ranges(self.real.n)
        with threadpool_limits(1, user_api="blas"):
            blocks = [self._block(chosen, np.arange(low, high), seed) for _, low, high in ranges]
        self.cpu_s += time.process_time() - start
        return self.as_table(np.vstack(blocks))

    def _sampler(self, spec: Mapping[str, Any]) -> Sampler:
        return Sampler.of(spec, self.settings, self.grid, self.convention)

    def _block(self, sampler: Sampler, rows: np.ndarray, seed: int) -> np.ndarray:
        """Return the events (k, d) of some rows, from the noise that generation gives them."""
        noise = seeding.RowNoise(seed, "sample", rows, once=True)
        x = integrate(
            sampler.solver,
            self.field,
            noise.standard_normal((len(rows), self.n_latent)),
            sampler.boundaries,
            cond=None if self.cond is None else self.cond[rows],
            rng=seeding.RowNoise(seed, "solver", rows),
        ).x
        return self.columns_of(x, seed, rows)

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


class Bench(FieldBench):
    """Samplers of a trained run."""

    def __init__(
        self, source: Source, real: EventTable, metric: str, *, seed: int, n_threads: int
    ) -> None:
        flow = self.flow = Flow(source, n_threads, sampler={"interpolate": True}).single(
            "a sampler"
        )
        if "source" in flow.plan["fingerprint"]["events"]:
            raise ConfigError("this run starts from source events; samplers are tuned from noise")
        real = real.take(slice(0, MOST_EVENTS))
        cond = flow.checked_conditions(condition_table(real), real.n)
        given = (flow.field, flow.settings, flow.grid, flow.plan["n_latent"], real, cond, metric)
        super().__init__(*given, seed=seed, n_threads=n_threads)
        self.trained = flow.grid.times.tolist()

    def columns_of(self, x: np.ndarray, seed: int, rows: np.ndarray) -> np.ndarray:
        cond = None if self.cond is None else self.cond[rows]
        return self.flow.generator.columns_of(x, seed, rows, cond)

    def as_table(self, columns: np.ndarray) -> EventTable:
        return weighted_as(self.flow.as_table(columns, self.cond), self.real)
