"""`tune_sampler`: the best sampler for a field, by scores of its events, without training."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import atomic_files, seeding
from ..errors import ConfigError
from ..evaluation.differences import Difference
from ..evaluation.metrics.base import uncertain
from ..evaluation.score_events import SCORES
from ..evaluation.score_samplers import Bench, FieldBench
from ..flow.schedule_search import steps_within
from ..flow.schedules import SCHEDULES, boundaries_of
from ..flow.solvers import SOLVERS
from ..registry import unknown
from ..seeding import split_mask
from ..tables.event_table import EventTable, like_training
from ..training import run_directory
from ..training.threads import checked_threads
from . import sampler_space
from .proposals import PastTrial, check_installed, propose
from .search_space import Choice

EVALUATIONS = (8, 16, 32)
TRIALS = 60

LAST_FEW = 5
"""Samplers that are scored once more before one is chosen."""

FEWEST_EVENTS = 100

NESTED = 3
"""With so many trained times for each evaluation boundaries stay at trained times."""

SamplerConfig = dict[str, Any]


@dataclass(frozen=True)
class TunedSampler:
    """The result for one number of evaluations of a field.

    Parameters
    ----------
    sampler : as ``flowbdt generate --sampler`` takes it
    start : the sampler before tuning, at the same number of evaluations
    scores : of both on the events of the search and on the guard events, which only decide
    difference : tuned minus start on the guard events; None for metrics other than separation
    tuned : False if nothing better was also better on the guard events: then it is the start
    fit : settings for ``flowbdt fit --set`` that train just the times of the sampler; none for a
        field that knows all times
    tried : number of samplers that were scored
    """

    evaluations: int
    sampler: SamplerConfig
    start: SamplerConfig
    scores: dict[str, dict[str, float]]
    difference: Difference | None
    tuned: bool
    fit: list[str]
    tried: int
    cpu_seconds: float
    log: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return a dict that JSON can hold, with None for what is not finite."""
        plain: dict[str, Any] = _finite(atomic_files.to_plain(asdict(self)))
        return plain

    def text(self, metric: str) -> str:
        """Return lines for a terminal: the gain, and the options of generation and fit."""
        before, after = self.scores["guard"]["start"], self.scores["guard"]["tuned"]
        line = f"{self.evaluations} evaluations: {metric} {before:.4g} -> {after:.4g}"
        if self.difference is not None:
            line += f", difference {uncertain(self.difference.value, self.difference.error)}"
        line += f" on events that played no part ({self.tried} samplers tried)"
        if not self.tuned:
            return f"{line}\n  unchanged: no sampler that was tried is better on these events"
        line += f"\n  generate: --sampler '{json.dumps(self.sampler)}'"
        options = " ".join(f"--set '{setting}'" for setting in self.fit)
        return f"{line}\n  fit:      {options}" if self.fit else line


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tune_sampler(
    run: str | Path,
    table: Any,
    *,
    evaluations: Sequence[int] = EVALUATIONS,
    metric: str = "separation",
    n_trials: int = TRIALS,
    interpolate: bool | None = None,
    seed: int = 0,
    n_threads: int | None = None,
    on_budget: Callable[[TunedSampler], None] | None = None,
) -> list[TunedSampler]:
    """Search solver, levels and their parameters for a trained run; one result per budget.

    Half of the events are searched on. The other half only decides whether the best sampler is
    better than the start; if not, the start is kept.

    Parameters
    ----------
    run : folder of a trained run, or model file
    table : EventTable, DataFrame or array of events that the run was not trained on
    evaluations : budgets, evaluations of the velocity per event
    metric : of `flowbdt.evaluation.score_events.SCORES`, to be small
    n_trials : samplers tried by the search; as many small changes of the best one follow
    interpolate : whether times between step models are allowed; None decides by their number
    seed, n_threads : of all noise; for prediction
    on_budget : called with each result

    Raises
    ------
    ConfigError
        If a name is unknown, a budget too small for any sampler, or the run starts from events.
    MissingExtra
        If Optuna is not installed.
    """
    check_installed()
    if metric not in SCORES:
        raise unknown("score", metric, SCORES)
    real = EventTable.of(table)
    if real.n < 2 * FEWEST_EVENTS:
        raise ConfigError(f"tuning a sampler needs {2 * FEWEST_EVENTS} events, got {real.n}")
    source = run_directory.open_run(run)
    columns = run_directory.read_plan(source)["fingerprint"]["columns"]
    like = like_training(real, columns)
    halves = split_mask(real.n, 0.5, seeding.derive(seed, "sampler-halves"))
    common = {"seed": seed, "n_threads": checked_threads(n_threads)}
    benches = [Bench(source, like.take(mask), metric, **common) for mask in (halves, ~halves)]
    return search_samplers(
        benches, evaluations, n_trials, interpolate=interpolate, on_budget=on_budget
    )


def search_samplers(
    benches: Sequence[FieldBench],
    evaluations: Sequence[int] = EVALUATIONS,
    n_trials: int = TRIALS,
    *,
    interpolate: bool | None = None,
    on_budget: Callable[[TunedSampler], None] | None = None,
) -> list[TunedSampler]:
    """Search samplers of any field, by events of the first bench; the second is the guard.

    Parameters as for `tune_sampler`; the seed is that of the benches. Raises MissingExtra if Optuna
    is not installed, ConfigError if a budget is too small for any sampler.
    """
    check_installed()
    results = []
    for budget in evaluations:
        results.append(_SamplerSearch(benches, budget, n_trials, interpolate).result())
        if on_budget is not None:
            on_budget(results[-1])
    return results


