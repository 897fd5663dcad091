"""``flowbdt watch``: the states of the jobs of a run, until all have ended."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from ..errors import ConfigError, FlowbdtError
from . import options
from .cluster_jobs import close_run, open_planned, quoted
from .options import is_silent, say

if TYPE_CHECKING:
    from ..training.executors.batch_system import Queue
    from ..training.executors.submission_records import JobState, Submissions
    from ..training.run_directory import RunDirectory

ROWS = 15
"""Number of jobs shown one by one."""

WIDTH = 100


@click.command()
@options.planned
@options.flag("--once", "Print the state of the jobs once, then end.")
@options.printing
def watch_command(run: Path, once: bool) -> None:
    """Follow the jobs of a run, then collect it.

    Samples that were submitted are joined, too. All that is shown comes from the folder RUN and the
    queue, so this can be stopped and started at any time, also by more than one person.
    """
    from ..generation.sample_jobs import assemble_sample, is_assembled, sample_jobs
    from ..training.executors.job_follower import Follower

    folder = open_planned(run)
    submissions = _latest(folder)
    queue = _queue(submissions)
    follower = Follower(submissions, queue)
    follower.news()
    if queue is not None:
        submissions.compare(queue)
    screen = Screen(None if is_silent() else sys.stdout)
    screen.show(job_table(submissions.jobs().values()))
    while not once and any(submissions.live()):
        time.sleep(submissions.poll_s)
        submissions.find()
        if follower.news():
            screen.show(job_table(submissions.jobs().values()))
    say("", jobs={name: _plain(job) for name, job in submissions.jobs().items()})
    if once:
        return
    say(close_run(run), run=run)
    for sample in sample_jobs(folder):
        if not is_assembled(folder, sample):
            say(assemble_sample(folder, sample), samples=[sample.plan(folder)["output"]])


def _plain(job: JobState) -> dict[str, Any]:
    """Return the state of a job in plain values."""
    told = ("state", "number", "attempts", "machine", "reason", "advice", "memory_mib")
    return {name: getattr(job, name) for name in told}


def _latest(run: RunDirectory) -> Submissions:
    """Return the submissions to the system that got the latest. Raises ConfigError without any."""
    from ..training.executors import EXECUTORS, BatchExecutor
    from ..training.executors.submission_records import RECORD

    entries = map(EXECUTORS.get, EXECUTORS.names())
    systems = [entry.submissions for entry in entries if issubclass(entry, BatchExecutor)]
    records = {path: s for s in systems for path in run.path.glob(f"{s.folder}/*/{RECORD}")}
    if not records:
        path = run.path
        raise ConfigError(
            f"{path}: nothing was submitted; do so with: flowbdt submit {quoted(path)}"
        )
    return records[max(records, key=lambda path: path.stat().st_mtime)](run)


def _queue(submissions: Submissions) -> Queue | None:
    """Return the queue if it can be asked here; HTCondor's logs alone tell nearly as much."""
    try:
        return submissions.queue.connect()
    except FlowbdtError:
        return None


class Screen:
    """Output that replaces its last text on a terminal; elsewhere it prints new lines only."""

    def __init__(self, out: TextIO | None) -> None:
        self._out, self._shown = out, ""

    def show(self, text: str) -> None:
        """Show ``text`` if it is new."""
        if self._out is None or text == self._shown:
            return
        if self._out.isatty():
            up = self._shown.count("\n") + 1 if self._shown else 0
            back = f"\x1b[{up}F\x1b[J" if up else ""
            self._out.write(f"{back}{text}\n")
        else:
            old = set(self._shown.splitlines())
            self._out.write("".join(f"{line}\n" for line in text.splitlines() if line not in old))
        self._out.flush()
        self._shown = text


def job_table(jobs: Iterable[JobState]) -> str:
    """Return the number of steps, parts and so on in each state, and a line for each job that runs
    or needs attention; ``jobs`` has a job of several of them as often."""
    from ..training.executors import submission_records as s

    jobs = list(jobs)
    counts = Counter(job.state for job in jobs)
    states = (s.WAITING, s.QUEUED, s.RUNNING, s.HELD, s.DONE, s.FAILED, s.LOST)
    lines = ["   ".join(f"{state} {counts[state]}" for state in states if counts[state])]
    order = (s.HELD, s.FAILED, s.LOST, s.RUNNING)
    several = list({id(job): job for job in jobs}.values())
    shown = sorted((j for j in several if j.state in order), key=lambda j: order.index(j.state))
    for job in shown[:ROWS]:
        lines.append(_line(job, job.machine if job.state == s.RUNNING else job.reason))
        if job.state == s.HELD:
            lines.append(f"    {job.advice}")
    if len(shown) > ROWS:
        lines.append(f"  ... and {len(shown) - ROWS} more")
    return "\n".join(lines)


def _line(job: JobState, place: str) -> str:
    attempt = f"attempt {job.attempts}" if job.attempts > 1 else ""
    memory = f"{job.memory_mib} MiB" if job.memory_mib else ""
    words = [f"{job.title:12s}", f"{job.state:8s}", job.number, attempt, memory, place]
    return ("  " + "  ".join(word for word in words if word))[:WIDTH]
