"""Events of many samplers through one trained run, judged on the same real events and noise."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import seeding
from ..errors import ConfigError, GridError
from ..generation import Flow
from ..metrics import quantile_edges
from ..sampling import Sampler
from ..store import Source
from ..table import EventTable
from . import judge

MOST_EVENTS = 20_000
"""Real events, and as many generated ones, of a judgement; of a larger table the first ones."""

REPLICAS = 200


@dataclass(frozen=True)
class Difference:
    """Score of one sampler minus that of another, with its standard error."""

    value: float
    error: float

    @property
    def sigmas(self) -> float:
        """The difference in standard errors."""
        return self.value / self.error if self.error > 0 else 0.0


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
        return None if self.real.cond is None else judge.conditions_of(self.real, self.real.n)

    def events(self, way: Mapping[str, Any], n: int | None = None) -> EventTable:
        """Return as many events as real ones, each from its own noise, whatever the sampler."""
        start = time.process_time()
        flow = self.flow
        flow.sampler = Sampler.of(way, flow.settings, flow.grid, self.convention)
        blocks = list(flow.blocks((0, n or self.real.n), self.seed, self.cond, None))
        self.cpu_s += time.process_time() - start
        return EventTable.concatenate(blocks)

    def score(self, way: Mapping[str, Any]) -> float:
        """Return the score of a sampler; infinite if it cannot be used or leaves the finite."""
        try:
            made = self.events(way)
        except (GridError, ConfigError):
            return math.inf
        if not np.isfinite(made.x).all():
            return math.inf
        start = time.process_time()
        options = {**judge.OPTIONS, "column": {"n_bootstrap": 2}}
        result = judge.scores(
            self.real, made, [self.metric], self.seed, self.n_threads, options
        )  # fmt: skip
        self.cpu_s += time.process_time() - start
        return float(result[self.metric].value)

    def result(self, way: Mapping[str, Any]) -> Any:
        """Return the score with its error, as a `Result`."""
        made = self.events(way)
        found = judge.scores(self.real, made, [self.metric], self.seed, self.n_threads)
        return found[self.metric]

    def separations(self, ways: list[Mapping[str, Any]]) -> tuple[list[float], Difference]:
        """Return the mean separation of two samplers, and the second minus the first.

        The error comes from events drawn anew with replacement, real ones for both samplers the
        same and generated ones by their noise: what both have in common does not count.
        """
        binned = [_Binned.of(self.real, self.events(way)) for way in ways]
        plain = [one.mean(None, None) for one in binned]
        rng = seeding.stream(self.seed, "tune-difference")
        found = []
        for _ in range(REPLICAS):
            weights = [rng.poisson(1.0, self.real.n).astype(float) for _ in range(2)]
            pair = [one.mean(*weights) for one in binned]
            found.append(pair[1] - pair[0])
        return plain, Difference(plain[1] - plain[0], float(np.std(found, ddof=1)))


@dataclass(frozen=True)
class _Binned:
    """Bins (n, d) of real and generated events, by the quantiles of the real ones."""

    real: np.ndarray
    made: np.ndarray
    n_bins: int

    @classmethod
    def of(cls, real: EventTable, made: EventTable, n_bins: int = 50) -> _Binned:
        edges = [quantile_edges(real.column(name), n_bins, real.weight) for name in real.names]
        parts = [
            np.stack([
                np.searchsorted(e[1:-1], table.column(name), side="right")
                for name, e in zip(real.names, edges, strict=True)
            ])
            for table in (real, made)
        ]  # fmt: skip
        return cls(parts[0], parts[1], n_bins)

    def mean(self, real_weight: np.ndarray | None, made_weight: np.ndarray | None) -> float:
        """Return the mean separation x100 over the columns."""
        count = functools.partial(np.bincount, minlength=self.n_bins)
        total = 0.0
        for real, made in zip(self.real, self.made, strict=True):
            p, q = count(real, real_weight), count(made, made_weight)
            p, q = p / p.sum(), q / q.sum()
            both = p + q
            terms = np.divide((p - q) ** 2, both, out=np.zeros_like(both), where=both > 0)
            total += 50.0 * float(terms.sum())
        return total / len(self.real)
