"""What the commands do, with files in and files out; `cli` parses and prints."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .. import seeding
from ..atomic_files import to_plain
from ..config import RunConfig
from ..errors import ConfigError, InputError
from ..evaluation.evaluate import evaluate
from ..evaluation.report import write_report
from ..flow.time_grid import TimeGrid
from ..generation.input_rows import number_of_events
from ..generation.sample_files import write_sample
from ..generation.trained_flow import Flow
from ..model import fit_run, train_run
from ..tables.event_table import EventTable
from ..tables.formats import read_attributes, read_table
from ..tables.transforms import TableTransform
from ..training import expected_cost, run_directory
from ..training.collect import missing_steps
from ..training.executors import EXECUTORS, Executor
from ..training.plan import Inputs, check_config
from ..training.run_directory import RunDirectory

Bar = Callable[..., Any]


def prepare(options: argparse.Namespace) -> Inputs:
    """Read configuration and table of `flowbdt fit`; all is checked before any long work.

    With ``--resume`` the configuration is the one that the run recorded, unless another is given.
    """
    config = configuration(options)
    check_config(config)
    if options.table is None:
        raise InputError("the table to learn is needed: flowbdt fit TABLE -o RUN")
    if options.output is None and not options.dry_run:
        raise InputError("say where the run goes: flowbdt fit TABLE -o RUN")
    table = read_table(
        options.table,
        columns=config.columns,
        conditions=config.conditions,
        weight=config.weight,
    )
    return Inputs(table, config, seeding.resolve(config.random_state))


def configuration(options: argparse.Namespace, known: RunConfig | None = None) -> RunConfig:
    """Return the settings of a command line: defaults, or known ones, or a file; then what was set.

    ``known`` are those of what is continued.
    """
    recorded = (options.output or Path()) / "config.yaml"
    file = options.config or (recorded if options.resume and recorded.exists() else None)
    config = known or RunConfig() if file is None else RunConfig.from_yaml(file)
    if options.executor:  # first, so that --set executor.n_jobs=4 is a setting of this executor
        config = replace(config, executor=_executor(config.executor, options.executor))
    return config.with_overrides(options.set)


def checked_executor(options: argparse.Namespace, default: str) -> Executor:
    """Return the executor for a run that was planned: of the command line, else as recorded.

    ``default`` is taken if neither names one. Raises ConfigError for a setting of anything else.
    """
    recorded = options.run / "config.yaml"
    config = RunConfig.from_yaml(recorded) if recorded.exists() else RunConfig()
    other = [text for text in options.set if not text.startswith("executor")]
    if other:
        raise ConfigError(
            f"{options.run} is planned; only settings of the executor can change: {other[0]!r}"
        )
    name = options.executor or default
    config = replace(config, executor=_executor(config.executor, name))
    return EXECUTORS.build(config.with_overrides(options.set).executor)


def _executor(setting: Any, name: str) -> Any:
    """Return the executor called ``name``, with the parameters of the setting if it is the same."""
    same = isinstance(setting, dict) and setting.get("name") == name
    return setting if same else name


def dry_run(options: argparse.Namespace) -> str:
    """Return what `flowbdt fit` would do: every setting, and with a table its columns and times."""
    if options.table is None:
        config = configuration(options)
        grid = check_config(config)
        return f"{config.resolved().to_yaml().rstrip()}\n\n{_times(grid)}"
    inputs = prepare(options).settled()
    transform = TableTransform(inputs.config.transforms, inputs.config.relations).fit(inputs.table)
    grid, plan = check_config(inputs.config), expected_cost.outline(inputs, transform.n_latent)
    expected_cost.warn_if_full(plan, EXECUTORS.build(inputs.config.executor))
    lines = [
        inputs.config.to_yaml().rstrip(),
        "",
        f"# {inputs.table.n} events, {len(inputs.table.names)} columns"
        f" -> {transform.n_latent} learned, {len(inputs.table.cond_names)} conditions",
        *(f"#   {line}" for line in transform.describe()),
        _times(grid),
        expected_cost.describe(plan, len(grid.times)),
    ]
    return "\n".join(lines)


def _times(grid: TimeGrid) -> str:
    times = ", ".join(f"{t:.4g}" for t in grid.times)
    return f"# {len(grid.times)} step models, at t = {times}"


def fit(options: argparse.Namespace, *, bar: Bar) -> RunDirectory:
    """Train a run with a progress bar.

    A planned run needs no table to go on: ``--resume`` without one trains what is missing. With a
    table, it is held against the one that the run was planned with.
    """
    if options.resume and options.table is None and (options.output / "plan.json").exists():
        run = RunDirectory(options.output)
        config = configuration(options)
        _refuse_changes(config, run)
        executor = EXECUTORS.build(config.executor)
        with bar(total=len(missing_steps(run)), desc="training", unit="step") as progress:
            train_run(run, executor, lambda _: progress.update())
        return run
    inputs = prepare(options)
    run = RunDirectory(options.output)
    n_steps = len(check_config(inputs.config).times)
    with bar(total=n_steps, desc="training", unit="step") as progress:
        return fit_run(
            inputs, run.path, resume=options.resume, on_report=lambda _: progress.update()
        )


def _refuse_changes(config: RunConfig, run: RunDirectory) -> None:
    """Refuse settings that are not those the run was planned with."""
    planned = run.read_json("plan.json")["fingerprint"]["settings"]
    asked = to_plain(config.digestible())
    different = [k for k, v in asked.items() if k in planned and planned[k] != v]
    if different:
        raise ConfigError(
            f"{run.path} was planned with other settings for {', '.join(different)}; leave them out"
            " to continue it, or fit into another folder"
        )


def generate(options: argparse.Namespace, *, bar: Bar) -> str:
    """Write new events block by block and return a line that says what it cost."""
    flow = Flow(
        run_directory.open_run(options.run),
        sampler=read_sampler(options.sampler),
        compiled=False if options.no_compile else None,
    )
    n = _number_of_events(options.events, options.conditions, options.source)
    start = time.perf_counter()
    with bar(total=n, desc="generating", unit="event", unit_scale=True) as progress:
        done = write_sample(
            flow,
            options.output,
            n,
            seed=options.seed,
            cond=options.conditions,
            source=options.source,
            block_rows=options.block,
            resume=options.resume,
            on_rows=_shown(progress),
        )
    seconds = time.perf_counter() - start
    if done == n:
        return f"{options.output}: {n} events, nothing was missing"
    before = f" ({done} of them were there)" if done else ""
    return (
        f"{options.output}: {n} events{before}, {flow.n_evaluations} evaluations"
        f" each{_rejection(flow)}, {1e6 * seconds / (n - done):.3g} us/event,"
        f" {(n - done) / seconds:.3g} events/s"
    )


def _shown(progress: Any) -> Callable[[int], Any]:
    """Return what tells a progress bar of new events; the first are those that were there."""
    counts = 0

    def add(count: int) -> None:
        nonlocal counts
        counts += 1
        if counts == 1:  # made before: they say nothing about the rate
            progress.initial = progress.n = count
            progress.refresh()
        else:
            progress.update(count)

    return add


def read_sampler(text: str | None) -> dict[str, Any] | None:
    """Read ``--sampler``. Raises ConfigError unless it is a mapping."""
    return None if text is None else read_mapping("--sampler", text, "{solver: heun}")


def read_mapping(option: str, text: str, example: str) -> dict[str, Any]:
    """Read an option that is a mapping in YAML. Raises ConfigError."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"cannot read {option} {text!r}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{option} must be a mapping such as '{example}', got {text!r}")
    return content


