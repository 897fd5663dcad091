"""A large sample in parts, each a job of its own: together the bytes of one long generation.

::

    samples/new/sample.json        how many events, seed, where they go; rows of every part
    samples/new/cond.npy           conditions of all events, where the run has them
    samples/new/0003.npy           values (rows, columns) of a part, then
    samples/new/0003.report.json   its hash and that of sample.json

Noise is keyed by the number of an event, so that it does not matter who makes it.
"""

from __future__ import annotations

import itertools
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .. import atomic_files, seeding
from ..errors import ConfigError, FormatError, IncompleteRun, RunError
from ..tables.formats import TableWriter
from ..tables.formats.table_files import format_of
from ..training import run_directory
from ..training.cost_model import PROCESS_MIB
from ..training.executors.work import DISK_MIB, SPARE_MEMORY, Needs, Work, folder_mib, name_of
from ..training.run_directory import RunDirectory
from .compiled.choose_engine import may_compile
from .trained_flow import Flow

ROWS = 250_000
"""Events per part, about: some ten seconds to a minute of work."""

ARRAYS = ("cond", "start")

MERGED = "merged.json"
"""Written when the whole sample was."""


@dataclass(frozen=True)
class Parts(Work):
    """Generating the parts of the sample called ``sample``."""

    sample: str
    noun: ClassVar[str] = "part"
    digest_key: ClassVar[str] = "sha256"

    def do(self, folder: str, number: int, n_threads: int) -> dict[str, Any]:
        """Generate one part."""
        return generate_part(RunDirectory(folder), self, number, n_threads)

    def file(self, name: str) -> str:
        """Return the name of a file of this sample within the run."""
        return f"samples/{self.sample}/{name}"

    def command(self, number: str) -> list[str]:
        """Return ``part . SAMPLE NUMBER``."""
        return ["part", ".", self.sample, number]

    def inputs(self, run: RunDirectory, name: str) -> list[str]:
        """Return the trained run without its tables, and the plan of the sample."""
        arrays = [self.file(f"{array}.npy") for array in ARRAYS]
        rejection = run.read_json("plan.json").get("rejection")
        return [
            *("manifest.json", *run_directory.DESCRIBING, "steps"),
            *([run_directory.REJECTION] if rejection else []),
            self.file("sample.json"),
            *(array for array in arrays if run.file(array).exists()),
        ]

    def result(self, name: str) -> tuple[str, str]:
        """Return the names of the values and of the report."""
        return self.file(f"{name}.npy"), self.file(f"{name}.report.json")

    def logs(self, name: str) -> str:
        """Return the name of a part's logs within the run, without ending."""
        return self.file(name)

    def report(self, run: RunDirectory, number: int) -> dict[str, Any] | None:
        """Return the report if values and plan of the sample belong to it."""
        values, described = self.result(name_of(number))
        try:
            report: dict[str, Any] = run.read_json(described)
            whole = atomic_files.digest_file(run.file(values)) == report["sha256"]
            same = report["sample_digest"] == self.plan(run)["digest"]
        except (FormatError, OSError, KeyError):
            return None
        return report if whole and same else None

    def plan(self, run: RunDirectory) -> dict[str, Any]:
        """Return the plan of the sample. Raises FormatError if there is none."""
        content: dict[str, Any] = run.read_json(self.file("sample.json"))
        run_directory.check_format(content, self.file("sample.json"))
        return content

    def needs(self, run: RunDirectory) -> Needs:
        """Return room for the models and the largest part."""
        plan = run.read_json("plan.json")
        low, high = self.plan(run)["parts"][0]
        values = (high - low) * len(plan["fingerprint"]["columns"]["names"]) * 8 / 2**20
        given = sum(
            run.file(self.file(f"{array}.npy")).stat().st_size / 2**20
            for array in ARRAYS
            if run.file(self.file(f"{array}.npy")).exists()
        )
        models = folder_mib(run, "steps")
        memory = SPARE_MEMORY * (PROCESS_MIB + 3 * values + given + 4 * models) + 100
        return Needs(round(memory), round(DISK_MIB + values + given + models))


