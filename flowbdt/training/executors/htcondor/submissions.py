"""The submissions of a run to HTCondor, and the state of every job, from the event log.

A process that follows may be killed and started again by anybody.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ....errors import RunError
from .. import submission_records as records
from ..batch_system import Queue
from ..submission_records import (
    DONE,
    FAILED,
    HELD,
    LOST,
    QUEUED,
    RUNNING,
    WAITING,
    Job,
    JobState,
    Place,
)
from . import event_log
from .event_log import Event
from .submit_files import ATTRIBUTE, JOB_SCRIPT, SCRIPT, JobSettings, PoolStage, dag, queued, string


class Pool(Queue):
    """HTCondor's command line."""

    program = "condor_submit"
    site = "your pool"

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


@dataclass
class PoolJob(JobState):
    """State of one job, as far as its events were read."""

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
class Submission(records.Submission):
    """One submission, followed in its event log.

    ``ended`` says that no further job will come out of it.
    """

    job_class = PoolJob

    ended: bool = False
    _offset: int = 0
    _dag_offset: int = 0
    _names: dict[Job, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"cluster {self.record['cluster']}"

    def update(self) -> list[PoolJob]:
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

    def _after_the_end(self) -> list[PoolJob]:
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

    def compare(self, pool: Pool) -> list[PoolJob]:
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


def _unique(jobs: list[PoolJob]) -> list[PoolJob]:
    return list({job.name: job for job in jobs}.values())


class Submissions(records.Submissions):
    """All submissions of a run to HTCondor."""

    folder = "condor"
    submission = Submission
    queue = Pool

    def written(
        self, stages: Sequence[PoolStage], settings: JobSettings, place: Place, as_dag: bool
    ) -> dict[str, str]:
        texts = {} if settings.pack is None else {SCRIPT: JOB_SCRIPT}
        for stage in stages:
            text = stage.description + "queue\n" if as_dag else queued(stage, settings)
            texts[f"{stage.name}.sub"] = text
        return {**texts, "run.dag": dag(stages)} if as_dag else texts

    def _send(
        self, queue: Pool, place: Place, stages: Sequence[PoolStage], as_dag: bool
    ) -> dict[str, int]:
        folder = self.run.file(place.folder)
        if as_dag:
            return {"cluster": queue.submit_dag(folder, "run.dag", place.mark)}
        return {"cluster": queue.submit(folder, f"{stages[0].name}.sub")}

    def how_to_remove(self, live: records.Submission) -> str:
        return f"condor_rm -constraint '{ATTRIBUTE} == \"{live.mark}\"'"

    def why_waiting(self, job: JobState) -> str:
        return f"condor_q -better-analyze {job.number}"


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
