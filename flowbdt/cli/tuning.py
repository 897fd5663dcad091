"""Commands that search and compare: parse, call the library, print."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from ..errors import InputError
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
    parser.add_argument(
        "--method",
        choices=("metric", "grid", "times", "divergence"),
        default="metric",
        help="search by the metric, or take what is found without one (%(default)s)",
    )
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
    from .tuning_commands import tune_files

    if options.table is None and not options.resume:
        raise InputError("the table to learn is needed: flowbdt tune TABLE -o STUDY")
    print(tune_files(options, lambda line: say(options, line)))


def run_trial(options: argparse.Namespace) -> None:
    """flowbdt trial."""
    from .tuning_commands import trial

    say(options, trial(options.study, options.trial, options.threads))


def run_tune_sampler(options: argparse.Namespace) -> None:
    """flowbdt tune-sampler."""
    from .tuning_commands import tune_sampler_files

    say(options, tune_sampler_files(options, lambda line: say(options, line)))


def run_compare(options: argparse.Namespace) -> None:
    """flowbdt compare."""
    from .compare_and_report import compare_files

    print(compare_files(options))


def run_report(options: argparse.Namespace) -> None:
    """flowbdt report."""
    from .compare_and_report import report_files

    say(options, report_files(options))
