"""Plan an ensemble: runs of one table whose events count as often as a Poisson number says.

Such replicas differ as models of other tables of the same size would (Poisson bootstrap). They
share the choice of transforms and the number of Gaussians, which are found once: what another table
would change of these is left out. Transforms to a normal distribution move with the weights, the
closed form is fitted in a few iterations from the shared one on, and trees of the steps,
classifiers of columns, and the rejection are learned anew.
"""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np

from .. import atomic_files
from ..errors import ConfigError, RunError
from ..flow import closed_form
from ..flow.closed_form.mixture import MixturePreconditioner
from ..seeding import derive, stream
from ..tables.transforms import TableTransform
from . import run_directory
from .plan import Inputs, check_table, closed_form_rows, fit_table, flow_rows, make_plan
from .run_directory import RunDirectory
from .threads import one_thread_of_blas


def plan_ensemble(
    inputs: Inputs, folder: str | PathLike[str], *, resume: bool = False
) -> list[RunDirectory]:
    """Write the run folders of an ensemble of ``n_replicas``; arguments and errors as `make_plan`.

    The file that makes the folder an ensemble comes last.
    """
    whole, n = RunDirectory(folder), inputs.config.n_replicas
    if inputs.pairs is not None:
        raise ConfigError("a student has one teacher: distil with n_replicas=1")
    if n > run_directory.MOST_REPLICAS:
        raise ConfigError(f"n_replicas must be at most {run_directory.MOST_REPLICAS}, got {n}")
    if whole.is_planned():
        raise RunError(f"{whole.path} is a run of one model: choose another folder for replicas")
    inputs = inputs.settled()
    if inputs.table.weight is None:
        inputs = replace(inputs, table=replace(inputs.table, weight=np.ones(inputs.table.n)))
    grid = inputs.checked_grid()
    check_table(inputs)
    atomic_files.make_folder(whole.path)
    if not whole.file("config.yaml").exists():
        atomic_files.write_bytes(whole.file("config.yaml"), inputs.config.to_yaml().encode())
    shared = fit_table(inputs)
    config = replace(inputs.config, n_replicas=1)
    runs = []
    for k in range(n):
        run = RunDirectory(whole.path / run_directory.replica_name(k))
        seed = derive(inputs.seed, "replica", k)
        one = replace(inputs, config=config, seed=seed, grid=grid)
        make_plan(one, run, resume=resume, fitted=_bootstrapped(shared, seed))
        runs.append(run)
    about = {"format": run_directory.FORMAT, "n_replicas": n, "seed": inputs.seed}
    whole.write_json(run_directory.ENSEMBLE, about)
    return runs


def _bootstrapped(shared: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return what was fitted with Poisson weights and a closed form of these."""
    arrays = dict(shared["arrays"])
    valid = arrays["valid"]
    counts = stream(seed, "bootstrap").poisson(1.0, len(valid)).astype(np.float32)
    for part in (valid, ~valid):
        if part.any() and not (counts * arrays["weight"])[part].any():
            counts[part] = 1.0  # of a few events
    arrays["weight"] = arrays["weight"] * counts
    files = dict(shared["files"])
    if "source" not in arrays:
        content = atomic_files.parse_json(files["transform.json"], "transform.json")
        transform = TableTransform.from_json(content)
        with one_thread_of_blas():
            moved = transform.reweighted(arrays["z"], flow_rows(arrays), counts)
        arrays["z"] = moved.astype(np.float32)
        files["transform.json"] = atomic_files.json_bytes(transform.to_json())
    fitted = closed_form.from_bytes(shared["files"]["preconditioner.npz"])
    if isinstance(fitted, MixturePreconditioner):
        with one_thread_of_blas():
            fitted.refit(seed=derive(seed, "preconditioner"), **closed_form_rows(arrays))
    files["preconditioner.npz"] = fitted.to_bytes()
    return {**shared, "arrays": arrays, "files": files}
