"""Turn a table and a configuration into a run directory with one task per time.

Everything that is fitted once for the whole run (split, transforms) is fitted here and stored, so
that a worker needs the run directory only and any worker gives the same bytes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import platform
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from .. import atomic_files
from ..config import ModelConfig
from ..errors import ConfigError, DataWarning, FormatError, InputError, RunError
from ..flow.closed_form import PRECONDITIONERS
from ..flow.closed_form.gaps import ROUNDS, fill_gaps
from ..flow.closed_form.mixture import MixturePreconditioner
from ..flow.couplings import COUPLINGS
from ..flow.parametrisations import Convention, convention_for
from ..flow.paths import PATHS, Path
from ..flow.solvers import SOLVERS, Solver
from ..flow.solvers.runge_kutta import Euler
from ..flow.step_inputs import check_views
from ..flow.time_grid import TimeGrid
from ..registry import spec_name
from ..seeding import derive, split_mask
from ..tables import checks, conditions
from ..tables.conditions import ColumnScaling, ConditionRanges
from ..tables.coordinates.learned_columns import Coordinates
from ..tables.coordinates.ordered_columns import with_differences
from ..tables.coordinates.particle_coordinates import particle_coordinates
from ..tables.coordinates.relative import (
    check_relative,
    choose_relative,
    followed_conditions,
    read_relative,
)
from ..tables.coordinates.turn import Turn
from ..tables.event_table import EventTable
from ..tables.formulas.expressions import Cuts, declared
from ..tables.formulas.particles import (
    check_azimuths,
    check_particles,
    default_observables,
    read_particles,
)
from ..tables.formulas.relations import Relation, order_relations
from ..tables.proposals.proposed_settings import found_settings
from ..tables.transforms import TableTransform
from . import run_directory
from .executors import EXECUTORS
from .label_first import Label, choose_label, may_choose
from .run_directory import RunDirectory
from .task_files import FIELDS, is_planned_array
from .threads import one_thread_of_blas

MIN_ROWS = 2


@dataclass(frozen=True)
class TeacherPairs:
    """Pairs of a student: noise and the end points to which its teacher carries it, (n, m) float32.

    ``transform``: the teacher's, to its latent space. ``cond`` (n, c): conditions, or None.
    ``real``: latent training events of the teacher with their conditions and weights under the
    names of `run_directory.REAL`, from which a rejection is learned; empty for none.
    """

    noise: np.ndarray
    end: np.ndarray
    transform: TableTransform
    cond: np.ndarray | None
    real: dict[str, np.ndarray]


@dataclass(frozen=True)
class Inputs:
    """Table, configuration and seed from which a run is planned.

    ``source``: events to start from instead of noise, row by row. ``pairs``: noise and end points
    that a student learns from; ``table`` then has the teacher's events. ``grid``: the result of
    `check_config`, where the configuration was checked already.
    """

    table: EventTable
    config: ModelConfig
    seed: int
    source: EventTable | None = None
    kind: str = "table"  # what `sample` gives back, see `checks.named_columns`
    labels: Any = None  # of its columns, where they are no plain texts
    pairs: TeacherPairs | None = None
    grid: TimeGrid | None = None

    def checked_grid(self) -> TimeGrid:
        """Return the grid of times to train, from the one check of the configuration."""
        return self.grid or check_config(self.config)

    @property
    def classifies(self) -> bool:
        """True if classifiers draw discrete columns: not where events start from others."""
        return self.source is None and spec_name(self.config.coupling) != "given"

    def with_found(self) -> Inputs:
        """Return the inputs with the particles, relations and cuts that the table shows.

        That is where the settings leave them open. Where events start from others, or are a
        student's, which are its teacher's, there are neither particles nor cuts.
        """
        config = self.config
        if not self.classifies or self.pairs is not None:
            config = replace(config.with_none_found(), relations=config.relations)
        return replace(self, config=replace(config, **found_settings(self.table, config)))

    def settled(self) -> Inputs:
        """Return the inputs with every open setting decided and the seed written in."""
        inputs = self.with_found()
        table = positive(inputs.table, self.seed)
        config = inputs.config.resolved(table.n, len(table.names))
        if config.observables is None:
            named = default_observables(list(config.known_particles))
            free = [text for text in named if text.partition(" =")[0] not in table.by_name()]
            config = replace(config, observables=free)
        if table.weight is not None:
            table = replace(table, weight=checks.relative(table.weight))
        return replace(self, table=table, config=replace(config, random_state=self.seed))


def positive(table: EventTable, seed: int) -> EventTable:
    """Return a table whose weights are those of the same density that are not negative."""
    if table.weight is None or not (table.weight < 0).any():
        return table
    from ..trees.signed_weights import with_positive_weights

    return with_positive_weights(table, seed=derive(seed, "signed-weights"))


def _relations(config: ModelConfig) -> list[Relation]:
    """Return the relations of a configuration, in the order in which they are declared."""
    known = read_particles(config.known_particles)
    return [Relation.parse(text, known) for text in config.relations]


def check_config(config: ModelConfig) -> TimeGrid:
    """Build every plug-in once, so that a wrong setting shows before any long work.

    Returns the grid of times that will be trained: those that the solver evaluates. Raises
    ConfigError for unknown names or parameters, and for settings that contradict each other.
    """
    from ..trees.boosted_trees import check_parameters

    config = config.with_none_found().resolved()
    observables, particles = declared(config.observables, config.known_particles)
    Cuts.parse(config.require, observables, particles)
    check_relative(config.relative)
    solver = SOLVERS.build(config.solver)
    path = PATHS.build(config.path)
    COUPLINGS.build(config.coupling)
    convention = _convention(solver, path, spec_name(config.coupling))
    PRECONDITIONERS.build(config.preconditioner or "none")
    check_views(config.inputs or [])
    check_parameters(config.booster)
    if config.booster["early_stopping_rounds"] and not config.validation_fraction:
        raise ConfigError("early stopping needs validation events: set validation_fraction above 0")
    if config.noise["target"] == "mean" and not isinstance(solver, Euler):
        raise ConfigError(
            "noise.target='mean' learns the mean velocity over a whole step, which only a solver"
            f" that takes the step with that one velocity can use (euler), not {config.solver!r}"
        )
    if (config.rejection or config.require) and spec_name(config.coupling) == "given":
        raise ConfigError(
            f"{'rejection=True' if config.rejection else 'require'} needs noise to draw anew, but"
            " coupling='given' starts from the source events; leave one of them out"
        )
    if config.noise["flow_matcher"] == "torchcfm":
        from .pair_variants import torchcfm_matcher

        if config.noise["target"] == "mean" or spec_name(config.coupling) == "given":
            raise ConfigError(
                "noise.flow_matcher='torchcfm' offers the velocity target with independent or"
                " minibatch_ot coupling; use 'numpy' for noise.target='mean' and given pairs"
            )
        torchcfm_matcher(config.path, config.coupling)
    return TimeGrid.build(solver, config.n_steps, config.spacing, convention)


def _convention(solver: Solver, path: Path, coupling: str) -> Convention | None:
    """Return the scales of data and noise, None if there are none and none are needed."""
    try:
        return convention_for(path, coupling)
    except ConfigError as error:
        if not solver.needs_denoised:
            return None
        raise ConfigError(
            f"{type(solver).__name__} needs denoised points or noise, but {error}. Use"
            " coupling='independent' on path 'linear', 'target' or 'trigonometric', or a solver"
            " that needs the velocity only, such as heun or adams_bashforth_2"
        ) from error


def make_plan(
    inputs: Inputs,
    run: RunDirectory,
    *,
    resume: bool = False,
    fitted: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the run directory: transforms, latent table, plan and tasks; return the plan.

    With ``resume`` a plan of the same digest is kept, its damaged files are written anew; one of
    another digest, or a folder that holds something else, is refused. ``fitted`` replaces the
    result of `fit_table`. Raises ConfigError for more than one replica, see
    `training.plan_ensemble`.
    """
    if inputs.config.n_replicas > 1:
        raise ConfigError(
            "n_replicas belongs to FlowBDT(n_replicas=...).fit and 'flowbdt fit --replicas': here"
            " one model is trained"
        )
    as_set, inputs = inputs.config, inputs.settled()
    grid = inputs.checked_grid()
    check_table(inputs)
    _refuse_foreign(run, resume)
    run.create()
    if not run.file("config.yaml").exists():  # so that a run killed while planning can go on
        atomic_files.write_bytes(run.file("config.yaml"), inputs.config.to_yaml().encode())
    fitted = fitted or fit_table(inputs)
    plan = _plan_content(inputs, grid, fitted)
    kept = _is_same(run, plan)
    if "first" in fitted["columns"] and not kept:
        _warn_of_unused(as_set, fitted["columns"]["first"])
    for name, array in fitted["arrays"].items():
        if not is_planned_array(run, name, plan["fingerprint"]["events"][name]):
            run.write_array(name, array)
    for name, content in fitted["files"].items():
        atomic_files.write_bytes(run.file(name), content)
    write_tasks(run, plan)
    if not kept:
        run.write_json("plan.json", plan)
    return plan


