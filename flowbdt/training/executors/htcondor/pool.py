"""Talking to HTCondor: through its Python bindings, or through its command line."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....errors import MissingExtra, RunError
from .quoting import string
from .submit_files import ATTRIBUTE

Job = tuple[int, int]
"""Cluster and process."""

TIMEOUT_S = 300


class Pool(ABC):
    """The few things that are asked of HTCondor. All raise RunError when it does not answer."""

    @abstractmethod
    def submit(self, folder: Path, description: str) -> int:
        """Submit a description (a file in ``folder``) and return the cluster."""

    @abstractmethod
    def submit_dag(self, folder: Path, dag: str, mark: str) -> int:
        """Submit a DAG (a file in ``folder``) and return the cluster of its manager."""

    @abstractmethod
    def queued(self, mark: str) -> set[Job]:
        """Return the jobs of a submission that are in the queue."""


def connect(bindings: bool | None = None) -> Pool:
    """Return the bindings if they are installed (or asked for), else the command line.

    Raises
    ------
    MissingExtra
        If what was asked for, or both, is not there.
    """
    if bindings is not False:
        with contextlib.suppress(ImportError):
            return Bindings()
    if bindings is not True and shutil.which("condor_submit"):
        return CommandLine()
    missing = {
        None: "condor_submit is not in PATH and HTCondor's Python bindings are not installed",
        True: "HTCondor's Python bindings are not installed",
        False: "condor_submit is not in PATH",
    }[bindings]
    raise MissingExtra(
        f"{missing}: run this on a machine that submits to your pool, or get the bindings with"
        " pip install 'flowbdt[htcondor]'"
    )


class CommandLine(Pool):
    """condor_submit, condor_submit_dag and condor_q."""

    def submit(self, folder: Path, description: str) -> int:
        """Submit with condor_submit."""
        return int(self._run(["condor_submit", "-terse", description], folder).split(".")[0])

    def submit_dag(self, folder: Path, dag: str, mark: str) -> int:
        """Submit with condor_submit_dag."""
        line = f"My.{ATTRIBUTE} = {string(mark)}"
        said = self._run(["condor_submit_dag", "-append", line, dag], folder)
        found = re.search(r"submitted to cluster (\d+)", said)
        if found is None:
            raise RunError(f"condor_submit_dag did not name a cluster; it said: {said.strip()}")
        return int(found[1])

    def queued(self, mark: str) -> set[Job]:
        """Ask condor_q."""
        constraint = f"{ATTRIBUTE} == {string(mark)}"
        query = ["condor_q", "-constraint", constraint, "-af", "ClusterId", "ProcId"]
        rows = (line.split() for line in self._run(query).splitlines())
        return {(int(row[0]), int(row[1])) for row in rows if len(row) == 2}

    @staticmethod
    def _run(command: list[str], folder: Path | None = None) -> str:
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunError(f"{command[0]} did not answer: {error}") from error
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())
            raise RunError(f"{command[0]} failed with exit status {done.returncode}: {said}")
        return done.stdout


class Bindings(Pool):
    """HTCondor's Python bindings, version 2 (the package htcondor, module htcondor2)."""

    def __init__(self) -> None:
        self._htcondor: Any = importlib.import_module("htcondor2")

    def submit(self, folder: Path, description: str) -> int:
        """Submit through the schedd of this machine."""
        text = (folder / description).read_text()
        with self._errors("submit"), _inside(folder):
            submit = self._htcondor.Submit(text)
            return int(self._htcondor.Schedd().submit(submit).cluster())

    def submit_dag(self, folder: Path, dag: str, mark: str) -> int:
        """Submit the DAG's manager as a job."""
        with self._errors("submit a DAG"), _inside(folder):
            submit = self._htcondor.Submit.from_dag(dag, {})
            submit[f"My.{ATTRIBUTE}"] = string(mark)
            return int(self._htcondor.Schedd().submit(submit).cluster())

    def queued(self, mark: str) -> set[Job]:
        """Ask the schedd of this machine."""
        with self._errors("show the queue"):
            found = self._htcondor.Schedd().query(
                constraint=f"{ATTRIBUTE} == {string(mark)}", projection=["ClusterId", "ProcId"]
            )
        return {(int(ad["ClusterId"]), int(ad["ProcId"])) for ad in found}

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (self._htcondor.HTCondorException, RuntimeError, OSError, ValueError) as error:
            raise RunError(
                f"HTCondor did not {what}: {error}; is CONDOR_CONFIG set, or"
                " /etc/condor/condor_config there, and does condor_q work"
            ) from error


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Change the working folder: file names in descriptions are relative to it."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
