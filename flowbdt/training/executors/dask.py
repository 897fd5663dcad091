"""Jobs through Dask: a scheduler that runs already, or a cluster that dask-jobqueue starts."""

from __future__ import annotations

import contextlib
import functools
import importlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from ...errors import ConfigError, MissingExtra, RunError
from ...registry import unknown
from ...typed_settings import AtLeastOne, AtLeastZero
from ..numbered_jobs import STEPS, JobKind
from ..run_directory import RunDirectory
from ..threads import available_cpus
from .base import EXECUTORS, Executor, Reports, attempt_batch, failed
from .local import last_bits

CLUSTERS = {
    "local": ("distributed", "LocalCluster"),
    "htcondor": ("dask_jobqueue", "HTCondorCluster"),
    **{
        name: ("dask_jobqueue", f"{name.upper()}Cluster")
        for name in ("lsf", "oar", "pbs", "sge", "slurm")
    },
}
"""Name -> module and class; its parameters are those of the class."""

PATIENT = {"distributed.deploy.lost-worker-timeout": "1 hour"}
"""A local worker that dies is started anew; after 15 s, Dask's default, nobody did any more."""


@EXECUTORS.register("dask")
@dataclass
class Dask(Executor):
    """Every job is a task of Dask, which starts it anew if its worker dies: one step, or several.

    Steps that workers die with again and again have another try at the end, one by one.

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
    steps_per_job : steps of a task at most; by default as many as last 15 s, while every worker
        has one
    """

    address: str | None = None
    cluster: str | dict[str, Any] | None = None
    n_jobs: AtLeastOne = field(default_factory=available_cpus)
    n_threads: AtLeastOne = 1
    retries: AtLeastZero = 2
    connect_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    steps_per_job: AtLeastOne | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.address is not None and self.cluster is not None:
            raise ConfigError("executor 'dask' takes an address or a cluster to start, not both")
        spec = {"name": self.cluster} if isinstance(self.cluster, str) else self.cluster or {}
        self._parameters = {k: v for k, v in spec.items() if k != "name"}
        self._cluster = spec.get("name", "local")
        if self._cluster not in CLUSTERS:
            raise unknown("Dask cluster", self._cluster, CLUSTERS)

    def run(self, run: RunDirectory, numbers: Sequence[int], kind: JobKind = STEPS) -> Reports:
        if not numbers:
            return
        distributed = _module("distributed")
        folder = str(run.path.resolve())
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(self._client(distributed, stack))
            known = self.n_jobs if self.address is None else len(client.nthreads())
            batches = kind.batches(run, numbers, self.steps_per_job, self.n_threads, max(known, 1))
            once = {"pure": False, "retries": self.retries}
            submit = functools.partial(client.submit, attempt_batch, kind, folder, **once)
            jobs = {submit(one, self.n_threads): one for one in batches}
            suspects, alone = list[int](), False
            while jobs or suspects:
                if not jobs:
                    alone, one = True, (suspects.pop(0),)
                    jobs = {submit(one, self.n_threads): one}
                for job in self._ended(client, jobs):
                    batch, done = jobs.pop(job), self._outcome(job)
                    if isinstance(done, list):
                        yield from done
                        continue
                    # the worker died: what a job itself raises is in its report
                    for number in batch:
                        report = kind.report(run, number)
                        if report is None and job.done() and not alone:
                            suspects.append(number)  # or another job that its worker had
                        else:
                            yield report or failed(kind, folder, number, done)

    def _ended(self, client: Any, jobs: Mapping[Any, Any]) -> list[Any]:
        """Return jobs that have ended, or all once workers started here are gone for good.

        Workers of a batch system may wait in its queue, and others may join a scheduler later.
        """
        distributed = _module("distributed")
        absent = False
        while True:
            with contextlib.suppress(TimeoutError):
                first = {"timeout": self.connect_s, "return_when": "FIRST_COMPLETED"}
                return list(distributed.wait(list(jobs), **first).done)
            before, absent = absent, not client.nthreads()
            if self.address is None and self._cluster == "local" and before and absent:
                return list(jobs)

    def _outcome(self, job: Any) -> list[dict[str, Any]] | BaseException:
        """Return the reports of a job that has ended, or why there are none."""
        if not job.done():
            return RunError("all workers of the cluster have died")
        try:
            reports: list[dict[str, Any]] = job.result(timeout=self.connect_s)
            return reports
        except TimeoutError:  # Dask waits until somebody does it anew
            return RunError("its worker died before it handed over the reports")
        except Exception as error:
            return error

    def _client(self, distributed: Any, stack: contextlib.ExitStack) -> Any:
        if self.address is None:
            if self._cluster == "local":
                stack.enter_context(_module("dask").config.set(PATIENT))
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
        """Start a cluster and request its workers."""
        module, name = CLUSTERS[self._cluster]
        parameters = self._parameters
        if module == "distributed":
            local = {"n_workers": self.n_jobs, "threads_per_worker": 1, "dashboard_address": ":0"}
            return getattr(_module(module), name)(**{**local, **parameters})
        one = {"cores": 1, "processes": 1}
        try:
            cluster = getattr(_module(module), name)(
                **{**one, **parameters, **_prologue(parameters)}
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"executor.cluster {self._cluster!r}: {error}") from error
        cluster.scale(jobs=self.n_jobs)
        return cluster


def _prologue(parameters: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the commands that workers of a batch system begin with; nothing if there are none."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in last_bits().items()]
    lines += parameters.get("job_script_prologue", [])
    return {"job_script_prologue": lines} if lines else {}


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra.of(name, error, "dask") from error
