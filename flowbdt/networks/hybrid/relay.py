"""Legs and relays: a trajectory from noise to data in stretches of different fields."""

from __future__ import annotations

import dataclasses
import itertools
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ... import seeding
from ...config import BOOSTER_DEFAULTS
from ...errors import ConfigError, DataWarning, InputError
from ...flow.fields import TOLERANCE, VelocityField
from ...flow.solvers import SOLVERS, Solver, evaluations, integrate
from ...flow.solvers.base import check_boundaries
from ...flow.solvers.sde import climbed
from ...model import FlowBDT
from ...tables.conditions import ColumnScaling
from ...tables.event_table import EventTable
from ...trees.base import Batch
from ...trees.boosted_trees import BoostedTrees


@dataclass(frozen=True, eq=False)
class Leg:
    """A stretch of the trajectory with a field and a solver."""

    name: str  # of the field in counts, such as 'network' or 'trees'
    field: VelocityField
    solver: Any  # Solver, its name, or a mapping
    boundaries: Any  # (n_steps + 1,), rising times
    method: Solver = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        steps = check_boundaries(self.boundaries)
        if steps[0] > steps[-1]:
            raise ConfigError("a leg goes from noise to data: boundaries must rise")
        built = self.solver if isinstance(self.solver, Solver) else SOLVERS.build(self.solver)
        object.__setattr__(self, "boundaries", steps)
        object.__setattr__(self, "method", built)

    @property
    def n_evaluations(self) -> int:
        """Evaluations of the field per event."""
        return len(evaluations(self.method, self.boundaries, self.field.convention))


@dataclass(frozen=True, eq=False)
class RelayResult:
    """The end of a relay."""

    x: Any  # points (n, m) at the last boundary
    n_evaluations: dict[str, int]  # per event, by name of the legs
    seconds: dict[str, float]  # wall time by name


class Relay:
    """Legs, one after the other, and a corrector of the points at the end, or None.

    Raises ConfigError if a leg begins nearer to the data than the one before ended, or noise has to
    be added and the fields determine none.
    """

    def __init__(self, legs: Sequence[Leg], corrector: Corrector | None = None) -> None:
        if not legs:
            raise ConfigError("a relay needs at least one leg")
        self.legs, self.corrector = list(legs), corrector
        for before, after in itertools.pairwise(self.legs):
            gap = after.boundaries[0] - before.boundaries[-1]
            if gap > TOLERANCE:
                raise ConfigError(
                    f"leg {after.name!r} begins at t = {after.boundaries[0]:.6g}, but the one"
                    f" before ends at {before.boundaries[-1]:.6g}: let them meet"
                )
            if gap < -TOLERANCE:
                after.field.require_convention()

    @property
    def n_evaluations(self) -> dict[str, int]:
        """Evaluations per event by name, without running."""
        counts: dict[str, int] = {}
        for leg in self.legs:
            counts[leg.name] = counts.get(leg.name, 0) + leg.n_evaluations
        return counts

    def run(self, x0: Any, cond: Any = None, rng: Any = None) -> RelayResult:
        """Return the end of the trajectory of noise x0 (n, m); ``rng`` adds noise where needed."""
        x, at = x0, self.legs[0].boundaries[0]
        counts: dict[str, int] = dict.fromkeys(self.n_evaluations, 0)
        seconds = dict.fromkeys(counts, 0.0)
        for leg in self.legs:
            if leg.boundaries[0] < at - TOLERANCE:
                x = climbed(leg.field.require_convention(), x, at, leg.boundaries[0], 1.0, rng)
            done = integrate(leg.method, leg.field, x, leg.boundaries, cond, rng)
            x, at = done.x, leg.boundaries[-1]
            counts[leg.name] += done.n_evaluations
            seconds[leg.name] += done.seconds
        if self.corrector is not None:
            began = time.perf_counter()
            x = self.corrector(x0, x, cond)
            seconds["corrector"] = time.perf_counter() - began
        return RelayResult(x, counts, seconds)

    def sample(
        self, model: FlowBDT, n: int, *, cond: Any = None, random_state: Any = None
    ) -> EventTable:
        """Return n events in the units of a fitted model, from the noise of its `sample`."""
        flow = model.flow()
        if len(flow.cuts):
            raise ConfigError(
                f"a relay draws no event anew, so it cannot keep require {flow.cuts.text}; fit"
                " without it, and leave out the events that do not meet it"
            )
        seed = seeding.resolve(random_state)
        conditions = flow.checked_conditions(cond, n)
        tables = []
        for _, low, high in seeding.block_ranges(n):
            rows = np.arange(low, high)
            noise = seeding.RowNoise(seed, "sample", rows, once=True)
            x0 = noise.standard_normal((len(rows), flow.plan["n_latent"]))
            known = None if conditions is None else conditions[rows]
            end = self.run(x0, known, seeding.RowNoise(seed, "solver", rows)).x
            x = flow.generator.columns_of(end, seed, rows, known)
            tables.append(flow.as_table(x, known))
        return EventTable.concatenate(tables)


