"""What an executor is: it takes step numbers of a planned run and yields their reports."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from .. import files, store
from ..registry import Registry
from ..store import RunDirectory
from ..training.worker import run_task


class Executor(ABC):
    """Decides where steps run, never what they do.

    `run` yields one report per step, in any order; a failed step's report has ``step`` and
    ``error`` and never stops the others.
    """

    @abstractmethod
    def run(self, run: RunDirectory, steps: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Train ``steps`` of the planned ``run``."""


EXECUTORS: Registry[Executor] = Registry("executor")


def attempt(folder: str, step: int, n_threads: int) -> dict[str, Any]:
    """Train one step; turn an exception into a report and a log instead of passing it on."""
    try:
        return run_task(folder, step, n_threads)
    except Exception as error:
        return failed(folder, step, error)


def failed(folder: str, step: int, error: Exception) -> dict[str, Any]:
    """Return the report of a failed step, and write its log."""
    log = RunDirectory(folder).file(store.log_name(step))
    files.write_bytes(log, "".join(traceback.format_exception(error)).encode())
    reason = (str(error).splitlines() or ["no reason given"])[0]
    return {"step": step, "error": f"{type(error).__name__}: {reason}"}
