"""The command that unfolds: simulated pairs and data in, weighted truth-level events out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from . import options
from .options import say

METHODS = ("omnifold", "posterior", "transport")


def _pairs(_: click.Context, option: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    """Read ``NAME=COLUMN`` or ``NAME=FILE``, repeatable."""
    found = {}
    for text in value:
        name, equals, column = (part.strip() for part in text.partition("="))
        if not (equals and name and column) or name in found:
            raise ConfigError(
                f"{option.opts[0]} is written {option.metavar}, once for each name; got {text!r}"
            )
        found[name] = column
    return found


@click.command()
@click.argument("simulation", type=options.PATH, help=f"Simulated pairs: {options.TABLES}.")
@click.argument("data", type=options.PATH, help="Data at detector level.")
@options.output("FOLDER", "Folder for the result.", required=True)
@click.option(
    "--truth",
    multiple=True,
    required=True,
    metavar="COLUMN",
    help="Column of the simulation at truth level, or a pattern such as 'gen_*'; repeatable.",
)
@click.option(
    "--reco",
    multiple=True,
    required=True,
    metavar="COLUMN",
    help="Column at detector level, of the same name in simulation, data and background;"
    " repeatable.",
)
@click.option("--weight", metavar="COLUMN", help="Of the simulation: event weights.")
@click.option(
    "--pass-truth",
    metavar="COLUMN",
    help="Of the simulation: 1 where an event is in the truth level's selection, else 0 (a fake if"
    " seen); by default all are.",
)
@click.option(
    "--pass-reco",
    metavar="COLUMN",
    help="Of the simulation: 1 where an event was reconstructed and selected, else 0 (a miss); by"
    " default all were.",
)
@click.option("--data-weight", metavar="COLUMN", help="Of the data: event weights.")
@options.file("--background", help="Background at detector level.")
@click.option(
    "--background-weight",
    metavar="COLUMN",
    help="Of the background: event weights that add up to the events expected in the data; by"
    " default each counts 1.",
)
@click.option(
    "--variation",
    "variations",
    multiple=True,
    metavar="NAME=COLUMN",
    callback=_pairs,
    help="Systematic variation: a column of weights to take in place of --weight, and in place of"
    " --background-weight if the background has it; repeatable.",
)
@click.option(
    "--generator",
    "generators",
    multiple=True,
    metavar="NAME=FILE",
    callback=_pairs,
    help="Another simulation with the same columns: how the result changes with it is a part of"
    " the errors; repeatable.",
)
@click.option(
    "--method",
    type=options.Registered("..physics.unfolding.unfold", "METHODS", *METHODS),
    default="omnifold",
    help="What the result is: omnifold, weights of simulated events; posterior, draws of the truth"
    " for each event of the data; transport, one truth for each.",
)
@click.option(
    "--fakes",
    type=click.Choice(["share", "rate"]),
    default="share",
    help="What fakes keep: their share of the selected simulation, or their weights, as events"
    " expected in the data.",
)
@click.option(
    "--iterations",
    type=options.NUMBER,
    metavar="N",
    help="How often the prior changes: of omnifold (default: by cross-validation) or posterior"
    " (default: 3; 0 keeps the simulation's).",
)
@options.mapping(
    "--bins", "{gen_mass: [0, 10, 20, 40]}", "Bin edges of truth columns; by default 10 quantiles"
)
@click.option(
    "--outside",
    type=click.Choice(["refuse", "keep"]),
    default="refuse",
    help="What to do if more than 1% of the data are beyond the simulation's range.",
)
@click.option(
    "--replicas",
    type=options.NUMBER,
    default=10,
    metavar="N",
    help="Bootstrap replicas of data, and as many of simulation; 0: no errors.",
)
@options.executor
@options.seed()
@options.printing
def unfold_command(
    simulation: Path,
    data: Path,
    output: Path,
    truth: tuple[str, ...],
    reco: tuple[str, ...],
    method: str,
    fakes: str,
    iterations: int | None,
    bins: dict[str, Any] | None,
    replicas: int,
    executor: str | None,
    seed: int,
    **columns: Any,
) -> None:
    """Unfold data to truth level with boosted trees.

    SIMULATION has both levels of each event in one row. Where an event has no detector level (a
    miss) or no truth level (a fake), --pass-reco or --pass-truth is 0 and the columns of that level
    are not read. A tree of a ROOT file is named like mc.root:Events.

    FOLDER gets unfolded.* (truth-level events with weights, in the format of SIMULATION; columns
    such as data_3 are the weights of a replica), unfolding.json (spectra in bins with covariances,
    number of iterations with its trade-off, the way back to detector level) and unfolding.txt,
    which is also shown.
    """
    from ..atomic_files import make_folder, write_bytes, write_json
    from ..physics.unfolding import UnfoldingInputs, unfold, unfolding_errors
    from ..physics.unfolding.summary import as_json, as_text, chosen_bins
    from ..tables.formats import write_table
    from ..tables.formats.base import split_path

    inputs = UnfoldingInputs.read(simulation, data, truth, reco, **columns)
    edges = chosen_bins(inputs, bins)
    make_folder(output)  # an error now, not after the work
    result = unfold(inputs, method, fakes=fakes, n_iterations=iterations, random_state=seed)
    errors = None
    if replicas:
        errors = unfolding_errors(result, replicas, executor=executor or "serial", folder=output)
    ending = split_path(simulation)[0].suffix
    table = result.table if errors is None else errors.with_replicas()
    write_table(output / f"unfolded{ending}", table, {"unfolding": result.record})
    write_json(output / "unfolding.json", values := as_json(result, edges, errors))
    text = as_text(result, edges, errors)
    write_bytes(output / "unfolding.txt", f"{text}\n".encode())
    file = output / f"unfolded{ending}"
    say(f"{text}\n\n{file}", **values, file=file)


@click.command()
@options.planned
@click.argument("number", type=options.NUMBER, metavar="REPLICA", help="Number, from 0.")
@options.threads
@options.printing
def replica_command(run: Path, number: int, n_threads: int | None) -> None:
    """Unfold one replica of a planned unfolding."""
    from ..physics.unfolding.bootstrap import ReplicaJobs
    from .cluster_jobs import do_job

    report = do_job(ReplicaJobs(), run, number, n_threads)
    done = "is done already" if report is None else f"{report['seconds']:.1f} s"
    say(f"replica {number}: {done}", replica=report)
