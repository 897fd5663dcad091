"""Submissions of a run to a batch system: what was sent, and the states of its jobs.

A submission is a folder of the run, as ``condor/0001``, with a record that is written before
anything is sent. So a process that follows may be killed and started again by anybody.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ... import atomic_files
from ...errors import FlowbdtError, RunError
from ..numbered_jobs import Batch
from ..run_directory import RunDirectory

if TYPE_CHECKING:
    from .batch_system import Queue


RECORD = "submission.json"

FORMAT = 1

WAITING, QUEUED, RUNNING, HELD = "waiting", "queued", "running", "held"

DONE, FAILED, LOST = "done", "failed", "lost"

LIVE = (WAITING, QUEUED, RUNNING, HELD)
"""States that do not end a job."""

Job = tuple[int, int]
"""The numbers by which a batch system knows a job: of what was submitted, and within it."""


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
        return {name: job for job in self._every() for name in job.members}

    def lacked(self) -> Counter[str]:
        """Return how often the job that does what has a name lacked memory, by that name."""
        return Counter(n for job in self._every() if job.lacks_memory for n in job.members)

    def _every(self) -> Iterator[JobState]:
        return (job for submission in self.all for job in submission.jobs.values())

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
