"""What an executor is: it takes numbered jobs of a run and yields their reports."""

from __future__ import annotations

import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from ... import atomic_files
from ...registry import Registry
from ..run_directory import RunDirectory
from ..step_jobs import STEPS
from .work import Work


class Executor(ABC):
    """Decides where jobs run, never what they do.

    `run` yields one report per number, in any order; a failed one's report has the number, under
    the noun of the work, and ``error``, and never stops the others.
    """

    @abstractmethod
    def run(
        self, run: RunDirectory, numbers: Sequence[int], work: Work = STEPS
    ) -> Iterator[dict[str, Any]]:
        """Do the jobs ``numbers`` of ``work`` on the planned ``run``: by default, train steps."""


EXECUTORS: Registry[Executor] = Registry("executor")

_one_at_a_time = threading.Lock()


def attempt(work: Work, folder: str, number: int, n_threads: int) -> dict[str, Any]:
    """Do one job; turn an exception into a report and a log instead of passing it on.

    One at a time in a process: limits on threads hold for a whole process, so a second job in
    another thread could change the order of sums in the first, and with it the last bits.
    """
    try:
        with _one_at_a_time:
            return work.do(folder, number, n_threads)
    except Exception as error:
        return failed(work, folder, number, error)


def failed(work: Work, folder: str, number: int, error: BaseException) -> dict[str, Any]:
    """Return the report of a failed job, and write its log."""
    log = RunDirectory(folder).file(work.log(number))
    atomic_files.write_bytes(log, "".join(traceback.format_exception(error)).encode())
    return {work.noun: number, "error": reason(error)}


def reason(error: BaseException) -> str:
    """Return one line that says what went wrong."""
    first = (str(error).splitlines() or ["no reason given"])[0]
    return f"{type(error).__name__}: {first}"