class _SamplerSearch:
    """The search for one number of evaluations."""

    def __init__(
        self, benches: Sequence[FieldBench], budget: int, n_trials: int, interpolate: bool | None
    ) -> None:
        self.search, self.guard = benches
        self.budget, self.n_trials, self.seed = budget, n_trials, self.search.seed
        self.convention = self.search.convention
        trained = self.search.trained
        if interpolate is None:
            interpolate = trained is None or len(trained) < NESTED * budget
        self.allowed = None if interpolate else trained
        self.log: list[dict[str, Any]] = []  # note, sampler and score

    def score(self, sampler: SamplerConfig, note: str) -> float:
        """Score a sampler and log it; infinite if it does not fit the budget or the times."""
        settled = sampler_space.settled(sampler, self.allowed, self.convention)
        if settled is None or sampler_space.cost(settled, self.convention) > self.budget:
            return math.inf
        return self._log(settled, note)

    def _log(self, sampler: SamplerConfig, note: str) -> float:
        score = self.search.score(sampler)
        self.log.append({"note": note, "sampler": sampler, "score": score})
        return score

    @property
    def best(self) -> dict[str, Any]:
        """The best line of the log."""
        return min(self.log, key=lambda line: line["score"])

    def result(self) -> TunedSampler:
        """Search, then compare the best sampler with the start on the guard events."""
        clock = time.process_time()
        start = self.start()
        if self.search.trained is None:
            self.try_published()
        self.propose()
        self.polish()
        best = self._by_fresh_noise()
        pair = [start["sampler"], best["sampler"]]
        difference = None
        if self.search.metric == "separation":
            on_guard, difference = self.guard.separations(pair)
        else:
            on_guard = [self.guard.score(sampler) for sampler in pair]
        better = on_guard[1] < on_guard[0]
        return TunedSampler(
            evaluations=self.budget,
            sampler=pair[better],
            start=pair[0],
            scores={
                "search": {"start": start["score"], "tuned": best["score"]},
                "guard": {"start": on_guard[0], "tuned": on_guard[1]},
            },
            difference=difference,
            tuned=better,
            fit=[] if self.search.trained is None else sampler_space.fit_settings(pair[better]),
            tried=len(self.log),
            cpu_seconds=time.process_time() - clock,
            log=self.log,
        )

    def _by_fresh_noise(self) -> dict[str, Any]:
        """Return the best of the first few when each is scored once more, from other noise.

        The best of many scores from the same noise owes part of its place to that noise.
        """
        first = sorted(self.log, key=lambda line: line["score"])[:LAST_FEW]
        seed = seeding.derive(self.seed, "sampler-fresh", self.budget)
        again = {id(line): self.search.score(line["sampler"], seed) for line in first}
        return min(first, key=lambda line: line["score"] + again[id(line)])

    def start(self) -> dict[str, Any]:
        """Return the log's line of the better of the run's own sampler, and its grid rounded.

        With as many steps as the budget pays. On trained times alone these steps may not fit in;
        then with the largest number that does.
        """
        settings = self.search.settings
        solver, spacing = settings["solver"], settings["spacing"]
        spacing = "uniform" if isinstance(spacing, list) else spacing
        most = steps_within(SOLVERS.build(solver), self.budget, self.convention, spacing)
        for n_steps in range(most, 0, -1):
            grid = boundaries_of(SCHEDULES.build(spacing), n_steps, self.convention)
            sampler = {"solver": solver, "spacing": grid.tolist()}
            self.score(sampler, "start")
            if n_steps == most and self.allowed is not None:
                self._log({**sampler, "interpolate": True}, "start")
            if any(np.isfinite(line["score"]) for line in self.log):
                return self.best
        raise ConfigError(f"no sampler of this run fits into {self.budget} evaluations")

    def try_published(self) -> None:
        """Score the samplers that papers propose."""
        for published in sampler_space.PUBLISHED:
            try:
                sampler = sampler_space.within(published, self.budget, self.convention)
                self.score(sampler, "published")
            except ConfigError:
                continue

    def propose(self) -> None:
        """Search solver and levels: the defaults of each solver, then as Optuna proposes."""
        space = sampler_space.sampler_space(self.convention, self.search.settings["solver"])
        solvers = space["solver"].options if isinstance(space["solver"], Choice) else {}
        defaults = {name: parameter.default for name, parameter in space.items()}
        first = [{**defaults, "solver": name} for name in solvers]
        seed = seeding.derive(self.seed, "sampler-search", self.budget)
        past: list[PastTrial] = []
        for number in range(self.n_trials):
            params = propose(space, past, number, seed=seed, first=first, n_random=len(first) + 6)
            try:
                sampler = sampler_space.sampler_of(params, space, self.budget, self.convention)
                score = self.score(sampler, "search")
            except ConfigError:
                score = math.inf
            past.append(PastTrial(params, [score] if math.isfinite(score) else None))

    def polish(self) -> None:
        """Change the steps of the best sampler a little, as long as that helps.

        An evolution strategy with one parent and one child: the size of the changes grows with
        every success and shrinks with every failure, so that one in five succeeds.
        """
        rng = seeding.stream(self.seed, "sampler-polish", self.budget)
        parent, size = self.best, 0.15
        for _ in range(self.n_trials):
            grid = parent["sampler"]["spacing"]
            change = size * rng.standard_normal(len(grid) - 1)
            child = {**parent["sampler"], "spacing": sampler_space.stretched(grid, change)}
            if self.score(child, "polish") < parent["score"]:
                parent, size = self.log[-1], size * 1.5
            else:
                size = max(size * 1.5**-0.25, 0.01)
