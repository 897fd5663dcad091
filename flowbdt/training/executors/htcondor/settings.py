"""What can be set about jobs on HTCondor, checked before anything is sent."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ....errors import ConfigError
from ..local import positive

PACKS = (".whl", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

OURS = frozenset(
    """
    universe executable transfer_executable arguments environment initialdir log output error
    should_transfer_files when_to_transfer_output preserve_relative_paths transfer_input_files
    transfer_output_files transfer_output_remaps request_cpus request_memory request_disk
    success_exit_code max_retries periodic_release periodic_remove submit_event_notes queue
    max_materialize on_exit_remove on_exit_hold
    """.split()  # noqa: SIM905
)
"""What `describe` writes; the rest of a description is the user's."""


@dataclass(frozen=True)
class Settings:
    """Parameters of the executor ``htcondor``.

    Parameters
    ----------
    transfer : copy files to the node and back; false where node and submit machine share files
    python : interpreter on the node that has flowBDT; by default the one that submits
    pack : environment that the job unpacks: a packed conda environment (``.tar.gz``), or a wheel of
        flowBDT to use with an interpreter that has the other packages
    request_cpus : cores per job, all used within one step
    request_memory, request_disk : MiB per job; by default from the cost model
    max_retries : further attempts of a job that fails, and releases of one that is held
    hold_release_s : seconds after which a held job is tried again; one that lacked memory is at
        once, with more
    max_materialize : jobs in the queue at a time; the others wait in the description
    submit : further lines of the description, e.g. ``{"accounting_group": "higgs"}``
    env : environment variables of the jobs
    poll_s : seconds between two looks into the event log
    bindings : true for HTCondor's Python bindings, false for its command line; by default the
        bindings if they are installed

    Raises
    ------
    ConfigError
        For values that cannot work.
    """

    transfer: bool = False
    python: str | None = None
    pack: str | None = None
    request_cpus: int = 1
    request_memory: int | None = None
    request_disk: int | None = None
    max_retries: int = 3
    hold_release_s: int = 60
    max_materialize: int = 1000
    submit: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    poll_s: float = 1.0
    bindings: bool | None = None

    def __post_init__(self) -> None:
        for name in ("request_cpus", "request_memory", "request_disk", "max_materialize"):
            positive(name, getattr(self, name))
        for name in ("max_retries", "hold_release_s", "poll_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise ConfigError(f"executor.{name} must be a number of at least 0, got {value!r}")
        for name in ("submit", "env"):
            if not isinstance(getattr(self, name), Mapping):
                raise ConfigError(
                    f"executor.{name} must be a mapping of names to values, got"
                    f" {getattr(self, name)!r}"
                )
        self._check_lines()
        self._check_pack()

    def _check_lines(self) -> None:
        for name in self.submit:
            if not re.fullmatch(r"\+?[A-Za-z_][\w.]*", name) or name.lower() in OURS:
                raise ConfigError(
                    f"executor.submit cannot set {name!r}: it must be the name of a command that"
                    " flowBDT does not write itself (requirements, accounting_group, +JobFlavour)."
                    " Memory, disk, cores and retries are settings of their own:"
                    " executor.request_memory=2000"
                )

    def _check_pack(self) -> None:
        if self.pack is None:
            return
        if not self.pack.endswith(PACKS):
            raise ConfigError(f"executor.pack must end in {', '.join(PACKS)}: {self.pack}")
        if not Path(self.pack).is_file():
            raise ConfigError(f"executor.pack: there is no file {self.pack}")

    @property
    def pack_mib(self) -> int:
        """Room for the packed environment and what it unpacks to, about."""
        return 0 if self.pack is None else round(4 * Path(self.pack).stat().st_size / 2**20)

    @property
    def interpreter(self) -> str:
        """The Python that jobs use."""
        return self.python or sys.executable

    @property
    def interpreter_here(self) -> str:
        """The Python that submits, for what runs on the submit machine."""
        return sys.executable