def _warn_of_unused(config: ModelConfig, first: str) -> None:
    """Warn of settings, equal to the preset's, that count for nothing beside a column ``first``."""
    settings = {"rejection=True": config.rejection, "the booster": config.booster}
    unused = " and ".join(name for name, value in settings.items() if value)
    if unused:
        warnings.warn(
            f"{unused} as in the preset: neither trees of the steps nor a rejection is learned on"
            f" this small table, but a mixture for each value of {first!r}, which serves such"
            " tables better. A setting of the booster other than the preset's brings both back",
            DataWarning,
            stacklevel=2,
        )


def write_tasks(run: RunDirectory, plan: dict[str, Any]) -> None:
    """Write those tasks of a plan that are missing, damaged or not the plan's."""
    if plan["format"] != run_directory.FORMAT:
        return  # of an older release, whose tasks had other entries
    for task in make_tasks(plan):
        there = None
        with contextlib.suppress(FormatError):
            there = run.task(task["step"])["digest"]
        if there != task["digest"]:
            run.write_json(run_directory.task_name(task["step"]), task)


def check_table(inputs: Inputs) -> None:
    """Raise ConfigError or InputError, before any long work, for a table that cannot be learned."""
    table, source, coupling = inputs.table, inputs.source, spec_name(inputs.config.coupling)
    checks.min_rows(table.n, MIN_ROWS, "fit")
    if not inputs.classifies and np.isnan(table.x).any():
        name = table.names[int(np.argmax(np.isnan(table.x).any(axis=0)))]
        raise InputError(
            f"column {name!r} has missing values, which cannot be learned with"
            f" coupling={coupling!r}: every point of its target must be known. Fill them in, or"
            " drop these rows"
        )
    if (coupling == "given") != (source is not None):
        raise InputError(
            "coupling='given' pairs every event with the same row of a source table: pass both"
            " coupling='given' and source=..., or neither"
        )
    if (coupling == "teacher") != (inputs.pairs is not None):
        raise InputError(
            "coupling='teacher' belongs to the pairs of a trained run: make students with"
            " 'flowbdt distil' or flowbdt.tuning.distil"
        )
    _check_expressions(table, inputs.config, trained_on=inputs.pairs is None)
    if source is not None:
        checks.same_columns(source.names, table.names, "the source table")
        if source.n != table.n:
            raise InputError(
                f"the source table must have one row per event: {table.n} events,"
                f" {source.n} source rows"
            )


