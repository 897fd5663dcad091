"""The command line: parse, call the library, print. Nothing is computed here."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import FlowbdtError, InputError
from .options import TABLES, add_command, add_seed, add_settings, bar, count, say, seed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0 done, 1 an error with a message, 2 bad usage."""
    options = build_parser().parse_args(arguments)
    # threads that wait asleep, not spinning: beside other work on the machine a spinning fit took
    # four times the CPU time; read when XGBoost is loaded, here and in joblib's workers
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            options.command(options)
    except FlowbdtError as error:
        print(f"flowbdt: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        print("flowbdt: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    return 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"flowbdt: warning: {message}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; its texts are the manual."""
    parser = argparse.ArgumentParser(
        prog="flowbdt",
        description="Learn the distribution of a table of events with boosted trees and flow"
        " matching, generate new events, and judge them.",
        epilog="Start with 'flowbdt demo'. Every command explains itself with --help.",
    )
    parser.add_argument("--version", action="version", version=f"flowbdt {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    from .calorimeter import add_calo
    from .datasets import add_data
    from .distil import add_distil
    from .export import add_export
    from .tuning import add_tuning

    own = [_add_demo, _add_fit, _add_generate, _add_evaluate, _add_show]
    jobs = [_add_plan, _add_step, _add_collect, _add_submit, _add_watch, _add_part, _add_merge]
    for add in (*own, *jobs, add_tuning, add_data, add_export, add_distil, add_calo):
        add(commands)
    return parser


def _add_demo(commands: Any) -> None:
    parser = add_command(
        commands, "demo", run_demo, "fit, generate and judge top jets that ship with the package"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("flowbdt-demo"), help="folder (%(default)s)"
    )
    add_seed(parser, default=1)


def _add_fit(commands: Any) -> None:
    parser = add_command(commands, "fit", run_fit, "learn a table and write a run folder")
    _add_planning(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted run; TABLE may be left out once it was planned",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check and print every setting, and with TABLE what is done to each column",
    )


def _add_planning(parser: Any) -> None:
    """Add what `fit` and `plan` have in common."""
    parser.add_argument("table", nargs="?", metavar="TABLE", help=f"{TABLES}; one column each")
    parser.add_argument("-o", "--output", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML with settings")
    add_settings(
        parser,
        "one setting, e.g. n_steps=20, solver=heun, booster.max_depth=8,"
        " conditions=[pt], relations=['tau21 = tau2 / tau1']; may be repeated and wins over"
        " --config. 'flowbdt fit --dry-run' prints all of them",
    )


def _add_plan(commands: Any) -> None:
    parser = add_command(commands, "plan", run_plan, "write a run folder with one task per step")
    _add_planning(parser)
    parser.set_defaults(resume=False, dry_run=False)


def _add_step(commands: Any) -> None:
    parser = add_command(commands, "step", run_step, "train steps of a planned run, here and now")
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("steps", nargs="+", type=seed, metavar="STEP", help="number, from 0")
    parser.add_argument("--threads", type=count, help="by default all this job may use")
    parser.add_argument(
        "--files",
        action="store_true",
        help="only print what to copy to train the step elsewhere, and what to bring back",
    )


def _add_collect(commands: Any) -> None:
    parser = add_command(
        commands, "collect", run_collect, "check all steps of a run and close it, or say what lacks"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")


def _add_submit(commands: Any) -> None:
    parser = add_command(
        commands, "submit", run_submit, "send what is missing of a run to HTCondor"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a planned run")
    add_settings(parser, "a setting of the executor, e.g. executor.request_memory=2000")
    parser.add_argument(
        "--dag",
        action="store_true",
        help="as one DAG: steps, then collect, then what else is asked for",
    )
    parser.add_argument("--dry-run", action="store_true", help="print all that would be sent")
    parser.add_argument(
        "--generate", type=count, metavar="N", help="make N events with the trained run, in parts"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=f"of the events: {TABLES}"
    )
    parser.add_argument("--parts", type=count, help="jobs to generate in; 250,000 events each")
    _add_sampling(parser)
    parser.add_argument(
        "--evaluate", metavar="REAL", help="real events to judge the generated ones against"
    )


def _add_part(commands: Any) -> None:
    parser = add_command(commands, "part", run_part, "generate one part of a submitted sample")
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("sample", metavar="SAMPLE", help="name of its file, without ending")
    parser.add_argument("part", type=seed, metavar="PART", help="number, from 0")
    parser.add_argument("--threads", type=count, help="by default all this job may use")


def _add_merge(commands: Any) -> None:
    parser = add_command(commands, "merge", run_merge, "put the parts of a sample together")
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("sample", metavar="SAMPLE", help="name of its file, without ending")


def _add_watch(commands: Any) -> None:
    parser = add_command(
        commands, "watch", run_watch, "follow the jobs of a run, and collect it when they ended"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--once", action="store_true", help="print how things stand, then end")


def _add_generate(commands: Any) -> None:
    parser = add_command(commands, "generate", run_generate, "make new events with a trained run")
    parser.add_argument("run", metavar="RUN", help="run folder or model file")
    parser.add_argument("-n", "--events", type=count, metavar="N", help="how many events")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=TABLES)
    parser.add_argument(
        "--no-compile",
        action="store_true",
        help="let XGBoost do the work: slower, the same events but for a few that rounding moves",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on where an interrupted generation of the same FILE.h5 was; the same bytes",
    )
    parser.add_argument(
        "--block",
        type=count,
        metavar="ROWS",
        help="events that are worked on together; changes memory and time, not the events",
    )
    _add_sampling(parser)


def _add_sampling(parser: Any) -> None:
    """Add what decides which events are generated."""
    add_seed(parser)
    parser.add_argument(
        *("--conditions", "--cond"), metavar="FILE", help="table of conditions, a row per event"
    )
    parser.add_argument("--source", metavar="FILE", help="table of events to start from")
    parser.add_argument(
        "--sampler",
        metavar="YAML",
        help="another way through the same step models, without rejection, e.g."
        " '{solver: heun, n_steps: 4}'; of solver, n_steps, spacing, interpolate",
    )


def _add_evaluate(commands: Any) -> None:
    parser = add_command(commands, "evaluate", run_evaluate, "judge generated events against real")
    parser.add_argument(
        "real", metavar="REAL", help=f"real events that were not trained on: {TABLES}"
    )
    parser.add_argument("generated", metavar="GENERATED", help="generated events")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="REPORT", help="folder")
    parser.add_argument(
        "--training",
        metavar="FILE",
        help="the real events that were trained on: gives the floor and the memorisation check;"
        " without it the floor comes from two halves of REAL",
    )
    parser.add_argument(
        "--relation", action="append", default=[], metavar="'A = B / C'", help="relation to check"
    )
    parser.add_argument("--weight", metavar="COLUMN", help="column of REAL with event weights")
    parser.add_argument("--quick", action="store_true", help="fewer classifiers, larger errors")
    add_seed(parser)


def _add_show(commands: Any) -> None:
    parser = add_command(commands, "show", run_show, "tell what a run is and what it learned")
    parser.add_argument("run", metavar="RUN", help="run folder or model file")


def run_demo(options: argparse.Namespace) -> None:
    """flowbdt demo."""
    from .demo import demo

    print(demo(options.output, seed=options.seed, bar=bar(options)))


def run_fit(options: argparse.Namespace) -> None:
    """flowbdt fit."""
    from .fit_and_generate import dry_run, fit

    if options.dry_run:
        print(dry_run(options))
        return
    if options.output is None:
        raise InputError("say where the run goes: flowbdt fit TABLE -o RUN")
    run = fit(options, bar=bar(options))
    say(options, f"complete: {run.path}   next: flowbdt generate {run.path} -n 100000 -o new.h5")


def run_plan(options: argparse.Namespace) -> None:
    """flowbdt plan."""
    from .jobs import plan

    say(options, plan(options))


def run_step(options: argparse.Namespace) -> None:
    """flowbdt step."""
    from .jobs import step, step_files

    if options.files:
        print("\n".join(step_files(options.run, options.steps)))
        return
    for line in step(options.run, options.steps, options.threads):
        say(options, line)


def run_collect(options: argparse.Namespace) -> None:
    """flowbdt collect."""
    from .jobs import collect_run

    say(options, collect_run(options.run))


def run_submit(options: argparse.Namespace) -> None:
    """flowbdt submit."""
    from .jobs import submit

    say(options, submit(options))


def run_part(options: argparse.Namespace) -> None:
    """flowbdt part."""
    from .jobs import part

    say(options, part(options.run, options.sample, options.part, options.threads))


def run_merge(options: argparse.Namespace) -> None:
    """flowbdt merge."""
    from .jobs import merge_sample

    say(options, merge_sample(options.run, options.sample))


def run_watch(options: argparse.Namespace) -> None:
    """flowbdt watch."""
    from .watch import watch

    say(options, watch(options.run, once=options.once, out=None if options.quiet else sys.stdout))


def run_generate(options: argparse.Namespace) -> None:
    """flowbdt generate."""
    from .fit_and_generate import generate

    say(options, generate(options, bar=bar(options)))


def run_evaluate(options: argparse.Namespace) -> None:
    """flowbdt evaluate."""
    from .fit_and_generate import evaluate_files

    print(evaluate_files(options))


def run_show(options: argparse.Namespace) -> None:
    """flowbdt show."""
    from .fit_and_generate import show

    print(show(options.run))
