"""Commands that search and compare: parse, call the library, print."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ..atomic_files import write_bytes, write_json
from ..config import RunConfig
from ..errors import ConfigError, InputError
from ..tables.formats import read_table
from ..training.run_directory import RunDirectory
from ..tuning.study import read_setup
from ..tuning.trial import TRIALS
from ..tuning.trial_table import trial_text
from ..tuning.tune_sampler import tune_sampler
from ..tuning.tune_settings import tune
from .fit_and_generate import configuration, read_mapping
from .jobs import job, quoted
from .options import TABLES, add_command, add_seed, add_settings, count, say, seed


def add_tuning(commands: Any) -> None:
    """Add the commands to the parser."""
    for add in (_add_tune, _add_trial, _add_tune_sampler, _add_compare, _add_report):
        add(commands)


def _add_tune(commands: Any) -> None:
    parser = add_command(
        commands, "tune", run_tune, "search settings for a table within a budget, and fit the best"
    )
    parser.add_argument("table", nargs="?", metavar="TABLE", help=f"no test events in it: {TABLES}")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="STUDY", help="folder")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML with settings to start from"
    )
    start.add_argument(
        "--from", dest="start", type=Path, metavar="RUN", help="start from the settings of a run"
    )
    add_settings(parser, "a setting to start from, or of the executor; may be repeated")
    parser.add_argument(
        "--budget", type=_positive, metavar="SECONDS", help="CPU seconds for all, about"
    )
    parser.add_argument("--trials", type=count, metavar="N", help="at most N trials")
    parser.add_argument(
        "--objectives",
        metavar="NAMES",
        help="scores and costs (train_s, us_per_event), all to be small; the first score decides"
        " (auc_gb,train_s)",
    )
    parser.add_argument(
        "--search",
        metavar="YAML",
        help="limits of parameters, e.g. '{max_depth: [2, 5], n_steps: 8, noise: fresh}'",
    )
    parser.add_argument(
        "--max-cost",
        type=_positive,
        metavar="X",
        help="give up trials that would train X times as long as the start (2)",
    )
    parser.add_argument(
        "--folds",
        type=count,
        metavar="K",
        help="fit and judge every trial K times, each time on another part (one held-out share)",
    )
    parser.add_argument("--parallel", type=count, metavar="N", help="trials proposed together")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue a study as it was begun; TABLE and what it was begun with may be left out",
    )


def _add_trial(commands: Any) -> None:
    parser = add_command(commands, "trial", run_trial, "do one trial of a study, here and now")
    parser.add_argument("study", metavar="STUDY", help="folder of the study")
    parser.add_argument("trial", type=seed, metavar="TRIAL", help="number, from 0")
    parser.add_argument("--threads", type=count, help="by default all this job may use")


def _add_tune_sampler(commands: Any) -> None:
    parser = add_command(
        commands,
        "tune-sampler",
        run_tune_sampler,
        "search solver and times for a trained run, without training",
    )
    parser.add_argument("run", metavar="RUN", help="run folder or model file")
    parser.add_argument("table", metavar="TABLE", help=f"events it was not trained on: {TABLES}")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder")
    parser.add_argument(
        "--evaluations",
        nargs="+",
        type=count,
        default=[8, 16, 32],
        metavar="N",
        help="evaluations of the velocity per event, one search for each (8 16 32)",
    )
    parser.add_argument(
        "--metric", default="separation", help="score to be made small (%(default)s)"
    )
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument(
        "--trials", type=count, default=60, metavar="N", help="samplers to try (%(default)s)"
    )
    parser.add_argument(
        "--interpolate",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether times between step models may be asked (%(default)s: if there are few)",
    )
    add_seed(parser)


def _add_compare(commands: Any) -> None:
    parser = add_command(
        commands, "compare", run_compare, "say which differences between generators are real"
    )
    parser.add_argument(
        "entries", nargs="+", metavar="ENTRY", help="report folder, file of events, or run"
    )
    _add_truth(parser)
    parser.add_argument("--columns", action="store_true", help="list single columns too")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also as JSON")


def _add_report(commands: Any) -> None:
    parser = add_command(
        commands, "report", run_report, "write one page about several runs, samples or reports"
    )
    parser.add_argument(
        "entries", nargs="+", metavar="ENTRY", help="run, file of events, or report folder"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder")
    _add_truth(parser)
    parser.add_argument(
        "--evaluations",
        nargs="+",
        type=count,
        default=[],
        metavar="N",
        help="also the separation of every run at so many evaluations, e.g. 4 8 16 32",
    )
    parser.add_argument(
        "--sampler",
        action="append",
        default=[],
        metavar="YAML",
        help="every run also by another way through its step models, without rejection, e.g."
        " '{solver: heun, n_steps: 4}'; may be repeated",
    )
    parser.add_argument(
        "--published",
        type=Path,
        metavar="FILE",
        help="YAML list of published figures to show beside: score, value, source, and if known"
        " error, events, note",
    )
    parser.add_argument(
        "--title", default="Generated events, side by side", help="of the page (%(default)s)"
    )


def _add_truth(parser: Any) -> None:
    """Add what events are judged by."""
    parser.add_argument("--real", metavar="FILE", help="real events to judge events and runs by")
    parser.add_argument("--training", metavar="FILE", help="those trained on: gives the floor")
    parser.add_argument("--quick", action="store_true", help="fewer classifiers, larger errors")
    add_seed(parser)


def _positive(text: str) -> float:
    try:
        value = float(text)
        if math.isfinite(value) and value > 0:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")


def run_tune(options: argparse.Namespace) -> None:
    """flowbdt tune."""
    if options.table is None and not options.resume:
        raise InputError("the table to learn is needed: flowbdt tune TABLE -o STUDY")
    print(tune_files(options, lambda line: say(options, line)))


def run_trial(options: argparse.Namespace) -> None:
    """flowbdt trial."""
    say(options, trial(options.study, options.trial, options.threads))


def run_tune_sampler(options: argparse.Namespace) -> None:
    """flowbdt tune-sampler."""
    say(options, tune_sampler_files(options, lambda line: say(options, line)))


def run_compare(options: argparse.Namespace) -> None:
    """flowbdt compare."""
    from .compare_and_report import compare_files

    print(compare_files(options))


def run_report(options: argparse.Namespace) -> None:
    """flowbdt report."""
    from .compare_and_report import report_files

    say(options, report_files(options))


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
        on_trial=lambda report: say(trial_text(report)),
    )
    objectives = read_setup(study)["objectives"]
    place = quoted(tuned.run.path)
    return (
        f"{tuned.text(objectives)}\n\ncomplete: {place}   next: flowbdt generate {place}"
        " -n 100000 -o new.h5"
    )


def trial(path: str, number: int, n_threads: int | None) -> str:
    """Do one trial; return a line about it."""
    read_setup(RunDirectory(path))
    report = job(TRIALS, path, number, n_threads)
    return f"trial {number} is done already" if report is None else trial_text(report)


def tune_sampler_files(options: argparse.Namespace, say: Say) -> str:
    """Search samplers for a trained run; write them, and return where they are."""
    if options.method is not None:
        raise ConfigError(
            "--method is gone: tune-sampler always searches by scores of the events (--metric), as"
            " methods without a score found nothing better; leave --method out"
        )
    results = tune_sampler(
        options.run,
        read_table(options.table),
        evaluations=options.evaluations,
        metric=options.metric,
        n_trials=options.trials,
        interpolate={"auto": None, "yes": True, "no": False}[options.interpolate],
        seed=options.seed,
        on_budget=lambda result: say(result.text(options.metric)),
    )
    options.output.mkdir(parents=True, exist_ok=True)
    budgets = [result.to_json() for result in results]
    write_json(options.output / "samplers.json", {"format": 1, "budgets": budgets})
    for result in results:
        text = yaml.safe_dump(
            result.sampler, sort_keys=False, default_flow_style=True, width=10_000
        )
        write_bytes(options.output / f"sampler_{result.evaluations}.yaml", text.encode())
    folder = quoted(options.output)
    return (
        f"complete: {folder}/samplers.json   next: flowbdt generate {quoted(options.run)} -n 100000"
        f' -o new.h5 --sampler "$(cat {folder}/sampler_{results[0].evaluations}.yaml)"'
    )
