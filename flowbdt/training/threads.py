"""How many threads a process may use."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from ..typed_settings import AtLeastOne, check_value


def available_cpus() -> int:
    """Return the CPUs this process may use (fewer than the machine has, in a batch job).

    OMP_NUM_THREADS lowers it: batch systems set it to the share of a job.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # then those of nested loops
    return max(1, min(cpus, int(limit))) if limit.isdigit() else max(1, cpus)


def one_thread_of_blas() -> AbstractContextManager[Any]:
    """Return a context in which matrix products take one thread: sums in one order."""
    limit: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limit


@cache
def _libraries() -> Any:
    """Return the libraries with threads: to look for them takes 3 ms, and numpy's is there."""
    from threadpoolctl import ThreadpoolController  # comes with scikit-learn

    return ThreadpoolController()


def checked_threads(n_threads: int | None) -> int:
    """Return a number of threads, by default all of this process. Raises ConfigError below 1."""
    if n_threads is None:
        return available_cpus()
    return int(check_value(n_threads, AtLeastOne, "n_threads"))
