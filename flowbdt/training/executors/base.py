"""The executor: it takes numbered jobs of a run and yields their reports."""

from __future__ import annotations

import json
import shlex
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from types import NoneType
from typing import Any

from ... import atomic_files
from ...errors import ConfigError
from ...registry import Registry
from ...typed_settings import check_fields
from ..numbered_jobs import STEPS, Batch, JobKind
from ..run_directory import RunDirectory
from ..threads import available_cpus

Reports = Iterator[dict[str, Any]]


class Executor(ABC):
    """Decides where jobs run, never what they do. Subclasses are dataclasses of their settings."""

    def __post_init__(self) -> None:
        check_fields(self, "executor setting")

    @property
    def jobs_here(self) -> int:
        """Number of jobs at a time in the memory of this machine."""
        return 0

    @property
    def threads_here(self) -> int:
        """Threads for what is done in this process before and after the jobs."""
        return available_cpus()

    @abstractmethod
    def run(self, run: RunDirectory, numbers: Sequence[int], kind: JobKind = STEPS) -> Reports:
        """Do the jobs ``numbers`` of a kind on a planned run; yield one report each, in any order.

        The report of a failed job, which never stops the others, has the number, under the noun of
        the kind, and ``error``.
        """


EXECUTORS: Registry[Executor] = Registry("executor")


def split_recorded(executor: Any) -> tuple[Any, dict[str, Any]]:
    """Return the executor that a folder has on record without, and the settings with, texts.

    Texts may name programs, modules and addresses, and the folder may be somebody else's.
    """
    if not isinstance(executor, dict):
        return executor, {}
    numbers = (bool, int, float, NoneType)
    harmless = {
        k: v for k, v in executor.items() if k in ("name", "backend") or isinstance(v, numbers)
    }
    return harmless, {k: v for k, v in executor.items() if k not in harmless and v}


def refuse_recorded(left_out: dict[str, Any], executor: Any, folder: object) -> None:
    """Raise ConfigError if a call does not name itself what `split_recorded` left out."""
    named = executor if isinstance(executor, dict) else {}
    for name, value in left_out.items():
        if name not in named:
            raise ConfigError(
                f"{folder} has executor.{name} on record: {value!r}. It decides which programs run,"
                " and is not taken from a folder. To use it, name it in your call: --set"
                f" {shlex.quote(f'executor.{name}={json.dumps(value)}')}; to leave it out: --set"
                f" executor.{name}=null"
            )


_one_at_a_time = threading.Lock()


def attempt_job(kind: JobKind, folder: str, number: int, n_threads: int) -> dict[str, Any]:
    """Do one job; turn an exception into a report and a log instead of passing it on.

    One at a time in a process: limits on threads hold for a whole process, so a second job in
    another thread could change the order of sums in the first, and with it the last bits.
    """
    try:
        with _one_at_a_time:
            return kind.do(folder, number, n_threads)
    except Exception as error:
        return failed(kind, folder, number, error)


def attempt_batch(
    kind: JobKind, folder: str, numbers: Batch, n_threads: int
) -> list[dict[str, Any]]:
    """Do jobs one after the other, each as `attempt_job`.

    Of several those that are done are left out: a batch starts anew if its worker dies.
    """
    run = RunDirectory(folder)
    return [
        (kind.report(run, number) if len(numbers) > 1 else None)
        or attempt_job(kind, folder, number, n_threads)
        for number in numbers
    ]


def failed(kind: JobKind, folder: str, number: int, error: BaseException) -> dict[str, Any]:
    """Return the report of a failed job, and write its log."""
    log = RunDirectory(folder).file(kind.log(number))
    atomic_files.write_bytes(log, "".join(traceback.format_exception(error)).encode())
    return {kind.noun: number, "error": reason(error)}


def reason(error: BaseException) -> str:
    """Return an error's type and first line."""
    first = (str(error).splitlines() or ["no reason"])[0]
    return f"{type(error).__name__}: {first}"
