"""Slurm: array jobs of scripts, submitted by ``sbatch`` and followed by ``squeue`` and ``sacct``.

Nodes share the run folder, as they do nearly everywhere with Slurm. Every task of an array leaves
its exit status in a file, for sites that keep no accounting.

Sources: Slurm manual, "sbatch" (https://slurm.schedmd.com/sbatch.html), "Job Array Support"
(https://slurm.schedmd.com/job_array.html), "Job State Codes"
(https://slurm.schedmd.com/job_state_codes.html).
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...errors import ConfigError, FlowbdtError
from ...typed_settings import AtLeastOne, NotNegative
from ..numbered_jobs import Batch, JobKind, name_of
from . import submission_records as records
from .base import EXECUTORS
from .batch_settings import BatchSettings
from .batch_system import BatchExecutor, Queue
from .submission_records import (
    DONE,
    FAILED,
    HELD,
    LOST,
    QUEUED,
    RUNNING,
    Job,
    JobState,
    Place,
    Stage,
    node_name,
)

ARRAY = 1000
"""Tasks of an array at most; Slurm's MaxArraySize is 1001 unless a site changes it."""

RESERVED = frozenset(
    """
    job-name array output error open-mode requeue no-requeue chdir cpus-per-task mem ntasks nodes
    export dependency kill-on-invalid-dep parsable wrap wait
    """.split()  # noqa: SIM905
)
"""Options of sbatch that flowBDT writes; all others are the user's."""

SCRIPT = """\
#!/bin/sh
# flowbdt: {name}
{options}{exports}case $SLURM_ARRAY_TASK_ID in
{tasks}esac
logs=$1
shift
{python} -P -m flowbdt.cli "$@" >"$logs.out" 2>"$logs.err"
status=$?
echo $status >{folder}/{name}-$SLURM_ARRAY_TASK_ID.exit
exit $status
"""


@dataclass(frozen=True)
class SlurmSettings(BatchSettings):
    """Settings of the executor ``slurm``, beside those of all batch systems.

    Parameters
    ----------
    at_once : jobs of an array that may run at a time; by default as many as the site allows

    ``submit`` has further options of sbatch, e.g. ``{"partition": "short", "time": "01:00:00"}``. A
    job that lacked memory is tried again, with twice as much, ``max_retries`` times.

    Raises
    ------
    ConfigError
        For values that cannot work.
    """

    at_once: AtLeastOne | None = None
    poll_s: NotNegative = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in self.submit.items():
            if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or name in RESERVED:
                raise ConfigError(
                    f"executor.submit cannot set {name!r}: it must be the long name of an option of"
                    " sbatch that flowBDT does not write itself (partition, account, time). Memory"
                    " and cores have settings: executor.request_memory=2000"
                )
            if value is False or re.search(r'[\n\r"\\]', str(value)):
                raise ConfigError(
                    f"executor.submit: {name} must be true, for an option without a value, a number"
                    f" or a text without quotes, backslashes and line breaks, got {value!r}"
                )
        for name in self.env:
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise ConfigError(f"{name!r} is no name of an environment variable")


class Row(NamedTuple):
    """What the queue says of a task."""

    id: int
    state: str
    node: str
    reason: str


class Workload(Queue):
    """Slurm's command line."""

    program = "sbatch"
    site = "your Slurm"

    def submit(self, run: Path, script: str, after: Sequence[int]) -> int:
        """Submit a script, a file of the run, once jobs ``after`` ended well; return its id."""
        then = [f"--dependency=afterok:{':'.join(map(str, after))}", "--kill-on-invalid-dep=yes"]
        answer = self._run(["sbatch", "--parsable", *(then if after else []), script], run)
        return int(answer.strip().split(";")[0])

    def cancel(self, ids: Iterable[int]) -> None:
        """Remove jobs from the queue."""
        for one in ids:
            self._run(["scancel", str(one)])

    def queued(self, names: Iterable[str]) -> dict[tuple[str, int], Row]:
        """Return what is in the queue, by the name of the job and the number within its array."""
        query = ["squeue", "--noheader", "--array", f"--name={','.join(names)}"]
        answer = self._run([*query, "--format=%j|%K|%F|%T|%N|%r"])
        rows = (line.strip().split("|") for line in answer.splitlines())
        return {
            (row[0], int(row[1])): Row(int(row[2]), *row[3:6])
            for row in rows
            if len(row) == 6 and row[1].isdecimal()
        }

    def ended(self, ids: Iterable[int]) -> dict[Job | int, tuple[str, str]]:
        """Return state and exit code of jobs from the accounting, nothing if there is none.

        What is true of all tasks of an array that has no line for each is under its id.
        """
        wanted = ",".join(map(str, ids))
        query = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={wanted}"]
        try:
            answer = self._run([*query, "--format=JobID,State,ExitCode"])
        except FlowbdtError:  # many small sites store none
            return {}
        found: dict[Job | int, tuple[str, str]] = {}
        for line in answer.splitlines():
            row = re.fullmatch(r"(\d+)(?:_(\d+|\[.*\]))?\|(\w+)[^|]*\|([\d:]*)", line.strip())
            if row is not None:
                number = row[2] or ""
                one = (int(row[1]), int(number)) if number.isdecimal() else int(row[1])
                found[one] = row[3], row[4]
        return found


