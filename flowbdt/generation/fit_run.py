"""A whole fit: the plan, every step, and what is learned from generated events after them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..training.collect import OnReport, train
from ..training.executors import EXECUTORS, Executor
from ..training.expected_cost import warn_if_full
from ..training.plan import Inputs, make_plan
from ..training.plan_ensemble import plan_ensemble
from ..training.run_directory import Replicas, RunDirectory
from .learn_rejection import learn_rejection

if TYPE_CHECKING:
    from os import PathLike


def fit_run(
    inputs: Inputs,
    folder: str | PathLike[str],
    *,
    resume: bool = False,
    on_report: OnReport | None = None,
) -> RunDirectory:
    """Plan a run in ``folder``, train every missing step, and close it.

    Interrupted at any moment, a second call with ``resume`` ends in the same bytes. Raises
    ConfigError or InputError before any long work, RunError if the folder holds another run,
    IncompleteRun if steps failed; finished ones are kept.
    """
    run = RunDirectory(folder)
    executor = EXECUTORS.build(inputs.config.executor)
    make_plan(inputs, run, resume=resume)
    train_run(run, executor, on_report)
    return run


def fit_replicas(
    inputs: Inputs,
    folder: str | PathLike[str],
    *,
    resume: bool = False,
    on_report: OnReport | None = None,
) -> Replicas:
    """Plan and train an ensemble of ``n_replicas`` runs in ``folder``; as `fit_run`."""
    executor = EXECUTORS.build(inputs.config.executor)
    plan_ensemble(inputs, folder, resume=resume)
    return train_replicas(folder, executor, on_report)


def train_replicas(
    folder: str | PathLike[str], executor: Executor, on_report: OnReport | None = None
) -> Replicas:
    """Train every missing step of a planned ensemble, one replica after the other.

    Raises IncompleteRun if steps failed.
    """
    whole = Replicas.of_folder(Path(folder))
    for member in whole.members:
        run = RunDirectory(member.path)
        if run.missing_steps() or not run.file("manifest.json").exists():
            train(run, executor, on_report)
        learn_rejection(run)
    return whole


def train_run(run: RunDirectory, executor: Executor, on_report: OnReport | None = None) -> None:
    """Train every missing step of a planned run, and what comes after the steps; close it.

    Raises IncompleteRun if steps failed; finished ones are kept.
    """
    warn_if_full(run.plan(), executor)
    train(run, executor, on_report)
    learn_rejection(run)
