"""Jobs that make the blocks of a large sample anywhere; together the bytes of one generation.

A run keeps the blocks, their plan, and the conditions and source points of all events in
``samples/NAME/``, see `sample_files`. Noise is keyed by the number of an event, so that it does not
matter which machine makes it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np

from .. import __version__, atomic_files, seeding
from ..errors import ConfigError, FormatError, IncompleteRun
from ..tables.formats.table_files import format_to_write
from ..training import run_directory
from ..training.expected_cost import PROCESS_MIB
from ..training.numbered_jobs import DISK_MIB, SPARE_MEMORY, JobKind, Needs, folder_mib
from ..training.run_directory import RunDirectory
from ..typed_settings import AtLeastOne, AtLeastZero, Stored, check_stored
from .native.engine import may_compile
from .sample_files import PLAN, BlockFiles
from .trained_flow import Flow, rows_together

ROWS = 250_000
"""Events per job, about: some ten seconds to a minute of work."""

INPUTS = {"cond": "conditions", "start": "source"}
"""Arrays of the inputs of all events, and their names in the plan of the sample."""

MERGED = "merged.json"
"""Written when the output was."""


class JobSample(Stored):
    """What a sample that jobs make is, in its plan."""

    n: AtLeastOne = msgspec.field(name="number of events")
    seed: AtLeastZero
    model: str
    sampler: dict[str, Any] | None
    conditions: str | None
    source: str | None
    parts: AtLeastOne
    version: str = msgspec.field(name="flowbdt version")


@dataclass(frozen=True)
class SampleJobs(JobKind):
    """The jobs of the sample called ``sample``: one block each."""

    sample: str
    noun: ClassVar[str] = "part"
    digest_key: ClassVar[str] = "sha256"

    def do(self, folder: str, number: int, n_threads: int) -> dict[str, Any]:
        return make_block(RunDirectory(folder), self, number, n_threads)

    def file(self, name: str) -> str:
        """Return the name of a file of this sample within the run."""
        return f"samples/{self.sample}/{name}"

    def blocks(self, run: RunDirectory) -> BlockFiles:
        """Return the blocks of this sample in a run."""
        return BlockFiles(run.file(self.file("")))

    def command(self, numbers: str) -> list[str]:
        return ["part", ".", self.sample, numbers]

    def inputs(self, run: RunDirectory, name: str) -> list[str]:
        arrays = [self.file(f"{array}.npy") for array in INPUTS]
        rejection = run.plan().get("rejection")
        return [
            *("manifest.json", *run_directory.DESCRIBING, "steps"),
            *([run_directory.REJECTION] if rejection else []),
            self.file(PLAN),
            *(array for array in arrays if run.file(array).exists()),
        ]

    def result(self, name: str) -> tuple[str, str]:
        return self.file(f"{name}.npy"), self.file(f"{name}.report.json")

    def logs(self, name: str) -> str:
        return self.file(name)

    def plan(self, run: RunDirectory) -> dict[str, Any]:
        """Return the plan of this sample. Raises FormatError if it is missing or damaged."""
        plan = self.blocks(run).plan()
        check_stored(plan["sample"], JobSample, f"{run.file(self.file(PLAN))}: sample")
        return plan

    def report(self, run: RunDirectory, number: int) -> dict[str, Any] | None:
        return self.blocks(run).report(number)

    def missing(self, run: RunDirectory) -> list[int]:
        """Return the blocks without a valid report, in order; first take over what was brought."""
        numbers = range(len(self.blocks(run).plan()["blocks"]))
        return [number for number in numbers if self.receive(run, number) is None]

    def needs(self, run: RunDirectory) -> Needs:
        columns = run.plan()["fingerprint"]["columns"]
        low, high = self.blocks(run).plan()["blocks"][0]
        values = (high - low) * len(columns["names"]) * 8 / 2**20
        paths = [run.file(self.file(f"{array}.npy")) for array in INPUTS]
        inputs = sum(path.stat().st_size / 2**20 for path in paths if path.exists())
        models = folder_mib(run, "steps")
        memory = SPARE_MEMORY * (PROCESS_MIB + 3 * values + inputs + 4 * models) + 100
        return Needs(round(memory), round(DISK_MIB + values + inputs + models))


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
    outside: str = "warn",
) -> SampleJobs:
    """Write the plan of a sample and return its jobs; a plan that is there must be the same.

    The name of ``output`` without ending names the sample. There are ``parts`` jobs, by default one
    for each 250,000 events. ``sampler`` is checked here if the run is complete, else by the first
    job. Raises ConfigError if the run is not complete but conditions or a source are needed,
    RunError if the folder has another sample of this name.
    """
    format_to_write(output)
    jobs = SampleJobs(output.stem)
    flow = Flow(run, 1, sampler=sampler) if run.file("manifest.json").exists() else None
    arrays = _input_arrays(run, flow, n, cond, source, outside)
    plan = run.plan()
    if flow is not None:
        group = flow.group_rows(1)
    else:
        redraws = plan.get("rejection") or plan["fingerprint"]["settings"].get("require")
        group = rows_together(plan["n_latent"]) if redraws else seeding.BLOCK
    blocks = job_rows(n, parts, group)
    sample = {
        "number of events": n,
        "seed": seed,
        "model": plan["digest"],
        "sampler": sampler,
        **dict.fromkeys(INPUTS.values()),
        **{INPUTS[name]: atomic_files.digest_array(array) for name, array in arrays.items()},
        "parts": len(blocks),
        "flowbdt version": __version__,
    }
    # all blocks by the same engine: machine code rounds otherwise than XGBoost
    files = jobs.blocks(run)
    compiled = files.plan()["compiled"] if files.is_planned else may_compile(None)
    files.begin(sample, blocks, compiled=compiled, output=str(output.resolve()))
    for name, array in arrays.items():
        atomic_files.write_array(run.file(jobs.file(f"{name}.npy")), array)
    return jobs


def _input_arrays(
    run: RunDirectory, flow: Flow | None, n: int, cond: Any, source: Any, outside: str
) -> dict[str, np.ndarray]:
    """Return conditions and starting points of all events, where the run has them."""
    if flow is None:
        plan = run.plan()["fingerprint"]
        if plan["columns"]["conditions"] or "source" in plan["events"]:
            raise ConfigError(
                f"{run.path} is not complete, and its events need conditions or a source, which can"
                " be read only once it is; submit the training first, then the generation"
            )
        return {}
    rows, start = flow.condition_rows(cond, n, outside), flow.checked_source(source, n)
    arrays = {"cond": rows, "start": start}
    return {name: np.asarray(a[0:n]) for name, a in arrays.items() if a is not None}


def job_rows(n: int, jobs: int | None = None, group: int = seeding.BLOCK) -> list[tuple[int, int]]:
    """Return first and one past the last row of every job: whole groups, as equal as can be."""
    groups = -(-n // group)
    count = min(jobs or max(1, round(n / ROWS)), groups)
    edges = [min(n, group * (i * groups // count)) for i in range(count)] + [n]
    return list(itertools.pairwise(edges))


def make_block(run: RunDirectory, jobs: SampleJobs, number: int, n_threads: int) -> dict[str, Any]:
    """Generate one block of a sample and return its report, which is written last.

    Raises FormatError if run or sample are missing, damaged, or do not belong together, ConfigError
    if the sample has no such block.
    """
    start = time.perf_counter()
    files, plan = jobs.blocks(run), jobs.plan(run)
    sample = plan["sample"]
    flow = Flow(run, n_threads, sampler=sample["sampler"], compiled=plan["compiled"])
    if sample["model"] != flow.plan["digest"]:
        raise FormatError(f"{run.path}: sample {jobs.sample} was planned for another run")
    if number >= len(plan["blocks"]):
        raise ConfigError(
            f"sample {jobs.sample} has no part {number}; it has 0 to {len(plan['blocks']) - 1}"
        )
    inputs = [
        _input_array(run.file(jobs.file(f"{name}.npy")), sample[key])
        for name, key in INPUTS.items()
    ]
    tables = list(flow.blocks(plan["blocks"][number], sample["seed"], *inputs))
    return files.write(
        number,
        tables,
        part=number,
        seconds=time.perf_counter() - start,
        worker={"host": platform.node(), "pid": os.getpid(), "finished": time.time()},
    )


def _input_array(path: Path, digest: str | None) -> Any:
    if digest is None:
        return None
    with contextlib.suppress(OSError, ValueError, EOFError):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if atomic_files.digest_array(array) == digest:
            return array
    raise FormatError(f"{path} is missing, damaged or of another sample; submit the sample anew")


def assemble_sample(run: RunDirectory, jobs: SampleJobs) -> str:
    """Assemble the output from all blocks, and return a line about it.

    Raises IncompleteRun if blocks are missing; names them, their logs, and how to go on.
    """
    files, plan, missing = jobs.blocks(run), jobs.plan(run), jobs.missing(run)
    sample, count = plan["sample"], len(plan["blocks"])
    if missing:
        raise IncompleteRun(
            f"{run.path}: {len(missing)} of {count} parts of sample {jobs.sample}"
            f" are missing: {', '.join(map(str, missing))} (logs: {run.file(jobs.file(''))}/*.err"
            " and *.log). Finished parts are kept; go on with the command that submitted them"
        )
    flow = Flow(run, 1, sampler=sample["sampler"], compiled=False)  # it generates nothing here
    record = {**flow.record(sample["seed"]), "compiled": plan["compiled"]}
    files.assemble(flow, Path(plan["output"]), record)
    run.write_json(jobs.file(MERGED), {"format": 1, "sample": sample})
    return f"{plan['output']}: {sample['number of events']} events from {count} parts"


def is_assembled(run: RunDirectory, jobs: SampleJobs) -> bool:
    """Return True if the output was assembled, and is still there."""
    plan = jobs.blocks(run).plan()
    try:
        merged = run.read_json(jobs.file(MERGED))["sample"]
    except (FormatError, KeyError, TypeError):
        return False
    return bool(merged == plan["sample"] and Path(plan["output"]).exists())


def sample_jobs(run: RunDirectory) -> list[SampleJobs]:
    """Return the jobs of all samples that were planned in a run."""
    return [SampleJobs(path.parent.name) for path in sorted(run.path.glob(f"samples/*/{PLAN}"))]
