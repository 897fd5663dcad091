"""How sure an unfolding is: replicas, covariance of any histogram, and what it is made of."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConfigError, RunError
from ...registry import unknown
from ...tables.event_table import EventTable
from ...training.executors import EXECUTORS
from ...training.run_directory import RunDirectory
from .bootstrap import Replica, ReplicaJobs, plan_replicas, replica_weights
from .inputs import PARTS, PRIOR
from .unfolded import Unfolded, spectrum

N_REPLICAS = 10


@dataclass(frozen=True, eq=False)
class UnfoldingErrors:
    """Weights of the rows of a result under every replica.

    Parameters
    ----------
    result : Unfolded
    weights : arrays (B, N) by part: "data" and "simulation" (Poisson bootstrap of their events),
        "training" (other folds of the events), or (1, N) by the name of a variation, "prior" (the
        result as the simulation's spectrum)
    """

    result: Unfolded
    weights: dict[str, np.ndarray]

    def with_replicas(self) -> EventTable:
        """Return the table with the weights of every replica as further columns, ``data_0``."""
        names = [f"{part}_{k}" for part, found in self.weights.items() for k in range(len(found))]
        return self.result.table.with_columns(names, np.concatenate(list(self.weights.values())).T)

    def replicas(self, column: str, edges: Any) -> dict[str, np.ndarray]:
        """Return the histogram of each replica by part, (B, b)."""
        x = self.result.table.column(column)
        return {
            part: np.array([spectrum(x, weight, edges) for weight in weights])
            for part, weights in self.weights.items()
        }

    def covariances(self, column: str, edges: Any) -> dict[str, np.ndarray]:
        """Return the covariance (b, b) of a histogram's bins by part.

        That of replicas is the one of their spread; of a variation the product of its shifts.
        """
        nominal = self.result.histogram(column, edges)
        return {
            part: np.cov(found, rowvar=False, ddof=1).reshape(len(nominal), -1)
            if part in PARTS
            else np.outer(found[0] - nominal, found[0] - nominal)
            for part, found in self.replicas(column, edges).items()
        }

    def covariance(self, column: str, edges: Any, parts: Sequence[str] | None = None) -> np.ndarray:
        """Return the sum of the covariances (b, b) of some parts, by default of all."""
        found = self.covariances(column, edges)
        return np.sum([found[part] for part in (parts or found)], axis=0)

    def table(self, column: str, edges: Any) -> dict[str, np.ndarray]:
        """Return errors (b,) of each part, and "total"."""
        found = self.covariances(column, edges)
        errors = {part: np.sqrt(np.diag(c)) for part, c in found.items()}
        return errors | {"total": np.sqrt(np.diag(np.sum(list(found.values()), axis=0)))}

    def interval(
        self, column: str, edges: Any, level: float = 0.68
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper ends (b,) of central intervals.

        The quantile is Student's for the number of replicas of a part: errors from few replicas
        are uncertain themselves.
        """
        from scipy.stats import t

        sizes = [len(weights) for part, weights in self.weights.items() if part in PARTS]
        freedom = sum(size - 1 for size in sizes) or 1
        half = t.ppf(0.5 + level / 2, freedom) * self.table(column, edges)["total"]
        nominal = self.result.histogram(column, edges)
        return nominal - half, nominal + half


def unfolding_errors(
    result: Unfolded,
    n_replicas: int = N_REPLICAS,
    *,
    parts: Sequence[str] = ("data", "simulation"),
    prior: bool = True,
    executor: Any = "serial",
    folder: str | Path | None = None,
) -> UnfoldingErrors:
    """Unfold again with other weights: replicas, variations of the inputs, another prior.

    Parameters
    ----------
    n_replicas : of each part, at least 2
    parts : of "data", "simulation" (with background) and "training"
    prior : whether to unfold with the result as the simulation's spectrum: what still moves is
        what the number of iterations left of the prior
    executor : name or settings, as for training; replicas are jobs
    folder : keeps the replicas, so that a call that was interrupted goes on; None for a temporary
        folder

    Raises
    ------
    ConfigError, RunError
        If there are too few replicas or a part is unknown; if a replica failed.
    """
    if n_replicas < 2:
        raise ConfigError(f"a spread needs at least 2 replicas, got n_replicas={n_replicas}")
    for part in parts:
        if part not in PARTS:
            raise ConfigError(str(unknown("part", part, PARTS)))
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="flowbdt-unfolding-") as temporary:
            return unfolding_errors(
                result, n_replicas, parts=parts, prior=prior, executor=executor, folder=temporary
            )
    replicas = [Replica(part, number) for part in parts for number in range(n_replicas)]
    replicas += [Replica("variation", name) for name in result.inputs.variations]
    replicas += [Replica(PRIOR, PRIOR)] if prior else []
    run, jobs = RunDirectory(folder), ReplicaJobs()
    plan_replicas(run, result, replicas)
    left = [k for k in range(len(replicas)) if jobs.receive(run, k) is None]
    for report in EXECUTORS.build(executor).run(run, left, jobs):
        if "error" in report:
            raise RunError(f"replica {report['replica']} failed: {report['error']}")
    weights: dict[str, list[np.ndarray]] = {}
    for k, replica in enumerate(replicas):
        part = replica.part if replica.part in PARTS else str(replica.key)
        weights.setdefault(part, []).append(replica_weights(run, k))
    return UnfoldingErrors(result, {part: np.array(found) for part, found in weights.items()})
