"""Tables that several processes write one after the other: what one finished the next one keeps.

::

    new.h5.partial        what is there so far
    new.h5.partial.json   last commit: rows, size, pages to be changed, and what the table is to be

`new.h5` appears when the table is whole, with the bytes of a table that nothing interrupted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from ... import atomic_files
from ...errors import FormatError, InputError, RunError
from ..event_table import EventTable
from . import hdf5
from .committed import CommittedFile, locked

FORMAT = 1
HDF5_ENDINGS = (".h5", ".hdf5")


class ResumableWriter:
    """Write an HDF5 table in blocks, and go on where a process before was stopped.

    Parameters
    ----------
    path : str or Path, ending .h5 or .hdf5
    attributes : as `write_table`
    identity : plain values by name that fix every row; an unfinished table that was made from
        others is not continued
    resume : whether to continue an unfinished table, if there is one

    Attributes
    ----------
    n_rows : int, rows that are safe or appended; after entering, the number of the next row

    Raises
    ------
    InputError
        If the ending is another.
    RunError
        On entering: an unfinished table is there and was not to be continued, or was made from
        something else, or another process is writing it; or the disk is full.
    FormatError
        On entering, if the unfinished table is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        attributes: Mapping[str, Any],
        identity: Mapping[str, Any],
        *,
        resume: bool = False,
    ) -> None:
        self.path, self.attributes = Path(path), dict(attributes)
        self.identity, self.resume = atomic_files.to_plain(dict(identity)), resume
        self.n_rows = 0
        if not is_resumable(self.path):
            raise InputError(
                f"only {' and '.join(HDF5_ENDINGS)} files can be continued, got {self.path}"
            )
        self._partial = partial(self.path)
        self._record = self._partial.with_name(self._partial.name + ".json")

    def __enter__(self) -> Self:
        self._refuse_leftover()
        if not self.path.parent.is_dir():
            raise RunError(f"the folder of {self.path} does not exist: make it first")
        try:
            number = os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunError(
                f"could not write {self.path}: {error}; free space, or choose another folder"
            ) from error
        self._handle: BinaryIO = open(number, "r+b", buffering=0)
        if not locked(self._handle) or not self._is_ours():
            self._handle.close()
            raise RunError(f"another process is writing {self._partial}: wait for its end")
        try:
            self._begin()
        except BaseException:
            self._close(failed=True)
            raise
        return self

    def _is_ours(self) -> bool:
        """Whether the open file is still the unfinished one: its writer may just have finished."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._handle.fileno()), os.stat(self._partial))
        return False

    def _begin(self) -> None:
        """Open what is there, or a new table."""
        state = self._state()
        self._file = CommittedFile(self._handle, state["size"] if state else 0)
        if state:
            self._file.apply(state)
            self.n_rows = int(state["rows"])
        self._hdf5 = hdf5.Hdf5Writer(
            self._file, self.attributes, self.n_rows, on_segment=self._commit
        )

    def _close(self, failed: bool) -> None:
        """Close the file, and remove it if nothing in it was finished."""
        if failed and not self._record.exists():
            self._partial.unlink(missing_ok=True)
        self._handle.close()

    def _refuse_leftover(self) -> None:
        if self._partial.exists() and self._record.exists() and not self.resume:
            raise RunError(
                f"{self._partial} is an unfinished table: go on with resume (--resume), or remove"
                " it to begin again"
            )

    def _state(self) -> dict[str, Any] | None:
        """Return the last commit of the table to continue, None if there is none."""
        if not self._record.exists():
            return None  # nothing was there, or it was stopped before its first commit
        if not self._handle.seek(0, os.SEEK_END):
            self._record.unlink()  # of a table that was finished; it says nothing about this one
            return None
        state: dict[str, Any] = atomic_files.read_json(self._record)
        if state.get("format") != FORMAT:
            raise FormatError(
                f"{self._record} has format {state.get('format')!r}, this release knows {FORMAT}:"
                f" remove {self._partial} to begin again"
            )
        self._check_identity(state["identity"])
        return state

    def _check_identity(self, found: Mapping[str, Any]) -> None:
        names = sorted({*found, *self.identity})
        other = [name for name in names if found.get(name) != self.identity.get(name)]
        if other:
            texts = (f"{k} ({_short(found.get(k))} then, {_short(self.identity.get(k))} now)"
                     for k in other)  # fmt: skip
            raise RunError(
                f"{self._partial} was begun with another {', '.join(texts)}: go on with what it was"
                " begun with, or remove it to begin again"
            )

    def append(self, table: EventTable) -> None:
        """Add the events of ``table``, whose columns are those of the blocks before."""
        self._hdf5.append(table)
        self.n_rows += table.n

    def _commit(self, n_rows: int) -> None:
        """Keep what is there: from now on an interrupted process leaves it as it is."""
        record = self._file.commit()
        kept = {"format": FORMAT, "identity": self.identity, "rows": n_rows}
        atomic_files.write_json(self._record, {**kept, **record})
        self._file.apply(record)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
            else:
                with contextlib.suppress(OSError):  # what is behind the last commit is lost anyway
                    self._hdf5.abandon()
        except OSError as failed:
            error = failed
        finally:
            self._close(failed=error is not None)
        if isinstance(error, OSError):
            raise RunError(
                f"could not write {self.path}: {error}. What was finished is kept; free space,"
                " then go on with resume (--resume)"
            ) from error

    def _finish(self) -> None:
        if not self.n_rows:
            raise InputError(f"nothing was appended to {self.path}; expected at least one table")
        self._hdf5.close()
        self._commit(self.n_rows)
        os.fsync(self._handle.fileno())
        self._rename()

    def _rename(self) -> None:
        os.replace(self._partial, self.path)
        self._record.unlink(missing_ok=True)


def partial(path: Path) -> Path:
    """Return the name of the unfinished table beside ``path``."""
    return path.with_name(path.name + ".partial")


def is_resumable(path: Path) -> bool:
    """Whether tables of this ending can be continued."""
    return path.suffix.lower() in HDF5_ENDINGS


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else text[:12] + "..."
