"""News about the jobs of a run, and warnings of those that wait for somebody."""

from __future__ import annotations

import time
import warnings
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ...errors import JobWarning, RunError, plural
from .submission_records import HELD, QUEUED, RUNNING, JobState, Submissions

if TYPE_CHECKING:
    from .batch_system import Queue


COMPARE_S = 60.0
"""Seconds without news after which the queue tells if the jobs are still there."""

IDLE_S = 600.0
"""Seconds in which nothing ran and nothing was new after which a warning says so."""


class Follower:
    """News about the jobs of a run: from their logs, and from the queue if those stay silent."""

    def __init__(self, submissions: Submissions, queue: Queue | None) -> None:
        self._submissions, self._queue = submissions, queue
        self._quiet_since = self._asked = time.monotonic()

    def news(self) -> list[JobState]:
        """Return the jobs whose state changed."""
        changed = self._submissions.update()
        now = time.monotonic()
        if self._queue is not None and now - max(self._quiet_since, self._asked) > COMPARE_S:
            try:
                changed += self._submissions.compare(self._queue)
            except RunError as error:  # a queue that does not answer now may do so later
                warnings.warn(f"{error}; asking again later", JobWarning, stacklevel=2)
            self._asked = now
        if changed:
            self._quiet_since = now
        elif now - self._quiet_since > IDLE_S:
            warn_of_waiting(self._submissions)
            self._quiet_since = now
        return changed


def warn_of_holds(jobs: Sequence[JobState]) -> None:
    """Warn of jobs that are held, with what to do."""
    for job in jobs:
        if job.state == HELD:
            held = f"{job.title} is held: {job.reason}: {job.advice}"
            warnings.warn(held, JobWarning, stacklevel=2)


def warn_of_waiting(submissions: Submissions) -> None:
    """Warn if jobs wait in the queue and none runs, with how to find out why."""
    jobs: Collection[JobState] = submissions.jobs().values()
    queued = {job.job: job for job in jobs if job.state == QUEUED and job.job is not None}
    if queued and not any(job.state == RUNNING for job in jobs):
        first = queued[min(queued)]
        warnings.warn(
            f"{plural(len(queued), 'job')} in the queue and none runs; if the pool is not just"
            f" full, '{submissions.why_waiting(first)}' tells why",
            JobWarning,
            stacklevel=3,
        )
