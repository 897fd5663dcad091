"""Students: runs of few evaluations that learn where a trained run, the teacher, takes noise.

A teacher moves every point of noise along one way. A student of k evaluations learns where on that
way the teacher is at k + 1 times: from each to the next it takes one step, with the mean velocity
between them. The pairs hold no chance, so that few trees on a mixture of Gaussians learn much, and
of noise there is as much as one likes.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # comes with scikit-learn

from .. import seeding
from ..config import ModelConfig
from ..errors import ConfigError, InputError
from ..flow.solvers.base import Evaluator
from ..generation.trained_flow import Flow
from ..model import FlowBDT, fit_run
from ..tables import checks
from ..tables.event_table import align_columns
from ..training import run_directory
from ..training.plan import Inputs
from ..training.run_directory import RunDirectory
from ..training.teacher_trajectories import Ways

N_PAIRS = 50_000

OPEN = ("preconditioner", "inputs", "booster", "rejection", "validation_fraction", "executor")
"""Settings of a student that one may choose; the others are its teacher's, or follow."""

BOOSTER = {"n_estimators": 100, "early_stopping_rounds": 10}
COMPONENTS = 40


def student_config(
    teacher: Flow, evaluations: int, seed: int, settings: Mapping[str, Any]
) -> ModelConfig:
    """Return the configuration of a student.

    Raises ConfigError for a teacher that has none, and for settings that are not open.
    """
    _check_teacher(teacher, evaluations)
    for name in settings:
        if name not in OPEN:
            raise ConfigError(
                f"setting {name!r} of a student follows from its teacher; what can be set:"
                f" {', '.join(OPEN)}"
            )
    given = {**settings, "booster": {**BOOSTER, **settings.get("booster", {})}}
    names = ("transforms", "relations")
    chosen = {
        "n_steps": evaluations,
        "solver": "euler",
        "spacing": teacher.sampler.boundaries[_stops(teacher, evaluations)].tolist(),
        "coupling": {"name": "teacher", "digest": teacher.plan["digest"]},
        "noise": {"name": "repeats", "n_repeats": 1, "target": "mean", "candidates": 0},
        "preconditioner": {"name": "mixture", "n_components": COMPONENTS},
        "random_state": seed,
        **{name: teacher.settings[name] for name in names},
        **given,
    }
    return ModelConfig(**chosen)


def _check_teacher(teacher: Flow, evaluations: int) -> None:
    if teacher.sampler.solver.stochastic:
        raise ConfigError(
            f"the teacher's solver {teacher.sampler.name!r} draws random numbers on its way, so"
            " that noise does not say where it ends; distil a run with a deterministic solver"
        )
    if teacher.from_source:
        raise ConfigError("the teacher starts from given events; distil one that starts from noise")
    n_steps = len(teacher.sampler.boundaries) - 1
    if not 1 <= evaluations <= n_steps:
        raise ConfigError(
            f"a student has 1 to {n_steps} evaluations, as its teacher has {n_steps} steps; got"
            f" {evaluations}"
        )


def _stops(teacher: Flow, evaluations: int) -> np.ndarray:
    """Return the numbers (evaluations + 1,) of the teacher's boundaries that the student has."""
    n_steps = len(teacher.sampler.boundaries) - 1
    return np.rint(np.linspace(0, n_steps, evaluations + 1)).astype(int)


def ways_of(
    teacher: Flow, evaluations: int, n_pairs: int, seed: int, cond: np.ndarray | None
) -> np.ndarray:
    """Return where the teacher takes noise, (evaluations + 1, n_pairs, m), float32.

    Noise belongs to (seed, row). Rejection plays no part: rejected noise has a way, too.
    """
    solver, steps = teacher.sampler.solver, teacher.sampler.boundaries.tolist()
    stops = _stops(teacher, evaluations)
    points = np.empty((len(stops), n_pairs, teacher.n_latent), dtype=np.float32)
    for _, low, high in seeding.block_ranges(n_pairs):
        noise = seeding.RowNoise(seed, "distil", np.arange(low, high))
        x = noise.standard_normal((high - low, teacher.n_latent))
        points[0, low:high] = x
        ask = Evaluator(teacher.field, None if cond is None else cond[low:high])
        state = solver.start(steps)
        for stage, (begin, end) in enumerate(itertools.pairwise(stops), 1):
            x, state = solver.march(ask, x, steps[begin : end + 1], None, state)
            points[stage, low:high] = x
    return points


