"""The command that corrects a simulated sample to a better one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .options import say

if TYPE_CHECKING:
    from ..tables.event_table import EventTable


METHODS = ("conditions", "pairs", "transport", "weights")


@click.command()
@click.argument("simulation", type=options.PATH, help=f"Simulated events: {options.TABLES}.")
@click.argument("better", type=options.PATH, help="Data or better simulation, the same columns.")
@options.output("FILE", "Table for the corrected events.", required=True)
@click.option(
    "--method",
    type=options.Registered("..physics.refinement", "REFINERS", *METHODS),
    default="weights",
    help="weights: by classifiers; transport: a flow that moves events as little as it must. Of"
    " pairs, row by row, pairs: a flow from event to partner; conditions: from noise to it.",
)
@options.file("--apply", "new", help="Correct these events instead of SIMULATION.")
@click.option(
    "--condition",
    "conditions",
    multiple=True,
    metavar="COLUMN",
    help="Column that stays, such as the true energy; repeatable.",
)
@options.weight
@options.mapping("--flow", "{preset: fast, n_steps: 8}", "Settings of the flow, as of fit")
@options.seed()
@options.printing
def refine_command(
    simulation: Path,
    better: Path,
    output: Path,
    method: str,
    new: Path | None,
    conditions: tuple[str, ...],
    weight: str | None,
    flow: dict[str, Any] | None,
    seed: int,
) -> None:
    """Correct simulated events to data or a better simulation.

    FILE has the events with weights, or with new values, in all columns but those of --condition.
    """
    from ..atomic_files import check_target
    from ..physics.refinement import refine
    from ..tables.formats import read_table, write_table

    check_target(output)
    first, second = (read_table(path, weight=weight) for path in (simulation, better))
    other = None if new is None else read_table(new, weight=weight)
    refined = refine(
        first, second, method, new=other, conditions=conditions, flow=flow, random_state=seed
    )
    write_table(output, refined, {"refined": {"method": method, "seed": seed}})
    before = (first if other is None else other).like(refined)
    _compare(second.like(refined), before, refined)
    judge = f"flowbdt evaluate {shlex.quote(str(better))} {shlex.quote(str(output))}"
    say(f"{output}: {refined.n} events; judge them by events kept apart: {judge}", file=output)


def _compare(better: EventTable, before: EventTable, after: EventTable) -> None:
    """Say, per column, how far both are from the better sample, and what weights cost."""
    from ..evaluation.metrics import separation_power

    lines, powers = [f"{'separation power x100':24s}  before   after"], {}
    for name in after.names:
        powers[name] = [
            separation_power(
                better.column(name),
                one.column(name),
                weight_real=better.weight,
                weight_generated=one.weight,
                n_bootstrap=2,
            ).value
            for one in (before, after)
        ]
        lines.append(f"{name:24s}" + "".join(f"{value:8.2f}" for value in powers[name]))
    worth = float(after.n)
    if after.weight is not None:
        worth = float(after.weight.sum() ** 2 / (after.weight**2).sum())
        lines.append(f"the weighted events are worth {worth:.0f} of equal weight")
    say("\n".join(lines), separation=powers, events=after.n, worth=worth)
