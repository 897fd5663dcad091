"""The executor ``htcondor``: submit jobs that are not in the queue yet, and wait for all."""

from __future__ import annotations

import time
import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ....errors import JobWarning, RunError, plural
from ...numbered_jobs import STEPS, Batch, JobKind, last_line, name_of
from ...run_directory import RunDirectory
from ..base import EXECUTORS, Executor, Reports
from ..local import last_bits
from .submissions import DONE, FAILED, HELD, LOST, QUEUED, RUNNING, JobState, Pool, Submissions
from .submit_files import JobSettings, Place, Stage, node_name, numbered

COMPARE_S = 60.0
"""Seconds without news after which the queue tells if the jobs are still there."""

IDLE_S = 600.0
"""Seconds in which nothing ran and nothing was new after which a warning says so."""

FILES_S = 20.0
"""Seconds that the files of a finished job may take to appear on a shared file system."""


@EXECUTORS.register("htcondor")
class HTCondor(JobSettings, Executor):
    """Jobs of an HTCondor pool; `JobSettings` has the settings, a held job gives a JobWarning.

    Whoever waits may be killed: the jobs go on, and another call finds them in the queue, waits for
    them, and submits only what nobody works on.
    """

    def run(self, run: RunDirectory, numbers: Sequence[int], kind: JobKind = STEPS) -> Reports:
        if not numbers:
            return
        pool = Pool.connect()
        submissions = Submissions(run)
        submissions.compare(pool)
        self.send(submissions, numbers, kind, pool)
        yield from self._wait(submissions, set(numbers), kind, pool)

    def send(
        self, submissions: Submissions, numbers: Sequence[int], kind: JobKind, pool: Pool
    ) -> None:
        """Submit those of ``numbers`` that no live job works on."""
        live = {name for name, job in submissions.jobs().items() if job.live}
        fresh = [n for n in numbers if node_name(kind.noun, n) not in live]
        if fresh:
            place = submissions.place()
            stages = [self.stage(submissions.run, fresh, kind, place)]
            submissions.submit(place, stages, self, pool, as_dag=False)

    def stage(
        self, run: RunDirectory, numbers: Sequence[int], kind: JobKind, place: Place
    ) -> Stage:
        """Return the description of ``numbers``; those of a job that failed get one each."""
        submissions = Submissions(run)
        submissions.update()
        failed = {name for name, job in submissions.jobs().items() if job.state == FAILED}
        alone = [n for n in numbers if node_name(kind.noun, n) in failed]
        rest = [n for n in numbers if n not in alone]
        batches: list[Batch] = [(n,) for n in alone]
        batches += kind.batches(run, rest, self.steps_per_job, self.request_cpus)
        inputs, needs = kind.inputs(run, "$(name)"), kind.needs(run)
        return numbered(kind, inputs, needs, batches, self.complete(), place)

    def complete(self) -> JobSettings:
        """Return the settings with the variables that jobs get from this process."""
        return replace(self, env={**last_bits(), **self.env})

    def _wait(self, submissions: Submissions, left: set[int], kind: JobKind, pool: Pool) -> Reports:
        follower = Follower(submissions, pool)
        while left:
            warn_of_holds(follower.news())
            jobs = submissions.jobs()
            again = []
            for number in sorted(left):
                job = jobs[node_name(kind.noun, number)]
                if job.live:
                    continue
                report = outcome(submissions.run, kind, number, jobs)
                if "error" in report and len(job.members) > 1 and not job.removed:
                    again.append(number)  # one of them failed, or each: by themselves
                    continue
                left.discard(number)
                yield report
            if again:
                self.send(submissions, again, kind, pool)
            if left:
                time.sleep(self.poll_s)


class Follower:
    """News about the jobs of a run: from their logs, and from the queue if those stay silent."""

    def __init__(self, submissions: Submissions, pool: Pool | None) -> None:
        self._submissions, self._pool = submissions, pool
        self._quiet_since = self._asked = time.monotonic()

    def news(self) -> list[JobState]:
        """Return the jobs whose state changed."""
        changed = self._submissions.update()
        now = time.monotonic()
        if self._pool is not None and now - max(self._quiet_since, self._asked) > COMPARE_S:
            try:
                changed += self._submissions.compare(self._pool)
            except RunError as error:  # a pool that does not answer now may do so later
                warnings.warn(f"{error}; asking again later", JobWarning, stacklevel=2)
            self._asked = now
        if changed:
            self._quiet_since = now
        elif now - self._quiet_since > IDLE_S:
            warn_of_waiting(self._submissions.jobs().values())
            self._quiet_since = now
        return changed


def warn_of_holds(jobs: Sequence[JobState]) -> None:
    """Warn of jobs that are held, with what to do."""
    for job in jobs:
        if job.state == HELD:
            held = f"{job.title} is held: {job.reason}: {job.advice}"
            warnings.warn(held, JobWarning, stacklevel=2)


def warn_of_waiting(jobs: Collection[JobState]) -> None:
    """Warn if jobs wait in the queue and none runs, with how to find out why."""
    queued = sorted({job.job for job in jobs if job.state == QUEUED and job.job})
    if queued and not any(job.state == RUNNING for job in jobs):
        cluster, process = queued[0]
        warnings.warn(
            f"{plural(len(queued), 'job')} in the queue and none runs; if the pool is not just"
            f" full, 'condor_q -better-analyze {cluster}.{process}' tells which machines would do",
            JobWarning,
            stacklevel=3,
        )


def outcome(
    run: RunDirectory, kind: JobKind, number: int, jobs: dict[str, JobState]
) -> dict[str, Any]:
    """Return the report of a job that ended, or why there is none."""
    job = jobs[node_name(kind.noun, number)]
    deadline = time.monotonic() + (FILES_S if job.state == DONE else 0.0)
    while True:
        report = kind.receive(run, number)
        if report is not None:
            return report
        if time.monotonic() >= deadline:
            return {kind.noun: number, "error": _why(run, kind, number, job)}
        time.sleep(0.2)


def _why(run: RunDirectory, kind: JobKind, number: int, job: JobState) -> str:
    if job.state == DONE:
        return "it ended well, but its files are not here or not whole"
    if job.state == LOST:
        return job.reason
    last = last_line(run.file(f"{kind.logs(name_of(number))}.err"))
    return f"{job.reason}: {last}" if last and job.reason.startswith("exit") else job.reason
