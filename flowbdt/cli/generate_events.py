"""Commands that make events with a trained run, or write it for other programs."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, InputError, plural
from . import options
from .options import TABLES, bar, say, three_digits

if TYPE_CHECKING:
    pass

outside = click.option(
    "--outside",
    type=click.Choice(["warn", "raise", "clip"]),
    default="warn",
    show_default=True,
    help="For conditions far outside of the training range.",
)
sampling = options.combined(
    options.seed(),
    options.cond,
    outside,
    options.file("--source", help="Table of events to start from."),
    options.sampler("Another solver, n_steps, spacing or interpolate, without rejection"),
)
"""Options that decide which events are generated."""


@click.command()
@options.run
@options.integer("-n", "--events", help="Number of events.")
@options.output("FILE", f"Table to write: {TABLES}.", required=True)
@options.flag("--no-compile", "Evaluate trees with XGBoost: slower, the same up to rare roundings.")
@options.flag("--resume", "Continue an interrupted file, to the same bytes.")
@options.integer("--block", "block_rows", help="Events held in memory together.", metavar="ROWS")
@click.option(
    "--missing",
    type=click.Choice(["keep", "fill"]),
    default="keep",
    show_default=True,
    help="Missing values as in the training table, or complete rows.",
)
@click.option(
    "--precision",
    type=click.Choice(["double", "single"]),
    default="double",
    show_default=True,
    help="Steps in float64, or in float32: less than half the time.",
)
@options.file("--given", help="Table with some of the columns; the others are drawn given them.")
@sampling
@options.printing
def generate_command(
    run: Path,
    given: Path | None,
    events: int | None,
    output: Path,
    no_compile: bool,
    resume: bool,
    missing: str,
    precision: str,
    sampler: dict[str, Any] | None,
    cond: Path | None,
    source: Path | None,
    **inputs: Any,
) -> None:
    """Generate new events with a trained run."""
    from ..generation.describe_flow import describe_rejection
    from ..generation.input_rows import number_of_events
    from ..generation.sample_files import write_sample
    from ..generation.trained_flow import Flow
    from ..training.run_directory import open_run

    compiled = False if no_compile else None
    if given is not None:
        reason = "with --given events are drawn from the closed form, in one go"
        options.refuse_given(reason, "source", "sampler", "resume", "block_rows", "precision")
        inputs.pop("resume", None), inputs.pop("block_rows", None)
        _write_completed(run, given, output, compiled, events, 1, cond=cond, **inputs)
        return
    how: dict[str, Any] = {"compiled": compiled, "missing": missing, "precision": precision}
    flow = Flow(open_run(run), sampler=sampler, **how)
    if events is None and cond is None and source is None:
        raise InputError("say how many events to generate: -n 100000")
    n = number_of_events(events, cond, source)
    inputs.update(cond=cond, source=source, resume=resume)
    start = time.perf_counter()
    with bar(total=n, desc="generating", unit="event", unit_scale=True) as progress:

        def begin(before: int) -> None:  # the rate is that of new events
            progress.n = progress.initial = before

        inputs.update(on_begin=begin, on_rows=progress.update)
        done = write_sample(flow, output, n, **inputs)
    seconds = time.perf_counter() - start
    if done == n:
        say(f"{output}: {n} events, nothing was missing", file=output, events=n, new=0)
        return
    before = f" ({done} of them were there)" if done else ""
    say(
        f"{output}: {n} events{before}, {flow.n_evaluations} evaluations"
        f" each{describe_rejection(flow)}, {three_digits(1e6 * seconds / (n - done))} us/event,"
        f" {three_digits((n - done) / seconds)} events/s",
        **{"file": output, "events": n, "new": n - done, "seconds": seconds},
        **{"evaluations": flow.n_evaluations, "record": flow.record(inputs["seed"])},
    )


@click.command()
@options.run
@click.argument("table", type=options.PATH, help="Table, empty or NaN where unknown.")
@options.output("FILE", f"Table to write: {TABLES}.", required=True)
@options.integer("-n", "--copies", default=1, help="Completed copies, one below the other.")
@options.flag("--no-compile", "Evaluate trees with XGBoost: slower, the same up to rare roundings.")
@options.seed()
@options.cond
@outside
@options.printing
def impute_command(
    run: Path,
    table: Path,
    output: Path,
    copies: int,
    no_compile: bool,
    **inputs: Any,
) -> None:
    """Fill the missing entries of a table with a trained run."""
    _write_completed(run, table, output, False if no_compile else None, None, copies, **inputs)


def _write_completed(
    run: Path,
    given: Path,
    output: Path,
    compiled: bool | None,
    events: int | None,
    copies: int,
    *,
    seed: int,
    cond: Path | None,
    outside: str,
) -> None:
    """Write rows of which some columns are given, completed."""
    from ..generation.given_rows import GivenRows, copy_seed
    from ..generation.trained_flow import Flow
    from ..tables.formats import TableWriter, read_given
    from ..training.run_directory import open_run

    flow = Flow(open_run(run), compiled=compiled)
    rows = GivenRows(flow, read_given(given, flow.categories), events, cond, outside)
    record = {**flow.record(seed), "given": ", ".join(rows.names), "copies": copies}
    with (
        TableWriter(output, record) as writer,
        bar(total=copies * rows.n, desc="completing", unit="row", unit_scale=True) as progress,
    ):
        for number in range(copies):
            for block in rows.blocks(copy_seed(seed, number)):
                writer.append(block)
                progress.update(block.n)
    times = f"{copies} times " if copies > 1 else ""
    text = f"{output}: {rows.n} rows, {times}completed given {record['given'] or 'nothing'}"
    say(text, file=output, rows=rows.n, copies=copies, given=list(rows.names))


FORMATS = {
    "cpp": "folder with model.bin, flowbdt.hpp, a C interface and an example",
    "onnx": "one file, noise and conditions in, events out",
}


@click.command()
@click.argument("model", type=options.PATH, help="Run folder or model file, or a response chain.")
@options.output("OUT", "Folder or file to write.", required=True)
@click.option(
    "--format",
    type=click.Choice(list(FORMATS)),
    help="; ".join(f"{name}: {text}" for name, text in FORMATS.items())
    + ". By default onnx if OUT ends in .onnx, else cpp.",
)
@click.option(
    "--abi",
    type=click.Choice(["lamarr"]),
    help="In place of a format: a shared object with a function for each stage, as LHCb's Lamarr"
    " calls them.",
)
@options.integer(
    "--attempts",
    help="Of functions with rejection; 1 leaves it out. By default 1% end with a rejected event.",
)
@options.sampler("Another solver, n_steps or spacing, without rejection")
@options.printing
def export_command(
    model: Path,
    output: Path,
    format: str | None,
    abi: str | None,
    attempts: int | None,
    sampler: dict[str, Any] | None,
) -> None:
    """Write a run or chain for C++, ONNX or Lamarr."""
    from ..generation.trained_flow import Flow
    from ..physics.response.chain import is_chain
    from ..training.run_directory import open_run

    if abi is not None:
        options.refuse_given("--abi writes other files", "format")
        _write_functions(model, output, attempts, sampler)
        return
    options.refuse_given("only functions of --abi lamarr have a last attempt", "attempts")
    if is_chain(model):
        raise ConfigError(f"{model} is a chain of stages: export it with --abi lamarr")
    flow = Flow(open_run(model), sampler=sampler, compiled=False)
    name = format or ("onnx" if output.suffix == ".onnx" else "cpp")
    if name == "onnx":
        from ..generation.export.write_onnx import write_onnx

        write_onnx(flow, str(output))
    else:
        from ..generation.export.write_cpp import write_cpp

        write_cpp(flow, output)
    say(f"{output}: {FORMATS[name]}", file=output, format=name)


def _write_functions(
    model: Path, output: Path, attempts: int | None, sampler: dict[str, Any] | None
) -> None:
    """Write a shared object of a chain's stages, or of one run, and say what each costs."""
    from ..generation.export.lamarr import compile_command, stage_of_run, write_lamarr
    from ..generation.trained_flow import Flow
    from ..physics.response.chain import ResponseChain, is_chain
    from ..physics.response.exported_stages import exported_stages
    from ..training.run_directory import open_run

    if is_chain(model):
        if sampler is not None:
            raise ConfigError("--sampler is for a single run; each stage of a chain has its own")
        stages = exported_stages(ResponseChain.load(model))
    else:
        flow = Flow(open_run(model), sampler=sampler, compiled=False)
        stages = [stage_of_run(flow, model.stem)]
    functions, library = write_lamarr(stages, output, attempts)
    for one in functions:
        takes = "" if one.n_random is None else f", {plural(one.n_random, 'normal number')}"
        lost = f"; {one.rejected:.2%} end with a rejected event" if one.rejected else ""
        say(f"{one.name}: {plural(len(one.inputs), 'input')}{takes}{lost}", functions=[vars(one)])
    if library is None:
        command = shlex.join(compile_command(output))
        say(f"no C++ compiler was found (c++, g++, clang++ or $CXX); where there is one: {command}")
    header = output / "stages.h"
    say(f"{library or output}: declared in {header}", library=library, header=header)
