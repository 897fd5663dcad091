"""Legs and relays: several fields and solvers on one way from noise to data."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import seeding
from ...errors import ConfigError
from ...flow.fields import TOLERANCE, VelocityField
from ...flow.solvers import SOLVERS, Solver, evaluations, integrate
from ...flow.solvers.base import check_boundaries
from ...flow.solvers.sde import climbed
from ...model import FlowBDT
from ...tables.event_table import EventTable
from .tree_legs import Corrector


@dataclass(frozen=True, eq=False)
class Leg:
    """A stretch of the way.

    Parameters
    ----------
    name : who is asked, for counting, such as 'network' or 'trees'
    field : VelocityField
    solver : Solver, its name, or a mapping
    boundaries : (n_steps + 1,), rising times
    """

    name: str
    field: VelocityField
    solver: Any
    boundaries: Any
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
        """How often the field is asked for each event."""
        return len(evaluations(self.method, self.boundaries, self.field.convention))


@dataclass(frozen=True, eq=False)
class RelayResult:
    """The end of a relay.

    Parameters
    ----------
    x : array (n, m), points at the last boundary
    n_evaluations : per name of the legs, how often its field was asked for each event
    seconds : per name, wall time
    """

    x: Any
    n_evaluations: dict[str, int]
    seconds: dict[str, float]


class Relay:
    """Legs, one after the other.

    Parameters
    ----------
    legs : in the order of the way; the first begins where x0 is
    corrector : what is done to the points at the end, or None

    Raises
    ------
    ConfigError
        If a leg begins nearer to the data than the one before ended, or noise has to be added
        where the fields have none.
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
        """How often each name is asked for an event, found without running."""
        counts: dict[str, int] = {}
        for leg in self.legs:
            counts[leg.name] = counts.get(leg.name, 0) + leg.n_evaluations
        return counts

    def run(self, x0: Any, cond: Any = None, rng: Any = None) -> RelayResult:
        """Return where x0 ends.

        Parameters
        ----------
        x0 : array (n, m), noise
        cond : array (n, c) or None
        rng : needed if noise is added on the way, see `flowbdt.flow.solvers.integrate`
        """
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
        """Return n events in the units of a fitted model, whose latent space the legs share.

        Noise is keyed by row, as in `FlowBDT.sample`: equal seeds begin with the same noise.
        """
        flow = model.flow()
        seed = seeding.resolve(random_state)
        given = flow.checked_conditions(cond, n)
        tables = []
        for _, low, high in seeding.block_ranges(n):
            rows = np.arange(low, high)
            noise = seeding.RowNoise(seed, "sample", rows, once=True)
            x0 = noise.standard_normal((len(rows), flow.plan["n_latent"]))
            known = None if given is None else given[rows]
            end = self.run(x0, known, seeding.RowNoise(seed, "solver", rows)).x
            tables.append(flow.as_table(flow.transform.inverse(end), known))
        return EventTable.concatenate(tables)


class Pieces(VelocityField):
    """One field made of several, each for a stretch of time, for any solver in one go.

    Parameters
    ----------
    fields : in the order of time
    handovers : times (len(fields) - 1,), rising; a handover itself belongs to the later field

    Attributes
    ----------
    asked : how often each field was asked

    Raises
    ------
    ConfigError
        If the numbers do not fit.
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
        self.asked = [0] * len(self.fields)
        silent = next((f for f in self.fields if f.convention is None), None)
        self.convention = None if silent is not None else self.fields[0].convention
        self.why_not = "" if silent is None else silent.why_not

    def _at(self, t: float) -> int:
        return int(np.searchsorted(self.handovers - TOLERANCE, t, side="right"))

    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return the velocity of the field that t belongs to."""
        piece = self._at(t)
        self.asked[piece] += 1
        return self.fields[piece](t, x, cond)

    def denoised_and_noise(self, t: float, x: Any, cond: Any = None) -> tuple[Any, Any]:
        """Return denoised point and noise by the field that t belongs to."""
        piece = self._at(t)
        self.asked[piece] += 1
        return self.fields[piece].denoised_and_noise(t, x, cond)

    @property
    def limited(self) -> bool:
        """True if any of the fields is."""
        return any(field.limited for field in self.fields)

    def require(self, times: Sequence[float] | np.ndarray) -> None:
        """Raise GridError unless each time is known to the field it belongs to."""
        for t in times:
            self.fields[self._at(float(t))].require([float(t)])

    def require_all(self, t0: float, t1: float) -> None:
        """Raise GridError unless every field knows all times of its stretch."""
        edges = [t0, *(float(h) for h in self.handovers if t0 < h < t1), t1]
        for low, high in itertools.pairwise(edges):
            self.fields[self._at(0.5 * (low + high))].require_all(low, high)
