"""Students: runs of one evaluation, trained on the end points to which a trained run takes noise.

The trajectory of a run, the teacher, takes every noise to one end point. A student learns the mean
velocity between the two and takes a single step. The pairs have no scatter, so that few trees on a
mixture of Gaussians learn much, and the teacher makes as many of them as are wanted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .. import seeding
from ..config import DERIVED, NONE, ModelConfig
from ..errors import ConfigError, InputError
from ..evaluation.evaluate import Evaluation, aligned, evaluate
from ..evaluation.metrics import Result
from ..evaluation.score_events import GeneratedEvents, generate_events, generate_like
from ..flow.solvers.base import Evaluator
from ..generation.fit_run import fit_run
from ..generation.input_rows import number_of_events
from ..generation.trained_flow import Flow
from ..model import FlowBDT
from ..tables import checks
from ..tables.event_table import EventTable, align_columns
from ..training import run_directory
from ..training.plan import Inputs, TeacherPairs, positive
from ..training.run_directory import RunDirectory
from ..training.threads import one_thread_of_blas

N_PAIRS = 50_000

OPEN = ("preconditioner", "inputs", "booster", "rejection", "validation_fraction", "executor")
"""Settings of a student that can be chosen; the others follow from its teacher."""

BOOSTER = {"n_estimators": 100, "early_stopping_rounds": 10}
COMPONENTS = 40


def student_config(teacher: Flow, seed: int, settings: Mapping[str, Any]) -> ModelConfig:
    """Return the configuration of a student, see `distil`."""
    if teacher.sampler.solver.stochastic:
        raise ConfigError(
            f"the teacher's solver {teacher.sampler.name!r} draws random numbers along the"
            " trajectory, so noise does not determine its end point; distil a run with a"
            " deterministic solver"
        )
    if teacher.from_source:
        raise ConfigError(
            "the teacher starts from source events; distil one that starts from noise"
        )
    for name in settings:
        if name not in OPEN:
            raise ConfigError(
                f"setting {name!r} of a student follows from its teacher; what can be set:"
                f" {', '.join(OPEN)}"
            )
    chosen = {
        "n_steps": 1,
        "solver": "euler",
        "spacing": [0.0, 1.0],
        "coupling": {"name": "teacher", "digest": teacher.plan["digest"]},
        "noise": {"name": "repeats", "n_repeats": 1, "target": "mean", "candidates": 0},
        "preconditioner": {"name": "mixture", "n_components": COMPONENTS},
        "random_state": seed,
        **NONE,
        **{name: teacher.settings[name] for name in ("transforms", "relations")},
        **{name: teacher.settings[name] for name in DERIVED if name in teacher.settings},
        **settings,
        "booster": {**BOOSTER, **settings.get("booster", {})},
    }
    return ModelConfig(**chosen)


def noise_and_end(
    teacher: Flow, n_pairs: int, seed: int, cond: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return noise and the end points of its trajectories, (n_pairs, m) each, float32."""
    solver, boundaries = teacher.sampler.solver, teacher.sampler.boundaries.tolist()
    start, end = (np.empty((n_pairs, teacher.n_latent), dtype=np.float32) for _ in range(2))
    for _, low, high in seeding.block_ranges(n_pairs):
        noise = seeding.RowNoise(seed, "distil", np.arange(low, high))
        start[low:high] = x = noise.standard_normal((high - low, teacher.n_latent))
        evaluator = Evaluator(teacher.field, None if cond is None else cond[low:high])
        end[low:high], _ = solver.march(evaluator, x, boundaries, None, solver.start(boundaries))
    return start, end


