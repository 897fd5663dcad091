"""`tune_sampler`: the best way through the step models of a trained run, without training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import atomic_files, seeding
from ..errors import ConfigError
from ..evaluation.differences import Difference
from ..evaluation.score_events import SCORES
from ..evaluation.score_samplers import Bench
from ..flow.fields import ClosedFormField
from ..flow.paths import PATHS
from ..flow.schedule_search import optimise_grid, steps_within
from ..flow.schedules import SCHEDULES, boundaries_of
from ..flow.solvers import SOLVERS
from ..registry import unknown
from ..seeding import split_mask
from ..tables.event_table import EventTable
from ..training import run_directory
from ..training.executors.local import available_cpus
from . import choose_times, sampler_space, search_space
from .optuna_proposals import Proposals, check_installed

METHODS = ("metric", "grid", "times", "divergence")
EVALUATIONS = (8, 16, 32)
TRIALS = 60

LAST_FEW = 5
"""Samplers that are scored once more before one is chosen."""

FEWEST_EVENTS = 100
POINTS = 300
"""Points that are followed to find grids without a metric."""

NESTED = 3
"""With so many trained times for each evaluation boundaries stay at trained times."""

Way = dict[str, Any]


@dataclass(frozen=True)
class TunedSampler:
    """What was found for one budget.

    Parameters
    ----------
    evaluations : the budget
    way : the sampler, as ``flowbdt generate --sampler`` takes it
    start : the one that was not tuned, at the same budget
    scores : of both on the events of the search, and on those that nobody looked at
    difference : tuned minus start on the latter; None for metrics other than separation
    tuned : False if nothing was found that also held on the latter, and ``way`` is the start
    fit : settings for ``flowbdt fit --set`` that train just the times it asks for
    tried : samplers that were scored
    cpu_seconds : spent
    """

    evaluations: int
    way: Way
    start: Way
    scores: dict[str, dict[str, float]]
    difference: Difference | None
    tuned: bool
    fit: list[str]
    tried: int
    cpu_seconds: float
    log: list[dict[str, Any]] = field(default_factory=list, repr=False)


def tune_sampler(
    run: str | Path,
    table: Any,
    *,
    evaluations: Sequence[int] = EVALUATIONS,
    metric: str = "separation",
    method: str = "metric",
    n_trials: int = TRIALS,
    interpolate: bool | None = None,
    seed: int = 0,
    n_threads: int | None = None,
    on_budget: Callable[[TunedSampler], None] | None = None,
) -> list[TunedSampler]:
    """Search solver, levels and their parameters for a trained run; one result per budget.

    Half of the events are searched on. The other half only says whether what was found is better
    than what there was; if not, that is kept.

    Parameters
    ----------
    run : folder of a trained run, or model file
    table : EventTable, DataFrame or array of events that the run has not seen
    evaluations : budgets, evaluations of the velocity per event
    metric : of `flowbdt.evaluation.score_events.SCORES`, to be small
    method : 'metric' searches by the metric and begins with what the others find without one:
        'grid' makes the errors of steps small on the closed-form velocity
        (`flowbdt.flow.schedule_search`);
        'times' and 'divergence' choose trained times, by the errors of steps between them or by a
        bound on the divergence (`flowbdt.tuning.choose_times`)
    n_trials : samplers tried by the search; as many small changes of the best one follow
    interpolate : whether times between step models may be asked; None decides by their number
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
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    real = EventTable.of(table)
    if real.n < 2 * FEWEST_EVENTS:
        raise ConfigError(f"tuning a sampler needs {2 * FEWEST_EVENTS} events, got {real.n}")
    source = run_directory.open_run(run)
    halves = split_mask(real.n, 0.5, seeding.derive(seed, "sampler-halves"))
    common = {"seed": seed, "n_threads": n_threads or available_cpus()}
    like = _like(real, _columns(source))
    benches = [Bench(source, like.take(mask), metric, **common) for mask in (halves, ~halves)]
    results = []
    for budget in evaluations:
        results.append(_Budget(benches, budget, method, n_trials, interpolate, seed).result())
        if on_budget is not None:
            on_budget(results[-1])
    return results


