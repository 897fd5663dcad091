"""Executors on this machine: one step after the other, or several at once through joblib."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ..errors import ConfigError
from ..store import RunDirectory
from .base import EXECUTORS, Executor, attempt, failed


def available_cpus() -> int:
    """Return the CPUs this process may use (fewer than the machine has, in a batch job).

    OMP_NUM_THREADS lowers it: batch systems set it to what a job was given.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cpus, int(limit))) if limit.isdigit() else max(1, cpus)


@EXECUTORS.register("serial")
class Serial(Executor):
    """One step after the other in this process, with all threads for each."""

    def __init__(self, n_threads: int | None = None) -> None:
        self.n_threads = _positive("n_threads", n_threads) or available_cpus()

    def run(self, run: RunDirectory, steps: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield the reports in order."""
        for step in steps:
            yield attempt(str(run.path), step, self.n_threads)


@EXECUTORS.register("joblib")
class Joblib(Executor):
    """Several steps at once in processes of their own, one thread each (joblib's loky).

    Steps are independent, so this scales better than threads within a step. Memory: one step's
    matrices per job.
    """

    def __init__(self, n_jobs: int | None = None, n_threads: int = 1) -> None:
        self.n_jobs = _positive("n_jobs", n_jobs) or available_cpus()
        self.n_threads = _positive("n_threads", n_threads) or 1

    def run(self, run: RunDirectory, steps: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield the reports as they come."""
        from joblib import Parallel, delayed

        pool = Parallel(n_jobs=self.n_jobs, return_as="generator_unordered")
        jobs = pool(delayed(attempt)(str(run.path), step, self.n_threads) for step in steps)
        left = set(steps)
        try:
            for report in jobs:
                left.discard(report["step"])
                yield report
        except BrokenProcessPool as error:  # a worker was killed, mostly for memory
            yield from (failed(str(run.path), step, error) for step in sorted(left))


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and (not isinstance(value, int) or value < 1):
        raise ConfigError(f"executor parameter {name!r} must be a whole number above 0: {value!r}")
    return value