class PiecewiseField(VelocityField):
    """A field that is another one in each stretch of time, for any solver.

    A handover belongs to the later field; there is one less than fields, rising, in (0, 1).
    ``n_evaluations`` counts those of each field. Raises ConfigError if the numbers do not fit.
    """

    def __init__(self, fields: Sequence[VelocityField], handovers: Sequence[float]) -> None:
        times = np.asarray(handovers, dtype=np.float64)
        rising = times.ndim == 1 and (np.diff(times) > 0).all()
        if len(fields) != len(times) + 1 or not rising or not ((times > 0) & (times < 1)).all():
            raise ConfigError(
                f"{len(fields)} fields need {len(fields) - 1} rising handovers in (0, 1), got"
                f" {handovers!r}"
            )
        self.fields, self.handovers = list(fields), times
        self.n_evaluations = [0] * len(self.fields)
        silent = next((f for f in self.fields if f.convention is None), None)
        self.convention = None if silent is not None else self.fields[0].convention
        self.why_not = "" if silent is None else silent.why_not

    def _at(self, t: float) -> int:
        return int(np.searchsorted(self.handovers - TOLERANCE, t, side="right"))

    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        number = self._at(t)
        self.n_evaluations[number] += 1
        return self.fields[number](t, x, cond)

    def denoised_and_noise(self, t: float, x: Any, cond: Any = None) -> tuple[Any, Any]:
        number = self._at(t)
        self.n_evaluations[number] += 1
        return self.fields[number].denoised_and_noise(t, x, cond)

    @property
    def limited(self) -> bool:
        return any(field.limited for field in self.fields)

    def require(self, times: Sequence[float] | np.ndarray) -> None:
        for t in times:
            self.fields[self._at(float(t))].require([float(t)])

    def require_all(self, t0: float, t1: float) -> None:
        edges = [t0, *(float(h) for h in self.handovers if t0 < h < t1), t1]
        for low, high in itertools.pairwise(edges):
            self.fields[self._at(0.5 * (low + high))].require_all(low, high)


def train_trees(
    table: Any,
    solver: Any,
    boundaries: Any,
    *,
    cond: Any = None,
    sample_weight: Any = None,
    **settings: Any,
) -> FlowBDT:
    """Train step models at only the times that ``solver`` evaluates along ``boundaries``.

    The boundaries need not cover [0, 1]; only if they do, `FlowBDT.sample` of the model makes
    sense. ``settings`` are further parameters of `FlowBDT`: trainings of equal transforms,
    relations and random_state share their latent space.
    """
    steps = check_boundaries(boundaries)
    grid = {"spacing": steps, "n_steps": len(steps) - 1, "rejection": False}
    model = FlowBDT(solver=solver, **{**settings, **grid})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the time grid covers", DataWarning)
        return model.fit(table, cond=cond, sample_weight=sample_weight)


def tree_field(model: FlowBDT) -> VelocityField:
    """Return the field of a fitted model's step models, in latent space."""
    return model.flow().field


class Corrector:
    """Trees that learn the error of few steps of a network.

    Inputs are the noise x0 of an event, its end after few steps, and the conditions; the target is
    the difference to its end after many steps. ``booster`` has the XGBoost parameters.
    """

    def __init__(self, booster: Mapping[str, Any] | None = None, n_threads: int = 1) -> None:
        self.booster = {**BOOSTER_DEFAULTS, **(booster or {})}
        self.n_threads = n_threads
        self.trees_: BoostedTrees | None = None
        self._scaling = ColumnScaling.none(0)  # of the conditions

    def fit(
        self, x0: np.ndarray, few: np.ndarray, many: np.ndarray, cond: Any = None, seed: int = 0
    ) -> Self:
        """Learn from noise x0 (n, m) and its ends after few and after many steps (n, m)."""
        if not np.shape(x0) == np.shape(few) == np.shape(many):
            raise InputError("x0, few and many must have the same shape: they are the same events")
        if cond is not None:
            self._scaling = ColumnScaling.fit(np.asarray(cond, dtype=np.float64))
        rows = _Differences(self._inputs(x0, few, cond), np.asarray(many - few, dtype=np.float32))
        trees = BoostedTrees(self.booster)
        self.trees_ = trees.fit(rows, None, seed=seed, n_threads=self.n_threads)
        return self

    def __call__(self, x0: np.ndarray, x: np.ndarray, cond: Any = None) -> np.ndarray:
        """Return corrected points (n, m)."""
        if self.trees_ is None:
            raise ConfigError("this corrector is not fitted yet: call fit")
        return np.asarray(x + self.trees_.predict(self._inputs(x0, x, cond)))

    def _inputs(self, x0: Any, x: Any, cond: Any) -> np.ndarray:
        known = [] if cond is None else [self._scaling.forward(np.asarray(cond, dtype=np.float64))]
        return np.hstack([x, x0, *known]).astype(np.float32)


class _Differences:
    """Rows in memory as a batch source, without noise to redraw."""

    def __init__(self, inputs: np.ndarray, target: np.ndarray) -> None:
        self.inputs, self.target = inputs, target
        self.n_rows, self.n_outputs = target.shape

    def redrawn(self, draw: int) -> _Differences:
        return self

    def __iter__(self) -> Iterator[Batch]:
        for _, low, high in seeding.block_ranges(self.n_rows):
            yield Batch(self.inputs[low:high], self.target[low:high], None)
