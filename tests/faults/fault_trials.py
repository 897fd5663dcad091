"""What the tests of faults share: trials in forked children, their outcomes, and the counter.

A trial is a command line in a child of this process, which has everything imported already, so
that it costs tenths of seconds. Its outcome is one of four:

``right``      the right result, or the right bytes
``error``      refused with one clear error: status 1 or 2, no traceback
``traceback``  a traceback, a crash, a hang, or an error that does not say what is wrong
``silent``     status 0 and another result than the right one

The last two must not occur.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from flowbdt.cli.main import main

OUTCOMES = ("right", "error", "traceback", "silent")
PATIENCE_S = 60.0
"""A child that takes longer hangs."""

CRASHED = 70
"""Exit status of a child that ended in an exception."""


class Trials:
    """Counts outcomes of one kind of fault; a bad one is kept with what led to it."""

    def __init__(self, kind: str, long: bool) -> None:
        self.kind, self.scale = kind, 10 if long else 1
        self.counts: Counter[str] = Counter()
        self.bad: list[str] = []

    def add(self, outcome: str, what: str, text: str = "") -> None:
        """Count an outcome of `OUTCOMES`."""
        self.counts[outcome] += 1
        if outcome in ("traceback", "silent"):
            self.bad.append(f"{outcome}: {what}\n    {text.strip()[-1500:]}")

    def report(self) -> str:
        """Return the line with all counts."""
        n = self.counts
        return (
            f"faults, {self.kind}: {n.total()} tried, {n['right']} right, {n['error']} clear error,"
            f" {n['traceback']} traceback, {n['silent']} silent"
        )


@contextlib.contextmanager
def trials(kind: str, request: pytest.FixtureRequest) -> Iterator[Trials]:
    """Yield a counter; print its line at the end, and fail if something went wrong."""
    counter = Trials(kind, bool(request.config.getoption("--faults-long")))
    yield counter
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{counter.report()}")
    assert not counter.bad, "\n".join([counter.report(), *counter.bad[:12]])


class Ended(NamedTuple):
    """Exit status of a command (minus the signal that ended it), and what it printed."""

    status: int
    text: str
    seconds: float

    def outcome(self, right: bool | None = True, named: str = "") -> str:
        """Return the outcome. ``right``: whether the result is, None if there should be none.

        ``named`` has to stand in the message of an error.
        """
        if self.status == 0:
            return "right" if right else "silent"
        clear = self.status in (1, 2, 143) and "Traceback" not in self.text
        said = "error" in self.text.lower() and named.lower() in self.text.lower()
        return "error" if clear and said else "traceback"


def finished(ended: Ended, right: bool) -> str:
    """Return the outcome of a command that has to succeed."""
    return ended.outcome(right) if ended.status == 0 else "traceback"


def command(*words: object, kill_after: float | None = None, limit: int | None = None) -> Ended:
    """Do a command in a child of this process.

    ``kill_after``: seconds until it is killed; ``limit``: largest file it may write, in bytes.
    """
    return child(lambda: main([str(word) for word in words]), kill_after, limit)


def child(
    work: Callable[[], int], kill_after: float | None = None, limit: int | None = None
) -> Ended:
    """Run a function that returns an exit status in a forked child."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:  # no way back into pytest from here
        status = CRASHED
        try:
            os.setsid()  # workers end with their parent
            os.close(reader)
            for number in (1, 2):
                os.dup2(writer, number)
            sys.stdout = os.fdopen(1, "w", buffering=1)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            if limit is not None:
                import resource

                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    os.close(writer)
    text, status = _watched(pid, reader, start + (kill_after or PATIENCE_S))
    if status == -signal.SIGKILL and kill_after is None:
        text += f"\nTraceback: it did not end within {PATIENCE_S:g} s"
    return Ended(status, text, time.perf_counter() - start)


def _watched(pid: int, reader: int, until: float) -> tuple[str, int]:
    """Return what a child printed and its status; kill it and its children when time is up."""
    text = b""
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while True:
            wait = until - time.perf_counter()
            if wait <= 0 or not select.select([pipe], [], [], wait)[0]:
                break
            block = pipe.read(65536)
            if not block:
                break
            text += block
        if until - time.perf_counter() <= 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    _, ended = os.waitpid(pid, 0)
    return text.decode(errors="replace"), os.waitstatus_to_exitcode(ended)


def damaged(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """Return a file's content with one bit flipped, cut short, or with zeros in it."""
    size = len(content)
    if not size:
        return b"\0"
    place = int(rng.integers(size))
    if kind == "bit":
        changed = content[place] ^ (1 << int(rng.integers(8)))
        return content[:place] + bytes([changed]) + content[place + 1 :]
    if kind == "truncation":
        return content[:place]
    length = int(min(size - place, rng.integers(1, 65)))
    zeros = content[:place] + bytes(length) + content[place + length :]
    return zeros if zeros != content else damaged(content, "bit", rng)


def copied(source: Path, target: Path) -> Path:
    """Copy a folder anew."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target