def plan_sample(
    run: RunDirectory,
    output: Path,
    n: int,
    *,
    seed: int,
    parts: int | None = None,
    cond: Any = None,
    source: Any = None,
    sampler: Mapping[str, Any] | None = None,
) -> Parts:
    """Write the plan of a sample and return its parts; a plan that is there must be the same.

    Parameters
    ----------
    output : where the whole sample goes; its name without ending names the sample
    parts : how many jobs; by default one for each 250,000 events
    cond, source : as in `Flow.sample_blocks`; the run must be complete then
    sampler : as in `Flow`; checked here if the run is complete, else by the first part

    Raises
    ------
    ConfigError
        If the run is not complete but conditions or a source are needed.
    RunError
        If the folder has another sample of this name.
    """
    format_of(output)
    work = Parts(output.stem)
    if sampler is not None and run.file("manifest.json").exists():
        Flow(run, 1, sampler=sampler)
    arrays = _given(run, n, cond, source)
    content = {
        "format": 1,
        "n": n,
        "seed": seed,
        "run_digest": run.read_json("plan.json")["digest"],
        "output": str(output.resolve()),
        "parts": part_rows(n, parts),
        "given": {name: atomic_files.digest_array(array) for name, array in arrays.items()},
    }
    if sampler is not None:
        content["sampler"] = atomic_files.to_plain(dict(sampler))
    # every part in the same way: machine code rounds otherwise than XGBoost's
    path = run.file(work.file("sample.json"))
    planned = work.plan(run) if path.exists() else {"compiled": may_compile(None)}
    if "compiled" in planned:  # not in plans of before there was a choice
        content["compiled"] = planned["compiled"]
    content["digest"] = atomic_files.digest({k: v for k, v in content.items() if k != "output"})
    if path.exists() and work.plan(run)["digest"] != content["digest"]:
        raise RunError(
            f"{path.parent} is another sample called {work.sample}; give the file another name, or"
            " ask for the same number, seed, sampler, conditions and parts to continue it"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        atomic_files.write_array(run.file(work.file(f"{name}.npy")), array)
    atomic_files.write_json(path, content)
    return work


def _given(run: RunDirectory, n: int, cond: Any, source: Any) -> dict[str, np.ndarray]:
    """Return conditions and starting points of all events, where the run has them."""
    if not run.file("manifest.json").exists():
        plan = run.read_json("plan.json")["fingerprint"]
        if plan["columns"]["conditions"] or "source" in plan["events"]:
            raise ConfigError(
                f"{run.path} is not complete, and its events need conditions or a source, which can"
                " be read only once it is; submit the training first, then the generation"
            )
        return {}
    flow = Flow(run, 1)
    arrays = {"cond": flow.checked_conditions(cond, n), "start": flow.checked_source(source, n)}
    return {name: np.asarray(rows[0:n]) for name, rows in arrays.items() if rows is not None}


def part_rows(n: int, parts: int | None = None) -> list[tuple[int, int]]:
    """Return first and one past the last row of every part: whole blocks, as equal as can be."""
    blocks = len(seeding.block_ranges(n))
    count = min(parts or max(1, round(n / ROWS)), blocks)
    edges = [min(n, seeding.BLOCK * (i * blocks // count)) for i in range(count)] + [n]
    return list(itertools.pairwise(edges))


def generate_part(run: RunDirectory, work: Parts, number: int, n_threads: int) -> dict[str, Any]:
    """Generate one part of a sample and return its report, which is written last.

    Raises
    ------
    FormatError
        If run or sample are missing, damaged, or do not belong together.
    ConfigError
        If the sample has no such part.
    """
    start = time.perf_counter()
    sample = work.plan(run)
    flow = _flow(run, sample, n_threads)
    if sample["run_digest"] != flow.plan["digest"]:
        raise FormatError(f"{run.path}: sample {work.sample} was planned for another run")
    if number >= len(sample["parts"]):
        raise ConfigError(
            f"sample {work.sample} has no part {number}; it has 0 to {len(sample['parts']) - 1}"
        )
    low, high = sample["parts"][number]
    given = [_array(run, work, name, sample) for name in ARRAYS]
    blocks = flow.blocks((low, high), sample["seed"], *given)
    values = np.vstack([block.x for block in blocks])
    result, described = work.result(name_of(number))
    atomic_files.write_array(run.file(result), values)
    report = {
        "format": 1,
        "part": number,
        "rows": high - low,
        "sample_digest": sample["digest"],
        "sha256": atomic_files.digest_file(run.file(result)),
        "seconds": time.perf_counter() - start,
        "worker": {"host": platform.node(), "pid": os.getpid(), "finished": time.time()},
    }
    run.write_json(described, report)
    return report


def _flow(run: RunDirectory, sample: dict[str, Any], n_threads: int) -> Flow:
    """Return the flow as the sample was planned. Raises MissingExtra if numba is missing here."""
    way, compiled = sample.get("sampler"), sample.get("compiled", False)
    return Flow(run, n_threads, sampler=way, compiled=compiled)


def _array(run: RunDirectory, work: Parts, name: str, sample: dict[str, Any]) -> Any:
    if name not in sample["given"]:
        return None
    path = run.file(work.file(f"{name}.npy"))
    if not path.exists():
        raise FormatError(f"{path} is missing; submit the generation anew")
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if atomic_files.digest_array(array) != sample["given"][name]:
        raise FormatError(f"{path} is not the one the sample was planned with; submit it anew")
    return array


def missing_parts(run: RunDirectory, work: Parts) -> list[int]:
    """Return the parts without a valid report, in order."""
    numbers = range(len(work.plan(run)["parts"]))
    return [number for number in numbers if work.receive(run, number) is None]


def merge(run: RunDirectory, work: Parts) -> str:
    """Write the whole sample where it was asked for, and return a line about it.

    Equal to what ``flowbdt generate`` writes, byte for byte.

    Raises
    ------
    IncompleteRun
        If parts are missing; names them, their logs, and how to go on.
    """
    sample = work.plan(run)
    missing = missing_parts(run, work)
    if missing:
        raise IncompleteRun(
            f"{run.path}: {len(missing)} of {len(sample['parts'])} parts of sample {work.sample}"
            f" are missing: {', '.join(map(str, missing))} (logs: {run.file(work.file(''))}/*.err"
            " and *.log). Finished parts are kept; go on with the command that submitted them"
        )
    cond = _array(run, work, "cond", sample)
    flow = Flow(run, 1, sampler=sample.get("sampler"), compiled=False)  # it generates nothing here
    record = {**flow.record(sample["seed"]), "compiled": sample.get("compiled", False)}
    with TableWriter(sample["output"], attributes=record) as writer:
        for number, (low, high) in enumerate(sample["parts"]):
            values = np.load(run.file(work.result(name_of(number))[0]), mmap_mode="r")
            for _, start, stop in seeding.block_ranges(high - low):
                rows = None if cond is None else np.asarray(cond[low + start : low + stop])
                writer.append(flow.as_table(np.asarray(values[start:stop]), rows))
    run.write_json(work.file(MERGED), {"format": 1, "sample_digest": sample["digest"]})
    return f"{sample['output']}: {sample['n']} events from {len(sample['parts'])} parts"


def is_merged(run: RunDirectory, work: Parts) -> bool:
    """Whether the whole sample was written, and is still there."""
    sample = work.plan(run)
    try:
        merged = run.read_json(work.file(MERGED))["sample_digest"]
    except (FormatError, KeyError):
        return False
    return bool(merged == sample["digest"] and Path(sample["output"]).exists())


def samples(run: RunDirectory) -> list[Parts]:
    """Return all samples that were planned in a run."""
    return [Parts(path.parent.name) for path in sorted(run.path.glob("samples/*/sample.json"))]
