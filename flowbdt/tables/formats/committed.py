"""A file that can be cut off at any moment and loses only what came after its last commit."""

from __future__ import annotations

import base64
import io
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from ...errors import FormatError

PAGE = 4096


class CommittedFile(io.RawIOBase):
    """What HDF5 writes to, when a file grows over many commits.

    What lies behind the size of the last commit goes straight to the file. What lies before it,
    the tables of contents that HDF5 changes in place, is kept in memory in pages until the next
    commit. A process that is killed in between therefore leaves all committed bytes as they were.

    Parameters
    ----------
    handle : binary file open for reading and writing, unbuffered
    size : bytes that are committed; what lies behind is cut off
    """

    def __init__(self, handle: BinaryIO, size: int = 0) -> None:
        self._handle, self._at = handle, 0
        self._pages: dict[int, bytearray] = {}
        self.size = size
        handle.truncate(size)

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end()}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """Return the present place."""
        return self._at

    def readinto(self, out: Any) -> int:
        """Fill ``out`` with what was written last."""
        view = memoryview(out).cast("B")
        count = max(0, min(len(view), self._end() - self._at))
        before = max(0, min(count, self.size - self._at))
        for low, high, page, start in _pieces(self._at, before):
            view[low:high] = self._page(page)[start : start + high - low]
        if count > before:
            self._handle.seek(self._at + before)
            self._handle.readinto(view[before:count])  # type: ignore[attr-defined]
        self._at += count
        return count

    def write(self, content: Any) -> int:
        """Write at the present place."""
        view = memoryview(content).cast("B")
        before = max(0, min(len(view), self.size - self._at))
        for low, high, page, start in _pieces(self._at, before):
            self._page(page)[start : start + high - low] = view[low:high]
        self._handle.seek(self._at + before)
        rest = view[before:]
        while len(rest):  # an unbuffered file may take less than it is given
            rest = rest[self._handle.write(rest) :]
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the size; committed bytes stay."""
        size = self._at if size is None else size
        self._handle.truncate(max(size, self.size))
        return size

    def flush(self) -> None:
        """Do nothing: nothing is buffered but what waits for a commit."""

    def commit(self) -> dict[str, Any]:
        """Bring new bytes to the disk; return the record of the commit, to be stored safely.

        Call `apply` when it is. Until then a file cut off is the one of the commit before.
        """
        os.fsync(self._handle.fileno())
        pages = {
            str(page): base64.b64encode(zlib.compress(bytes(content), 1)).decode()
            for page, content in sorted(self._pages.items())
        }
        return {"size": self._end(), "pages": pages}

    def apply(self, record: Mapping[str, Any]) -> None:
        """Take over the record of a commit; doing it again changes nothing.

        Raises
        ------
        FormatError
            If the file is shorter than the record says.
        """
        if self._handle.seek(0, os.SEEK_END) < record["size"]:
            raise FormatError(
                "the unfinished file is shorter than at its last commit: remove it to begin again"
            )
        for page, content in record["pages"].items():
            self._handle.seek(int(page) * PAGE)
            self._handle.write(zlib.decompress(base64.b64decode(content)))
        self.size = record["size"]
        self._pages.clear()
        self._handle.truncate(self.size)

    def _end(self) -> int:
        return max(self.size, self._handle.seek(0, os.SEEK_END))

    def _page(self, number: int) -> bytearray:
        """Return a page of what is committed, to be read or changed."""
        if number not in self._pages:
            self._handle.seek(number * PAGE)
            size = min(PAGE, self.size - number * PAGE)
            self._pages[number] = bytearray(self._handle.read(size))
        return self._pages[number]


def _pieces(at: int, count: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield how bytes from ``at`` on fall into pages: first, one past the last, page, place."""
    low = 0
    while low < count:
        page, start = divmod(at + low, PAGE)
        high = min(count, low + PAGE - start)
        yield low, high, page, start
        low = high


def locked(handle: BinaryIO) -> bool:
    """Lock a file until it is closed, where the system can; return False if another has it."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # not everywhere, and not on every file system
        pass
    return True
