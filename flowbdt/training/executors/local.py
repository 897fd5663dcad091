"""Executors on this machine: one job after the other, or many at once through joblib."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from typing import Any

from ...errors import ConfigError
from ...typed_settings import AtLeastOne
from ..numbered_jobs import STEPS, JobKind
from ..run_directory import RunDirectory
from ..threads import available_cpus
from .base import EXECUTORS, Executor, Reports, attempt_batch, attempt_job, failed

LAST_BITS = (
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
)
"""Variables that choose the machine code of sums, and so their last bits; a tree that cuts between
two nearly equal numbers makes them large. Jobs get them from the process that submits."""


def last_bits() -> dict[str, str]:
    """Return those of `LAST_BITS` that are set here."""
    return {name: os.environ[name] for name in LAST_BITS if name in os.environ}


@EXECUTORS.register("serial")
@dataclass
class Serial(Executor):
    """One job after the other in this process, with all threads for each."""

    n_threads: AtLeastOne = field(default_factory=available_cpus)

    @property
    def jobs_here(self) -> int:
        return 1

    @property
    def threads_here(self) -> int:
        return self.n_threads

    def run(self, run: RunDirectory, numbers: Sequence[int], kind: JobKind = STEPS) -> Reports:
        for number in numbers:
            yield attempt_job(kind, str(run.path), number, self.n_threads)


@EXECUTORS.register("joblib")
@dataclass
class Joblib(Executor):
    """Many jobs at once, each in a process.

    Steps are independent, so this scales better than threads within a step, which get what is left
    where steps are fewer than ``n_jobs``. A process takes several short ones at a time, at most
    ``steps_per_job``, by default as many as last 15 s while each process has some. Memory: one
    step's matrices per process. The backend is joblib's loky unless another is named here or set
    around the call with ``joblib.parallel_config``, as backends that a user registers are. An
    unknown backend raises ConfigError.
    """

    n_jobs: AtLeastOne = field(default_factory=available_cpus)
    n_threads: AtLeastOne | None = None
    backend: str | None = None
    steps_per_job: AtLeastOne | None = None

    @property
    def jobs_here(self) -> int:
        return self.n_jobs

    @property
    def threads_here(self) -> int:
        return self.n_jobs

    def run(self, run: RunDirectory, numbers: Sequence[int], kind: JobKind = STEPS) -> Reports:
        from joblib import delayed

        threads = self.n_threads or max(1, self.n_jobs // max(len(numbers), 1))
        batches = kind.batches(run, numbers, self.steps_per_job, threads, self.n_jobs)
        jobs = (delayed(attempt_batch)(kind, str(run.path), one, threads) for one in batches)
        left = set(numbers)
        try:
            pool = self._pool()
            # without a generator the call trains: then it is for the backend to end its workers
            with _undisturbed() if pool.return_generator else contextlib.nullcontext():
                reports = pool(jobs)
            for report in itertools.chain.from_iterable(reports):
                left.discard(report[kind.noun])
                yield report
        except BrokenProcessPool as error:  # a worker was killed, mostly for memory
            for n in sorted(left):  # some may have ended well unnoticed
                yield kind.report(run, n) or failed(kind, str(run.path), n, error)

    def _pool(self) -> Any:
        """Return joblib's engine; it hands over reports as they come if its backend can."""
        from joblib import Parallel

        settings: dict[str, Any] = {"n_jobs": self.n_jobs, "backend": self.backend}
        try:
            plain = Parallel(**settings)
        except ValueError as error:
            raise ConfigError(f"executor.backend={self.backend!r}: {error}") from error
        if not getattr(plain._backend, "supports_return_generator", False):
            return plain
        return Parallel(**settings, return_as="generator_unordered")


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Start processes to which Ctrl-C means nothing: whoever started them ends them, in one line.

    Trackers of resources would warn of those of ended workers, which they clean up.
    """
    from ...trees.binned_rows import signals_held

    sys.warnoptions.append("ignore:resource_tracker")
    before = None
    try:
        if hasattr(signal, "pthread_sigmask"):
            resource_tracker.ensure_running()  # here, as its start would unblock the signal
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # handed down
        with signals_held():
            yield
    finally:
        sys.warnoptions.remove("ignore:resource_tracker")
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