def _columns(source: run_directory.Source) -> dict[str, Any]:
    plan = run_directory.read_plan(source)
    columns: dict[str, Any] = plan["fingerprint"]["columns"]
    return columns


def _like(table: EventTable, columns: Mapping[str, Any]) -> EventTable:
    """Return the table with the columns and conditions of the run, in their order."""
    given = [name for name in columns["conditions"] if name in table.names]
    table = table.as_conditions(given) if given else table
    texts = {k: tuple(v) for k, v in columns["categories"].items()}
    kept = table.select(columns["names"])
    return kept.recoded({k: v for k, v in texts.items() if k in kept.categories})


class _Budget:
    """The search for one number of evaluations."""

    def __init__(
        self, benches: list[Bench], budget: int, method: str, n_trials: int,
        interpolate: bool | None, seed: int,
    ) -> None:  # fmt: skip
        self.search, self.guard = benches
        self.budget, self.method, self.n_trials, self.seed = budget, method, n_trials, seed
        flow = self.search.flow
        self.convention = self.search.convention
        self.trained: list[float] = flow.grid.times.tolist()
        if interpolate is None:
            interpolate = len(self.trained) < NESTED * budget
        self.stays = None if interpolate else self.trained
        self.own = flow.settings["solver"]
        self.spacing = flow.settings["spacing"]
        self.log: list[dict[str, Any]] = []

    def try_(self, way: Way | None, note: str) -> float:
        """Score a sampler; infinite if there is none."""
        settled = None if way is None else sampler_space.settled(way, self.stays, self.convention)
        if settled is None or sampler_space.cost(settled, self.convention) > self.budget:
            return float("inf")
        score = self.search.score(settled)
        self.log.append({"note": note, "way": settled, "score": score})
        return score

    @property
    def best(self) -> dict[str, Any]:
        """The best line of the log."""
        return min(self.log, key=lambda line: line["score"])

    def result(self) -> TunedSampler:
        """Search, then hold the best against the start on events that nobody looked at."""
        clock = time.process_time()
        start = self.start()
        for note, way in self.found_without_metric().items():
            self.try_(way, note)
        if self.method == "metric":
            self.propose()
            self.polish()
        lines = [line for line in self.log if self.method in ("metric", line["note"])]
        if not lines:
            raise ConfigError(
                f"method {self.method!r} finds nothing for this run at {self.budget} evaluations:"
                " it needs more trained times, or a run without conditions; take 'metric'"
            )
        return self._held(start, self._by_fresh_noise(lines), clock)

    def _by_fresh_noise(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the best of the first few when each is scored once more, from other noise.

        The best of many scores from the same noise owes part of its place to that noise.
        """
        first = sorted(lines, key=lambda line: line["score"])[:LAST_FEW]
        seed = seeding.derive(self.seed, "sampler-fresh", self.budget)
        again = {id(line): self.search.score(line["way"], seed) for line in first}
        return min(first, key=lambda line: line["score"] + again[id(line)])

    def _held(self, start: dict[str, Any], best: dict[str, Any], clock: float) -> TunedSampler:
        pair = [start["way"], best["way"]]
        difference = None
        if self.search.metric == "separation":
            on_guard, difference = self.guard.separations(pair)
        else:
            on_guard = [self.guard.score(way) for way in pair]
        better = on_guard[1] < on_guard[0]
        way = best["way"] if better else start["way"]
        return TunedSampler(
            evaluations=self.budget,
            way=way,
            start=start["way"],
            scores={
                "search": {"start": start["score"], "tuned": best["score"]},
                "guard": {"start": on_guard[0], "tuned": on_guard[1]},
            },
            difference=difference,
            tuned=better,
            fit=sampler_space.fit_settings(way),
            tried=len(self.log),
            cpu_seconds=time.process_time() - clock,
            log=self.log,
        )

    def start(self) -> dict[str, Any]:
        """Return the log's line of the better of the run's own sampler, and its grid rounded.

        With as many steps as the budget pays. On trained times alone these steps may not fit in;
        then with the largest number that does.
        """
        spacing = "uniform" if isinstance(self.spacing, list) else self.spacing
        solver = SOLVERS.build(self.own)
        most = steps_within(solver, self.budget, self.convention, spacing)
        for n_steps in range(most, 0, -1):
            grid = boundaries_of(SCHEDULES.build(spacing), n_steps, self.convention)
            self.try_({"solver": self.own, "spacing": grid.tolist()}, "start")
            exact = {"solver": self.own, "spacing": grid.tolist(), "interpolate": True}
            if n_steps == most and self.stays is not None:
                self.log.append(
                    {"note": "start", "way": exact, "score": self.search.score(exact)}
                )  # fmt: skip
            if any(np.isfinite(line["score"]) for line in self.log):
                return self.best
        raise ConfigError(f"no sampler of this run can do with {self.budget} evaluations")

    def found_without_metric(self) -> dict[str, Way]:
        """Return the grids that are found from errors of steps, by what found them."""
        found: dict[str, Way] = {}
        flow, m = self.search.flow, self.search.flow.plan["n_latent"]
        x0 = seeding.stream(self.seed, "sampler-points").standard_normal((POINTS, m))
        solver = "adams_bashforth_2"
        n_steps = self.budget
        if not flow.columns["conditions"]:
            path = PATHS.build(flow.settings["path"])
            closed = ClosedFormField(flow.preconditioner, path)
            search = optimise_grid(closed, SOLVERS.build(solver), n_steps, x0, sweeps=4)
            found["grid"] = {"solver": solver, "spacing": search.boundaries.tolist()}
        if n_steps <= len(self.trained):
            cond = None if self.search.cond is None else self.search.cond[:POINTS]
            x0 = x0 if cond is None else x0[: len(cond)]
            trail = choose_times.Trail.of(flow.field, np.array(self.trained), x0, cond)
            kinds = {"times": choose_times.second_order(trail)}
            if self.convention is not None:
                kinds["divergence"] = choose_times.divergence(trail, self.convention)
            for note, errors in kinds.items():
                grid = choose_times.best_times(trail, n_steps, errors)
                found[note] = {"solver": solver, "spacing": grid.tolist()}
        return found

    def propose(self) -> None:
        """Search solver and levels by the metric."""
        known = sampler_space.way_space(self.convention, self.own)
        first = {name: parameter.default for name, parameter in known.items()}
        solvers = (
            known["solver"].options if isinstance(known["solver"], search_space.Choice) else {}
        )
        others = [{**first, "solver": name} for name in solvers]
        seed = seeding.derive(self.seed, "sampler-search", self.budget)
        proposals = Proposals(None, known, 1, seed=seed, first=others, n_random=len(others) + 6)
        for _ in range(self.n_trials):
            number, params = proposals.ask()
            try:
                way = sampler_space.build(params, known, self.budget, self.convention)
            except ConfigError:
                way = None
            score = self.try_(way, "search")
            proposals.tell(number, [score] if np.isfinite(score) else None)

    def polish(self) -> None:
        """Change the steps of the best sampler a little, as long as that helps.

        An evolution strategy with one parent and one child: the size of the changes grows with
        every success and shrinks with every failure, so that one in five succeeds.
        """
        rng = seeding.stream(self.seed, "sampler-polish", self.budget)
        parent, size = self.best, 0.15
        for _ in range(self.n_trials):
            grid = parent["way"]["spacing"]
            change = size * rng.standard_normal(len(grid) - 1)
            way = {**parent["way"], "spacing": sampler_space.moved(grid, change)}
            if self.try_(way, "moved") < parent["score"]:
                parent, size = self.log[-1], size * 1.5
            else:
                size = max(size * 1.5**-0.25, 0.01)


def to_json(results: Sequence[TunedSampler]) -> dict[str, Any]:
    """Return everything that was found, as JSON can hold it; what is not finite is None."""
    return {"format": 1, "budgets": [_finite(atomic_files.to_plain(asdict(r))) for r in results]}


def _finite(value: Any) -> Any:
    """Return plain values with None for infinite numbers and NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
