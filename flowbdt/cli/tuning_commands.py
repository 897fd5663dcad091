"""What the commands for tuning do, with files in and files out."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import yaml

from ..atomic_files import write_bytes, write_json
from ..config import RunConfig
from ..tables.formats import read_table
from ..training.run_directory import RunDirectory
from ..tuning.messages import sampler_lines, summary, trial_line
from ..tuning.trial import TRIALS, read_setup
from ..tuning.tune_sampler import to_json, tune_sampler
from ..tuning.tune_settings import tune
from .fit_and_generate import configuration, read_mapping
from .jobs import job, quoted

Say = Callable[[str], None]


def tune_files(options: argparse.Namespace, say: Say) -> str:
    """Search settings for the table of a file; return what was found."""
    if options.start is not None:
        options.config = options.start / "config.yaml"
    study = RunDirectory(options.output)
    begun = options.resume and study.file("study.json").exists()
    known = RunConfig.from_mapping(read_setup(study)["base"]) if begun else None
    config = configuration(options, known)
    table = None
    if options.table is not None:
        columns, conditions = config.columns, config.conditions
        table = read_table(
            options.table, columns=columns, conditions=conditions, weight=config.weight
        )
    other = options.executor or any(text.startswith("executor") for text in options.set)
    tuned = tune(
        table,
        options.output,
        base=config,
        budget_s=options.budget,
        n_trials=options.trials,
        objectives=options.objectives and [n.strip() for n in options.objectives.split(",")],
        search=None
        if options.search is None
        else read_mapping("--search", options.search, "{name: value}"),
        max_cost=options.max_cost,
        folds=options.folds,
        parallel=options.parallel,
        executor=config.executor if other else None,
        resume=options.resume,
        on_trial=lambda report: say(trial_line(report)),
    )
    objectives = read_setup(study)["objectives"]
    place = quoted(tuned.run.path)
    return (
        f"{summary(tuned, objectives)}\n\ncomplete: {place}   next: flowbdt generate {place}"
        " -n 100000 -o new.h5"
    )


def trial(path: str, number: int, n_threads: int | None) -> str:
    """Do one trial; return a line about it."""
    read_setup(RunDirectory(path))
    report = job(TRIALS, path, number, n_threads)
    return f"trial {number} is done already" if report is None else trial_line(report)


def tune_sampler_files(options: argparse.Namespace, say: Say) -> str:
    """Search samplers for a trained run; write them, and return where they are."""
    results = tune_sampler(
        options.run,
        read_table(options.table),
        evaluations=options.evaluations,
        metric=options.metric,
        method=options.method,
        n_trials=options.trials,
        interpolate={"auto": None, "yes": True, "no": False}[options.interpolate],
        seed=options.seed,
        on_budget=lambda found: say(sampler_lines(found, options.metric)),
    )
    options.output.mkdir(parents=True, exist_ok=True)
    write_json(options.output / "samplers.json", to_json(results))
    for found in results:
        text = yaml.safe_dump(found.way, sort_keys=False, default_flow_style=True, width=10_000)
        write_bytes(options.output / f"sampler_{found.evaluations}.yaml", text.encode())
    folder = quoted(options.output)
    return (
        f"complete: {folder}/samplers.json   next: flowbdt generate {quoted(options.run)} -n 100000"
        f' -o new.h5 --sampler "$(cat {folder}/sampler_{results[0].evaluations}.yaml)"'
    )
