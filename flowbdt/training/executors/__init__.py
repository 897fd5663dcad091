"""Executors: they decide where jobs run, and every one of them writes the same bytes."""

from ..numbered_jobs import STEPS, JobKind
from .base import EXECUTORS, Executor
from .dask import Dask
from .htcondor import HTCondor
from .local import Joblib, Serial

__all__ = ["EXECUTORS", "STEPS", "Dask", "Executor", "HTCondor", "JobKind", "Joblib", "Serial"]
