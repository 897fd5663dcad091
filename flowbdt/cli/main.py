"""The program ``flowbdt``: its commands by topic, and the exit status of each outcome."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from .. import __version__
from ..errors import FlowbdtError
from . import cluster_jobs as jobs
from .cite_methods import cite_command
from .ends_by_signals import Ended, Ends, end_of, ends_by_signals
from .fit_runs import fit_command, show_command
from .generate_events import export_command, generate_command, impute_command
from .init_settings import init_command
from .judge_events import (
    calo_group,
    compare_command,
    evaluate_command,
    report_command,
    score_command,
)
from .options import VALUES
from .public_data import data_group, demo_command
from .refine_events import refine_command
from .response_chains import response_group
from .shower_networks import showers_group
from .tune_runs import distil_command, trial_command, tune_command, tune_sampler_command
from .unfold_data import replica_command, unfold_command
from .watch_jobs import watch_command

TOPICS = {
    "Train": (demo_command, init_command, fit_command, show_command, cite_command),
    "Generate": (generate_command, impute_command, export_command),
    "Judge": (evaluate_command, compare_command, report_command, score_command, calo_group),
    "Tune": (tune_command, trial_command, tune_sampler_command, distil_command),
    "Detector": (response_group, showers_group, unfold_command, refine_command),
    "Cluster jobs": (
        jobs.plan_command,
        jobs.step_command,
        jobs.collect_command,
        jobs.submit_command,
        watch_command,
        jobs.part_command,
        jobs.merge_command,
        replica_command,
    ),
    "Data": (data_group,),
}


class CommandsByTopic(click.Group):
    """All commands; help lists them by topic."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = formatter.width - 6 - max(map(len, self.commands))
        for topic, commands in TOPICS.items():
            with formatter.section(topic):
                formatter.write_dl([(str(c.name), c.get_short_help_str(width)) for c in commands])

    def invoke(self, ctx: click.Context) -> int:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                super().invoke(ctx)
                _print_values(ctx)
        except BaseException as error:
            return _status(error, ctx.find_object(Ends) or Ends())
        return 0


def _print_values(ctx: click.Context) -> None:
    """Print what a command that ended well kept for ``--json``."""
    if ctx.meta.get("json"):
        from ..atomic_files import json_bytes

        click.echo(json_bytes(ctx.meta.get(VALUES, {})).decode(), nl=False)


def _status(error: BaseException, ends: Ends) -> int:
    """Say why a command ended, and return its exit status; raise anything unexpected again."""
    if ends.lost is not None:
        error = end_of(ends.lost)
    ends.told()
    if isinstance(error, BrokenPipeError):
        return 0
    if isinstance(error, KeyboardInterrupt):
        # clears CPython's mark of an unhandled interrupt, else the exit status is the signal's
        exec("")
        print("flowbdt: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    if isinstance(error, Ended):
        name = signal.Signals(error.number).name
        print(f"flowbdt: ended by {name}; what was finished is kept", file=sys.stderr)
        return 128 + error.number
    if isinstance(error, (FlowbdtError, OSError)):  # such as a folder that is a file
        print(f"flowbdt: error: {error}", file=sys.stderr)
        return 1
    raise error


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"flowbdt: warning: {message}", file=sys.stderr)


@click.group(
    cls=CommandsByTopic,
    commands=[command for commands in TOPICS.values() for command in commands],
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog="Start with 'flowbdt demo'. Every command explains itself with --help.",
)
@click.version_option(__version__, message="flowbdt %(version)s")
def flowbdt() -> None:
    """Learn the distribution of a table of events with boosted trees and flow matching, generate
    new events, and judge them.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0 done, 1 an error with a message, 2 bad usage."""
    if arguments is None:  # not called by other code; read by `flowbdt.trees.xgboost_on_demand`
        os.environ.setdefault("FLOWBDT_PROGRAM", "1")
        gc.set_threshold(20_000)  # what is imported stays: no need to look for garbage in it
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not every terminal knows every letter
            stream.reconfigure(errors="replace")
    try:
        with ends_by_signals() as ends:
            status = flowbdt.main(arguments, "flowbdt", standalone_mode=False, obj=ends)
            return int(status or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