def _rejection(flow: Flow) -> str:
    """Return what rejection costs, in words; nothing if there is none."""
    if flow.ratio is None:
        return ""
    return f" ({flow.acceptance:.0%} of them accepted by {flow.ratio.n_trees} trees)"


def _number_of_events(asked: int | None, *given: Any) -> int:
    if asked is None and all(rows is None for rows in given):
        raise InputError("say how many events to generate: -n 100000")
    return number_of_events(asked, *given)


def evaluate_files(options: argparse.Namespace) -> str:
    """Judge generated events, write the report folder, return the table for the terminal."""
    generated = read_table(options.generated)
    real = _like_generated(options.real, generated, options.weight)
    training = None
    if options.training is not None:
        training = _like_generated(options.training, generated, options.weight)
    verdict = evaluate(
        real,
        generated,
        training=training,
        relations=options.relation,
        seed=options.seed,
        quick=options.quick,
        provenance=read_attributes(options.generated),
    )
    write_report(verdict, real, generated, options.output, training=training)
    return f"{verdict.text()}\n\nreport: {options.output / 'report.html'}"


def _like_generated(path: str, generated: EventTable, weight: str | None) -> EventTable:
    """Read real events with the columns, and where they are there the conditions, of others."""
    table = read_table(path, weight=weight)
    given = [name for name in generated.cond_names if name in table.names]
    table = table.as_conditions(given) if given else table
    return table.select(generated.names)


