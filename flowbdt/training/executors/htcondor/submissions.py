"""The submissions of a run, and the state of every job.

Both are read from files, ``condor/0001/submission.json`` (written before anything is sent) and the
event log beside it. So a process that follows may be killed and started again by anybody.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .... import atomic_files
from ....errors import FlowbdtError, RunError
from ...run_directory import RunDirectory
from . import event_log
from .event_log import Event
from .submit_files import (
    ATTRIBUTE,
    JOB_SCRIPT,
    SCRIPT,
    JobSettings,
    Place,
    Stage,
    dag,
    queued,
    string,
)

FOLDER = "condor"
RECORD = "submission.json"
FORMAT = 1

WAITING, QUEUED, RUNNING, HELD = "waiting", "queued", "running", "held"
DONE, FAILED, LOST = "done", "failed", "lost"
LIVE = (WAITING, QUEUED, RUNNING, HELD)
"""States that do not end a job."""

Job = tuple[int, int]
"""Cluster and process."""

TIMEOUT_S = 300


class Pool:
    """HTCondor's command line. All methods raise RunError when it does not answer."""

    @classmethod
    def connect(cls) -> Pool:
        """Return the pool of this machine. Raises RunError if it has none."""
        if not shutil.which("condor_submit"):
            raise RunError(
                "condor_submit is not in PATH: run this on a machine that submits to your pool"
            )
        return cls()

    def submit(self, folder: Path, description: str) -> int:
        """Submit a description, a file in ``folder``, and return the cluster."""
        return int(self._run(["condor_submit", "-terse", description], folder).split(".")[0])

    def submit_dag(self, folder: Path, dag: str, mark: str) -> int:
        """Submit a DAG, a file in ``folder``, and return the cluster of its manager."""
        line = f"My.{ATTRIBUTE} = {string(mark)}"
        answer = self._run(["condor_submit_dag", "-append", line, dag], folder)
        match = re.search(r"submitted to cluster (\d+)", answer)
        if match is None:
            raise RunError(f"condor_submit_dag did not name a cluster but: {answer.strip()}")
        return int(match[1])

    def queued(self, mark: str) -> set[Job]:
        """Return the jobs of a submission that are in the queue."""
        constraint = f"{ATTRIBUTE} == {string(mark)}"
        query = ["condor_q", "-constraint", constraint, "-af", "ClusterId", "ProcId"]
        rows = (line.split() for line in self._run(query).splitlines())
        return {(int(row[0]), int(row[1])) for row in rows if len(row) == 2}

    @staticmethod
    def _run(command: list[str], folder: Path | None = None) -> str:
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


@dataclass
class JobState:
    """State of one job, as far as its events were read; ``members``: names of what it does."""

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

    @property
    def title(self) -> str:
        """Its name for people: step 3, or step 3 and 4 more."""
        more = f" and {len(self.members) - 1} more" if len(self.members) > 1 else ""
        return self.name.replace("-", " ") + more

    @property
    def live(self) -> bool:
        """True while the job may still end well."""
        return self.state in LIVE

    def follow(self, event: Event) -> None:
        """Take one event of this job into account."""
        if event.code == event_log.SUBMITTED:
            self.job, self.state = (event.cluster, event.process), QUEUED
        elif event.code == event_log.EXECUTING:
            self.state, self.reason, self.advice = RUNNING, "", ""
            self.attempts, self.machine = self.attempts + 1, event.machine
        elif event.code in (event_log.EVICTED, event_log.SHADOW_EXCEPTION):
            self.state = QUEUED
            self.reason = event.exit or _first_line(event) or "evicted"
        elif event.code == event_log.IMAGE_SIZE:
            self.memory_mib = max(self.memory_mib, event.memory_mib)
        elif event.code == event_log.RELEASED:
            self.state = QUEUED
        elif event.code == event_log.HELD:
            code, subcode, self.reason = event.hold
            self.state, self.n_holds = HELD, self.n_holds + 1
            self.advice = advice(code, subcode, f"{event.cluster}.{event.process}")
        elif event.code in (event_log.TERMINATED, event_log.ABORTED):
            self._ended(event)

    def _ended(self, event: Event) -> None:
        if event.code == event_log.TERMINATED and event.exit == "":
            self.state, self.reason, self.advice = DONE, "", ""
            return
        given_up = self.state == HELD and "via condor_rm" not in event.body
        held = f"held too often: {self.reason}" if given_up else ""
        self.state = FAILED
        self.removed = not (held or event.exit)
        self.reason = held or event.exit or f"removed from the queue: {_first_line(event)}"