def _check_expressions(table: EventTable, config: ModelConfig, trained_on: bool) -> None:
    """Hold relations, observables and cuts against the columns, and rows that are trained on."""
    observables, particles = declared(config.observables, config.known_particles)
    relations = order_relations(config.relations, table.names, table.cond_names, particles)
    for relation in relations:
        relation.expression.bound(table.categories)
    cuts = Cuts.parse(config.require, observables, particles)
    names = (*table.names, *table.cond_names)
    check_particles(particles, names)
    observables.bound(names, table.categories), cuts.bound(names, table.categories)
    cuts.check_generated(table.names)
    if isinstance(config.relative, Mapping):
        _check_relative(config, table, {relation.target for relation in relations})
    if trained_on:
        check_azimuths(particles, table.by_name())
        for relation in relations:
            relation.check(table)
        cuts.check(table)
        observables.added_to(table, "the training table")


def _check_relative(config: ModelConfig, table: EventTable, computed: Collection[str]) -> None:
    """Refuse columns relative to conditions that something else decides of. Raises ConfigError."""
    assert isinstance(config.relative, Mapping)
    _, particles = declared(config.observables, config.known_particles)
    transformed = config.transforms if isinstance(config.transforms, Mapping) else ()
    for one in read_relative(config.relative, table):
        owner = next((p.name for p in particles.values() if one.column in p.sources), None)
        reason = None
        if one.column in computed:
            reason = "is computed by a relation"
        elif owner is not None:
            reason = f"is of the particle {owner!r}, which is learned in coordinates of its own"
        elif one.column in transformed:
            reason = "has a transform of its own"
        elif spec_name(config.coupling) == "given":
            reason = "is carried from its value in the source (coupling='given')"
        if reason is not None:
            raise ConfigError(
                f"column {one.column!r} {reason}, and cannot be learned relative to"
                f" {one.condition!r}, too; remove one of the two"
            )


