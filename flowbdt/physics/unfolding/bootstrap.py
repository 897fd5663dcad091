"""Replicas of an unfolding as jobs: with other weights of data, simulation or background.

::

    replicas.json            settings and the list of replicas
    table/*.npy              the inputs, and what the method need not make anew
    replicas/0003.npy        weights of the rows (N,) of a replica, then
    replicas/0003.report.json
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np

from ... import atomic_files
from ...errors import FormatError, RunError, reading
from ...seeding import derive, stream
from ...tables.event_table import EventTable
from ...training.expected_cost import PROCESS_MIB
from ...training.numbered_jobs import DISK_MIB, SPARE_MEMORY, JobKind, Needs, folder_mib, name_of
from ...training.run_directory import RunDirectory
from .inputs import PRIOR, UnfoldingInputs
from .method import Settings
from .unfolded import Unfolded

PLAN = "replicas.json"


@dataclass(frozen=True)
class Replica:
    """What is changed: the part, and the number of the draw or the name of the variation."""

    part: str
    key: int | str

    def inputs(self, inputs: UnfoldingInputs, unfolded: np.ndarray, seed: int) -> UnfoldingInputs:
        """Return the inputs of the replica; ``unfolded`` are weights (n,) of the nominal result."""
        if self.part == "variation":
            return inputs.varied(str(self.key))
        if self.part == PRIOR:
            truth = inputs.pass_truth
            scale = inputs.weight[truth].sum() / unfolded[truth].sum()
            return replace(inputs, weight=np.where(truth, scale * unfolded, inputs.weight))
        if self.part == "data":
            return inputs.reweighted(data=self._poisson(seed, "data", inputs.data.n))
        if self.part == "simulation":
            n = len(inputs.background_weight)
            return inputs.reweighted(
                simulation=self._poisson(seed, "simulation", inputs.n),
                background=self._poisson(seed, "background", n),
            )
        return inputs

    def _poisson(self, seed: int, what: str, n: int) -> np.ndarray:
        return stream(seed, f"unfolding bootstrap {what}", int(self.key)).poisson(1.0, n) * 1.0


class StoredReplicas(msgspec.Struct):
    """Content of ``replicas.json``."""

    settings: dict[str, Any]
    n_iterations: int
    replicas: list[tuple[str, int | str]]
    names: list[list[str]]
    digest: str


@dataclass(frozen=True)
class ReplicaJobs(JobKind):
    """The replicas of an unfolding; its folder takes the place of a run's."""

    noun: ClassVar[str] = "replica"
    digest_key: ClassVar[str] = "sha256"

    def do(self, folder: str, number: int, n_threads: int) -> dict[str, Any]:
        from .unfold import prepare

        start, run = time.perf_counter(), RunDirectory(folder)
        plan = read_plan(run)
        if not 0 <= number < len(plan.replicas):
            raise RunError(f"{folder} has replicas 0 to {len(plan.replicas) - 1}, no {number}")
        replica = Replica(*plan.replicas[number])
        settings = msgspec.convert(plan.settings, Settings)
        inputs, unfolded, state = _stored_inputs(run, plan.names)
        if replica.part == "training":
            settings = replace(settings, seed=derive(settings.seed, "retraining", int(replica.key)))
        method = prepare(inputs, settings, n_threads, state)
        changed = replica.inputs(inputs, unfolded, settings.seed)
        weight = method.weigh(changed, plan.n_iterations).rows
        result, report = self.result(name_of(number))
        atomic_files.make_folder(run.file("replicas"))
        atomic_files.write_array(run.file(result), weight)
        content = {
            "replica": number,
            "plan": plan.digest,
            "sha256": atomic_files.digest_file(run.file(result)),
            "seconds": time.perf_counter() - start,
        }
        run.write_json(report, content)
        return content

    def command(self, number: str) -> list[str]:
        return ["replica", ".", number]

    def inputs(self, run: RunDirectory, name: str) -> list[str]:
        return [PLAN, "table"]

    def result(self, name: str) -> tuple[str, str]:
        return f"replicas/{name}.npy", f"replicas/{name}.report.json"

    def logs(self, name: str) -> str:
        return f"replicas/{name}"

    def report(self, run: RunDirectory, number: int) -> dict[str, Any] | None:
        result, report = self.result(name_of(number))
        try:
            found = run.read_json(report)
            same = atomic_files.digest_file(run.file(result)) == found["sha256"]
            return found if same and found["plan"] == read_plan(run).digest else None
        except (FormatError, KeyError, OSError):
            return None

    def needs(self, run: RunDirectory) -> Needs:
        table = folder_mib(run, "table")
        return Needs(round(SPARE_MEMORY * (PROCESS_MIB + 10 * table)), round(DISK_MIB + 2 * table))


