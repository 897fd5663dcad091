"""Executors on this machine: one step after the other, or several at once through joblib."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ...errors import ConfigError
from ..run_directory import RunDirectory
from ..step_jobs import STEPS
from .base import EXECUTORS, Executor, attempt, failed
from .work import Work


def available_cpus() -> int:
    """Return the CPUs this process may use (fewer than the machine has, in a batch job).

    OMP_NUM_THREADS lowers it: batch systems set it to what a job was given.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cpus, int(limit))) if limit.isdigit() else max(1, cpus)


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
class Serial(Executor):
    """One job after the other in this process, with all threads for each."""

    def __init__(self, n_threads: int | None = None) -> None:
        self.n_threads = positive("n_threads", n_threads) or available_cpus()

    def run(
        self, run: RunDirectory, numbers: Sequence[int], work: Work = STEPS
    ) -> Iterator[dict[str, Any]]:
        """Yield the reports in order."""
        for number in numbers:
            yield attempt(work, str(run.path), number, self.n_threads)


@EXECUTORS.register("joblib")
class Joblib(Executor):
    """Several jobs at once in processes of their own, one thread each.

    Steps are independent, so this scales better than threads within a step. Memory: one step's
    matrices per job. The backend is joblib's loky unless another is named here or set around the
    call with ``joblib.parallel_config``, as backends that a user registers are.
    """

    def __init__(
        self, n_jobs: int | None = None, n_threads: int = 1, backend: str | None = None
    ) -> None:
        self.n_jobs = positive("n_jobs", n_jobs) or available_cpus()
        self.n_threads = positive("n_threads", n_threads) or 1
        self.backend = backend

    def run(
        self, run: RunDirectory, numbers: Sequence[int], work: Work = STEPS
    ) -> Iterator[dict[str, Any]]:
        """Yield the reports as they come. Raises ConfigError for an unknown backend."""
        from joblib import delayed

        jobs = (delayed(attempt)(work, str(run.path), n, self.n_threads) for n in numbers)
        left = set(numbers)
        try:
            for report in self._pool()(jobs):
                left.discard(report[work.noun])
                yield report
        except BrokenProcessPool as error:  # a worker was killed, mostly for memory
            for n in sorted(left):  # some may have ended well without being heard
                yield work.report(run, n) or failed(work, str(run.path), n, error)

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


def positive(name: str, value: int | None) -> int | None:
    """Check an executor's parameter. Raises ConfigError unless it is above 0 or None."""
    if value is not None and (not isinstance(value, int) or value < 1):
        raise ConfigError(f"executor parameter {name!r} must be a whole number above 0: {value!r}")
    return value