@dataclass
class SlurmJob(JobState):
    """State of one task of an array."""

    separator = "_"

    array: str = ""
    task: int = 0

    def seen(self, row: Row) -> None:
        """Take into account what the queue says."""
        self.machine = row.node
        running = row.state in ("RUNNING", "COMPLETING", "STAGE_OUT", "SUSPENDED")
        held = "held" in row.reason.lower() or row.state in ("REQUEUE_HOLD", "SPECIAL_EXIT")
        self.state = RUNNING if running else HELD if held else QUEUED
        self.reason = row.reason if self.state == HELD else ""
        self.advice = (
            f"scontrol release {self.number} lets it go on, scancel {self.number} gives it up"
        )

    def over(self, state: str, code: str) -> None:
        """Take into account how it ended, if it did."""
        status, _, signal = code.partition(":")
        if state == "COMPLETED":
            self.state, self.reason = DONE, ""
        elif state not in ("PENDING", "RUNNING", "REQUEUED", "RESIZING", "SUSPENDED"):
            self.state, self.removed = FAILED, state == "CANCELLED"
            self.lacks_memory = state == "OUT_OF_MEMORY"
            by_signal = f"killed by signal {signal}" if signal not in ("", "0") else ""
            exited = f"exit status {status}" if status not in ("", "0") else ""
            self.reason = REASONS.get(state) or by_signal or exited or state.lower()


REASONS = {
    "OUT_OF_MEMORY": "it used more memory than it had requested; set executor.request_memory (MiB)",
    "TIMEOUT": "it ran longer than it may: set executor.submit={time: '04:00:00'}, or lower"
    " booster.n_estimators",
    "CANCELLED": "removed from the queue",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "another job took its place",
}


