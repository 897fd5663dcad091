"""Jobs in the queue of a batch system: settings, records of submissions, following, collecting.

What is the same for all such systems. Each has a command line (a `Queue`), submissions (how states
of jobs are learned from it and from files), and an executor (what is sent).

A submission is a folder of the run, as ``condor/0001``, with a record that is written before
anything is sent. So a process that follows may be killed and started again by anybody.
"""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from ... import atomic_files
from ...errors import FlowbdtError, JobWarning, RunError, plural
from ...typed_settings import AtLeastOne, AtLeastZero, NotNegative, check_settings
from ..numbered_jobs import STEPS, Batch, JobKind, last_line, name_of
from ..run_directory import RunDirectory
from .base import Executor, Reports
from .local import last_bits

RECORD = "submission.json"
FORMAT = 1

WAITING, QUEUED, RUNNING, HELD = "waiting", "queued", "running", "held"
DONE, FAILED, LOST = "done", "failed", "lost"
LIVE = (WAITING, QUEUED, RUNNING, HELD)
"""States that do not end a job."""

COMPARE_S = 60.0
"""Seconds without news after which the queue tells if the jobs are still there."""

IDLE_S = 600.0
"""Seconds in which nothing ran and nothing was new after which a warning says so."""

FILES_S = 20.0
"""Seconds that the files of a finished job may take to appear on a shared file system."""

TIMEOUT_S = 300

Job = tuple[int, int]
"""The numbers by which a batch system knows a job: of what was submitted, and within it."""


@dataclass(frozen=True)
class BatchSettings:
    """Settings of all executors whose jobs wait in a queue.

    Parameters
    ----------
    python : interpreter on the node that has flowBDT; by default the one that submits
    request_cpus : cores per job, all used within one step
    steps_per_job : steps of a job at most; by default as many as last 15 s
    request_memory : MiB per job; by default from the cost model
    max_retries : further attempts of a job that fails for lack of memory or of a node
    submit : further lines for the batch system
    env : environment variables of the jobs
    poll_s : seconds between two looks at the jobs
    """

    python: str | None = None
    request_cpus: AtLeastOne = 1
    steps_per_job: AtLeastOne | None = None
    request_memory: AtLeastOne | None = None
    max_retries: AtLeastZero = 3
    submit: dict[str, str | int | float | bool] = field(default_factory=dict)
    env: dict[str, str | int | float] = field(default_factory=dict)
    poll_s: NotNegative = 1.0

    def __post_init__(self) -> None:
        check_settings(vars(self), type(self), "executor setting")

    def complete(self) -> Self:
        """Return the settings with the variables that jobs get from this process."""
        return replace(self, env={**last_bits(), **self.env})


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


@dataclass(frozen=True)
class Place:
    """The run (absolute), the folder of a submission within it, and the mark of its jobs.

    By the mark the queue tells the jobs of a submission from others.
    """

    run: Path
    folder: str
    mark: str


@dataclass(frozen=True)
class Stage:
    """Jobs that are sent together: each with some numbers, or a single one without a number.

    ``description`` is text for the batch system; ``folders`` of the run are made before the jobs
    are sent, for what comes back.
    """

    name: str
    description: str
    batches: tuple[Batch, ...] | None = None
    folders: tuple[str, ...] = ()

    def nodes(self) -> dict[str, list[str]]:
        """Return the names of the jobs and of what each of them does. A job is named after its
        first number."""
        if self.batches is None:
            return {self.name: [self.name]}
        names = ([node_name(self.name, n) for n in batch] for batch in self.batches)
        return {batch[0]: batch for batch in names}


def node_name(noun: str, number: int) -> str:
    """Return the name of the job that does a number."""
    return f"{noun}-{number}"


@dataclass
class JobState:
    """State of one job, as far as it is known; ``members``: names of what it does."""

    separator: ClassVar[str] = "."

    name: str
    members: tuple[str, ...] = ()
    state: str = WAITING
    job: Job | None = None
    attempts: int = 0
    machine: str = ""
    reason: str = ""
    advice: str = ""
    memory_mib: int = 0
    n_holds: int = 0
    removed: bool = False
    lacks_memory: bool = False

    @property
    def title(self) -> str:
        """Its name for people: step 3, or step 3 and 4 more."""
        more = f" and {len(self.members) - 1} more" if len(self.members) > 1 else ""
        return self.name.replace("-", " ") + more

    @property
    def number(self) -> str:
        """Its name in the queue; '' before it has one."""
        return "" if self.job is None else self.separator.join(map(str, self.job))

    @property
    def live(self) -> bool:
        """True while the job may still end well."""
        return self.state in LIVE


@dataclass
class Submission(ABC):
    """One submission: its record, and the states of its jobs as far as they were read."""

    job_class: ClassVar[type[JobState]] = JobState

    run: RunDirectory
    folder: str
    record: dict[str, Any]
    jobs: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        members = self.record.get("members", {})
        names = self.record["jobs"]
        self.jobs = {name: self.job_class(name, tuple(members.get(name, [name]))) for name in names}

    @property
    def mark(self) -> str:
        """What its jobs carry in the queue."""
        return str(self.record["mark"])

    @property
    def live(self) -> bool:
        """True while one of its jobs is live."""
        return any(job.live for job in self.jobs.values())

    @property
    @abstractmethod
    def title(self) -> str:
        """The numbers that the batch system gave it, for people."""

    @abstractmethod
    def update(self) -> list[Any]:
        """Read on; return the jobs whose state changed."""

    @abstractmethod
    def compare(self, queue: Any) -> list[Any]:
        """Ask the queue; return the jobs whose state changed, those that it lost among them."""


