"""A trained flow: from noise (or source events) to new events, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController, threadpool_limits  # comes with scikit-learn

from .. import atomic_files
from ..errors import ConfigError, FormatError, InputError
from ..flow.closed_form import from_bytes
from ..flow.parametrisations import Convention, convention_for
from ..flow.paths import PATHS
from ..flow.sampler import Sampler
from ..flow.solvers import evaluation_times, evaluations
from ..flow.step_inputs import StepInputs, step_inputs
from ..flow.stepwise import Stepwise
from ..flow.time_grid import TimeGrid
from ..registry import spec_name
from ..seeding import BLOCK
from ..tables.event_table import EventTable, align_conditions
from ..tables.transforms import TableTransform
from ..training import run_directory
from ..training.executors.local import available_cpus
from ..trees.density_ratio import DensityRatio
from ..trees.tree_arrays import Forest, forests
from . import generate_rows
from .compiled.choose_engine import compiled_way, load_trees, may_compile, whole_flow
from .compiled.engine import CompiledFlow, CompiledTrees, CompiledWay
from .generate_rows import StepModel
from .input_rows import FromFile, Rows, Starts, conditions_of

TOGETHER = 500_000
"""Latent values of the events that are worked on together: 4 MB. Of those that are rejected the few
that are left of one block after some attempts would cost a call each."""


class Flow:
    """Everything generation needs, read from a run folder, a model file, or bytes.

    Step models are loaded when their time is first asked for.

    Parameters
    ----------
    source : the run (see `store.open_run`)
    n_threads : threads for prediction; does not change the result
    rejects : False leaves out the rejection of events, if the run has one
    sampler : None for the solver and the boundaries of the training; else a mapping with some of
        solver, n_steps, spacing and interpolate, see `Sampler.of`: another way through the same
        step models. Rejection was learned from the events of the training's sampler, so it is
        left out then
    compiled : True for machine code by numba, an error without it; False for XGBoost; None for the
        first where it can be. What is not known there (deep trees, stochastic samplers) is left to
        XGBoost and numpy, with a warning where it matters. Both give the same events, but for a few
        that rounding carries over a cut of a tree or past a rejection

    Raises
    ------
    FormatError
        If the run is not complete, damaged, or of an unknown format.
    GridError
        If the sampler would ask for a time that has no step model, unless it may interpolate.
    ConfigError
        If the sampler is unknown, or needs what this run's noise cannot give.
    """

    def __init__(
        self,
        source: run_directory.Source,
        n_threads: int | None = None,
        *,
        rejects: bool = True,
        sampler: Mapping[str, Any] | None = None,
        compiled: bool | None = None,
    ) -> None:
        self.source, self._n_threads = source, n_threads or available_cpus()
        self.manifest = self._json("manifest.json")
        self.plan = self._json("plan.json")
        self.grid = TimeGrid.from_json(self.plan["grid"])
        self.settings: dict[str, Any] = self.plan["fingerprint"]["settings"]
        self.columns: dict[str, Any] = self.plan["fingerprint"]["columns"]
        self.categories = {k: tuple(v) for k, v in self.columns["categories"].items()}
        self.transform = TableTransform.from_json(self._json("transform.json"))
        self.preconditioner = from_bytes(self._checked("preconditioner.npz"))
        self._field = self._stepwise(sampler)
        self._asked = compiled
        if compiled:
            may_compile(compiled)  # an error without numba, now and not at the first event
        learned = rejects and sampler is None and self.plan.get("rejection")
        self.ratio = self._ratio() if learned else None

    def _stepwise(self, sampler: Mapping[str, Any] | None) -> Stepwise:
        """Return the field of all step models; it must know the times that will be asked."""
        convention, why_not = self._convention()
        self.sampler = Sampler.of(sampler, self.settings, self.grid, convention)
        if sampler is not None and self.settings["target"] == "mean":
            raise ConfigError(
                "this run learned mean velocities of whole steps (target='mean'): only the"
                " sampler it was trained for can use them"
            )
        field = Stepwise(
            self.grid,
            self._predictor,
            convention=convention,
            why_not=why_not,
            interpolate=self.sampler.interpolate,
        )
        if self.sampler.solver.needs_denoised:
            field.require_convention()
        field.require(evaluation_times(self.sampler.solver, self.sampler.boundaries, convention))
        return field

    def _convention(self) -> tuple[Convention | None, str | None]:
        """Return scales of data and noise, or None and the reason why there are none."""
        name = spec_name(self.settings["coupling"])
        try:
            return convention_for(PATHS.build(self.settings["path"]), name), None
        except ConfigError as error:
            return None, str(error)

    def _ratio(self) -> DensityRatio:
        if run_directory.REJECTION not in self.manifest["files"]:
            raise FormatError(
                f"{self.source.path}: its steps are trained, but not what decides which events to"
                " reject; finish it with 'flowbdt fit --resume'"
            )
        content = self._checked(run_directory.REJECTION)
        ratio = DensityRatio.from_bytes(content)
        ratio.set_threads(self._n_threads)
        by_xgboost = ratio.log_ratio
        ratio.log_ratio = lambda x: (self.classifier.predict if self.compiled else by_xgboost)(x)
        return ratio

    @cached_property
    def compiled(self) -> bool:
        """Whether machine code is used; numba, which takes long to import, is only asked now."""
        return may_compile(self._asked)

    @cached_property
    def classifier(self) -> CompiledTrees:
        """The compiled trees that decide which events are rejected."""
        return CompiledTrees(*forests(self._checked(run_directory.REJECTION)))

    def _json(self, name: str) -> dict[str, Any]:
        manifest = name == "manifest.json"
        content = self.source.read(name) if manifest else self._checked(name)
        parsed = run_directory.parse_json(content, f"{self.source.path}: {name}")
        run_directory.check_format(parsed, f"{self.source.path}: {name}")
        return parsed

    def _checked(self, name: str) -> bytes:
        """Return a member that must have the hash that the manifest states."""
        content = self.source.read(name)
        if atomic_files.digest_bytes(content) != self.manifest["files"].get(name):
            raise FormatError(
                f"{self.source.path}: {name} does not have the hash that the manifest states; it"
                " is damaged or was changed by hand. Restore it, or fit the run anew"
            )
        return content

    @property
    def n_latent(self) -> int:
        """Columns of the points that are carried."""
        return int(self.plan["n_latent"])

    @property
    def n_columns(self) -> int:
        """Columns of an event."""
        return len(self.columns["names"])

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions that the run was trained with."""
        return tuple(self.columns["conditions"])

    @property
    def from_source(self) -> bool:
        """Whether events start from given ones instead of noise."""
        return "source" in self.plan["fingerprint"]["events"]

    @property
    def field(self) -> Stepwise:
        """The velocity field of all step models, in latent space."""
        return self._field

    @property
    def n_evaluations(self) -> int:
        """Evaluations of the velocity field that one trajectory takes; see `acceptance`."""
        sampler = self.sampler
        return len(evaluations(sampler.solver, sampler.boundaries, self._field.convention))

    @property
    def acceptance(self) -> float:
        """Share of trajectories whose event is kept; 1 without rejection."""
        return 1.0 if self.ratio is None else self.ratio.acceptance

    def _predictor(self, step: int) -> StepModel:
        trees = load_trees(self._model(step), self.compiled, self._n_threads)
        return StepModel(self.step_inputs(step), trees)

    def _model(self, step: int) -> bytes:
        return run_directory.read_model(self.source, step, self.manifest)

    def step_inputs(self, step: int) -> StepInputs:
        """Return what the trees of a step see, and its closed form."""
        t = float(self.grid.times[step])
        t_next = t + self.grid.step_to_next(step)
        version = self.plan["format"]
        return step_inputs(
            self.preconditioner, self.transform.joint, self.settings, t, t_next, version
        )

    def step_forests(self, step: int) -> list[Forest]:
        """Return the trees of a step. Raises FormatError if they are of another model.

        Raises ConfigError for trees that `regressors.trees` does not know.
        """
        found, n_seen = forests(self._model(step))
        expected = self.step_inputs(step).n_inputs(len(self.condition_names)), self.n_latent
        got = n_seen, max(forest.first + forest.width for forest in found)
        if got != expected:
            raise FormatError(
                f"{self.source.path}: step model {step} has {got[0]} inputs and {got[1]} outputs,"
                f" this run needs {expected[0]} and {expected[1]}; it is damaged or from another"
                " run: copy it again, or train the step anew"
            )
        return found

    @cached_property
    def whole(self) -> CompiledFlow | None:
        """All steps in one compiled pass; None where that cannot be, or was not wanted."""
        if not self.compiled or not self.plan["n_latent"]:
            return None
        convention, threads = self._field.convention, self._n_threads
        return whole_flow(
            self.sampler, self.grid, convention, self.step_inputs, self.step_forests, threads
        )

    @cached_property
    def way(self) -> CompiledWay | None:
        """The compiled way from latent points to columns; None where there is none."""
        return compiled_way(self.transform) if self.compiled else None

    def record(self, seed: int) -> dict[str, Any]:
        """Return what a file of generated events says about how they were made."""
        return {
            "flowbdt_format": run_directory.FORMAT,
            "run_digest": self.plan["digest"],
            **self.sampler.record(self._field.convention),
            "acceptance": self.acceptance,
            "compiled": self.compiled,
            "seed": seed,
        }

    def sample_blocks(
        self,
        n: int,
        *,
        seed: int,
        cond: Any = None,
        source: Any = None,
        block_rows: int | None = None,
    ) -> Iterator[EventTable]:
        """Yield ``n`` new events block by block.

        Noise belongs to (seed, row), so event i is the same whatever the number of events, the
        size of blocks, or threads.

        Parameters
        ----------
        n : number of events
        seed : int
        cond : array or DataFrame (n, c) or (1, c), if the run was trained with conditions; or the
            path of a file with them, which is read as blocks are made
        source : table with n rows, or the path of a file, if the run starts from given events
        block_rows : see `blocks`

        Raises
        ------
        InputError
            If conditions or source are missing, not expected, or of the wrong shape.
        """
        given = self.condition_rows(cond, n)
        start = self.checked_source(source, n)
        return self.blocks((0, n), seed, given, start, block_rows)

    def blocks(
        self,
        span: tuple[int, int],
        seed: int,
        cond: Rows | None,
        start: Rows | None,
        block_rows: int | None = None,
    ) -> Iterator[EventTable]:
        """Yield the rows ``span`` of a sample, block by block.

        Parameters
        ----------
        span : first row (that of a block) and one past the last
        cond : conditions (n, c) from `condition_rows`, of all n rows of the sample, or None
        start : latent points (n, m) from `checked_source`, of all rows, or None
        block_rows : events in a block, rounded up to whole blocks of noise; by default as many as
            fit into some megabytes
        """
        threads, first = ThreadpoolController(), span[0]
        size = self.group_rows(block_rows)
        for low in range(first, span[1], size):
            high = min(low + size, span[1])
            given = None if cond is None else np.array(cond[low:high])
            begin = None if start is None else np.asarray(start[low:high])
            # small matrix products: more threads would spend their time waiting for each other
            with threads.limit(limits=1, user_api="blas"):
                x = generate_rows.events(self, seed, self._together(low, high), given, begin)
            yield self.as_table(x, given)

    def group_rows(self, block_rows: int | None = None) -> int:
        """Return how many events are worked on together, whole blocks of noise.

        Without machine code this is not free where events are rejected: the sums of few events may
        be rounded otherwise than those of many.
        """
        if block_rows is not None and block_rows < 1:
            raise InputError(f"block_rows must be at least 1, got {block_rows}")
        several = self.ratio is not None or self._rows_alone
        usual = max(1, TOGETHER // (BLOCK * max(1, self.plan["n_latent"]))) if several else 1
        if block_rows is not None and (self.ratio is None or self._rows_alone):
            usual = -(-block_rows // BLOCK)
        return usual * BLOCK

    @property
    def _rows_alone(self) -> bool:
        """Whether a row has the same bits whatever other rows are worked on with it."""
        return self.whole is not None and self.way is not None

    def _together(self, low: int, high: int) -> list[np.ndarray]:
        """Return the rows in the parts that go through the flow in one piece."""
        if self._rows_alone:
            return [np.arange(low, high)]
        return [np.arange(at, min(at + BLOCK, high)) for at in range(low, high, BLOCK)]

    def rows(self, seed: int, rows: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Return the events (k, d) of some rising row numbers (k,) and their conditions (k, c)."""
        with threadpool_limits(1, user_api="blas"):  # as in `blocks`: sums in one order
            return generate_rows.events(self, seed, [rows], cond)

    def as_table(self, x: np.ndarray, cond: np.ndarray | None) -> EventTable:
        """Return generated values (n, d) and their conditions (n, c) as a table."""
        columns = self.columns
        return EventTable(
            x=x,
            names=tuple(columns["names"]),
            units=tuple(columns["units"]),
            dtypes=tuple(columns["dtypes"]),
            cond=cond,
            cond_names=tuple(columns["conditions"]),
            categories=dict(self.categories),
        )

    def checked_conditions(self, cond: Any, n: int) -> np.ndarray | None:
        """Return conditions (n, c) of ``n`` events as trained with. Raises InputError."""
        if self._has_conditions(cond):
            return align_conditions(cond, *self._as_trained(), n)
        return None

    def condition_rows(self, cond: Any, n: int) -> np.ndarray | FromFile | None:
        """Return the same, of a file only when they are needed. Raises InputError."""
        if self._has_conditions(cond):
            return conditions_of(cond, *self._as_trained(), n)
        return None

    def _as_trained(self) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
        """Return names and categories of the conditions."""
        names = self.condition_names
        return names, {k: v for k, v in self.categories.items() if k in names}

    def _has_conditions(self, cond: Any) -> bool:
        """Whether there are conditions, as there must be if the run was trained with some."""
        expected = self.condition_names
        if not expected and cond is not None:
            raise InputError("this model was trained without conditions; leave cond out")
        if expected and cond is None:
            raise InputError(
                f"this model was trained with the conditions {', '.join(expected)}: pass cond with"
                " one row per event to generate (or a single row for all)"
            )
        return bool(expected)

    def checked_source(self, source: Any, n: int) -> Starts | None:
        """Return the latent points (n, m) that ``n`` events start from. Raises InputError."""
        needed = self.from_source
        if needed != (source is not None):
            raise InputError(
                "this model starts from given events: pass source=..., one row per event"
                if needed
                else "this model starts from noise; leave source out"
            )
        if source is None:
            return None
        return Starts(source, self.transform, self.categories, n)