def arrays(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the arrays that jobs are sent in: name -> jobs, in the order of their tasks."""
    found: dict[str, list[str]] = {}
    for name in names:
        stage, n = re.sub(r"-\d+$", "", name), 1
        array = stage
        while len(found.get(array, ())) == ARRAY:
            n += 1
            array = f"{stage}{n}"
        found.setdefault(array, []).append(name)
    return found


class Submission(records.Submission):
    """One submission, followed in the queue, the accounting, and by what its tasks leave."""

    job_class = SlurmJob

    def __post_init__(self) -> None:
        super().__post_init__()
        for array, names in arrays(self.record["jobs"]).items():
            for task, name in enumerate(names):
                self.jobs[name].array, self.jobs[name].task = array, task

    @property
    def title(self) -> str:
        return f"job {', '.join(map(str, self.record['arrays'].values()))}"

    def update(self) -> list[JobState]:
        return self._look()

    def compare(self, queue: Workload) -> list[JobState]:
        return self._look(finally_lost=True)

    def _look(self, *, finally_lost: bool = False) -> list[JobState]:
        """Return the jobs whose state changed.

        The accounting may be seconds late, so only later what is nowhere is lost.
        """
        live = [job for job in self.jobs.values() if job.live]
        if not live:
            return []
        before = [(job.state, job.reason) for job in live]
        workload = Workload.connect()
        gone = self._see(live, workload)
        ended = workload.ended({job.job[0] for job in gone if job.job})
        for job in gone:
            told = None if job.job is None else ended.get(job.job) or ended.get(job.job[0])
            told = told or self._left(job)
            if told is not None:
                job.over(*told)
            if finally_lost and job.live:
                job.state, job.reason = LOST, "no longer in the queue"
        return [j for j, b in zip(live, before, strict=True) if (j.state, j.reason) != b]

    def _see(self, live: Sequence[SlurmJob], workload: Workload) -> list[SlurmJob]:
        """Look for jobs in the queue; return those that are not there."""
        rows = workload.queued({name_in_queue(job.array, self.mark) for job in live})
        gone = []
        for job in live:
            row = rows.get((name_in_queue(job.array, self.mark), job.task))
            # without one in the record, whoever submitted was killed just then
            number = row.id if row else self.record.get("arrays", {}).get(job.array)
            job.job = None if number is None else (number, job.task)
            if row is None:
                gone.append(job)
            else:
                job.seen(row)
        return gone

    def _left(self, job: SlurmJob) -> tuple[str, str] | None:
        """Return state and exit code from the file that a task leaves."""
        left = self.run.file(f"{self.folder}/{job.array}-{job.task}.exit")
        status = left.read_text().strip() if left.exists() else ""
        return ("COMPLETED" if status == "0" else "FAILED", status) if status else None


def name_in_queue(array: str, mark: str) -> str:
    """Return the name of an array in the queue."""
    return f"flowbdt-{array}-{mark}"


@dataclass(frozen=True)
class SlurmStage(Stage):
    """Jobs of one or more arrays.

    ``commands`` has, for every job, where its logs go and the arguments of flowbdt.
    """

    commands: tuple[tuple[str, ...], ...] = ()
    memory_mib: int | None = None


class Submissions(records.Submissions):
    """All submissions of a run to Slurm."""

    folder = "slurm"
    submission = Submission
    queue = Workload
    poll_s = 10.0

    def written(
        self, stages: Sequence[SlurmStage], settings: SlurmSettings, place: Place, as_dag: bool
    ) -> dict[str, str]:
        texts: dict[str, str] = {}
        settings = settings.complete()
        for stage in stages:
            commands = dict(zip(stage.nodes(), stage.commands, strict=True))
            for array, names in arrays(commands).items():
                some = [commands[name] for name in names]
                texts[f"{array}.sh"] = script(array, some, stage.memory_mib, settings, place)
        return texts

    def _send(
        self, queue: Workload, place: Place, stages: Sequence[SlurmStage], as_dag: bool
    ) -> dict[str, dict[str, int]]:
        sent: dict[str, int] = {}
        after: list[int] = []
        try:
            for stage in stages:
                now = {}
                for array in arrays(stage.nodes()):
                    now[array] = queue.submit(place.run, f"{place.folder}/{array}.sh", after)
                    sent |= now
                after = [*now.values()]
        except FlowbdtError:
            queue.cancel(sent.values())
            raise
        return {"arrays": sent}

    def how_to_remove(self, live: records.Submission) -> str:
        names = (name_in_queue(array, live.mark) for array in arrays(live.record["jobs"]))
        return f"scancel --name={','.join(names)}"

    def why_waiting(self, job: JobState) -> str:
        return f"squeue --start --jobs={job.number}"


def script(
    array: str,
    commands: Sequence[Sequence[str]],
    memory_mib: int | None,
    settings: SlurmSettings,
    place: Place,
) -> str:
    """Return the script of an array with one task for each command."""
    at_once = f"%{settings.at_once}" if settings.at_once else ""
    options: Mapping[str, object] = {
        "job-name": name_in_queue(array, place.mark),
        "array": f"0-{len(commands) - 1}{at_once}",
        "output": f"{place.folder}/{array}-%a.log",
        "open-mode": "append",
        "requeue": True,  # after its node failed, or another job took its place
        "cpus-per-task": settings.request_cpus,
        **({"mem": f"{memory_mib}M"} if memory_mib else {}),
        **settings.submit,
    }
    exports = {"PYTHONUNBUFFERED": "1", **settings.env}
    return SCRIPT.format(
        name=array,
        folder=place.folder,
        python=shlex.quote(settings.python or sys.executable),
        options="".join(f"#SBATCH --{k}{_value(v)}\n" for k, v in options.items()),
        exports="".join(f"export {k}={shlex.quote(str(v))}\n" for k, v in exports.items()),
        tasks="".join(f"{i}) set -- {shlex.join(words)} ;;\n" for i, words in enumerate(commands)),
    )


def _value(value: object) -> str:
    if value is True:
        return ""
    return f"={value}" if re.fullmatch(r"[\w.,:/%@+-]+", str(value)) else f'="{value}"'


@EXECUTORS.register("slurm")
class Slurm(SlurmSettings, BatchExecutor):
    """Array jobs of Slurm; `SlurmSettings` has the settings. Nodes must share the run folder."""

    submissions = Submissions

    def described(
        self, submissions: Submissions, batches: Sequence[Batch], kind: JobKind, place: Place
    ) -> SlurmStage:
        times = submissions.lacked()
        lacking = max(times[node_name(kind.noun, n)] for batch in batches for n in batch)
        memory = self.request_memory or kind.needs(submissions.run).memory_mib
        commands = [
            (kind.logs(name_of(batch[0])), *kind.command("+".join(map(str, batch))))
            for batch in batches
        ]
        written = (*kind.result("0"), kind.logs("0"))
        folders = tuple(sorted({str(Path(name).parent) for name in written}))
        # twice as much for all that is sent now: mostly only those that lacked it
        return SlurmStage(
            kind.noun, "", tuple(batches), folders, tuple(commands), memory * 2**lacking
        )

    def single(self, name: str, words: Sequence[str], place: Place) -> SlurmStage:
        return SlurmStage(
            name,
            "",
            commands=((f"{place.folder}/{name}", *words),),
            memory_mib=self.request_memory,
        )

    def retried(self, job: JobState, submissions: records.Submissions) -> bool:
        more = job.lacks_memory and submissions.lacked()[job.name] <= self.max_retries
        return more or (super().retried(job, submissions) and not job.lacks_memory)
