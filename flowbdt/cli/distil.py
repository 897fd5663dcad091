"""``flowbdt distil``: from a trained run one of fewer evaluations."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .options import TABLES, add_command, add_seed, bar, count, say

REPORT = "distillation.json"


def add_distil(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = add_command(
        commands, "distil", run_distil, "train a run of fewer evaluations on another"
    )
    parser.add_argument("teacher", metavar="TEACHER", help="run folder or model file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="RUN", help="new run")
    parser.add_argument(
        "--evaluations",
        type=count,
        default=1,
        metavar="K",
        help="of the student (%(default)s); more of them have gained nothing so far",
    )
    parser.add_argument(
        *("-n", "--events"), type=count, metavar="N", help="events of the teacher to learn from"
    )
    parser.add_argument(
        "--training",
        metavar="FILE",
        help=f"events that the teacher was trained on, to learn a rejection from: {TABLES}",
    )
    parser.add_argument("--test", metavar="FILE", help="held-out real events to judge both on")
    parser.add_argument("--conditions", metavar="FILE", help="conditions to make events for")
    parser.add_argument("--weight", metavar="COLUMN", help="column with event weights")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the student, e.g. booster.n_estimators=200",
    )
    add_seed(parser)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted RUN")


def run_distil(options: argparse.Namespace) -> None:
    """flowbdt distil."""
    from ..generation.trained_flow import Flow
    from ..model import fit_run
    from ..tables.formats import read_conditions
    from ..training import run_directory
    from ..tuning.student_report import compare
    from ..tuning.train_student import N_PAIRS, prepare

    source = run_directory.open_run(options.teacher)
    teacher = Flow(source, 1)
    real = {k: _events(getattr(options, k), teacher, options.weight) for k in ("training", "test")}
    cond = None if options.conditions is None else read_conditions(options.conditions)
    inputs = prepare(
        source,
        options.evaluations,
        n_pairs=options.events or N_PAIRS,
        training=real["training"],
        cond=cond,
        seed=options.seed,
        settings=_settings(options.set),
    )
    with bar(options)(total=options.evaluations, desc="training", unit="step") as progress:
        run = fit_run(
            inputs, options.output, resume=options.resume, on_report=lambda _: progress.update()
        )
    found = compare(teacher, Flow(run, 1), cond=inputs.table.cond, seed=options.seed, **real)
    run.write_json(REPORT, found.to_json())
    say(options, f"{run.path}: distilled from {teacher.plan['digest'][:12]}\n\n{found.text()}")


def _events(path: str | None, teacher: Any, weight: str | None) -> Any:
    """Read real events with the columns, conditions and codes of texts of a trained run."""
    from ..tables.event_table import align_columns
    from ..tables.formats import read_table

    if path is None:
        return None
    table = read_table(path, weight=weight)
    moved = [name for name in teacher.condition_names if name in table.names]
    table = table.as_conditions(moved) if moved else table
    names = tuple(teacher.columns["names"])
    return align_columns(table.select(names), names, teacher.categories)


def _settings(assignments: list[str]) -> dict[str, Any]:
    """Return what ``--set`` changes, name by name."""
    from ..config import RunConfig

    plain = asdict(RunConfig())
    given = asdict(RunConfig().with_overrides(assignments))
    return {name: value for name, value in given.items() if value != plain[name]}
