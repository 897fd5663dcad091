"""Executors whose jobs wait in the queue of a batch system.

What is the same for all such systems. Each has a command line (a `Queue`), submissions (how states
of jobs are learned from it and from files), and an executor (what is sent).
"""

from __future__ import annotations

import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from ...errors import RunError
from ..numbered_jobs import STEPS, Batch, JobKind, last_line, name_of
from ..run_directory import RunDirectory
from .base import Executor, Reports
from .batch_settings import BatchSettings
from .job_follower import Follower, warn_of_holds
from .submission_records import DONE, FAILED, LOST, JobState, Place, Submissions, node_name

FILES_S = 20.0
"""Seconds that the files of a finished job may take to appear on a shared file system."""

TIMEOUT_S = 300


class Queue(ABC):
    """Command line of a batch system. All methods raise RunError when it does not answer."""

    program: ClassVar[str]
    """What submits."""
    site: ClassVar[str]
    """What it submits to, in words."""

    @classmethod
    def connect(cls) -> Self:
        """Return the queue of this machine. Raises RunError if it has none."""
        if not shutil.which(cls.program):
            raise RunError(
                f"{cls.program} is not in PATH: run this on a machine that submits to {cls.site}"
            )
        return cls()

    @staticmethod
    def _run(command: Sequence[str], folder: Path | None = None) -> str:
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunError(f"{command[0]} did not answer: {error}") from error
        if done.returncode:
            answer = " ".join((done.stderr or done.stdout).split())
            raise RunError(f"{command[0]} failed with exit status {done.returncode}: {answer}")
        return done.stdout


class BatchExecutor(BatchSettings, Executor):
    """An executor whose jobs wait in a queue.

    Whoever waits may be killed: the jobs go on, and another call finds them in the queue, waits for
    them, and submits only what nobody works on.
    """

    submissions: ClassVar[type[Submissions]]

    def run(self, run: RunDirectory, numbers: Sequence[int], kind: JobKind = STEPS) -> Reports:
        if not numbers:
            return
        queue = self.submissions.queue.connect()
        submissions = self.submissions(run)
        submissions.compare(queue)
        self.send(submissions, numbers, kind, queue)
        yield from self._wait(submissions, set(numbers), kind, queue)

    def send(
        self, submissions: Submissions, numbers: Sequence[int], kind: JobKind, queue: Queue
    ) -> None:
        """Submit those of ``numbers`` that no live job works on."""
        live = {name for name, job in submissions.jobs().items() if job.live}
        fresh = [n for n in numbers if node_name(kind.noun, n) not in live]
        if fresh:
            place = submissions.place()
            stages = [self.stage(submissions, fresh, kind, place)]
            submissions.submit(place, stages, self, queue, as_dag=False)

    def stage(
        self, submissions: Submissions, numbers: Sequence[int], kind: JobKind, place: Place
    ) -> Any:
        """Return the description of ``numbers``; those of a job that failed get one each."""
        submissions.update()
        failed = {name for name, job in submissions.jobs().items() if job.state == FAILED}
        alone = [n for n in numbers if node_name(kind.noun, n) in failed]
        rest = [n for n in numbers if n not in alone]
        batches: list[Batch] = [(n,) for n in alone]
        batches += kind.batches(submissions.run, rest, self.steps_per_job, self.request_cpus)
        return self.described(submissions, batches, kind, place)

    @abstractmethod
    def described(
        self, submissions: Any, batches: Sequence[Batch], kind: JobKind, place: Place
    ) -> Any:
        """Return the stage that does numbered jobs of a kind, batch by batch."""

    @abstractmethod
    def single(self, name: str, words: Sequence[str], place: Place) -> Any:
        """Return a stage of one job without a number, a command of flowbdt."""

    def retried(self, job: JobState, submissions: Submissions) -> bool:
        """Return whether what a failed job did is sent again: of several, each by itself."""
        return len(job.members) > 1 and not job.removed

    def _wait(
        self, submissions: Submissions, left: set[int], kind: JobKind, queue: Queue
    ) -> Reports:
        follower = Follower(submissions, queue)
        while left:
            warn_of_holds(follower.news())
            jobs = submissions.jobs()
            again = []
            for number in sorted(left):
                job = jobs[node_name(kind.noun, number)]
                if job.live:
                    continue
                report = outcome(submissions.run, kind, number, jobs)
                if "error" in report and self.retried(job, submissions):
                    again.append(number)
                    continue
                left.discard(number)
                yield report
            if again:
                self.send(submissions, again, kind, queue)
            if left:
                time.sleep(self.poll_s)


def outcome(
    run: RunDirectory, kind: JobKind, number: int, jobs: Mapping[str, JobState]
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