def _coordinates(inputs: Inputs, used: np.ndarray) -> Coordinates:
    """Return what is learned in place of columns; by itself from the rows ``used`` (n,), bool."""
    config, table = inputs.config, inputs.table
    if not config.relative or table.cond is None or not inputs.classifies:
        return Coordinates()
    if isinstance(config.relative, Mapping):
        chosen = read_relative(config.relative, table)
    else:
        particles = read_particles(config.known_particles)
        skip = {name for particle in particles.values() for name in particle.sources}
        skip |= {relation.target for relation in _relations(config)}
        spec = config.transforms if isinstance(config.transforms, Mapping) else {}
        rest = spec.get("*", "auto") if spec else config.transforms
        skip |= set(spec if rest == "auto" else table.names)
        chosen = choose_relative(table.take(used), skip)
    learned, back = ([one.texts[i] for one in chosen] for i in (0, 1))
    return Coordinates.parse(learned, back, table.names, table.cond_names)


def _refuse_foreign(run: RunDirectory, resume: bool) -> None:
    if run.is_planned() and not resume:
        raise RunError(
            f"{run.path} holds a run already; add --resume to continue it, or choose another folder"
        )
    if run.path.exists() and not run.is_planned():
        known = {"config.yaml", *run_directory.DESCRIBING, "table", "tasks", "steps", "logs"}
        foreign = [p.name for p in run.path.iterdir() if p.name not in known and p.name[0] != "."]
        if foreign:
            raise RunError(
                f"{run.path} holds files that are no flowBDT run"
                f" ({', '.join(sorted(foreign)[:3])}); choose a new or empty folder"
            )


