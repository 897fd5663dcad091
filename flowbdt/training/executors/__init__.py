"""Executors: they decide where jobs run, and every one of them writes the same bytes."""

from ..numbered_jobs import STEPS, JobKind
from .base import EXECUTORS, Executor
from .batch_system import BatchExecutor
from .dask import Dask
from .htcondor import HTCondor
from .local import Joblib, Serial
from .slurm import Slurm

__all__ = [
    "EXECUTORS",
    "STEPS",
    "BatchExecutor",
    "Dask",
    "Executor",
    "HTCondor",
    "JobKind",
    "Joblib",
    "Serial",
    "Slurm",
]
