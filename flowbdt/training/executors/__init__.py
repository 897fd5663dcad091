"""Where steps are trained. Every executor writes the same bytes."""

from ..step_jobs import STEPS
from .base import EXECUTORS, Executor
from .dask import Dask
from .htcondor import HTCondor
from .local import Joblib, Serial
from .work import Work

__all__ = ["EXECUTORS", "STEPS", "Dask", "Executor", "HTCondor", "Joblib", "Serial", "Work"]