def prepare(
    source: run_directory.Source,
    evaluations: int = 1,
    *,
    n_pairs: int = N_PAIRS,
    training: Any = None,
    cond: Any = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Inputs:
    """Return what a student's run is planned from; parameters as in `distil`."""
    settings = {"rejection": training is not None, **(settings or {})}
    # not compiled: the student must not depend on whether numba is there
    teacher = Flow(source, compiled=False)
    config = student_config(teacher, evaluations, seed, settings)
    if config.rejection and training is None:
        raise ConfigError("the rejection of a student is learned from training events: training=")
    with threadpool_limits(1, user_api="blas"):  # sums in one order only, as in generation
        real = {} if training is None else _latent(teacher, training)
        given = _conditions(teacher, source, cond, real, n_pairs)
        points = ways_of(teacher, evaluations, n_pairs, seed, given)
        finite = np.isfinite(points).all(axis=(0, 2))
        points, given = points[:, finite], None if given is None else given[finite]
        table = teacher.as_table(teacher.transform.inverse(points[-1].astype(np.float64)), given)
    ways = Ways(points, teacher.transform, given, real if config.rejection else {})
    return Inputs(table, config, seed, kind=teacher.plan["kind"], ways=ways)


def _latent(teacher: Flow, training: Any) -> dict[str, np.ndarray]:
    """Return training events in the teacher's latent space, their conditions and weights."""
    names = teacher.condition_names
    table = align_columns(training, tuple(teacher.columns["names"]), teacher.categories)
    checks.same_columns(table.cond_names, names, "the conditions of the training events")
    found = {"real": teacher.transform.forward(table), "real_weight": table.weight}
    if table.cond is not None:
        found["real_cond"] = table.cond[:, [table.cond_names.index(name) for name in names]]
    return {name: array for name, array in found.items() if array is not None}


def _conditions(
    teacher: Flow, source: run_directory.Source, cond: Any, real: Mapping[str, np.ndarray], n: int
) -> np.ndarray | None:
    """Return conditions (n, c) for the pairs: those given, else those of the training, in turn."""
    rows: np.ndarray | None
    if cond is not None or not teacher.condition_names:
        rows = teacher.checked_conditions(cond, 0 if cond is None else len(cond))
    elif "real_cond" in real:
        rows = real["real_cond"]
    else:
        rows = source.array("cond") if isinstance(source, RunDirectory) else None
        if rows is None:
            raise InputError(
                "this teacher was trained with conditions and its training table is not here:"
                " pass conditions (cond=) or training events (training=)"
            )
    if rows is None:
        return None
    return np.asarray(rows, dtype=np.float32)[np.arange(n) % len(rows)].astype(np.float64)


def distil(
    model: FlowBDT | str | PathLike[str],
    evaluations: int = 1,
    *,
    n_pairs: int = N_PAIRS,
    training: Any = None,
    cond: Any = None,
    random_state: Any = None,
    **settings: Any,
) -> FlowBDT:
    """Return a student of a fitted model: a model of fewer evaluations.

    Parameters
    ----------
    model : the teacher: a fitted FlowBDT, the folder of a run, or a model file
    evaluations : of the student's velocity per event, 1 to the number of the teacher's steps
    n_pairs : ways of the teacher that are learned from; as many as wanted can be made
    training : the events that the teacher was trained on, conditions included, or None. With them
        the student gets a rejection of its own; without, it has none. That of the teacher fits
        the teacher's events only
    cond : conditions (n, c) that pairs are made for, in turn; by default those of ``training``, or
        of the teacher's run folder
    random_state : seed; equal teacher and seed give equal bytes
    settings : any of `OPEN`, as for `FlowBDT`

    Returns
    -------
    FlowBDT; its setting ``coupling`` names the digest of the teacher

    Raises
    ------
    ConfigError
        If the teacher draws random numbers on its way or starts from given events, has fewer
        steps, or a setting cannot be chosen.
    InputError
        If conditions are missing, or training events have other columns.

    References
    ----------
    One step per interval of a teacher's way: Salimans, Ho 2022, arXiv 2202.00512, section 3 (there
    by halving, here at once). Noise and end point as pairs: Liu et al., arXiv 2209.03003.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(300, 2))
    >>> small = {"n_estimators": 2}
    >>> model = FlowBDT(preset="fast", booster=small, random_state=1).fit(x)
    >>> student = distil(model, 1, n_pairs=500, booster=small, random_state=2)
    >>> model.n_evaluations_, student.n_evaluations_
    (9, 1)
    """
    inputs = prepare(
        _source(model),
        evaluations,
        n_pairs=n_pairs,
        training=training,
        cond=cond,
        seed=seeding.resolve(random_state),
        settings=settings,
    )
    with tempfile.TemporaryDirectory(prefix="flowbdt-") as folder:
        return FlowBDT.load(fit_run(inputs, Path(folder) / "run").path)


def _source(model: FlowBDT | str | PathLike[str]) -> run_directory.Source:
    if not isinstance(model, FlowBDT):
        return run_directory.open_run(model)
    model.flow()  # raises NotFittedError
    return run_directory.Archive("this model", model.archive_)
