"""Samples of any size in a file, made in blocks that outlive an interruption.

::

    new.h5.partial/            beside the output; `samples/new/` in a run, where jobs make blocks
        sample.json            what the sample is, the rows of every block, and a digest of both
        0003.npy               columns and conditions of a block (rows, d + c), then
        0003.report.json       its digest and that of the sample
        lock                   held by the process that writes here

The output file is assembled from whole blocks, appears when it is whole, and has the same bytes
whatever the blocks, threads, interruptions and machines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from .. import __version__, atomic_files, seeding
from ..errors import FormatError, RunError, reading
from ..tables.event_table import EventTable
from ..tables.formats import TableWriter, count_rows, iter_blocks, read_attributes
from ..tables.formats.table_files import format_to_write
from ..typed_settings import AtLeastOne, AtLeastZero, Stored, check_stored
from .input_rows import READ_TOGETHER, InputRows, number_of_events, rows_digest
from .trained_flow import Flow

FORMAT = 2
"""Of `sample.json`."""

PLAN = "sample.json"

BLOCK_VALUES = 2**22
"""Values in a block of `write_sample`, about: 32 MB. Samples of one block need no folder."""


COMPARED = 16
"""One group of events of so many is compared before a finished file is taken for whole."""


class SamplePlan(Stored):
    """``sample.json``, without its digest."""

    format: int
    sample: dict[str, Any]
    blocks: list[tuple[AtLeastZero, AtLeastOne]]
    compiled: bool = False
    output: str = ""


class BlockReport(msgspec.Struct):
    """``0003.report.json``; jobs add entries."""

    rows: AtLeastOne
    sample_digest: str
    sha256: str


class BlockFiles:
    """The blocks of one sample in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def is_planned(self) -> bool:
        """True if a sample was begun."""
        return (self.folder / PLAN).exists()

    def plan(self) -> dict[str, Any]:
        """Return the plan. Raises FormatError if it is missing, damaged or foreign."""
        path = self.folder / PLAN
        content: Any = None
        with contextlib.suppress(FormatError):
            content = atomic_files.read_json(path)
        stated = content.pop("digest", None) if isinstance(content, dict) else None
        if not stated or stated != atomic_files.digest(content) or content.get("format") != FORMAT:
            raise FormatError(
                f"{path} is missing, damaged, or of another format than {FORMAT}: remove"
                f" {self.folder} to begin again"
            )
        check_stored(content, SamplePlan, f"{path}")
        lows, highs = ([block[end] for block in content["blocks"]] for end in (0, 1))
        edges = [*lows, content["sample"].get("number of events")]
        if edges != [0, *highs] or any(low >= high for low, high in content["blocks"]):
            raise FormatError(
                f"{path}: its blocks are not all rows in order; remove {self.folder} to begin again"
            )
        return dict(content)

    def begin(
        self, sample: Mapping[str, Any], blocks: list[tuple[int, int]], **more: Any
    ) -> dict[str, Any]:
        """Write and return the plan; of a sample that was begun, the blocks stay as they are.

        ``sample`` are the values by name that determine every event, ``blocks`` first and one past
        the last row of each, ``more`` is written anew each time. Raises RunError if the folder has
        another sample; names the differences.
        """
        now = atomic_files.to_plain(dict(sample))
        if self.is_planned:
            blocks = self.check_same(now)["blocks"]
        plan = atomic_files.to_plain({"format": FORMAT, "sample": now, "blocks": blocks, **more})
        atomic_files.make_folder(self.folder)
        signed = {**plan, "digest": atomic_files.digest(plan)}
        atomic_files.write_json(self.folder / PLAN, signed)
        return dict(plan)

    def check_same(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Return the plan. Raises RunError, with the differences, if it is of another sample."""
        plan, now = self.plan(), atomic_files.to_plain(dict(sample))
        before = plan["sample"]
        names = [k for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
        if names:
            texts = (f"{k} ({before.get(k)!s:.20} then, {now.get(k)!s:.20} now)" for k in names)
            raise RunError(
                f"{self.folder} was begun with another {', '.join(texts)}: continue with what it"
                " was begun with, or remove it to begin again"
            )
        return plan

    def files(self, number: int) -> tuple[Path, Path]:
        """Return the paths of a block and of its report."""
        return (self.folder / f"{number:04d}.npy", self.folder / f"{number:04d}.report.json")

    def report(self, number: int) -> dict[str, Any] | None:
        """Return the report of a block; None if the block is missing, damaged or foreign."""
        values, described = self.files(number)
        try:
            report: dict[str, Any] = atomic_files.read_json(described)
            check_stored(report, BlockReport, f"{described}")
            plan = self.plan()
            low, high = plan["blocks"][number]
            whole = report["sha256"] == atomic_files.digest_file(values)
        except (FormatError, OSError, IndexError):
            return None
        same = report["sample_digest"] == _sample_digest(plan) and report["rows"] == high - low
        return report if whole and same else None

    def missing(self) -> list[int]:
        """Return the numbers of the blocks without a valid report, in order."""
        return [n for n in range(len(self.plan()["blocks"])) if self.report(n) is None]

    def write(self, number: int, blocks: Iterable[EventTable], **about: Any) -> dict[str, Any]:
        """Write the events of a block, then its report, with ``about`` in it, and return that."""
        values, described = self.files(number)
        rows = [b.x if b.cond is None else np.hstack([b.x, b.cond]) for b in blocks]
        array = np.vstack(rows)
        atomic_files.write_array(values, array)
        report = {
            "format": FORMAT,
            "rows": len(array),
            "sample_digest": _sample_digest(self.plan()),
            "sha256": atomic_files.digest_file(values),
            **about,
        }
        atomic_files.write_json(described, report)
        return report

    def assemble(self, flow: Flow, output: Path, attributes: Mapping[str, Any]) -> None:
        """Write the output file from all blocks, which must be whole; memory is that of a block."""
        d, width = flow.n_columns, flow.n_columns + len(flow.condition_names)
        with TableWriter(output, attributes) as writer:
            for number, (first, last) in enumerate(self.plan()["blocks"]):
                path = self.files(number)[0]
                with reading(f"{path}; remove it, then resume"):
                    values = np.load(path, mmap_mode="r", allow_pickle=False)
                    if values.dtype != np.float64 or values.shape != (last - first, width):
                        raise FormatError(f"it holds {values.dtype} of shape {values.shape}")
                for _, low, high in seeding.block_ranges(len(values), READ_TOGETHER):
                    rows = np.array(values[low:high])
                    cond = rows[:, d:] if flow.condition_names else None
                    writer.append(flow.as_table(rows[:, :d], cond))

    def remove(self) -> None:
        """Remove the files of the sample, and the folder if nothing else is in it."""
        names = (PLAN, "[0-9]*.report.json", "[0-9]*.npy", ".part-*", "lock")
        for path in (path for name in names for path in self.folder.glob(name)):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other processes; afterwards remove it if no block is in it.

        Raises RunError if another process has it, or it cannot be written.
        """
        with atomic_files.locked(self.folder):
            try:
                yield
            finally:
                if not any(self.folder.glob("[0-9]*.report.json")):
                    self.remove()


def _sample_digest(plan: Mapping[str, Any]) -> str:
    kept = {name: plan[name] for name in ("sample", "blocks", "compiled") if name in plan}
    return atomic_files.digest(kept)


def write_sample(
    flow: Flow,
    path: str | PathLike[str],
    n: int | None = None,
    *,
    seed: int,
    cond: Any = None,
    source: Any = None,
    block_rows: int | None = None,
    outside: str | None = "warn",
    resume: bool = False,
    on_begin: Callable[[int], Any] = lambda count: None,
    on_rows: Callable[[int], Any] = lambda count: None,
) -> int:
    """Write a sample to a file and return how many events an interrupted call had made.

    The file is the same, byte for byte, whatever ``block_rows``, threads and interruptions. Files
    in .h5 and .root are written in bounded memory, of other endings all is in memory at the end.

    Parameters
    ----------
    n, seed, cond, source, block_rows, outside : as in `FlowBDT.sample_blocks`
    resume : continue what an interrupted call left; nothing is done if the file is whole: it is
        read, and the first, the last and every 16th part of it compared with the same events made
        anew (samples from source events are made again). All else must be as it was
    on_begin, on_rows : called with the number of events made before, and with those of new ones

    Raises
    ------
    RunError
        If there are blocks of an unfinished file and ``resume`` is False, or they belong to another
        sample, or another process is writing them; if the disk is full.
    FormatError, InputError
        If the plan of an unfinished file is damaged (damaged blocks are made again); if conditions
        or source do not fit.
    """
    path, n = Path(path), number_of_events(n, cond, source)
    format_to_write(path)
    if not path.parent.is_dir():
        raise RunError(f"the folder of {path} does not exist: make it first")
    rows, start = flow.condition_rows(cond, n, outside), flow.checked_source(source, n)
    files, record = (BlockFiles(path.with_name(path.name + ".partial")), flow.record(seed))

    def described() -> dict[str, Any]:
        return {
            "number of events": n,
            "seed": seed,
            "model": atomic_files.digest(flow.manifest),
            "sampler": atomic_files.digest({k: v for k, v in record.items() if k != "seed"}),
            "conditions": None if rows is None else rows_digest(rows),
            "conditions outside": outside if outside == "clip" else "as they are",
            "source": None if start is None else rows_digest(start),
            "flowbdt version": __version__,
        }

    if resume and start is None and _is_whole(flow, path, n, record, rows):
        if files.is_planned:
            files.check_same(described())
        files.remove()
        on_begin(n)
        return n
    if files.is_planned and not resume:
        raise RunError(
            f"{files.folder} has blocks of an unfinished sample: continue it with resume"
            " (--resume), or remove it to begin again"
        )
    size = flow.group_rows(block_rows)
    width = flow.n_columns + len(flow.condition_names)
    block = max(1, BLOCK_VALUES // (size * width)) * size

    def made(low: int, high: int) -> Iterator[EventTable]:
        for table in flow.blocks((low, high), seed, rows, start, block_rows):
            yield table
            on_rows(table.n)

    if n <= block and not files.is_planned:
        with TableWriter(path, record) as writer:
            for table in made(0, n):
                writer.append(table)
        return 0
    with files.locked():
        plan = files.begin(
            described(), [(low, high) for _, low, high in seeding.block_ranges(n, block)]
        )
        missing = files.missing()
        done = n - sum(high - low for low, high in (plan["blocks"][k] for k in missing))
        on_begin(done)
        try:
            for number in missing:
                files.write(number, made(*plan["blocks"][number]))
            files.assemble(flow, path, record)
        except RunError as error:
            raise RunError(f"{error}, with resume (--resume): finished blocks are kept") from error
        files.remove()
    return done


def _is_whole(
    flow: Flow, path: Path, n: int, record: Mapping[str, Any], cond: InputRows | None
) -> bool:
    """Return True if the output is there, of this flow and seed, for these conditions."""
    if not path.exists():
        return False
    try:
        whole = read_attributes(path) == atomic_files.to_plain(record) and count_rows(path) == n
        if not whole or not _holds(flow, path, n, record["seed"], cond):
            return False
        there = None if cond is None else flow.condition_rows(path, n, None)
        spans = (slice(low, high) for _, low, high in seeding.block_ranges(n, READ_TOGETHER))
        return (
            there is None
            or cond is None
            or all(np.array_equal(there[span], cond[span], equal_nan=True) for span in spans)
        )
    except (OSError, ValueError):
        return False


def _holds(flow: Flow, path: Path, n: int, seed: int, cond: InputRows | None) -> bool:
    """Test if parts of a file, `COMPARED` apart, hold the events of a flow; all of it is read."""
    size = flow.group_rows()
    last = (n - 1) // size
    blocks = iter_blocks(path, size, conditions=flow.condition_names, missing=True)
    for number, table in enumerate(blocks):
        if number % COMPARED and number != last:
            continue
        span = (number * size, min(number * size + size, n))
        (made,) = flow.blocks(span, seed, cond, None)
        if table.names != made.names or not np.array_equal(table.x, made.x, equal_nan=True):
            return False
    return True
