"""HTCondor's event log: what happened to each job, in a text file that only grows.

The log is read from where the last look ended, whole events only, so that following can be stopped
and started at any time.

Source: HTCondor manual, "Job Event Log Codes"
(https://htcondor.readthedocs.io/en/latest/codes-other-values/job-event-log-codes.html).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SUBMITTED, EXECUTING, EVICTED, TERMINATED, ABORTED = 0, 1, 4, 5, 9
IMAGE_SIZE, SHADOW_EXCEPTION, HELD, RELEASED, CLUSTER_REMOVED = 6, 7, 12, 13, 36

_HEAD = re.compile(rb"(\d{3}) \((-?\d+)\.(-?\d+)\.-?\d+\) (\S+ \S+)")
_END = b"\n...\n"


@dataclass(frozen=True)
class Event:
    """One event: its code, the job's cluster and process, when, and the text below."""

    code: int
    cluster: int
    process: int
    when: str
    body: str

    @property
    def note(self) -> str:
        """The name of the job: the note of its submission, or its node in a DAG."""
        return self.body.strip().removeprefix("DAG Node: ").split("\n")[0].strip()

    @property
    def exit(self) -> str | None:
        """The end of a program: '' if well, else in words; None if the event does not say."""
        value = re.search(r"Normal termination \(return value (-?\d+)\)", self.body)
        if value:
            return "" if value[1] == "0" else f"exit status {value[1]}"
        signal = re.search(r"Abnormal termination \(signal (\d+)\)", self.body)
        return f"killed by signal {signal[1]}" if signal else None

    @property
    def hold(self) -> tuple[int, int, str]:
        """Code, subcode and reason of a hold."""
        match = re.search(r"Code (\d+) Subcode (-?\d+)", self.body)
        reason = self.body.strip().split("\n")[0].strip()
        return (int(match[1]), int(match[2]), reason) if match else (0, 0, reason)

    @property
    def machine(self) -> str:
        """The slot, and so the machine, that executes a job; '' if the event does not say."""
        match = re.search(r"SlotName: (\S+)", self.body)
        return match[1] if match else ""

    @property
    def memory_mib(self) -> int:
        """Memory that the job used so far; 0 if the event does not say."""
        match = re.search(r"(\d+)\s+-\s+MemoryUsage of job", self.body)
        return int(match[1]) if match else 0


def read_log(log: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Return the whole events after ``offset`` and where to go on; none if there is no log yet."""
    try:
        with open(log, "rb") as handle:
            handle.seek(offset)
            content = handle.read()
    except FileNotFoundError:
        return [], offset
    whole = content.rfind(_END) + len(_END)
    if whole < len(_END):
        return [], offset
    events = (_event(text) for text in content[:whole].split(_END))
    return [event for event in events if event is not None], offset + whole


def _event(text: bytes) -> Event | None:
    first, _, body = text.lstrip(b"\n").partition(b"\n")
    head = _HEAD.match(first)
    if head is None:
        return None
    code, cluster, process = (int(head[i]) for i in (1, 2, 3))
    return Event(code, cluster, process, head[4].decode(), body.decode(errors="replace"))