def student_inputs(
    source: run_directory.Source,
    *,
    n_pairs: int = N_PAIRS,
    training: Any = None,
    cond: Any = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Inputs:
    """Return the inputs of a student's plan; parameters as in `distil`."""
    # not compiled: the student must not depend on whether the core was built
    teacher = Flow(source, compiled=False).single("a student's teacher")
    if teacher.draws_columns:
        raise ConfigError(
            "a student learns the flow only, but classifiers draw"
            f" {', '.join(map(repr, teacher.transform.skeleton.names))} of this run; fit it with"
            " the transform 'categorical' for these columns, 'rank' for a 'kind of' numbers"
        )
    config = student_config(teacher, seed, {"rejection": training is not None, **(settings or {})})
    if config.rejection and training is None:
        raise ConfigError("the rejection of a student is learned from training events: training=")
    with one_thread_of_blas():  # sums in one order only, as in generation
        real = {} if training is None else _latent(teacher, training)
        rows = _pair_conditions(teacher, source, cond, real, n_pairs)
        noise, end = noise_and_end(teacher, n_pairs, seed, rows)
        finite = np.isfinite(end).all(axis=1)
        noise, end, rows = noise[finite], end[finite], None if rows is None else rows[finite]
        events = teacher.transform.inverse(end.astype(np.float64), None, rows)
        table = teacher.as_table(events, rows)
    pairs = TeacherPairs(noise, end, teacher.transform, rows, real if config.rejection else {})
    return Inputs(
        table,
        config,
        seed,
        kind=teacher.plan["kind"],
        pairs=pairs,
        labels=teacher.plan.get("labels"),
    )


def _latent(teacher: Flow, training: Any) -> dict[str, np.ndarray]:
    """Return training events in the teacher's latent space, their conditions and weights."""
    names = teacher.condition_names
    table = align_columns(training, tuple(teacher.columns["names"]), teacher.categories)
    table = positive(table, int(teacher.settings["random_state"]))
    checks.same_columns(table.cond_names, names, "the conditions of the training events")
    arrays = {"real": teacher.transform.forward(table), "real_weight": table.weight}
    if table.cond is not None:
        arrays["real_cond"] = table.cond[:, [table.cond_names.index(name) for name in names]]
    return {name: array for name, array in arrays.items() if array is not None}


def _pair_conditions(
    teacher: Flow, source: run_directory.Source, cond: Any, real: Mapping[str, np.ndarray], n: int
) -> np.ndarray | None:
    """Return conditions (n, c) for the pairs: ``cond``, else those of training events, in turn."""
    rows, scaling = real.get("real_cond"), teacher.condition_scaling
    if cond is not None or not teacher.condition_names:
        rows = teacher.checked_conditions(cond, number_of_events(None, cond))
        if rows is None:
            return None
    elif rows is None and isinstance(source, RunDirectory):
        stored = source.array("cond")
        rows = None if stored is None else scaling.inverse(stored.astype(np.float64))
    if rows is None:
        raise InputError(
            "this teacher was trained with conditions and its training table is not here:"
            " pass conditions (cond=) or training events (training=)"
        )
    narrow = scaling.forward(rows).astype(np.float32)  # as training events have them
    return scaling.inverse(narrow[np.arange(n) % len(narrow)].astype(np.float64))


def distil(
    model: FlowBDT | str | PathLike[str],
    *,
    n_pairs: int = N_PAIRS,
    training: Any = None,
    cond: Any = None,
    random_state: Any = None,
    **settings: Any,
) -> FlowBDT:
    """Return a student of a fitted model: a model of one evaluation.

    Parameters
    ----------
    model : the teacher: a fitted FlowBDT, the folder of a run, or a model file
    n_pairs : noise and end points to learn from; any number can be made
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
        If the teacher is stochastic or starts from events, or a setting cannot be chosen.
    InputError
        If conditions are missing, or training events have other columns.

    References
    ----------
    Noise and end point as pairs: Liu et al., arXiv 2209.03003. One step for a whole trajectory:
    Salimans, Ho 2022, arXiv 2202.00512, section 3 (there by halving).

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(300, 2))
    >>> small = {"n_estimators": 2}
    >>> model = FlowBDT(preset="fast", booster=small, random_state=1).fit(x)
    >>> student = distil(model, n_pairs=500, booster=small, random_state=2)
    >>> model.n_evaluations_, student.n_evaluations_
    (9, 1)
    """
    source: run_directory.Source
    if isinstance(model, FlowBDT):
        model.flow()  # raises NotFittedError
        source = run_directory.Archive("this model", model.archive_)
    else:
        source = run_directory.open_run(model)
    seed = seeding.resolve(random_state)
    common = {"n_pairs": n_pairs, "training": training, "cond": cond}
    inputs = student_inputs(source, **common, seed=seed, settings=settings)
    with tempfile.TemporaryDirectory(prefix="flowbdt-") as folder:
        return FlowBDT.load(fit_run(inputs, Path(folder) / "run").path)


METRICS = {"separation": "separation x100", "auc_gb": "AUC, gradient boosting"}

N_COMPARED = 10_000
TIMED = 20_000
"""Events that the time is measured on, at least."""


@dataclass(frozen=True)
class StudentComparison:
    """Scores and costs of a teacher and its student.

    ``scores`` are evaluations of ``teacher`` and ``student`` against the same held-out real events,
    or without such events of the ``student`` alone, against its teacher's; ``microseconds`` CPU
    time per event, ``models`` evaluations per trajectory, acceptance and digest of both; ``truth``
    says what events were compared with, and the floor.
    """

    scores: dict[str, Evaluation]
    microseconds: dict[str, float]
    models: dict[str, dict[str, Any]]
    truth: str

    @property
    def speedup(self) -> float:
        """Time per event of the teacher over that of the student."""
        return self.microseconds["teacher"] / self.microseconds["student"]

    def text(self) -> str:
        """Return a table for a terminal, with notes under it."""
        floor = [_first(self.scores["student"], name).floor_text() for name in METRICS]
        head = ("", "evaluations", *METRICS.values(), "us/event", "ratio")
        rows = [head, self._row("teacher"), self._row("student"), ("floor", "", *floor, "", "")]
        return "\n".join([*aligned(rows, n_left=len(head)), "", *self._notes()])

    def _row(self, name: str) -> tuple[str, ...]:
        score, cost = self.scores.get(name), self.microseconds[name]
        shown = ["-" if score is None else _first(score, key).text() for key in METRICS]
        ratio = self.microseconds["teacher"] / cost
        return name, f"{self.models[name]['evaluations']}", *shown, f"{cost:.3g}", f"{ratio:.2f}"

    def _notes(self) -> list[str]:
        lines = [f"compared with {self.truth}", "us/event: CPU time of one thread on this machine"]
        accepted = {name: model["acceptance"] for name, model in self.models.items()}
        for name, share in accepted.items():
            if share < 1:
                lines.append(f"the {name} rejects events: {share:.0%} of its trajectories are kept")
        if accepted["teacher"] < 1 and accepted["student"] == 1:
            lines.append("the student has no rejection: training events would give it one")
        return [*lines, *dict.fromkeys(n for e in self.scores.values() for n in e.notes)]

    def to_json(self) -> dict[str, Any]:
        """Return a dict that JSON can hold."""
        return {
            "format": 1,
            "scores": {name: score.to_json() for name, score in self.scores.items()},
            "us_per_event": self.microseconds,
            "speedup": self.speedup,
            "models": self.models,
            "truth": self.truth,
        }


def _first(score: Evaluation, name: str) -> Result:
    """Return one score; of a metric per column the mean over the columns."""
    return next(result for result in score.results if result.name == name)


def compare_student(
    teacher: Flow,
    student: Flow,
    *,
    test: EventTable | None = None,
    training: EventTable | None = None,
    cond: np.ndarray | None = None,
    seed: int = 0,
) -> StudentComparison:
    """Judge teacher and student, and time them.

    ``test`` are held-out real events, with the conditions of the run; as many are generated by
    both, and ``training`` gives the floor, see `evaluate`. Without ``test`` the student's events,
    generated at the conditions ``cond``, are compared with those of its teacher; the floor is then
    the teacher against itself. Raises InputError if conditions are missing.
    """
    n = N_COMPARED if test is None else test.n
    known = cond if test is None else test.cond
    if teacher.condition_names and known is None:
        raise InputError("a run with conditions is compared at known ones: pass test events")
    options: dict[str, Any] = {"seed": seed, "quick": True, "metrics": list(METRICS)}

    def generate(flow: Flow, n: int, seed: int) -> GeneratedEvents:
        if test is not None:
            return generate_like(flow, test, seed, n)
        return generate_events(flow, n, seed, cond)

    made = generate(student, n, seeding.derive(seed, "student")).table
    first = generate(teacher, n, seeding.derive(seed, "teacher")).table
    if test is None:
        second = generate(teacher, n, seeding.derive(seed, "teacher-again")).table
        scores = {"student": evaluate(first, made, training=second, **options)}
        truth = f"{n:,} events of the teacher; floor: the teacher against itself"
    else:
        samples = {"teacher": first, "student": made}
        scores = {k: evaluate(test, x, training=training, **options) for k, x in samples.items()}
        truth = f"{n:,} held-out real events; floor: {scores['student'].floor}"
    flows = {"teacher": teacher, "student": student}
    costs = {name: generate(flow, TIMED, seed).us_per_event for name, flow in flows.items()}
    models = {
        name: {
            "evaluations": flow.n_evaluations,
            "acceptance": flow.acceptance,
            "digest": flow.plan["digest"],
            "compiled": flow.compiled,
        }
        for name, flow in flows.items()
    }
    return StudentComparison(scores, costs, models, truth)