def _first_line(event: Event) -> str:
    """Return the first line of an event's text that says something."""
    lines = (line.strip() for line in event.body.splitlines())
    return next((line for line in lines if line and not line.startswith("(")), "")


@dataclass
class Submission:
    """One submission: its record, and the states of its jobs as far as they were read.

    ``update`` reads on; ``ended`` says that no further job will come out of it.
    """

    run: RunDirectory
    folder: str
    record: dict[str, Any]
    jobs: dict[str, JobState] = field(init=False)
    ended: bool = False
    _offset: int = 0
    _dag_offset: int = 0
    _names: dict[Job, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        members = self.record.get("members", {})
        names = self.record["jobs"]
        self.jobs = {name: JobState(name, tuple(members.get(name, [name]))) for name in names}

    @property
    def mark(self) -> str:
        """The attribute that its jobs carry in the queue."""
        return str(self.record["mark"])

    @property
    def live(self) -> bool:
        """True while one of its jobs is live."""
        return any(job.live for job in self.jobs.values())

    def update(self) -> list[JobState]:
        """Read on in the event log; return the jobs whose state changed."""
        log = self.run.file(f"{self.folder}/events.log")
        events, self._offset = event_log.read_log(log, self._offset)
        changed = []
        for event in events:
            if event.code == event_log.SUBMITTED and event.note in self.jobs:
                self._names[event.cluster, event.process] = event.note
            if event.code == event_log.CLUSTER_REMOVED and not self.record["dag"]:
                self.ended = True
            job = self.jobs.get(self._names.get((event.cluster, event.process), ""))
            if job is not None:
                job.follow(event)
                changed.append(job)
        return _unique([*changed, *self._after_the_end()])

    def _after_the_end(self) -> list[JobState]:
        """Return jobs that were never submitted, because what would submit them has ended."""
        if self.record["dag"]:
            manager = self.run.file(f"{self.folder}/run.dag.dagman.log")
            events, self._dag_offset = event_log.read_log(manager, self._dag_offset)
            over = (event_log.TERMINATED, event_log.ABORTED)
            self.ended = self.ended or any(event.code in over for event in events)
        never = [job for job in self.jobs.values() if self.ended and job.state == WAITING]
        for job in never:
            job.state, job.reason = LOST, "never started: what comes before it failed"
        return never

    def compare(self, pool: Pool) -> list[JobState]:
        """Hold the log against the queue; return live jobs that are in neither, now lost.

        Raises RunError if HTCondor does not answer.
        """
        if not self.live:
            return []
        in_queue = pool.queued(self.mark)
        changed = self.update()  # the log has what ended meanwhile
        # a job that was not submitted yet waits in a description or a DAG that is in the queue
        lost = [
            job
            for job in self.jobs.values()
            if job.live and not (job.job in in_queue if job.job else in_queue)
        ]
        for job in lost:
            job.state, job.reason = LOST, "no longer in the queue"
        return _unique([*changed, *lost])


def _unique(jobs: list[JobState]) -> list[JobState]:
    return list({job.name: job for job in jobs}.values())


class Submissions:
    """All submissions of a run to HTCondor, oldest first."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.all: list[Submission] = []
        self.find()

    def find(self) -> None:
        """Look for newer submissions."""
        known = {submission.folder for submission in self.all}
        for record in sorted(self.run.path.glob(f"{FOLDER}/*/{RECORD}")):
            folder = f"{FOLDER}/{record.parent.name}"
            if folder not in known:
                content = self.run.read_json(f"{folder}/{RECORD}")
                self.all.append(Submission(self.run, folder, content))

    def update(self) -> list[JobState]:
        """Read on in all event logs; return the jobs whose state changed."""
        return [job for submission in self.all for job in submission.update()]

    def compare(self, pool: Pool) -> list[JobState]:
        """Hold all logs against the queue; return the jobs whose state changed."""
        return [job for submission in self.all for job in submission.compare(pool)]

    def jobs(self) -> dict[str, JobState]:
        """Return the latest job that does what has a name, by that name."""
        every = (job for submission in self.all for job in submission.jobs.values())
        return {name: job for job in every for name in job.members}

    def live(self) -> Iterator[Submission]:
        """Yield the submissions with live jobs."""
        return (submission for submission in self.all if submission.live)

    def next_folder(self) -> str:
        """Return the folder of the next submission."""
        taken = [int(path.name) for path in self.run.path.glob(f"{FOLDER}/[0-9]*")]
        return f"{FOLDER}/{1 + max(taken, default=0):04d}"

    def place(self) -> Place:
        """Make and return the place of the next submission; no two get the same."""
        while True:
            folder = self.next_folder()
            try:
                self.run.file(folder).mkdir(parents=True)
            except FileExistsError:  # somebody else submits at this moment
                continue
            return Place(self.run.path.resolve(), folder, uuid.uuid4().hex)

    def submit(
        self,
        place: Place,
        stages: Sequence[Stage],
        settings: JobSettings,
        pool: Pool,
        *,
        as_dag: bool,
    ) -> Submission:
        """Write descriptions and record, then submit: one stage, or more as a DAG.

        The record is there before anything is sent, so that whoever is killed in between finds the
        jobs by their mark. Raises RunError if HTCondor refuses; the record is then removed.
        """
        texts = written(stages, settings, as_dag=as_dag)
        for name in {name for stage in stages for name in stage.folders}:
            self.run.file(name).mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            atomic_files.write_bytes(self.run.file(f"{place.folder}/{name}"), text.encode())
        self.run.file(f"{place.folder}/{SCRIPT}").chmod(0o755)
        record = f"{place.folder}/{RECORD}"
        jobs = {node: names for stage in stages for node, names in stage.nodes().items()}
        several = {node: names for node, names in jobs.items() if len(names) > 1}
        content = {"format": FORMAT, "mark": place.mark, "dag": as_dag, "jobs": [*jobs]}
        content |= {"members": several} if several else {}
        self.run.write_json(record, content)
        folder = self.run.file(place.folder)
        try:
            if as_dag:
                cluster = pool.submit_dag(folder, "run.dag", place.mark)
            else:
                cluster = pool.submit(folder, f"{stages[0].name}.sub")
        except FlowbdtError as error:
            self.run.file(record).unlink()
            refused = f"{error}. Nothing was submitted; the description is in {folder}"
            raise RunError(refused) from error
        self.run.write_json(record, {**content, "cluster": cluster})
        self.find()
        return self.all[-1]


def written(stages: Sequence[Stage], settings: JobSettings, *, as_dag: bool) -> dict[str, str]:
    """Return the files of a submission: name -> text."""
    texts = {SCRIPT: JOB_SCRIPT}
    for stage in stages:
        text = stage.description + "queue\n" if as_dag else queued(stage, settings)
        texts[f"{stage.name}.sub"] = text
    return {**texts, "run.dag": dag(stages)} if as_dag else texts


_TIME = (
    "it ran longer than the pool allows: ask for more time in executor.submit, or lower"
    " booster.n_estimators"
)

_ADVICE: dict[int | tuple[int, int], str] = {
    1: "somebody held it: condor_release {job} lets it go on, condor_rm {job} gives it up",
    6: "its program could not be started: set executor.python to an interpreter that exists on the"
    " nodes, or executor.pack to an environment that the job brings",
    7: "its log could not be written: is the run folder on a file system that the nodes share?"
    " else set executor.transfer=true",
    12: "its results could not be brought back: is there room where the run lies? If there are"
    " none, its program did not start: see its .err in logs/",
    13: "its input files could not be copied: are they all there, and readable?",
    14: "the run folder is not there on the node: set executor.transfer=true, or use a folder on"
    " a file system that the nodes share",
    (21, 104): "it used more disk than it had requested: set executor.request_disk (MiB)",
    46: _TIME,
    47: _TIME,
}
"""What to do about a hold, by its code, or code and subcode where the node's policy decides."""


def advice(code: int, subcode: int, job: str) -> str:
    """Return what to do about a hold of ``job`` (cluster.process)."""
    if code == 34 or subcode == 102:  # as in `submit_files.MEMORY_HOLD`
        return (
            "it used more memory than it had requested; it is tried again by itself with twice as"
            " much. Set executor.request_memory (MiB) to spare the other jobs that"
        )
    known = _ADVICE.get((code, subcode)) or _ADVICE.get(code) or "see 'condor_q -hold {job}'"
    return known.format(job=job) + ("" if code == 1 else " (it is tried again by itself)")
