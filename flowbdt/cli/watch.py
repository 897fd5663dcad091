"""`flowbdt watch`: what the jobs of a run are doing, until all of them ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from ..errors import ConfigError, FlowbdtError
from ..generation.sample_jobs import is_merged, merge, sample_jobs
from ..training.executors.htcondor.executor import Follower
from ..training.executors.htcondor.pool import Pool, connect
from ..training.executors.htcondor.submissions import (
    DONE,
    FAILED,
    HELD,
    LOST,
    QUEUED,
    RUNNING,
    WAITING,
    JobState,
    Submissions,
)
from .jobs import collect_run, planned, quoted

STATES = (WAITING, QUEUED, RUNNING, HELD, DONE, FAILED, LOST)

ROWS = 15
"""So many jobs are shown one by one."""

WIDTH = 100


def watch(path: Path, *, once: bool, out: TextIO | None, poll_s: float = 1.0) -> str:
    """Follow the event logs of a run's submissions until no job is left, then collect the run
    and put samples together.

    Nothing is kept but what the logs say, so this can be stopped and started at any time, also by
    several people at once.

    Parameters
    ----------
    once : only say how things stand
    out : where the table is shown; None for nowhere

    Raises
    ------
    ConfigError
        If nothing was submitted.
    IncompleteRun
        If steps, or parts of a sample, are missing when all jobs have ended.
    """
    run = planned(path)
    submissions = Submissions(run)
    if not submissions.all:
        raise ConfigError(
            f"{path}: nothing was submitted; do so with: flowbdt submit {quoted(path)}"
        )
    pool = _pool()
    follower = Follower(submissions, pool)
    follower.news()
    screen = Screen(out)
    if pool is not None:
        submissions.compare(pool)
    screen.show(table(submissions.jobs().values()))
    while not once and any(submissions.live()):
        time.sleep(poll_s)
        submissions.find()
        if follower.news():
            screen.show(table(submissions.jobs().values()))
    return "" if once else _finish(path)


def _finish(path: Path) -> str:
    """Collect the run, and put together the samples of which that was not done yet."""
    said = [collect_run(path)]
    run = planned(path)
    said += [merge(run, work) for work in sample_jobs(run) if not is_merged(run, work)]
    return "\n".join(said)


def _pool() -> Pool | None:
    """Return HTCondor if it is here; the logs alone tell nearly as much."""
    try:
        return connect()
    except FlowbdtError:
        return None


class Screen:
    """Shows a text in place of the one before on a terminal; elsewhere, new lines only."""

    def __init__(self, out: TextIO | None) -> None:
        self._out, self._shown = out, ""

    def show(self, text: str) -> None:
        """Show ``text`` if it differs from what is shown."""
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


def table(jobs: Iterable[JobState]) -> str:
    """Return how many jobs are in which state, and a line for each that needs a look or runs."""
    jobs = list(jobs)
    counts = Counter(job.state for job in jobs)
    lines = ["   ".join(f"{state} {counts[state]}" for state in STATES if counts[state])]
    order = (HELD, FAILED, LOST, RUNNING)
    shown = sorted((j for j in jobs if j.state in order), key=lambda j: order.index(j.state))
    lines += [line for job in shown[:ROWS] for line in _lines(job)]
    if len(shown) > ROWS:
        lines.append(f"  ... and {len(shown) - ROWS} more")
    return "\n".join(lines)


def _lines(job: JobState) -> list[str]:
    name = job.name.replace("-", " ")
    number = "" if job.job is None else f"{job.job[0]}.{job.job[1]}"
    attempt = f"attempt {job.attempts}" if job.attempts > 1 else ""
    memory = f"{job.memory_mib} MiB" if job.memory_mib else ""
    place = job.machine if job.state == RUNNING else job.reason
    words = [f"{name:12s}", f"{job.state:8s}", number, attempt, memory, place]
    line = "  " + "  ".join(word for word in words if word)
    return [line[:WIDTH]] + ([f"    {job.advice}"] if job.state == HELD else [])
