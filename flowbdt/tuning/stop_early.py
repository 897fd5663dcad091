"""Give up a trial early: by the losses or the cost of its first steps, or by its first folds.

Losses of two configurations at one time can be compared where both describe events in the same
coordinates: the same held-out events and the same noise give the same targets. Most of a loss is
noise that nothing can explain and that changes much with time. So it is divided by that of a
closed form, the same for all trials, at the same time; the ratio changes slowly, and a curve
through the times of one trial predicts it at those of another.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .. import seeding
from ..evaluation.metrics import Result
from ..flow.closed_form import from_bytes
from ..flow.paths import PATHS
from ..flow.step_inputs import step_inputs
from ..tables.conditions import stored_scaling
from ..tables.event_table import EventTable
from ..tables.transforms import TableTransform
from ..training import run_directory
from ..training.run_directory import RunDirectory
from ..training.threads import one_thread_of_blas
from ..training.train_step import run_task
from ..trees.boosted_trees import BoostedTrees

FEWEST_STEPS = 2
"""So many steps are trained before a trial is judged by them."""

MOST_EVENTS = 8_192
"""Held-out events of a loss; of more the first ones."""

CLEARLY = 2.0
"""Standard errors above the start from which a trial is clearly worse, as for `flowbdt compare`."""


class HeldOutLoss:
    """Loss of single steps of a planned run on held-out events, over that of a closed form.

    ``closed_form`` holds the bytes of the preconditioner to divide by, by default that of the run;
    ``seed`` is that of the noise.
    """

    def __init__(
        self, run: RunDirectory, table: EventTable, closed_form: bytes | None, seed: int
    ) -> None:
        self._run = run
        planned = run.plan()["fingerprint"]
        self._settings = planned["settings"]
        self._transform = TableTransform.from_json(run.read_json("transform.json"))
        self._trained = from_bytes(run.read("preconditioner.npz"))
        self._shared = self._trained if closed_form is None else from_bytes(closed_form)
        self._path = PATHS.build(self._settings["path"])
        table = table.take(slice(0, MOST_EVENTS))
        scaling = stored_scaling(planned["columns"])[0][len(table.names) :]
        self._cond = None if table.cond is None else scaling.forward(table.cond)
        with one_thread_of_blas():
            self._x1 = self._transform.forward(table)
        rng = seeding.stream(seed, "tune-loss")
        self._x0, self._noise = (rng.standard_normal(self._x1.shape) for _ in range(2))

    def __call__(self, step: int) -> float:
        """Return the loss of a trained step, in units of that of the closed form."""
        task = self._run.task(step)
        t, t_next = task["time"], task["next_time"]
        mean = self._settings["noise"]["target"] == "mean"
        x_t = self._path.location(self._x0, self._x1, t, self._noise)
        if mean:
            target = self._path.mean_target(self._x0, self._x1, t, t_next, self._noise)
        else:
            target = self._path.target(self._x0, self._x1, t, x_t)
        trees = BoostedTrees.from_bytes(self._run.read(run_directory.model_name(step)))
        trees.set_threads(1)
        joint = self._transform.joint
        views = step_inputs(self._trained, joint, self._settings, t, t_next, run_directory.FORMAT)
        with one_thread_of_blas():
            inputs, velocity = views(x_t, self._cond)
            velocity += trees.predict(inputs)
            shared = self._shared.at(self._path, t, t_next if mean else None)
            plain = shared.velocity(x_t, self._cond)
        return float(np.mean((target - velocity) ** 2) / np.mean((target - plain) ** 2))


@dataclass(frozen=True)
class Limits:
    """Limits beyond which a trial is given up.

    ``curve``: times and losses (as `HeldOutLoss`) of the trial to compare with; ``margin``: mean
    excess over the curve from which a trial counts as worse; ``cpu_s``: CPU seconds of training,
    foreseen from the steps done, beyond which it costs too much.
    """

    curve: Sequence[Sequence[float]] = ()
    margin: float = 0.02
    cpu_s: float | None = None

    def excess(self, losses: Mapping[float, float]) -> float | None:
        """Return the mean excess of losses over the curve at their times; None without any."""
        if not self.curve or not losses:
            return None
        times, known = np.array(self.curve).T
        expected = np.interp(list(losses), times, known)
        return float(np.mean(np.array(list(losses.values())) - expected))


@dataclass
class Race:
    """Losses of a trial's steps by time, CPU seconds, and the reason if it was given up."""

    losses: dict[float, float] = field(default_factory=dict)
    cpu_s: float = 0.0
    stopped: str | None = None