def _is_same(run: RunDirectory, plan: dict[str, Any]) -> bool:
    """Return if the run has this plan already, False for none or a damaged one.

    Raises RunError if it has another.
    """
    try:
        content = run.read_json("plan.json")
    except FormatError:
        return False
    stored = run_directory.present_plan(content, f"{run.path}: plan.json")
    if stored["digest"] != plan["digest"]:
        old, new = stored["fingerprint"], plan["fingerprint"]
        different = [
            k for k in new if atomic_files.digest(old.get(k)) != atomic_files.digest(new[k])
        ]
        raise RunError(
            f"{run.path} is another run, not of the same {', '.join(different) or 'content'}:"
            " use the same table, settings, seed and package versions to continue it, or choose"
            " another folder"
        )
    return True


def fit_table(inputs: Inputs) -> dict[str, Any]:
    """Return the arrays and files to store, and what is known of columns, of settled inputs."""
    # one thread: sums of matrix products then come in the same order on every machine
    with one_thread_of_blas():
        return _fit_table(inputs) if inputs.pairs is None else _fit_pairs(inputs, inputs.pairs)


def closed_form_rows(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the training rows that a closed form is fitted to, of the arrays to store."""
    others, used = (*run_directory.REAL, "codes", *run_directory.MASKS), flow_rows(arrays)
    return {FIELDS.get(k, k): a[used] for k, a in arrays.items() if k not in others}


def flow_rows(masks: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return which rows (n,) a flow is trained on, by `run_directory.MASKS`."""
    return ~masks["valid"] & masks.get("shown", True)


def _fit_table(inputs: Inputs) -> dict[str, Any]:
    """Split, fit the transforms on the training rows only, and map all rows to latent space."""
    table, config = inputs.table, inputs.config
    valid = split_mask(table.n, config.validation_fraction, derive(inputs.seed, "split"))
    valid &= ~_only_there(table, valid)
    counted = np.ones(table.n) if table.weight is None else table.weight
    if table.n - valid.sum() < MIN_ROWS or not (counted[valid].any() and counted[~valid].any()):
        valid = np.zeros(table.n, dtype=bool)  # too few events to set some aside
    transform, label = fitted_transform(inputs, ~valid)
    _check_stored(transform)
    if len(transform.skeleton) and not inputs.classifies:
        raise ConfigError(
            "coupling='given' carries columns from their values in the source, which the transforms"
            " 'classified' and 'mixed' do not: leave them out"
        )
    if not transform.n_latent and not len(transform.skeleton):
        raise InputError("all columns of the table are constant: there is no distribution to learn")
    source = None if inputs.source is None else transform.forward(inputs.source)
    arrays = {"cond": table.cond, "weight": table.weight, "source": source}
    if len(transform.skeleton):
        arrays["codes"] = transform.codes(table)
    latent = transform.latent_rows(table)
    masks = {"valid": valid}
    if label is None and source is None:
        masks |= _shown(transform, latent, ~valid)
    arrays = {"z": _filled(transform, latent, table, flow_rows(masks), inputs.seed), **arrays}
    return _fitted(inputs, transform, arrays, masks, derive(inputs.seed, "preconditioner"), label)


def fitted_transform(inputs: Inputs, used: np.ndarray) -> tuple[TableTransform, Label | None]:
    """Return the transform, fitted to the rows ``used`` (n,), bool, and the column drawn first.

    With such a column it is fitted to all rows: there are few, and the closed form bears them.
    """
    table, config, turn = inputs.table, inputs.config, Turn()
    coordinates = relative = _coordinates(inputs, used)
    known = read_particles(config.known_particles)
    named = config.transforms if isinstance(config.transforms, dict) else ()
    left = {*named, *(relation.target for relation in _relations(config))}
    if known and config.coordinates == "particles":
        observables, _ = declared(config.observables, config.known_particles)
        cuts = Cuts.parse(config.require, observables, known)
        coordinates, turn = particle_coordinates(
            table, config.known_particles, left, inputs.classifies, cuts
        )
        coordinates = coordinates.joined(relative, table.names)
    if config.require and inputs.classifies:
        left |= turn.columns
        coordinates = with_differences(coordinates, table, config.require, left, known)

    def fitted(used: np.ndarray | None, first: str | None = None) -> TableTransform:
        return TableTransform(
            config.transforms,
            config.relations,
            seed=derive(inputs.seed, "transform"),
            classify=inputs.classifies,
            first=first,
            order=config.order,
            particles=config.known_particles,
            coordinates=coordinates,
            turn=turn,
        ).fit(table, used)

    transform, label = fitted(used), None
    if inputs.classifies and may_choose(config, table):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # they came already
            seed = derive(inputs.seed, "label")
            with_first = functools.cache(lambda first: fitted(None, first))
            label = choose_label(table, transform, with_first, seed)
            transform = transform if label is None else with_first(label.name)
    return transform, label


def _shown(
    transform: TableTransform, latent: np.ndarray, used: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the mask of rows (n,) of which a flow of one column shows something, as ``shown``.

    The others have an exact value, which a classifier draws whatever the flow says: they would only
    blur what it learns. Nothing where all do, where several columns see each other, or of too few.
    """
    shown = ~np.isnan(latent).all(axis=1)
    alone = latent.shape[1] == 1 and len(transform.skeleton) == 1
    enough = not shown.all() and (shown & used).sum() >= MIN_ROWS
    return {"shown": shown} if alone and enough else {}


def _filled(
    transform: TableTransform, latent: np.ndarray, table: EventTable, used: np.ndarray, seed: int
) -> np.ndarray:
    """Return the latent events (n, m) of all rows, missing ones drawn given what is known.

    Discrete columns are known, too, which counts where values are missing: the known ones alone may
    be biased. The joint transform is fitted again, to the filled rows ``used`` (n,), bool.
    """
    if not np.isnan(latent).any():
        return transform.joint.forward(latent)
    others = [np.zeros((table.n, 0)) if table.cond is None else table.cond]
    if transform.gaps:
        others.insert(0, transform.one_hot(table))
    filled = fill_gaps(
        latent,
        np.hstack(others),
        table.weight,
        used,
        derive(seed, "fill"),
        ROUNDS if transform.gaps else 1,  # of mixed columns no event shows what is filled in
    )
    transform.refit_joint(filled[used], None if table.weight is None else table.weight[used])
    return transform.joint.forward(filled)


def _check_stored(transform: TableTransform) -> None:
    """Raise ConfigError, before any tree grows, unless a model file could restore a transform."""
    try:
        TableTransform.from_json(json.loads(atomic_files.json_bytes(transform.to_json())))
    except (FormatError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"a transform learned what a model file cannot give back: {error}. Its 'fitted' names"
            " all that it learns, as single numbers, or with types as {'knots': list[float]}"
        ) from error


def _only_there(table: EventTable, valid: np.ndarray) -> np.ndarray:
    """Return a mask (n,) of rows with what only rows ``valid`` have, with a warning.

    These are categories, and the known values of a column.
    """
    alone = np.zeros(table.n, dtype=bool)
    for name, values in zip(table.names, table.x.T, strict=True):
        known = ~np.isnan(values)
        if not known[~valid].any():
            alone |= known
            warnings.warn(
                f"column {name!r}: its known values are so rare that all their rows were set aside"
                " for validation; they are trained on instead",
                DataWarning,
                stacklevel=2,
            )
    cond = () if table.cond is None else table.cond.T
    for name, codes in zip((*table.names, *table.cond_names), (*table.x.T, *cond), strict=True):
        if name not in table.categories:
            continue
        rows = valid & np.isfinite(codes) & ~np.isin(codes, codes[~valid])
        if rows.any():
            alone |= rows
            texts = [table.categories[name][int(code)] for code in np.unique(codes[rows])]
            warnings.warn(
                f"column {name!r}: the categories {', '.join(texts)} are so rare that all their"
                " rows were set aside for validation; they are trained on instead",
                DataWarning,
                stacklevel=2,
            )
    return alone


def _fit_pairs(inputs: Inputs, pairs: TeacherPairs) -> dict[str, Any]:
    """Split the pairs of a student; the transform is its teacher's."""
    valid = split_mask(
        len(pairs.end), inputs.config.validation_fraction, derive(inputs.seed, "split")
    )
    arrays = {"z": pairs.end, "noise": pairs.noise, "cond": pairs.cond, **pairs.real}
    if "real_weight" in pairs.real:
        arrays["real_weight"] = checks.relative(pairs.real["real_weight"])
    seed = derive(derive(inputs.seed, "preconditioner"), "stage", 0)
    return _fitted(inputs, pairs.transform, arrays, {"valid": valid}, seed)


def _fitted(
    inputs: Inputs,
    transform: TableTransform,
    arrays: dict[str, np.ndarray | None],
    masks: dict[str, np.ndarray],
    seed: int,
    label: Label | None = None,
) -> dict[str, Any]:
    """Return the arrays and files to store; the closed form is fitted on the training rows.

    These are told by ``masks``, see `run_directory.MASKS`. One for each value of a ``label`` is
    fitted on all rows.
    """
    table, config = inputs.table, inputs.config
    cond = np.zeros((table.n, 0)) if table.cond is None else table.cond
    scaling = ColumnScaling.fit(table.x, cond)
    for name in ("cond", "real_cond"):
        if arrays.get(name) is not None:
            arrays[name] = scaling[len(table.names) :].forward(np.asarray(arrays[name]))
    stored = {k: np.asarray(a, dtype=np.float32) for k, a in arrays.items() if a is not None}
    rows = closed_form_rows({**stored, **masks})
    velocity = config.preconditioner if transform.n_latent else None
    if label is None:
        closed_form = PRECONDITIONERS.build(velocity or "none")
        if isinstance(closed_form, MixturePreconditioner):
            closed_form.n_threads = EXECUTORS.build(config.executor).threads_here
        closed_form = closed_form.fit(seed=seed, **rows)
    else:
        codes, n_values = np.asarray(arrays["codes"])[:, 0], len(transform.skeleton.values[0])
        closed_form = MixturePreconditioner().fit_values(
            stored["z"], codes, n_values, label.complexity, seed
        )
        real = transform.joint.inverse(stored["z"].astype(np.float64))
        closed_form.fit_margins(real, codes, transform.latent_of, seed)
    files = {
        "transform.json": atomic_files.json_bytes(transform.to_json()),
        "preconditioner.npz": closed_form.to_bytes(),
    }
    used = slice(None) if table.weight is None else table.weight > 0
    ranges = ConditionRanges.of(cond[used], table.cond_names, table.categories)
    known: dict[str, Any] = {"scaling": conditions.stored(scaling, ranges)}
    if len(transform.skeleton):
        known["classified"] = transform.skeleton.names
    if label is not None:
        known["first"] = label.name
    if seen := _seen(inputs, transform, ~masks["valid"]):
        known["seen"] = seen
    return {"arrays": {**stored, **masks}, "files": files, "columns": known}


def _seen(inputs: Inputs, transform: TableTransform, used: np.ndarray) -> list[str]:
    """Return what the rejection sees of columns and their conditions, as expressions."""
    seen = [one.text for one in transform.coordinates.relative.values()]
    if inputs.config.relative == "auto" and inputs.table.cond is not None:
        left = transform.coordinates.targets
        seen += [one.texts[0] for one in followed_conditions(inputs.table.take(used), left)]
    return seen


def _plan_content(inputs: Inputs, grid: TimeGrid, fitted: dict[str, Any]) -> dict[str, Any]:
    table, arrays = inputs.table, fitted["arrays"]
    kept = {*table.names, *table.cond_names}  # a table may know texts of columns it has no longer
    originals = {name: of for name, of in table.originals.items() if name in kept}
    fingerprint = {
        "settings": inputs.config.digestible(),
        "columns": {
            "names": table.names,
            "units": table.units,
            "dtypes": table.dtypes,
            "categories": {k: v for k, v in table.categories.items() if k in kept},
            "conditions": table.cond_names,
            **({"originals": originals} if originals else {}),
            **fitted["columns"],
        },
        "fitted": {name: atomic_files.digest_bytes(c) for name, c in fitted["files"].items()},
        "events": {k: atomic_files.digest_array(a) for k, a in arrays.items()},
        "versions": {"flowbdt_format": run_directory.FORMAT, "xgboost": version("xgboost")},
    }
    return atomic_files.to_plain(
        {
            "format": run_directory.FORMAT,
            "digest": atomic_files.digest(fingerprint),
            "fingerprint": fingerprint,
            "grid": grid.to_json(),
            "kind": inputs.kind,
            **({} if inputs.labels is None else {"labels": inputs.labels}),
            **({"card": inputs.config.card} if inputs.config.card else {}),
            "n_train": int((~arrays["valid"]).sum()),
            "n_valid": int(arrays["valid"].sum()),
            "n_latent": arrays["z"].shape[1],
            "rejection": inputs.config.rejection and "first" not in fitted["columns"],
            "made_with": {name: version(name) for name in ("flowbdt", "numpy", "scipy", "xgboost")}
            | {"python": platform.python_version(), "machine": platform.machine()},
        }
    )


def make_tasks(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one task per trained time and per classifier: plain numbers and names, no arrays."""
    grid = TimeGrid.from_json(plan["grid"])
    settings = plan["fingerprint"]["settings"]
    shared = ("path", "coupling", "inputs", "booster")
    noise = {**settings["noise"], "candidates": _candidates(settings, plan)}
    columns, tasks = plan["fingerprint"]["columns"], []
    if columns.get("first"):  # trees learn too little from few rows, and blur the classes
        settings = {**settings, "booster": {**settings["booster"], "n_estimators": 0}}
    common = {
        "format": run_directory.FORMAT,
        "seed": settings["random_state"],
        **{name: plan["fingerprint"][name] for name in ("events", "fitted", "versions")},
    }
    for step, t in enumerate(run_directory.trained_times(plan)):
        content = {
            **common,
            "step": step,
            "time": float(t),
            "next_time": t + grid.step_to_next(step),
            **{name: settings[name] for name in shared},
            "noise": noise,
        }
        tasks.append(content)
    n_columns = len(columns["names"])
    for k, name in enumerate(columns.get("classified", ())):
        scaling = {key: columns["scaling"][key][:n_columns] for key in ("centre", "scale")}
        content = {"step": len(tasks), "column": k, "name": name, "scaling": scaling}
        given = {key: columns["scaling"][key][n_columns:] for key in ("centre", "scale")}
        if given["centre"]:
            content["conditions"] = given
        if name == columns.get("first"):
            content["from_mixture"] = True
        if "classifier_rate" in settings["booster"]:
            content["rate"] = settings["booster"]["classifier_rate"]
        tasks.append({**common, **content})
    return [{**content, "digest": atomic_files.digest(content)} for content in tasks]


def _candidates(settings: dict[str, Any], plan: dict[str, Any]) -> int:
    """Return the number of events that targets are averaged over: none where it would be wrong.

    It holds for noise paired with events at random and added nowhere else, without conditions.
    """
    noise, path = settings["noise"], PATHS.build(settings["path"])
    plain = spec_name(settings["coupling"]) == "independent" and noise["flow_matcher"] == "numpy"
    noisy = any(path.noise_scale(t) > 0 for t in (0.0, 0.5, 1.0))
    conditional = bool(plan["fingerprint"]["columns"]["conditions"])
    return 0 if noisy or conditional or not plain else int(noise["candidates"])
