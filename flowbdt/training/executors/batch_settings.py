"""Settings of all executors whose jobs wait in a queue."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from ...typed_settings import AtLeastOne, AtLeastZero, NotNegative, check_settings
from .local import last_bits


@dataclass(frozen=True)
class BatchSettings:
    """Settings of all executors whose jobs wait in a queue.

    Parameters
    ----------
    python : interpreter on the node that has flowBDT; by default the one that submits
    request_cpus : cores per job, all used within one step
    steps_per_job : steps of a job at most; by default as many as last 15 s
    request_memory : MiB per job; by default from the cost model
    max_retries : further attempts of a job that fails for lack of memory or of a node
    submit : further lines for the batch system
    env : environment variables of the jobs
    poll_s : seconds between two looks at the jobs
    """

    python: str | None = None
    request_cpus: AtLeastOne = 1
    steps_per_job: AtLeastOne | None = None
    request_memory: AtLeastOne | None = None
    max_retries: AtLeastZero = 3
    submit: dict[str, str | int | float | bool] = field(default_factory=dict)
    env: dict[str, str | int | float] = field(default_factory=dict)
    poll_s: NotNegative = 1.0

    def __post_init__(self) -> None:
        check_settings(vars(self), type(self), "executor setting")

    def complete(self) -> Self:
        """Return the settings with the variables that jobs get from this process."""
        return replace(self, env={**last_bits(), **self.env})