def show(path: str) -> str:
    """Return the story of a run: settings, columns, steps."""
    source = run_directory.open_run(path)
    if isinstance(source, RunDirectory) and not source.file("manifest.json").exists():
        return _unfinished(source)
    flow = Flow(source, compiled=False)  # nothing is generated: numba need not be there
    settings = {k: v for k, v in flow.settings.items() if k not in ("booster", "transforms")}
    plan = flow.plan
    lines = [
        f"{path}: complete, digest {plan['digest'][:12]}",
        f"{plan['n_train']} training and {plan['n_valid']} validation events;"
        f" {flow.n_evaluations} evaluations per trajectory{_rejection(flow)}",
        "",
        "settings:  " + ", ".join(f"{k}={v}" for k, v in settings.items()),
        "booster:   " + ", ".join(f"{k}={v}" for k, v in flow.settings["booster"].items()),
        "made with: " + ", ".join(f"{k} {v}" for k, v in plan["made_with"].items()),
        "",
        f"closed form: {flow.preconditioner.describe()}",
        "",
        "columns:",
        *(f"  {line}" for line in flow.transform.describe()),
        "",
        "step     time   trees   train rmse   validation rmse   trees explain",
        *(_step_line(step) for step in flow.manifest["steps"]),
        *_what_trees_add(flow),
    ]
    return "\n".join(lines)


def _step_line(step: dict[str, Any]) -> str:
    valid = np.nan if step["valid_rmse"] is None else step["valid_rmse"]
    return (
        f"{step['step']:4d} {step['time']:8.4f} {step['trees']:7d} {step['train_rmse']:12.5f}"
        f" {valid:17.5f} {explained(step):14.3%}"
    )


def explained(step: dict[str, Any]) -> float:
    """Return the share of the validation variance of a step that its trees explain.

    Most of that variance is noise that nothing can explain: with a good closed form a few parts in
    a thousand are all there is to gain. NaN without validation events.
    """
    if step["valid_rmse"] is None:
        return float("nan")
    return 1.0 - float((step["valid_rmse"] / step["valid_rmse_without_trees"]) ** 2)


def _what_trees_add(flow: Flow) -> list[str]:
    idle = [f"{s['time']:.3g}" for s in flow.manifest["steps"] if explained(s) <= 0]
    if not idle:
        return []
    return ["", f"the trees add nothing to the closed form at t = {', '.join(idle)}"]


def _unfinished(run: RunDirectory) -> str:
    if not run.is_planned():
        raise ConfigError(f"{run.path} holds no planned run; start with: flowbdt fit TABLE -o RUN")
    missing = missing_steps(run)
    return (
        f"{run.path}: not complete, {len(missing)} steps missing"
        f" ({', '.join(map(str, missing))}); go on with: flowbdt fit -o {run.path} --resume"
    )