def order(n: int) -> list[int]:
    """Return the order of training: the middle, three quarters, the last, a quarter, the rest.

    At pure noise, the first time, the best velocity is known, and all trials are equal.
    """
    first = [n // 2, (3 * n) // 4, n - 1, n // 4]
    return list(dict.fromkeys([*first, *range(n)])) if n else []


def race(
    run: RunDirectory, held: EventTable, closed_form: bytes | None, limits: Limits,
    *, seed: int, n_threads: int, planning_s: float = 0.0,
) -> Race:  # fmt: skip
    """Train the missing steps of a planned run one by one, until a limit is exceeded.

    ``held`` are the events of `HeldOutLoss`; the plan's CPU seconds ``planning_s`` count as cost.
    """
    steps = order(len(run_directory.trained_times(run.plan())))
    loss = HeldOutLoss(run, held, closed_form, seed) if steps else None
    result = Race(cpu_s=planning_s)
    for done, step in enumerate(steps, start=1):
        report = run.report(step) or run_task(run.path, step, n_threads)
        result.cpu_s += report["cpu_seconds"]
        assert loss is not None
        result.losses[report["time"]] = loss(step)
        if FEWEST_STEPS <= done < len(steps):
            foreseen = planning_s + (result.cpu_s - planning_s) * len(steps) / done
            result.stopped = _verdict(limits, result.losses, foreseen)
        if result.stopped:
            return result
    for step in range(len(steps), run.n_steps()):  # classifiers, which no velocity is held against
        report = run.report(step) or run_task(run.path, step, n_threads)
        result.cpu_s += report["cpu_seconds"]
    return result


def _verdict(limits: Limits, losses: Mapping[float, float], foreseen_s: float) -> str | None:
    excess = limits.excess(losses)
    if excess is not None and not excess <= limits.margin:
        return f"after {len(losses)} steps the held-out loss is {excess:.1%} above the start's"
    if limits.cpu_s is not None and foreseen_s > limits.cpu_s:
        return f"it would train for {foreseen_s:.3g} CPU seconds, more than {limits.cpu_s:.3g}"
    return None


def over_folds(results: Sequence[Result]) -> Result:
    """Return the mean score of some folds, with its error; of a single fold its score.

    The larger of two estimates is taken: the errors of the single scores, which know the noise of
    judge and held-out events, and the scatter between folds, which also knows that models differ,
    but is poorly known for few folds. Models of two folds share most of their events, so that even
    this may be too small: no estimate from the folds alone is free of bias.

    References
    ----------
    Bengio, Grandvalet, "No unbiased estimator of the variance of K-fold cross-validation", Journal
    of Machine Learning Research 5 (2004) 1089.
    """
    if len(results) == 1:
        return results[0]
    values, k = [r.value for r in results], len(results)
    single = math.sqrt(sum(r.error**2 for r in results)) / k
    scatter = statistics.stdev(values) / math.sqrt(k)
    name, unit, n = results[0].name, results[0].unit, sum(r.n for r in results)
    return Result(name, sum(values) / k, max(single, scatter), n, unit=unit)


def clearly_worse(scores: Sequence[Result], start: Sequence[Result]) -> str | None:
    """Return the reason not to train a trial on more folds; None to go on.

    ``scores`` are those on the folds that are done, ``start`` those of the start on all folds, if
    known. Both were judged on the same held-out events, so the error of the difference, taken as if
    they had not been, is rather too large: no trial is given up too early.
    """
    if not start:
        return None
    trial, other = over_folds(scores), over_folds(start[: len(scores)])
    excess, error = trial.value - other.value, math.hypot(trial.error, other.error)
    if excess <= CLEARLY * error:
        return None
    return (
        f"after {len(scores)} of {len(start)} folds {trial.name} is {trial.value:.4g},"
        f" {excess:.2g} ± {error:.2g} above the start's"
    )
