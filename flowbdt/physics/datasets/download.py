"""Downloads that go on where they stopped and are what they should be, or say why not.

A file grows under the name ``NAME.partial`` beside its place and is renamed when it is complete
and its checksum is right; so a file with its own name is never half a file.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...atomic_files import move
from ...errors import ConfigError, FetchError
from .records import Record, RecordFile

BLOCK = 1 << 20
TIMEOUT_S = 60.0
ATTEMPTS = 5
"""Broken connections in a row without a single new byte, before giving up."""
PAUSE_S = 1.0

OnBytes = Callable[[int], Any]


@dataclass(frozen=True)
class Fetched:
    """What became of one file.

    Parameters
    ----------
    path : Path
    size : int, bytes
    was_there : bool, nothing was downloaded
    checksum : str, ``"md5:..."`` or ``"sha256:..."`` of the content
    verified : bool, the checksum is the one of a cited source
    """

    path: Path
    size: int
    was_there: bool
    checksum: str
    verified: bool

    def text(self) -> str:
        """Return one line for a terminal."""
        state = "was there" if self.was_there else "fetched"
        known = "" if self.verified else ", UNVERIFIED: no source gives a checksum"
        return f"{self.path}: {state}, {self.size:,} bytes, {self.checksum}{known}"


def fetch_file(
    record: Record,
    file: RecordFile,
    folder: str | Path,
    *,
    base_url: str | None = None,
    on_bytes: OnBytes | None = None,
) -> Fetched:
    """Bring one file of a record into a folder, unless it is there and right.

    An interrupted download is continued by the next call (HTTP Range; from a server without it, it
    starts again). Only http and https are spoken; proxies are taken from the environment.

    Parameters
    ----------
    record, file : what to fetch, from `records.record` and `Record.select`
    folder : made if absent
    base_url : folder on the web that holds the files, instead of the record's own
    on_bytes : called with the number of bytes that are there at the start, then with each new one

    Returns
    -------
    Fetched

    Raises
    ------
    FetchError
        Without network, if the server refuses, or if size or checksum are not those of the source.
    """
    folder = Path(folder)
    url = f"{_checked(base_url or record.base_url)}/{file.name}"
    path = folder / file.name
    if path.exists():
        return _known(
            path, file, was_there=True, hint=f"move it away, then fetch {file.name} again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{file.name}.partial"
    _Transfer(url, partial, record, file, on_bytes or (lambda _: None)).run()
    try:
        done = _known(partial, file, was_there=False, hint="")
    except FetchError as error:
        partial.unlink()
        raise FetchError(
            f"{error}. What came from {url} was deleted: run the same command once more. If it"
            f" comes again, the record has changed: see {record.page}"
        ) from error
    move(partial, path)
    return Fetched(path, done.size, False, done.checksum, done.verified)


def _checked(base_url: str) -> str:
    if not re.match(r"https?://[^/]", base_url):
        raise ConfigError(f"a base url starts with http:// or https://, got {base_url!r}")
    return base_url.rstrip("/")


def _known(path: Path, file: RecordFile, *, was_there: bool, hint: str) -> Fetched:
    """Return what a complete file is. Raises FetchError if it is not the one of the source."""
    size = path.stat().st_size
    tail = f"; {hint}" if hint else ""
    if file.size is not None and size != file.size:
        raise FetchError(f"{path} must have {file.size:,} bytes, but has {size:,}{tail}")
    algorithm = file.algorithm or "sha256"
    with open(path, "rb") as handle:
        checksum = hashlib.file_digest(handle, algorithm).hexdigest()
    if file.verified and checksum != file.checksum:
        raise FetchError(
            f"{path} must have the {algorithm} {file.checksum}, but has {checksum}{tail}"
        )
    return Fetched(path, size, was_there, f"{algorithm}:{checksum}", file.verified)


class _Transfer:
    """One file on its way: asks for what is missing until nothing is."""

    def __init__(
        self, url: str, partial: Path, record: Record, file: RecordFile, on_bytes: OnBytes
    ) -> None:
        self.url, self.partial, self.record, self.file = url, partial, record, file
        self.on_bytes = on_bytes
        self.total = file.size
        self.complete = False

    def run(self) -> None:
        """Raises FetchError if the server refuses or the connection breaks again and again."""
        self.on_bytes(self.have)
        self.complete = self.total is not None and self.have >= self.total
        failures = 0
        while not self.complete:
            before = self.have
            try:
                self.ask()
                reason = "the connection ended early"
            except FetchError:
                raise
            except (OSError, http.client.HTTPException) as error:
                self.refuse(error)
                reason = str(error) or type(error).__name__
            failures = 0 if self.have > before else failures + 1
            if not self.complete and failures >= ATTEMPTS:
                raise self.broken(reason)
            if failures:
                time.sleep(PAUSE_S * failures)

    @property
    def have(self) -> int:
        """Bytes that are on disk."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def ask(self) -> None:
        """Ask for all from where we are, and write what comes."""
        from urllib import request

        from ... import __version__

        start = self.have
        headers = {"User-Agent": f"flowbdt/{__version__}"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with request.urlopen(
            request.Request(self.url, headers=headers), timeout=TIMEOUT_S
        ) as answer:
            first = _first_byte(answer)
            if first not in (0, start):
                raise http.client.HTTPException(f"asked for bytes from {start}, got from {first}")
            self.total = self.agreed(_length(answer, first))
            with open(self.partial, "ab" if first else "wb") as out:
                if start and not first:
                    self.on_bytes(-start)  # a server without Range sends all of it again
                while block := answer.read(BLOCK):
                    out.write(block)
                    self.on_bytes(len(block))
        self.complete = self.total is None or self.have >= self.total

    def agreed(self, stated: int | None) -> int | None:
        """Return the size of the whole file. Raises FetchError if server and source differ."""
        if self.file.size is not None and stated not in (None, self.file.size):
            raise FetchError(
                f"{self.url} has {stated:,} bytes, but must have {self.file.size:,}: the record"
                f" has changed, see {self.record.page}"
            )
        return self.total or stated

    def refuse(self, error: Exception) -> None:
        """Raise FetchError for what another attempt cannot mend."""
        from urllib.error import HTTPError, URLError

        if isinstance(error, HTTPError):
            error.close()
            if error.code == 416 and self.have:  # nothing is missing, or what is there is too long
                self.complete = self.have == self.agreed(_whole(error))
                if not self.complete:
                    self.partial.unlink(missing_ok=True)
                return
            if error.code in (408, 429) or error.code >= 500:
                return
            raise FetchError(
                f"{self.url} cannot be fetched: the server answers {error.code} {error.reason}. The"
                f" record may have moved: look at {self.record.page}, and name another place with"
                " --base-url, or put the file into the folder yourself"
            ) from error
        if isinstance(error, URLError) and not self.have:
            raise FetchError(
                f"no connection to {self.url}: {error.reason}. {self.advice}"
            ) from error
        if isinstance(error, OSError) and error.filename:
            raise FetchError(f"could not write {self.partial}: {error.strerror}") from error

    def broken(self, reason: str) -> FetchError:
        """Return the error for a connection that does not come back."""
        of = "" if self.total is None else f" of {self.total:,}"
        return FetchError(
            f"{self.url} broke off ({reason}); {self.have:,}{of} bytes are kept in {self.partial}:"
            f" run the same command again to go on. {self.advice}"
        )

    @property
    def advice(self) -> str:
        """What to do without a network."""
        return (
            f"Without network, download {self.file.name} elsewhere from {self.record.page} and put"
            f" it into {self.partial.parent}"
        )


def _first_byte(answer: Any) -> int:
    """Return where the content starts: 0 unless the server took the range."""
    if answer.status != 206:
        return 0
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _length(answer: Any, first: int) -> int | None:
    """Return the size of the whole file that the server states."""
    length = answer.headers.get("Content-Length")
    return None if length is None else first + int(length)


def _whole(error: Any) -> int | None:
    """Return the size of the whole file that a refusal of a range states."""
    match = re.match(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
    return int(match[1]) if match else None
