"""Jobs through Dask: a scheduler that runs already, or a cluster that dask-jobqueue starts."""

from __future__ import annotations

import contextlib
import importlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...errors import ConfigError, MissingExtra, RunError
from ...registry import unknown
from ..run_directory import RunDirectory
from ..step_jobs import STEPS
from .base import EXECUTORS, Executor, attempt, failed
from .local import available_cpus, last_bits, positive
from .work import Work

CLUSTERS = {
    "local": ("distributed", "LocalCluster"),
    "htcondor": ("dask_jobqueue", "HTCondorCluster"),
    "lsf": ("dask_jobqueue", "LSFCluster"),
    "oar": ("dask_jobqueue", "OARCluster"),
    "pbs": ("dask_jobqueue", "PBSCluster"),
    "sge": ("dask_jobqueue", "SGECluster"),
    "slurm": ("dask_jobqueue", "SLURMCluster"),
}
"""Name -> module and class; its parameters are those of the class."""


@EXECUTORS.register("dask")
class Dask(Executor):
    """Every job a task of Dask, which schedules it, and starts it anew if its worker dies.

    Workers must see the run folder under the same path, and use the same package versions. In one
    worker process one job runs at a time: give workers one thread each, or more with ``n_threads``.

    Parameters
    ----------
    address : of a scheduler that runs, e.g. ``"tcp://head:8786"``
    cluster : what to start if there is no address: 'local', 'slurm', 'htcondor', 'pbs', 'sge',
        'lsf' or 'oar', or with the parameters of dask-jobqueue's class ``{"name": "slurm",
        "queue": "short", "cores": 1, "memory": "2GB"}``
    n_jobs : workers of that cluster, by default as many as this machine has cores
    n_threads : threads of each job
    retries : further attempts of a job whose worker dies
    connect_s : seconds that the scheduler may take to answer
    """

    def __init__(
        self,
        address: str | None = None,
        cluster: str | Mapping[str, Any] | None = None,
        n_jobs: int | None = None,
        n_threads: int = 1,
        retries: int = 2,
        connect_s: float = 30.0,
    ) -> None:
        if address is not None and cluster is not None:
            raise ConfigError("executor 'dask' takes an address or a cluster to start, not both")
        self.address, self.retries, self.connect_s = address, retries, connect_s
        self.cluster = {"name": cluster} if isinstance(cluster, str) else dict(cluster or {})
        self.cluster.setdefault("name", "local")
        if self.cluster["name"] not in CLUSTERS:
            raise unknown("Dask cluster", self.cluster["name"], CLUSTERS)
        self.n_jobs = positive("n_jobs", n_jobs) or available_cpus()
        self.n_threads = positive("n_threads", n_threads) or 1

    def run(
        self, run: RunDirectory, numbers: Sequence[int], work: Work = STEPS
    ) -> Iterator[dict[str, Any]]:
        """Yield the reports as they come."""
        if not numbers:
            return
        distributed = _module("distributed")
        folder = str(run.path.resolve())
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(self._client(distributed, stack))
            jobs = {
                client.submit(
                    attempt, work, folder, n, self.n_threads, pure=False, retries=self.retries
                ): n
                for n in numbers
            }
            for job in distributed.as_completed(jobs):
                error = job.exception()
                if error is None:
                    yield job.result()
                else:  # the worker died: what a job itself raises is in its report
                    number = jobs[job]
                    yield work.report(run, number) or failed(work, folder, number, error)

    def _client(self, distributed: Any, stack: contextlib.ExitStack) -> Any:
        if self.address is None:
            return distributed.Client(stack.enter_context(self._started()))
        try:
            return distributed.Client(self.address, timeout=self.connect_s)
        except (OSError, ValueError) as error:
            raise RunError(
                f"no Dask scheduler answers at {self.address}: {error or type(error).__name__};"
                " start one with 'dask scheduler', and workers with 'dask worker ADDRESS"
                " --nthreads 1'"
            ) from error

    def _started(self) -> Any:
        """Return the cluster with its workers asked for."""
        module, name = CLUSTERS[self.cluster["name"]]
        parameters = {key: value for key, value in self.cluster.items() if key != "name"}
        if module == "distributed":
            own = {"n_workers": self.n_jobs, "threads_per_worker": 1, "dashboard_address": None}
            return getattr(_module(module), name)(**{**own, **parameters})
        own = {"cores": 1, "processes": 1}
        try:
            cluster = getattr(_module(module), name)(
                **{**own, **parameters, **_prologue(parameters)}
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"executor.cluster {self.cluster['name']!r}: {error}") from error
        cluster.scale(jobs=self.n_jobs)
        return cluster


def _prologue(parameters: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the commands that workers of a batch system begin with; nothing if there are none."""
    given = list(parameters.get("job_script_prologue", []))
    lines = [f"export {name}={shlex.quote(value)}" for name, value in last_bits().items()] + given
    return {"job_script_prologue": lines} if lines else {}


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra.of(name, error, "dask") from error
