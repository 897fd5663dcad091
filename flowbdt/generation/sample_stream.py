"""Samples of any size, written to a file block by block, and continued after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, atomic_files
from ..errors import InputError
from ..tables.event_table import EventTable
from ..tables.formats import ResumableWriter, TableWriter, count_rows, read_attributes
from ..tables.formats.resumable import is_resumable
from .input_rows import READ_TOGETHER, Rows, count, digest
from .trained_flow import Flow


@dataclass(frozen=True)
class Stream:
    """A sample of a flow, block by block.

    Events and files are the same, byte for byte, whatever ``block_rows``, the number of threads and
    interruptions.

    Parameters
    ----------
    flow : the trained flow
    n : number of events
    seed : int
    cond, source : as in `Flow.sample_blocks`
    block_rows : as in `Flow.blocks`
    """

    flow: Flow
    n: int
    seed: int
    cond: Any = None
    source: Any = None
    block_rows: int | None = None

    def blocks(self) -> Iterator[EventTable]:
        """Yield the events, see `Flow.sample_blocks`."""
        given = {"cond": self.cond, "source": self.source}
        return self.flow.sample_blocks(self.n, seed=self.seed, block_rows=self.block_rows, **given)

    def write(
        self,
        path: str | PathLike[str],
        *,
        resume: bool = False,
        on_rows: Callable[[int], Any] = lambda count: None,
    ) -> int:
        """Write the file and return how many events were there before.

        Parameters
        ----------
        path : of the file; .h5 in bounded memory, of other endings all is in memory at the end
        resume : go on with what an interrupted call left; nothing is done if the file is whole
            (but events that start from given ones are made again). The same number, seed, model,
            sampler, conditions and source must be asked for
        on_rows : called with the number of events that were added, first with those found

        Raises
        ------
        RunError
            If an unfinished file is there and ``resume`` is False, or it belongs to another
            sample; if the disk is full.
        InputError
            If conditions or source do not fit, or ``resume`` is asked for another ending than .h5.
        """
        flow, path = self.flow, Path(path)
        cond = flow.condition_rows(self.cond, self.n)
        start = flow.checked_source(self.source, self.n)
        record = flow.record(self.seed)
        if resume and start is None and self._is_whole(path, record, cond):
            on_rows(self.n)
            return self.n
        with self._writer(path, record, cond, start, resume) as writer:
            done = writer.n_rows
            on_rows(done)
            for block in self._missing(done, cond, start):
                writer.append(block)
                on_rows(block.n)
        return done

    def _missing(self, done: int, cond: Rows | None, start: Any) -> Iterator[EventTable]:
        """Yield what is missing. Blocks begin where they would have without an interruption."""
        size = self.flow.group_rows(self.block_rows)
        first = done - done % size
        for block in self.flow.blocks((first, self.n), self.seed, cond, start, self.block_rows):
            rest = block if first >= done else block.take(slice(done - first, None))
            first += block.n
            if rest.n:
                yield rest

    def _writer(
        self, path: Path, record: dict[str, Any], cond: Any, start: Any, resume: bool
    ) -> TableWriter | ResumableWriter:
        if not resume and not is_resumable(path):
            return TableWriter(path, attributes=record)
        identity = {
            "number of events": self.n,
            "seed": self.seed,
            "model": atomic_files.digest(self.flow.manifest),
            "sampler": atomic_files.digest({k: v for k, v in record.items() if k != "seed"}),
            "conditions": digest(cond),
            "source": digest(start),
            "flowbdt version": __version__,
        }
        return ResumableWriter(path, record, identity, resume=resume)

    def _is_whole(self, path: Path, record: dict[str, Any], cond: Rows | None) -> bool:
        """Whether the file is there already, from this flow and seed, for these conditions."""
        if not is_resumable(path) or not path.exists():
            return False
        try:
            found = read_attributes(path)
            whole = found == atomic_files.to_plain(record) and count_rows(path) == self.n
            return whole and (cond is None or self._has_conditions(path, cond))
        except (OSError, ValueError):
            return False

    def _has_conditions(self, path: Path, cond: Rows) -> bool:
        """Whether the events of a file have these conditions."""
        found = self.flow.condition_rows(path, self.n)
        spans = (
            slice(low, min(low + READ_TOGETHER, self.n)) for low in range(0, self.n, READ_TOGETHER)
        )
        return found is not None and all(
            np.array_equal(found[span], cond[span], equal_nan=True) for span in spans
        )


def number_of_events(asked: int | None, *given: Any) -> int:
    """Return how many events to generate: as asked, else as conditions or source have rows, else 1.

    Raises InputError if it is not a whole number of at least 1.
    """
    n = max((count(rows) or 1 for rows in given), default=1) if asked is None else asked
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise InputError(f"n_samples must be a whole number of at least 1, got {asked!r}")
    return int(n)


def as_kind(table: EventTable, kind: str) -> Any:
    """Return a table as the kind that was fitted: "table", "frame" or "array"."""
    if kind == "frame":
        return table.to_frame()
    if kind == "array":
        return table.x.astype(np.result_type(*table.dtypes))
    return table
