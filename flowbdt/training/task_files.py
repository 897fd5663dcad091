"""Tables and closed form that a task was planned with, checked by hash, and its worker."""

from __future__ import annotations

import functools
import os
import platform
import time
from typing import Any

import numpy as np

from .. import atomic_files
from ..errors import FormatError
from ..flow import closed_form
from ..flow.step_inputs import StepInputs, step_inputs
from ..tables.transforms import JointTransform, TableTransform
from . import run_directory
from .run_directory import RunDirectory

FIELDS = {"noise": "source"}
"""Stored tables that `LatentEvents` has under another name: the noise of a student's pairs."""


def is_planned_array(run: RunDirectory, name: str, sha256: str) -> bool:
    """Test if ``table/<name>.npy`` is there and holds what was planned."""
    try:
        array = run.array(name)
    except FormatError:
        return False
    kind = np.dtype(bool if name in run_directory.MASKS else "<f4")  # the hash is of the bytes only
    return array is not None and array.dtype == kind and atomic_files.digest_array(array) == sha256


def planned_arrays(run: RunDirectory, task: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the latent tables by the names of `LatentEvents`, and ``valid`` (n,), bool.

    Raises FormatError if one is missing or not that of the plan.
    """
    arrays = {}
    for name, sha256 in task["events"].items():
        if name not in run_directory.REAL:
            _check_array(run, name, sha256)
            array = run.array(name)
            assert array is not None
            arrays[FIELDS.get(name, name)] = array
    return arrays


def planned_inputs(run: RunDirectory, task: dict[str, Any]) -> StepInputs:
    """Return the inputs of the trees at the time of a task. Raises FormatError."""
    content = _planned_files(run, task["fitted"])
    joint = atomic_files.parse_json(content["transform.json"], "transform.json")["joint"]
    return step_inputs(
        closed_form.from_bytes(content["preconditioner.npz"]),
        JointTransform.from_json(joint),
        task,
        task["time"],
        task["next_time"],
        task["format"],
    )


def planned_transform(run: RunDirectory, task: dict[str, Any]) -> TableTransform:
    """Return the transform of the table. Raises FormatError."""
    return _transform(_planned_files(run, task["fitted"])["transform.json"])


@functools.lru_cache(maxsize=1)  # half a second for 24 columns, and every classifier asks for it
def _transform(content: bytes) -> TableTransform:
    return TableTransform.from_json(atomic_files.parse_json(content, "transform.json"))


def check_planned(run: RunDirectory, plan: dict[str, Any]) -> None:
    """Raise FormatError if what is still needed of a trained run is not what was planned.

    That is what generation needs, and the tables if a rejection is learned from them.
    """
    _planned_files(run, plan["fingerprint"]["fitted"])
    for name, sha256 in plan["fingerprint"]["events"].items():
        if plan.get("rejection"):
            _check_array(run, name, sha256)


def _planned_files(run: RunDirectory, fitted: dict[str, str]) -> dict[str, bytes]:
    content = {name: run.read(name) for name in fitted}
    for name, sha256 in fitted.items():
        if atomic_files.digest_bytes(content[name]) != sha256:
            raise _not_planned(run, name)
    return content


def _check_array(run: RunDirectory, name: str, sha256: str) -> None:
    if not is_planned_array(run, name, sha256):
        raise _not_planned(run, f"table/{name}.npy")


def _not_planned(run: RunDirectory, name: str) -> FormatError:
    return FormatError(
        f"{run.path}: {name} is missing or not the one this run was planned with. Copy it again, or"
        f" let 'flowbdt fit TABLE -o {run.path} --resume' write it anew from the same table"
    )


def worker_description() -> dict[str, Any]:
    """Return host, process, time, and the machine code that adds up matrix products.

    The last bits of a step depend on that code, so they may differ on another type of processor.
    """
    from threadpoolctl import threadpool_info

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