class Submissions(ABC):
    """All submissions of a run to one batch system, oldest first."""

    folder: ClassVar[str]
    submission: ClassVar[type[Submission]]
    queue: ClassVar[type[Queue]]
    poll_s: ClassVar[float] = 1.0
    """Seconds between two looks at the jobs by those who only watch."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.all: list[Submission] = []
        self.find()

    def find(self) -> None:
        """Look for newer submissions."""
        known = {submission.folder for submission in self.all}
        for record in sorted(self.run.path.glob(f"{self.folder}/*/{RECORD}")):
            folder = f"{self.folder}/{record.parent.name}"
            if folder not in known:
                content = self.run.read_json(f"{folder}/{RECORD}")
                self.all.append(self.submission(self.run, folder, content))

    def update(self) -> list[JobState]:
        """Read on in all submissions; return the jobs whose state changed."""
        return [job for submission in self.all for job in submission.update()]

    def compare(self, queue: Any) -> list[JobState]:
        """Hold all submissions against the queue; return the jobs whose state changed."""
        return [job for submission in self.all for job in submission.compare(queue)]

    def jobs(self) -> dict[str, JobState]:
        """Return the latest job that does what has a name, by that name."""
        every = (job for submission in self.all for job in submission.jobs.values())
        return {name: job for job in every for name in job.members}

    def live(self) -> Iterator[Submission]:
        """Yield the submissions with live jobs."""
        return (submission for submission in self.all if submission.live)

    def next_folder(self) -> str:
        """Return the folder of the next submission."""
        taken = [int(path.name) for path in self.run.path.glob(f"{self.folder}/[0-9]*")]
        return f"{self.folder}/{1 + max(taken, default=0):04d}"

    def place(self) -> Place:
        """Make and return the place of the next submission; no two get the same."""
        while True:
            folder = self.next_folder()
            try:
                self.run.file(folder).mkdir(parents=True)
            except FileExistsError:  # somebody else submits at this moment
                continue
            return Place(self.run.path.resolve(), folder, uuid.uuid4().hex)

    @abstractmethod
    def written(self, stages: Any, settings: Any, place: Place, as_dag: bool) -> dict[str, str]:
        """Return the files of a submission: name -> text."""

    @abstractmethod
    def _send(self, queue: Any, place: Place, stages: Sequence[Any], as_dag: bool) -> Any:
        """Send what was written; return what is kept of it in the record, by name."""

    @abstractmethod
    def how_to_remove(self, live: Submission) -> str:
        """Return the command that removes the jobs of a submission from the queue."""

    @abstractmethod
    def why_waiting(self, job: JobState) -> str:
        """Return the command that tells why a job waits."""

    def submit(
        self, place: Place, stages: Sequence[Any], settings: Any, queue: Any, *, as_dag: bool
    ) -> Submission:
        """Write descriptions and record, then submit: one stage, or more one after the other.

        The record is there before anything is sent, so that whoever is killed in between finds the
        jobs by their mark. Raises RunError if nothing is taken; the record is then removed.
        """
        for name in {name for stage in stages for name in stage.folders}:
            self.run.file(name).mkdir(parents=True, exist_ok=True)
        for name, text in self.written(stages, settings, place, as_dag).items():
            path = self.run.file(f"{place.folder}/{name}")
            atomic_files.write_bytes(path, text.encode())
            if path.suffix == ".sh":
                path.chmod(0o755)
        record = f"{place.folder}/{RECORD}"
        jobs = {node: names for stage in stages for node, names in stage.nodes().items()}
        several = {node: names for node, names in jobs.items() if len(names) > 1}
        content = {"format": FORMAT, "mark": place.mark, "dag": as_dag, "jobs": [*jobs]}
        content |= {"members": several} if several else {}
        self.run.write_json(record, content)
        try:
            sent = self._send(queue, place, stages, as_dag)
        except FlowbdtError as error:
            self.run.file(record).unlink()
            folder = self.run.file(place.folder)
            refused = f"{error}. Nothing was submitted; the description is in {folder}"
            raise RunError(refused) from error
        self.run.write_json(record, {**content, **sent})
        self.find()
        return self.all[-1]


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
            stages = [self.stage(submissions.run, fresh, kind, place)]
            submissions.submit(place, stages, self, queue, as_dag=False)

    def stage(self, run: RunDirectory, numbers: Sequence[int], kind: JobKind, place: Place) -> Any:
        """Return the description of ``numbers``; those of a job that failed get one each."""
        submissions = self.submissions(run)
        submissions.update()
        failed = {name for name, job in submissions.jobs().items() if job.state == FAILED}
        alone = [n for n in numbers if node_name(kind.noun, n) in failed]
        rest = [n for n in numbers if n not in alone]
        batches: list[Batch] = [(n,) for n in alone]
        batches += kind.batches(run, rest, self.steps_per_job, self.request_cpus)
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
