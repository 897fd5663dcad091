"""A trained flow: everything that generation reads from a run, and samples block by block."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import atomic_files
from ..errors import ConfigError, FormatError, GridError, InputError, reading
from ..flow.closed_form import from_bytes
from ..flow.closed_form.mixture import MixturePreconditioner
from ..flow.fields import Stepwise
from ..flow.parametrisations import convention_for
from ..flow.paths import PATHS
from ..flow.solvers import evaluation_times, evaluations
from ..flow.step_inputs import StepInputs, step_inputs
from ..flow.time_grid import Sampler, TimeGrid
from ..registry import spec_name, unknown
from ..seeding import BLOCK
from ..tables import checks, conditions
from ..tables.conditions import ColumnScaling
from ..tables.event_table import EventTable, align_given, with_gaps
from ..tables.formulas.expressions import Cuts, Observables, declared
from ..tables.transforms import TableTransform
from ..training import run_directory
from ..training.threads import checked_threads, one_thread_of_blas
from ..trees.boosted_trees import BoostedTrees
from ..trees.density_ratio import DensityRatio
from ..trees.tree_arrays import Forest, forests
from .generate_rows import EventGenerator
from .input_rows import (
    FileRows,
    InputRows,
    SourcePoints,
    at_least_one,
    conditions_of,
    number_of_events,
    within,
)
from .native.core import Columns, Discrete, Trees
from .native.engine import (
    HERE,
    NativeFlow,
    load_trees,
    may_compile,
    native_columns,
    native_trees,
    warn_slow,
)
from .packed.array_file import Arrays, file_bytes, read_array
from .packed.arrays import ExpressionArrays
from .packed.pack_columns import expression_arrays
from .packed.pack_steps import SolverProgram, solver_program, step_arrays
from .packed.stored_arrays import require_sizes, stored_arrays
from .replica_rows import ReplicaGenerator

if TYPE_CHECKING:
    from .discrete_columns import DiscreteColumns

TOGETHER = 500_000
"""Latent values of the events that are generated together, 4 MB. With rejection, a few events of
every block are drawn anew after some attempts; together they cost one call."""


MISSING = ("keep", "fill")
"""Options for missing values."""

PRECISIONS = ("double", "single")
"""Options for the steps."""


class StepModel:
    """The velocity at one trained time: closed form plus trees, from conditions of any unit."""

    def __init__(
        self,
        inputs: StepInputs,
        trees: BoostedTrees | Trees,
        scaling: ColumnScaling = ColumnScaling.none(0),  # noqa: B008 (of conditions; immutable)
    ) -> None:
        self._inputs, self._trees, self._scaling = inputs, trees, scaling

    def __call__(self, x: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        inputs, velocity = self._inputs(x, None if cond is None else self._scaling.forward(cond))
        velocity += self._trees.predict(inputs)
        return velocity


class Flow:
    """A trained flow, read from a run folder, a model file, or bytes.

    Step models are loaded when their time is first needed.

    Parameters
    ----------
    source : the run (see `run_directory.open_run`)
    n_threads : threads for prediction; does not change the result
    rejects : False leaves out the rejection of events by a classifier, if the run has one
    requires : False keeps events that do not meet the cuts of the run, if it has some, or have
        computed columns far beyond their training range, see `TableTransform.reach`
    sampler : None for that of the training; else a mapping with some of solver, n_steps, spacing
        and interpolate, see `Sampler.of`. Rejection was learned from the events of the training's
        sampler, so it is left out then
    compiled : True for the compiled core, an error without it; False for XGBoost and numpy; None
        for the first where possible. Both give the same events, but for a few that rounding
        carries over a cut of a tree or past a rejection
    missing : 'keep' gives missing values (NaN) as often as in training, 'fill' complete rows: the
        same ones, with other values drawn where they would be missing
    precision : 'double', or 'single' for steps in float32: less than half the time, with the
        compiled core only. Values move by some 1e-6 of their spread, a few events over a cut of a
        tree or past a rejection

    Raises FormatError if the run is not complete, damaged, or of an unknown format; GridError if
    the sampler needs a time that has no step model, unless it may interpolate; ConfigError if the
    sampler is unknown, or needs what this run's noise cannot give, or if single precision is asked
    of a sampler that the core does not know.
    """

    def __init__(
        self,
        source: run_directory.Source,
        n_threads: int | None = None,
        *,
        rejects: bool = True,
        requires: bool = True,
        sampler: Mapping[str, Any] | None = None,
        compiled: bool | None = None,
        missing: str = "keep",
        precision: str = "double",
    ) -> None:
        if missing not in MISSING:
            raise unknown("option of missing", missing, MISSING)
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        self.precision = precision
        self._seed: int | None = None  # of an ensemble
        self.members: list[Flow] = []
        """The replicas, if the source is an ensemble: what follows is of the first of them."""
        if isinstance(source, run_directory.Replicas):
            options: dict[str, Any] = {"rejects": rejects, "requires": requires, "sampler": sampler}
            options |= {"compiled": compiled, "missing": missing, "precision": precision}
            self.members = [Flow(member, n_threads, **options) for member in source.members]
            self._seed = source.seed
            source = source.members[0]
        self.source, self._n_threads = source, checked_threads(n_threads)
        self.fills = missing == "fill"
        self.manifest = run_directory.read_manifest(source)
        self._packed_hash = self.manifest.pop("packed", None)  # of this file only
        what = f"{source.path}: plan.json"
        plan = run_directory.present_plan(
            atomic_files.parse_json(self._checked("plan.json"), what), what
        )
        run_directory.check_whole(self.manifest, plan, str(source.path))
        with reading(str(source.path)), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of relations at the point where all is tried
            self._restore(plan)
        self.field = self._stepwise(sampler)
        self._own_sampler = sampler is None
        if precision == "single":
            if compiled is False or not self._is_compilable:
                raise ConfigError(
                    "single precision needs the compiled core and a sampler without random numbers"
                    " or interpolation; use precision='double'"
                )
            compiled = True
        self._may_compile = compiled
        if compiled:
            may_compile(compiled)  # an error without the core, now and not at the first event
        self.cuts = self.declared_cuts if requires else Cuts()
        self.reach = self.transform.reach() if requires else None
        measured = self.manifest.get("required") or (np.nan if len(self.cuts) else 1.0)
        self.required = float(measured) if requires else 1.0
        learned = rejects and sampler is None and self.plan.get("rejection")
        if np.isnan(self.required) or (learned and not self._has_ratio):
            raise FormatError(
                f"{self.source.path}: its steps are trained, but not what comes after them; finish"
                " it with 'flowbdt fit --resume'"
            )
        self.ratio = self._ratio() if learned else None

    def _restore(self, plan: dict[str, Any]) -> None:
        """Restore the members, and try them at one point: any error means that they are damaged."""
        self.plan, self.grid = plan, TimeGrid.from_json(plan["grid"])
        self.settings: dict[str, Any] = self.plan["fingerprint"]["settings"]
        self.columns: dict[str, Any] = self.plan["fingerprint"]["columns"]
        self.n_latent, self.n_columns = plan["n_latent"], len(self.columns["names"])
        self.condition_names: tuple[str, ...] = tuple(self.columns["conditions"])
        self.from_source = "source" in self.plan["fingerprint"]["events"]
        self.categories = {k: tuple(v) for k, v in self.columns["categories"].items()}
        self.scaling, self.condition_ranges = conditions.stored_scaling(self.columns)
        self._restore_expressions()
        transform = atomic_files.parse_json(self._checked("transform.json"), "transform.json")
        with reading("transform.json"):
            self.transform = TableTransform.from_json(transform)
        needed = self.transform.computed_from
        self.condition_ranges = replace(self.condition_ranges, needed=needed)
        with reading("preconditioner.npz"):
            self.preconditioner = from_bytes(self._checked("preconditioner.npz"))
        names, n_cond = tuple(self.columns["names"]), len(self.condition_names)
        if (self.transform.names, self.transform.n_latent) != (names, self.n_latent):
            raise FormatError("the columns of transform.json are not those of plan.json")
        if list(self.transform.skeleton.names) != list(self.columns.get("classified") or ()):
            raise FormatError("the discrete columns of transform.json are not those of plan.json")
        start = not {"source", "noise"}.isdisjoint(plan["fingerprint"]["events"])
        if self.n_latent and self.preconditioner.sizes() not in (
            None,
            (self.n_latent, n_cond, start),
        ):
            raise FormatError("the columns of preconditioner.npz are not those of plan.json")
        mixture, sizes = self.preconditioner, [len(v) for v in self.transform.skeleton.values[:1]]
        if isinstance(mixture, MixturePreconditioner) and mixture.margins is not None:
            wanted = [len(mixture.shares_of_values)], mixture.margins.real.shape[1]
            if wanted != (sizes, self.transform.joint.mean.size):
                raise FormatError(
                    "the values of preconditioner.npz are not those of transform.json"
                )
        self._stepwise(None)
        point = np.zeros((1, self.n_latent))
        cond = np.zeros((1, n_cond)) if n_cond else None
        codes = np.zeros((1, len(self.transform.skeleton)), dtype=np.int64)
        values = [self.as_table(self.transform.inverse(point, codes, cond), cond).x]
        if self.n_latent:
            values += self.step_inputs(0)(point, cond)
        if not all(np.isfinite(each).all() for each in values):
            raise FormatError("the stored numbers give no finite event")

    def _restore_expressions(self) -> None:
        settings, names = self.settings, (*self.columns["names"], *self.condition_names)
        known = declared(settings.get("observables") or (), settings.get("particles"))
        cuts = Cuts.parse(settings.get("require", ()), *known)
        seen = Observables.parse(self.columns.get("seen") or ())
        self.observables = known[0].joined(seen).bound(names, self.categories)
        self.declared_cuts = cuts.bound(names, self.categories)

    def _stepwise(self, sampler: Mapping[str, Any] | None) -> Stepwise:
        """Return the field of all step models, which must know the times of the sampler."""
        coupling, convention, why_not = spec_name(self.settings["coupling"]), None, None
        try:
            convention = convention_for(PATHS.build(self.settings["path"]), coupling)
        except ConfigError as error:
            why_not = str(error)
        self.sampler = Sampler.of(sampler, self.settings, self.grid, convention)
        if sampler is not None and self.settings["noise"]["target"] == "mean":
            raise ConfigError(
                "this run learned mean velocities of whole steps (noise.target='mean'): only the"
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
        times = evaluation_times(self.sampler.solver, self.sampler.boundaries, convention)
        try:
            field.require(times)
        except GridError as error:
            usable = ", ".join(Sampler.usable(self.settings, self.grid, convention))
            raise GridError(f"{error}. With its own steps this run can do: {usable}") from error
        return field

    @property
    def _has_ratio(self) -> bool:
        return run_directory.REJECTION in self.manifest["files"]

    def _ratio(self) -> DensityRatio:
        content = self._checked(run_directory.REJECTION)
        packed = None if self._may_compile is False else self._packed
        numbers = None if packed is None else read_array(packed, "ratio.numbers", "float64")
        if packed is None or numbers is None:
            ratio = DensityRatio.from_bytes(content)
        else:  # what is packed tells all that is needed of it
            table = read_array(packed, "ratio.table", "int64")
            n_trees = 0 if table is None else int(table.reshape(-1, 7)[:, 0].sum())
            about = float(numbers[0]), float(numbers[1]), n_trees, self.classifier.n_inputs
            ratio = DensityRatio.stored(content, *about)
        counts = self.n_columns, len(self.condition_names), len(self.observables)
        if ratio.n_inputs != sum(counts):
            raise FormatError(
                f"{self.source.path}: {run_directory.REJECTION} has {ratio.n_inputs} inputs, this"
                f" run has {counts[0]} columns, {counts[1]} conditions and {counts[2]} observables"
            )
        ratio.set_threads(self._n_threads)
        return ratio

    @cached_property
    def compiled(self) -> bool:
        """True if the compiled core is used."""
        return may_compile(self._may_compile)

    @cached_property
    def classifier(self) -> Trees:
        """The trees of the rejection classifier in the core."""
        if self._packed is not None:
            trees = Trees(self._packed, HERE, b"ratio")
            wanted = self.n_columns + len(self.condition_names) + len(self.observables)
            require_sizes(trees.shape, (wanted, 1), str(self.source.path))
            return trees
        return native_trees(*forests(self._checked(run_directory.REJECTION)))

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
    def density(self) -> bytes | None:
        """What `Density.restore` reads; None if no density was learned."""
        name = run_directory.DENSITY
        return self._checked(name) if name in self.manifest.get("files", ()) else None

    @property
    def n_evaluations(self) -> int:
        """Evaluations of the velocity field per trajectory; see `acceptance`."""
        sampler = self.sampler
        return len(evaluations(sampler.solver, sampler.boundaries, self.field.convention))

    @property
    def acceptance(self) -> float:
        """Share of trajectories whose event is kept; 1 without rejection and cuts."""
        if self.members:
            return float(np.mean([member.acceptance for member in self.members]))
        return self.required * (1.0 if self.ratio is None else self.ratio.acceptance)

    @property
    def n_noise(self) -> int:
        """Standard normal numbers that exported models make an event of.

        Latent ones, one for each column that a classifier draws, and a vector in the direction of
        which the event is turned, if it is.
        """
        return self.n_latent + len(self.transform.skeleton) + 2 * bool(self.transform.turn)

    @cached_property
    def seen(self) -> ExpressionArrays:
        """What the rejection sees beside columns and conditions."""
        names = (*self.columns["names"], *self.condition_names)
        return expression_arrays(self.observables.expressions, names)

    def _predictor(self, step: int) -> StepModel:
        trees = load_trees(self._model(step), self.compiled, self._n_threads)
        self._check_shape(step, trees.shape)
        return StepModel(self.step_inputs(step), trees, self.condition_scaling)

    def _model(self, step: int) -> bytes:
        return run_directory.read_model(self.source, step, self.manifest)

    def step_inputs(self, step: int) -> StepInputs:
        """Return the inputs of a step's trees, with its closed form."""
        t, version = float(self.grid.times[step]), self.plan["format"]
        t_next, joint = t + self.grid.step_to_next(step), self.transform.joint
        with reading(f"the closed form of {self.source.path}"):
            return step_inputs(self.preconditioner, joint, self.settings, t, t_next, version)

    def step_forests(self, step: int) -> list[Forest]:
        """Return the trees of a step.

        Raises FormatError if they are of another model, ConfigError if `tree_arrays` does not know
        them.
        """
        trees, n_inputs = forests(self._model(step))
        self._check_shape(step, (n_inputs, max(f.first + f.width for f in trees)))
        return trees

    def _check_shape(self, step: int, got: tuple[int, int] | None) -> None:
        """Raise FormatError if the trees of a step have other inputs or outputs than the run."""
        expected = (self.step_inputs(step).n_inputs(len(self.condition_names)), self.n_latent)
        if got is not None and got != expected:
            raise FormatError(
                f"{self.source.path}: step model {step} has {got[0]} inputs and {got[1]} outputs,"
                f" this run needs {expected[0]} and {expected[1]}; it is damaged or from another"
                " run: copy it again, or train the step anew"
            )

    @cached_property
    def compiled_flow(self) -> NativeFlow | None:
        """All steps in one compiled pass; None if that is impossible or not wanted."""
        if not self.compiled or not self.n_latent:
            return None
        if not self._is_compilable:
            return None
        single = self.precision == "single"
        try:
            packed = self._packed if self._own_sampler else None
            content = file_bytes(self.step_arrays()) if packed is None else packed
            for step in () if packed is None else set(self.program()[1]):
                self._model(step)  # the steps must be whole all the same
            inputs = lambda: self._inputs_of_steps()[2]  # noqa: E731
            flow = NativeFlow(content, inputs, self._n_threads, single)
            wanted = self.n_latent, len(self.condition_names)
            require_sizes((flow.m, flow.n_cond), wanted, str(self.source.path))
            return flow
        except ConfigError as error:
            if single:
                raise
            warn_slow(str(error))
            return None

    @property
    def _is_compilable(self) -> bool:
        return not (self.sampler.solver.stochastic or self.sampler.interpolate)

    @cached_property
    def _packed(self) -> memoryview | None:
        """The packed arrays of a model file, if they can be used."""
        return stored_arrays(self.source, self.manifest, self._packed_hash)

    def step_arrays(self) -> Arrays:
        """Return all steps as flat arrays. Raises ConfigError if they have no such form."""
        steps, places, inputs = self._inputs_of_steps()
        trees = [self.step_forests(step) for step in steps]
        n_cond = len(self.condition_names)
        return step_arrays(self.program()[0], places, inputs, trees, n_cond)

    def _inputs_of_steps(self) -> tuple[np.ndarray, np.ndarray, list[StepInputs]]:
        """Return the step models, which one each evaluation asks, and their inputs."""
        asked = self.program()[1]
        steps = np.array(sorted(set(asked)))
        places = np.searchsorted(steps, asked)
        return steps, places, [self.step_inputs(step) for step in steps]

    def program(self) -> tuple[SolverProgram, list[int]]:
        """Return the sums of the solver, and the step model of each evaluation."""
        sampler = self.sampler
        program = solver_program(sampler.solver, sampler.boundaries, self.field.convention)
        return program, [self.grid.locate(float(t)) for t in program.times]

    @cached_property
    def compiled_inverse(self) -> Columns | None:
        """The compiled inverse transform; None if a column has none, or it is not wanted."""
        try:
            if not self.compiled:
                return None
            if self._packed is None:
                return native_columns(self.transform, len(self.condition_names), self.seen)
            columns = Columns(self._packed, HERE)
            wanted = self.n_latent, self.n_columns, len(self.condition_names)
            require_sizes(columns.sizes[:3], wanted, str(self.source.path))
            return columns
        except ConfigError:  # numpy does it nearly as fast for many events
            return None

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.settings["random_state"]) if self._seed is None else self._seed

    def single(self, what: str) -> Flow:
        """Return this flow. Raises ConfigError if it is an ensemble, of which ``what`` has none."""
        if self.members:
            raise ConfigError(
                f"{what} is of one model, not of an ensemble of {len(self.members)}: name one of"
                " them (replica=0, or the folder replica_0)"
            )
        return self

    @cached_property
    def whole_generator(self) -> EventGenerator | ReplicaGenerator:
        """The generator of events, of all members of an ensemble."""
        if self.members:
            return ReplicaGenerator([member.generator for member in self.members])
        return self.generator

    @cached_property
    def generator(self) -> EventGenerator:
        """The generator of events, compiled where possible."""
        ratio, machine_code = self.ratio, (self.compiled_flow, self.compiled_inverse)
        if ratio is not None and self.compiled:
            ratio = ratio.with_trees(self.classifier.predict)
        return EventGenerator(
            self.field,
            self.sampler,
            self.transform,
            *machine_code,
            scaling=self.scaling,
            ratio=ratio,
            discrete=self.discrete,
            fills=self.fills,
            names=(*self.columns["names"], *self.condition_names),
            observables=self.observables,
            cuts=self.cuts,
            reach=self.reach,
        )

    @property
    def draws_columns(self) -> bool:
        """True if classifiers draw some columns."""
        return len(self.transform.skeleton) > 0

    @cached_property
    def discrete(self) -> DiscreteColumns | None:
        """What draws the discrete columns; None if there are none. Raises FormatError."""
        if not self.draws_columns:
            return None
        from .discrete_columns import DiscreteColumns, log_odds_of  # not for numbers alone
        from .packed.pack_discrete import discrete_arrays

        n_times, sizes = len(run_directory.trained_times(self.plan)), self.transform.skeleton.values
        n_known = len(self.condition_names) + len(self.transform.coordinates)
        n_seen = len(self.transform.numeric_places) + n_known
        classifiers, log_odds = [], []
        trees: list[list[Forest]] = []
        for k, values in enumerate(sizes):
            content = self._model(n_times + k)
            classifier, function, forest = log_odds_of(content, self.compiled, self._n_threads)
            shape = classifier.n_inputs, len(classifier.log_frequencies)
            wanted = max(n_seen + k, 1), len(values)
            if shape != wanted:
                raise FormatError(
                    f"{self.source.path}: the classifier of {self.transform.skeleton.names[k]!r}"
                    f" has {shape[0]} inputs and {shape[1]} values, this run needs {wanted[0]} and"
                    f" {wanted[1]}: copy it again, or train it anew"
                )
            classifiers.append(classifier)
            log_odds.append(function)
            trees += [] if forest is None else [forest]
        mixture, first = self.preconditioner, None
        at_once: Discrete | None = None
        if isinstance(mixture, MixturePreconditioner) and mixture.tags is not None:
            first = mixture
        elif len(trees) == len(classifiers):
            frequencies = [classifier.log_frequencies for classifier in classifiers]
            parts = self.transform, self.scaling, frequencies, trees, n_known
            with contextlib.suppress(ConfigError):  # one after the other is a little slower
                at_once = Discrete(file_bytes(discrete_arrays(*parts)), HERE)
        return DiscreteColumns(self.transform, self.scaling, classifiers, log_odds, first, at_once)

    def record(self, seed: int) -> dict[str, Any]:
        """Return the attributes of a file of generated events: run, sampler, seed."""
        return {
            "flowbdt_format": run_directory.FORMAT,
            "run_digest": self.plan["digest"],
            **self.sampler.record(self.field.convention),
            "acceptance": self.acceptance / self.required,
            "compiled": self.compiled,
            "seed": seed,
            **({"missing": "fill"} if self.fills else {}),
            **({"precision": "single"} if self.precision == "single" else {}),
            **self._replicas_record(),
            **({"require": self.cuts.text} if len(self.cuts) else {}),
            **({"required": self.required} if self.required < 1.0 or len(self.cuts) else {}),
        }

    def _replicas_record(self) -> dict[str, Any]:
        if not self.members:
            return {}
        whole = atomic_files.digest([member.manifest for member in self.members])
        return {"replicas": len(self.members), "ensemble_digest": whole}

    def sample_blocks(
        self,
        n: int | None = None,
        *,
        seed: int,
        cond: Any = None,
        source: Any = None,
        block_rows: int | None = None,
        outside: str | None = "warn",
    ) -> Iterator[EventTable]:
        """Yield new events block by block; arguments and errors as `FlowBDT.sample_blocks`.

        Event i depends on the seed, its row and its conditions only.
        """
        n = number_of_events(n, cond, source)
        inputs = self.condition_rows(cond, n, outside), self.checked_source(source, n)
        return self.blocks((0, n), seed, *inputs, block_rows)

    def blocks(
        self,
        span: tuple[int, int],
        seed: int,
        cond: InputRows | None,
        start: InputRows | None,
        block_rows: int | None = None,
    ) -> Iterator[EventTable]:
        """Yield the rows ``span`` (the first that of a block, and one past the last) of a sample.

        ``cond`` (n, c) from `condition_rows` and ``start`` (n, m) from `checked_source` are of all
        rows of the sample. A block of ``block_rows`` is rounded up to whole blocks of noise; by
        default it has some megabytes.
        """
        size = self.group_rows(block_rows)
        for low in range(span[0], span[1], size):
            high = min(low + size, span[1])
            rows = np.arange(low, high)
            values = None if cond is None else np.array(cond[low:high])
            points = None if start is None else np.asarray(start[low:high])
            with self._one_thread():
                x = self.whole_generator.events(seed, rows, values, points)
            yield self.as_table(x, values)

    def _one_thread(self) -> contextlib.AbstractContextManager[Any]:
        """Limit matrix products to one thread: sums in one order, and they are small."""
        if self.whole_generator.is_rowwise and not self.draws_columns:
            return contextlib.nullcontext()  # there are none
        return one_thread_of_blas()

    def group_rows(self, block_rows: int | None = None) -> int:
        """Return how many events are generated together, whole blocks of noise.

        ``block_rows`` counts only where it cannot change the bits of an event: not with rejection
        without machine code, where the events that are drawn anew share matrix products.
        """
        if block_rows is not None:
            block_rows = at_least_one(block_rows, "block_rows")
        rowwise, redraws = self.whole_generator.is_rowwise, self.whole_generator.redraws
        if block_rows is not None and (rowwise or not redraws):
            return -(-block_rows // BLOCK) * BLOCK
        return rows_together(self.n_latent) if rowwise or redraws else BLOCK

    @property
    def condition_scaling(self) -> ColumnScaling:
        """The scaling of conditions, before closed form, trees and rejection classifier."""
        return self.scaling[self.n_columns :]

    def rows(self, seed: int, rows: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Return the events (k, d) of some rising row numbers (k,) and their conditions (k, c)."""
        with self._one_thread():
            return self.whole_generator.events(seed, rows, cond)

    def as_table(self, x: np.ndarray, cond: np.ndarray | None) -> EventTable:
        """Return generated values (n, d) and their conditions (n, c) as a table."""
        columns, gaps = self.columns, self.transform.may_be_missing
        types = zip(columns["names"], columns["dtypes"], strict=True)
        return EventTable(
            x=x,
            names=tuple(columns["names"]),
            units=tuple(columns["units"]),
            # in all blocks of a sample the same, whether one has a missing value or not
            dtypes=tuple(with_gaps(dtype) if name in gaps else dtype for name, dtype in types),
            cond=cond,
            cond_names=tuple(columns["conditions"]),
            categories=dict(self.categories),
            originals=dict(columns.get("originals", {})),
        )

    def as_fitted(self, table: EventTable) -> Any:
        """Return a table as the kind that was fitted, with its labels and types."""
        with reading(f"the stored kind and types of columns of {self.source.path}"):
            return table.as_kind(self.plan["kind"], self.plan.get("labels"))

    def checked_conditions(self, cond: Any, n: int) -> np.ndarray | None:
        """Return conditions (n, c) of ``n`` events as trained with. Raises InputError."""
        rows = self.condition_rows(cond, n)
        return None if rows is None else rows[0:n]

    def condition_rows(
        self, cond: Any, n: int, outside: str | None = "warn"
    ) -> np.ndarray | FileRows | None:
        """Return the same; from the path of a file they are read when needed.

        Where one lies beyond its training range by more than a tenth of the width, or is a category
        or missing as in no training row, 'warn' says so once, 'raise' refuses it; 'clip' moves all
        numbers to the range; None does not look.
        """
        names = self.condition_names
        if names and cond is None:
            raise InputError(
                f"this model was trained with the conditions {', '.join(names)}: pass cond with"
                " one row per event to generate (or a single row for all)"
            )
        if outside is not None:
            self.condition_ranges.check(outside)
        if not names and cond is not None:
            raise InputError("this model was trained without conditions; leave cond out")
        categories = {k: v for k, v in self.categories.items() if k in names}
        if not names:
            return None
        rows = conditions_of(cond, names, categories, n)
        return rows if outside is None else within(rows, self.condition_ranges, n, outside)

    def aligned(self, data: Any, cond: Any = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Return rows (n, d) of all columns, as trained with, and conditions (n, c).

        Conditions may stand in the table. Raises InputError.
        """
        names = tuple(self.columns["names"])
        table = align_given(data, names, self.condition_names, self.categories)
        checks.known_columns(names, table.names, "the table to score")
        if cond is None and self.condition_names and {*self.condition_names} <= {*table.names}:
            cond = table.select(self.condition_names)
        rows = self.condition_rows(cond, table.n)
        self.transform.refuse_gaps(table.select(names))
        return table.select(names).x, None if rows is None else rows[0 : table.n]

    def checked_source(self, source: Any, n: int) -> SourcePoints | None:
        """Return the latent points (n, m) that ``n`` events start from. Raises InputError."""
        if self.from_source != (source is not None):
            raise InputError(
                "this model starts from source events: pass source=..., one row per event"
                if self.from_source
                else "this model starts from noise; leave source out"
            )
        if source is None:
            return None
        return SourcePoints(source, self.transform, self.categories, n)


def rows_together(n_latent: int) -> int:
    """Return how many events make about `TOGETHER` latent values, whole blocks of noise."""
    return max(1, TOGETHER // (BLOCK * max(1, n_latent))) * BLOCK
