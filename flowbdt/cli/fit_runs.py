"""Commands that fit a table and describe a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, InputError
from . import options
from .options import TABLES, bar, say, show

if TYPE_CHECKING:
    from ..config import ModelConfig, RunConfig
    from ..flow.time_grid import TimeGrid
    from ..tables.event_table import EventTable
    from ..training.plan import Inputs

planning = options.combined(
    click.argument("table", type=options.PATH, required=False, help=f"Events: {TABLES}."),
    options.output("RUN", "Folder of the run."),
    options.file("--config", help="YAML file with settings."),
    click.option(
        "--columns",
        multiple=True,
        metavar="NAMES",
        help="Columns to learn, e.g. nJet,'MET_*'; by default all that are no condition or weight.",
    ),
    options.assignments(
        "One setting, e.g. n_steps=20, solver=heun, booster.max_depth=8, conditions=[pt],"
        " relations=['tau21 = tau2 / tau1'] or require=['pt > 25']; repeatable, overrides"
        " --config. 'flowbdt fit --dry-run' prints all settings."
    ),
    options.executor,
)
"""Arguments that `fit` and `plan` have in common."""


@click.command()
@planning
@options.integer("--replicas", help="Models of an ensemble, whose spread is their error.")
@options.flag("--resume", "Continue an interrupted run; needs TABLE only before it is planned.")
@options.flag("--dry-run", "Check and print all settings and, with TABLE, what becomes of columns.")
@options.printing
def fit_command(
    table: Path | None,
    output: Path | None,
    config: Path | None,
    replicas: int | None,
    resume: bool,
    dry_run: bool,
    **changes: Any,
) -> None:
    """Learn a table and write a run folder."""
    from ..generation.fit_run import fit_replicas, fit_run
    from ..training.run_directory import ENSEMBLE

    if replicas is not None:
        changes["settings"] = (*changes["settings"], f"n_replicas={replicas}")
    if resume and config is None and output is not None and (output / "config.yaml").exists():
        config, changes["folder"] = output / "config.yaml", output
    if dry_run:
        _dry_run(table, read_config(config, **changes))
        return
    if output is None:
        raise InputError("say where the run goes: flowbdt fit TABLE -o RUN")
    planned = any((output / name).exists() for name in ("plan.json", ENSEMBLE))
    if resume and table is None and planned:
        _continue(output, read_config(config, **changes))
    else:
        inputs = read_with_found(table, read_config(config, **changes))
        n, times = inputs.config.n_replicas, len(inputs.checked_grid().times)
        with bar(total=n * times, desc="training", unit="step") as progress:
            fit = fit_replicas if n > 1 else fit_run
            fit(inputs, output, resume=resume, on_report=lambda _: progress.update())
    done = f"complete: {output}   next: flowbdt generate {output} -n 100000 -o new.h5"
    say(done, run=output)


def read_config(
    file: Path | None,
    executor: str | None,
    settings: Sequence[str],
    base: RunConfig | None = None,
    folder: Path | None = None,
    columns: Sequence[str] = (),
) -> RunConfig:
    """Return the settings of a file, else ``base``, else the defaults, changed by options.

    ``columns`` are names, or several with commas between.
    ``folder``: the settings are on record there. Programs that they name are not used: raises
    ConfigError unless the options name them, too.
    """
    from ..config import RunConfig
    from ..registry import spec_name
    from ..training.executors.base import refuse_recorded, split_recorded

    config = base or RunConfig() if file is None else RunConfig.from_yaml(file)
    left_out: dict[str, Any] = {}
    if folder is not None:
        harmless, left_out = split_recorded(config.executor)
        config = replace(config, executor=harmless)
    if executor and spec_name(config.executor) != executor:
        # first, so that --set executor.n_jobs=4 is a setting of this executor
        config, left_out = replace(config, executor=executor), {}
    name = spec_name(config.executor)
    config = config.with_overrides(settings)
    if columns:
        names = [name.strip() for text in columns for name in text.split(",") if name.strip()]
        config = replace(config, columns=names)
    if spec_name(config.executor) == name:
        refuse_recorded(left_out, config.executor, folder)
    return config


def read_events(path: Path, config: RunConfig, missing: bool = False) -> EventTable:
    """Read the columns, conditions and weights that the settings name."""
    from ..tables.formats import read_table

    return read_table(
        path,
        columns=config.columns,
        conditions=config.conditions,
        weight=config.weight,
        missing=missing,
    )


def read_inputs(table: Path | None, config: RunConfig) -> Inputs:
    """Read the table of a fit, after its settings are checked."""
    from .. import seeding
    from ..atomic_files import digest_file
    from ..tables.formats.base import split_path
    from ..training.plan import Inputs, check_config

    grid = check_config(config)
    if table is None:
        raise InputError("the table to learn is needed: flowbdt fit TABLE -o RUN")
    seed = seeding.resolve(config.random_state)
    file = split_path(table)[0]
    if file.is_file():  # else reading says what is wrong
        config = replace(
            config, card={"table": file.name, "sha256": digest_file(file), **config.card}
        )
    return Inputs(read_events(table, config, missing=True), config, seed, grid=grid)


def read_with_found(table: Path | None, config: RunConfig) -> Inputs:
    """Read the table of a fit, and say what is found where the settings leave that to its rows."""
    from ..config import NONE
    from ..generation.describe_flow import described_rules

    inputs = read_inputs(table, config).with_found()
    settings = inputs.config.to_plain()
    found = {k: settings[k] for k in NONE if vars(config)[k] == "auto" and settings[k]}
    if found:
        say("\n".join(["held, as the rows show it:", *described_rules(found)]), found=found)
    return inputs


def _dry_run(path: Path | None, config: RunConfig) -> None:
    """Show what a fit would do: every setting and the times; with a table, columns and cost."""
    import numpy as np

    from ..generation.fit_cost import describe_fit, fit_parts
    from ..training import expected_cost
    from ..training.executors import EXECUTORS
    from ..training.plan import check_config, check_table, fitted_transform

    if path is None:
        grid, resolved = check_config(config), config.resolved()
        text = f"{resolved.to_yaml().rstrip()}\n\n{_times(grid)}"
        show(text, settings=resolved.to_plain(), times=grid.times)
        return
    inputs = read_inputs(path, config).settled()
    settled, table = inputs.config, inputs.table
    check_table(inputs)
    transform, label = fitted_transform(inputs, np.ones(table.n, dtype=bool))
    first = None if label is None else label.name
    grid = inputs.checked_grid()
    plan = expected_cost.outline(inputs, transform.n_latent, transform.skeleton.n_values, first)
    expected_cost.warn_if_full(plan, EXECUTORS.build(settled.executor))
    lines = [*transform.describe(), *([] if label is None else [label.describe()])]
    columns = "\n".join(f"#   {line}" for line in lines)
    show(
        f"{settled.to_yaml()}\n# {table.n} events, {len(table.names)} columns"
        f" -> {transform.n_latent} learned, {len(table.cond_names)} conditions\n{columns}\n"
        f"{_times(grid)}\n{describe_fit(plan, len(grid.times))}"
        f"{_proposals(settled, table)}",
        **{"settings": settled.to_plain(), "times": grid.times, "columns": lines},
        **{"events": table.n, "cost": [asdict(p) for p in fit_parts(plan, len(grid.times))]},
    )


def _proposals(config: ModelConfig, table: EventTable) -> str:
    """Return what rows and names suggest and nobody declared: particles, relations, cuts."""
    from ..tables.proposals.proposed_settings import Proposals

    found = Proposals.of(table, config.known_particles, list(config.relations), config.require)
    lines = []
    if found.particles:
        lines += ["# names and numbers suggest these particles; declare those that are:"]
        lines += ["# particles:", *(f"# {line}" for line in particle_lines(found.particles))]
    for exact, words in (
        (True, "all rows agree with these, which nothing holds; declare those that are meant:"),
        (False, "nearly all rows nearly agree with these, which nothing holds:"),
    ):
        listed = [f"#   {one.describe()}" for one in found.relations if one.exact is exact]
        lines += [f"# {words}", *listed] if listed else []
    if found.cuts:
        lines += ["# all rows keep these cuts:"]
        lines += [f"#   {cut.text}   ({cut.reason})" for cut in found.cuts]
        lines += [f"# require={[*config.require, *(cut.text for cut in found.cuts)]}"]
    return "".join(f"\n{line}" for line in lines)


def particle_lines(particles: Mapping[str, Any]) -> list[str]:
    """Return lines of YAML, one for each particle."""
    return [
        f"  {name}: {{{', '.join(f'{key}: {value}' for key, value in one.items())}}}"
        for name, one in particles.items()
    ]


def _times(grid: TimeGrid) -> str:
    times = ", ".join(f"{t:.4g}" for t in grid.times)
    return f"# {len(grid.times)} step models, at t = {times}"


def _continue(path: Path, config: RunConfig) -> None:
    """Train the missing steps of a planned run. Raises ConfigError if settings differ."""
    from ..atomic_files import to_plain
    from ..config import DERIVED, NONE
    from ..generation.fit_run import train_replicas, train_run
    from ..training.executors import EXECUTORS
    from ..training.run_directory import Replicas, RunDirectory, open_run

    found = open_run(path)
    if isinstance(found, Replicas):
        if config.n_replicas != len(found.members):
            raise ConfigError(f"{path} was planned with {len(found.members)} replicas")
        with bar(total=None, desc="training", unit="step") as progress:
            executor = EXECUTORS.build(config.executor)
            train_replicas(path, executor, lambda _: progress.update())
        return
    run = RunDirectory(path)
    planned = run.plan()["fingerprint"]["settings"]
    wanted = to_plain(config.digestible())
    different = [k for k, v in wanted.items() if k in planned and planned[k] != v]
    known = {*DERIVED, "relative"} - {k for k in NONE if vars(config)[k] == "auto"}
    if config.particles == "auto":
        known -= {"coordinates", *(["observables"] if config.observables is None else [])}
    different += [k for k in sorted(known) if (k in wanted) != (k in planned)]
    if different:
        raise ConfigError(
            f"{path} was planned with other settings for {', '.join(different)} than those of this"
            f" call and of {path / 'config.yaml'}; leave them out to continue it, or fit into"
            " another folder"
        )
    executor = EXECUTORS.build(config.executor)
    with bar(total=len(run.missing_steps()), desc="training", unit="step") as progress:
        train_run(run, executor, lambda _: progress.update())


@click.command()
@click.argument("run", type=options.PATH, help="Run folder, model file or table.")
@options.flag("--card", "The card of the model, in Markdown.")
@options.printing
def show_command(run: Path, card: bool) -> None:
    """Describe a run, an unfolding or a table."""
    from ..tables.formats import FORMATS
    from ..tables.formats.base import split_path

    if not card and split_path(run)[0].suffix in FORMATS.names():
        _show_table(run)
        return
    from ..atomic_files import read_json
    from ..generation.describe_flow import describe_flow
    from ..generation.model_card import model_card
    from ..generation.trained_flow import Flow
    from ..training.run_directory import RunDirectory, open_run

    source = open_run(run)
    if isinstance(source, RunDirectory) and source.file("chain.json").exists():
        from ..physics.response.chain import read_chain

        show("\n".join(lines := read_chain(run).describe()), stages=lines)
        return
    if isinstance(source, RunDirectory) and not source.file("manifest.json").exists():
        if not source.is_planned():
            if (content := source.file("unfolding.json")).exists():
                show(source.file("unfolding.txt").read_text().rstrip(), **read_json(content))
                return
            raise ConfigError(f"{run} holds no planned run; start with: flowbdt fit TABLE -o RUN")
        show(source.unfinished(), run=run, missing=source.missing_steps())
        return
    flow = Flow(source, compiled=False)  # nothing is generated: the core need not be there
    if card:
        text = model_card(flow, run.stem)
        show(text.rstrip("\n"), card=flow.plan.get("card") or {}, markdown=text)
        return
    text = "\n".join(describe_flow(flow, f"{run}: complete"))
    show(text, plan=flow.plan, manifest=flow.manifest)


def _show_table(path: Path) -> None:
    """Show what the columns of a table are."""
    import pandas as pd

    from ..tables.formats import read_table

    table = read_table(path, missing=True)
    columns = table.described()
    frame = pd.DataFrame(columns)
    rows = frame.to_string(index=False, na_rep="-", float_format="{:.4g}".format)
    show(f"{table.headline()}\n{rows}", events=table.n, columns=columns)
