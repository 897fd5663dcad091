"""Tables and closed form that a task was planned with, checked by hash, and its worker."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from .. import atomic_files
from ..errors import FormatError
from ..flow import closed_form
from ..flow.step_inputs import StepInputs, step_inputs
from ..tables.transforms import JointTransform
from . import run_directory
from .run_directory import RunDirectory

FIELDS = {"noise": "source"}
"""Stored tables that `LatentEvents` has under another name: the noise of a student's pairs."""


def planned_arrays(run: RunDirectory, task: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the latent tables by the names of `LatentEvents`, and ``valid`` (n,), bool.

    Raises FormatError if one is missing or not that of the plan.
    """
    arrays = {}
    for name, sha256 in task["events"].items():
        if name in run_directory.REAL:
            continue
        array = run.array(name)
        if array is None or atomic_files.digest_array(array) != sha256:
            raise _not_planned(run, f"table/{name}.npy is missing or")
        arrays[FIELDS.get(name, name)] = array
    return arrays


def planned_inputs(run: RunDirectory, task: dict[str, Any]) -> StepInputs:
    """Return the inputs of the trees at the time of a task. Raises FormatError."""
    content = {name: run.read(name) for name in task["fitted"]}
    for name, sha256 in task["fitted"].items():
        if atomic_files.digest_bytes(content[name]) != sha256:
            raise _not_planned(run, f"{name} is")
    joint = run_directory.parse_json(content["transform.json"], "transform.json")["joint"]
    return step_inputs(
        closed_form.from_bytes(content["preconditioner.npz"]),
        JointTransform.from_json(joint),
        task,
        task["time"],
        task["next_time"],
        task["format"],
    )


def _not_planned(run: RunDirectory, what: str) -> FormatError:
    return FormatError(
        f"{run.path}: {what} not the one this run was planned with; plan the run anew in an empty"
        " folder"
    )


def worker_description() -> dict[str, Any]:
    """Return host, process, time, and the machine code that adds up matrix products.

    The last bits of a step depend on that code, so they may differ on another type of processor.
    """
    libraries = {
        f"{info['internal_api']} {info['architecture']}"
        for info in threadpool_info()
        if info["user_api"] == "blas" and "architecture" in info
    }
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "finished": time.time(),
        "sums": ", ".join(sorted(libraries)),
    }