def plan_replicas(
    run: RunDirectory, result: Unfolded, replicas: Iterable[Replica]
) -> list[Replica]:
    """Write inputs and list of replicas; what is there already of the same plan is kept."""
    inputs = result.inputs
    atomic_files.make_folder(run.file("table"))
    arrays = _arrays(inputs, result.simulation_weight) | {
        f"state-{name}": array for name, array in result.state.items()
    }
    listed = [(replica.part, replica.key) for replica in replicas]
    content: dict[str, Any] = {
        "settings": atomic_files.to_plain(asdict(result.settings)),
        "n_iterations": result.record["iterations"],
        "replicas": listed,
        "names": [list(table.names) for table in (inputs.truth, inputs.reco)],
    }
    hashes = {name: atomic_files.digest_array(array) for name, array in arrays.items()}
    content["digest"] = atomic_files.digest([content, hashes])
    for name, array in arrays.items():
        run.write_array(name, array)
    run.write_json(PLAN, content)
    return [Replica(*one) for one in listed]


def read_plan(run: RunDirectory) -> StoredReplicas:
    """Return the plan of replicas. Raises FormatError if it is missing or damaged."""
    try:
        return msgspec.convert(run.read_json(PLAN), StoredReplicas)
    except msgspec.ValidationError as error:
        raise FormatError(f"{run.file(PLAN)}: {error}; unfold again") from error


def replica_weights(run: RunDirectory, number: int) -> np.ndarray:
    """Return the weights (N,) of a finished replica. Raises FormatError if it is damaged."""
    path = run.file(ReplicaJobs().result(name_of(number))[0])
    with reading(str(path)):
        return np.asarray(np.load(path, allow_pickle=False))


def _arrays(inputs: UnfoldingInputs, unfolded: np.ndarray) -> dict[str, np.ndarray]:
    found = {
        "truth": inputs.truth.x,
        "reco": inputs.reco.x,
        "weight": inputs.weight,
        "pass_truth": inputs.pass_truth,
        "pass_reco": inputs.pass_reco,
        "data": inputs.data.x,
        "data_weight": inputs.data_weight,
        "unfolded": unfolded,
    }
    if inputs.background is not None:
        found |= {"background": inputs.background.x, "background_weight": inputs.background_weight}
    groups = (inputs.variations, inputs.background_variations)
    for prefix, group in zip(("variation", "background-variation"), groups, strict=True):
        found |= {f"{prefix}-{name}": weight for name, weight in group.items()}
    return found


def _stored_inputs(
    run: RunDirectory, names: list[list[str]]
) -> tuple[UnfoldingInputs, np.ndarray, Mapping[str, np.ndarray]]:
    """Return inputs, weights of the nominal result and the state of the method."""
    paths = sorted(Path(run.file("table")).glob("*.npy"))
    arrays = {path.stem: np.asarray(run.array(path.stem)) for path in paths}

    def group(prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}

    def table(x: np.ndarray, columns: list[str], weight: np.ndarray | None = None) -> EventTable:
        return EventTable(
            x, tuple(columns), ("",) * len(columns), ("float64",) * len(columns), weight=weight
        )

    truth, reco = names
    try:
        background = arrays.get("background")
        inputs = UnfoldingInputs(
            table(arrays["truth"], truth),
            table(arrays["reco"], reco),
            arrays["weight"],
            arrays["pass_truth"],
            arrays["pass_reco"],
            table(arrays["data"], reco, arrays["data_weight"]),
            None if background is None else table(background, reco, arrays["background_weight"]),
            group("variation-"),
            group("background-variation-"),
        )
        return inputs, arrays["unfolded"], group("state-")
    except KeyError as error:
        raise FormatError(
            f"{run.path} lacks the array {error} of its inputs; unfold again"
        ) from error
