"""Public records: the files of a benchmark, their sizes and checksums, and their download.

`records.json` beside the bundled sample lists them. Sizes and checksums come from the source named
with each record; a file without a published checksum counts as unverified. A file grows under the
name ``NAME.partial`` and is renamed once it is complete and its checksum is right.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import http.client
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ...atomic_files import move
from ...errors import ConfigError, FetchError
from ...registry import unknown

ZENODO = "https://zenodo.org/records/{record}/files"
BLOCK = 1 << 20
TIMEOUT_S = 60.0
ATTEMPTS = 5
"""Broken connections in a row without a single new byte, before giving up."""
PAUSE_S = 1.0
WEB_HANDLERS = (
    "ProxyHandler",
    "HTTPHandler",
    "HTTPSHandler",
    "HTTPRedirectHandler",
    "HTTPDefaultErrorHandler",
    "HTTPErrorProcessor",
    "UnknownHandler",
)
"""Handlers of urllib for http and https; addresses of other kinds, such as ftp, are refused."""
OnBytes = Callable[[int], Any]


@dataclass(frozen=True)
class RecordFile:
    """One file of a record; None for what no source gives."""

    name: str
    size: int | None = None  # bytes
    algorithm: str | None = None  # "md5" or "sha256"
    checksum: str | None = None  # hexadecimal digest

    @property
    def verified(self) -> bool:
        """True if a cited source gives a checksum."""
        return self.checksum is not None


@dataclass(frozen=True)
class Record:
    """A published set of files."""

    name: str  # as in `flowbdt data fetch`
    title: str
    doi: str
    licence: str
    cite: str
    number: int  # of the Zenodo record
    usual: tuple[str, ...]  # names of the files that are fetched by default
    sources: tuple[str, ...]  # of names, sizes and checksums
    files: tuple[RecordFile, ...]

    @property
    def page(self) -> str:
        """The persistent address."""
        return f"https://doi.org/{self.doi}"

    @property
    def base_url(self) -> str:
        """The folder on the web that holds the files."""
        return ZENODO.format(record=self.number)

    def select(self, patterns: Sequence[str] = ()) -> tuple[RecordFile, ...]:
        """Return the files that match any pattern such as ``"*_1.hdf5"``, or the usual ones.

        Raises ConfigError for a pattern that matches nothing.
        """
        wanted = list(patterns) or list(self.usual)
        names = [file.name for file in self.files]
        for pattern in wanted:
            if not fnmatch.filter(names, pattern):
                raise unknown(f"file of {self.name!r}:", pattern, names)
        return tuple(f for f in self.files if any(fnmatch.fnmatch(f.name, p) for p in wanted))

    def describe(self) -> str:
        """Return title, addresses and files, line by line."""
        lines = [self.title, f"{self.page}   licence: {self.licence}   cite: {self.cite}"]
        for file in self.files:
            size = "size unknown" if file.size is None else f"{file.size:,} bytes"
            known = f"{file.algorithm} {file.checksum}" if file.verified else "unverified"
            usual = "usual" if file.name in self.usual else ""
            lines.append(f"  {file.name:36} {usual:6} {size:>20}  {known}")
        return "\n".join([*lines, *(f"source: {text}" for text in self.sources)])


@functools.cache
def records() -> dict[str, Record]:
    """Return all records by name, in alphabetical order."""
    text = (resources.files("flowbdt.physics") / "data" / "records.json").read_text()
    return {
        name: _record(name, entry) for name, entry in sorted(json.loads(text)["records"].items())
    }


def overview() -> str:
    """Return name, address and title of every record."""
    return "\n".join(f"{r.name:15} {r.page}\n{'':15} {r.title}" for r in records().values())


def record(name: str) -> Record:
    """Return one record. Raises ConfigError that lists the known names."""
    if name not in records():
        raise unknown("record of public files:", name, records())
    return records()[name]


def _record(name: str, entry: dict) -> Record:
    files = []
    for key, known in entry["files"].items():
        algorithm = next((a for a in ("sha256", "md5") if a in known), None)
        files.append(RecordFile(key, known.get("size"), algorithm, known.get(algorithm)))
    return Record(
        name=name,
        number=entry["record"],
        usual=tuple(entry["usual"]),
        sources=tuple(entry["sources"]),
        files=tuple(files),
        **{key: entry[key] for key in ("title", "doi", "licence", "cite")},
    )


@dataclass(frozen=True)
class Fetched:
    """A file of a record on disk."""

    path: Path
    size: int  # bytes
    was_there: bool  # nothing was downloaded
    checksum: str  # "md5:..." or "sha256:..." of the content
    verified: bool  # the checksum is the one of a cited source

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
    """Download one file of a record into a folder, unless it is there with the right checksum.

    The next call resumes an interrupted download (HTTP Range; a server without it sends all of it
    again). Only http and https are supported; proxies are taken from the environment. ``base_url``
    replaces the record's folder on the web; ``on_bytes`` gets the number of bytes on disk at the
    start, then that of each block.

    Raises FetchError without network, if the server refuses, or if size or checksum are not those
    of the source.
    """
    folder = Path(folder)
    url = f"{_checked_url(base_url or record.base_url)}/{file.name}"
    path = folder / file.name
    if path.exists():
        return _checked_file(path, file, True, f"move it away, then fetch {file.name} again")
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{file.name}.partial"
    _Transfer(url, partial, record, file, on_bytes or (lambda _: None)).run()
    try:
        done = _checked_file(partial, file, False)
    except FetchError as error:
        partial.unlink()
        raise FetchError(
            f"{error}. The download from {url} was deleted: run the same command once more. If it"
            f" fails again, the record has changed: see {record.page}"
        ) from error
    move(partial, path)
    return Fetched(path, done.size, False, done.checksum, done.verified)


def _checked_url(base_url: str) -> str:
    if not re.match(r"https?://[^/]", base_url):
        raise ConfigError(f"a base url starts with http:// or https://, got {base_url!r}")
    return base_url.rstrip("/")


def _checked_file(path: Path, file: RecordFile, was_there: bool, hint: str = "") -> Fetched:
    """Return a complete file. Raises FetchError if size or checksum are not those of the source."""
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
    """The download of one file: requests for the missing bytes until none are missing."""

    def __init__(
        self, url: str, partial: Path, record: Record, file: RecordFile, on_bytes: OnBytes
    ) -> None:
        self.url, self.partial, self.record, self.file = url, partial, record, file
        self.on_bytes = on_bytes
        self.total = file.size
        self.complete = False

    def run(self) -> None:
        """Raises FetchError if the server refuses or the connection keeps breaking."""
        self.on_bytes(self.have)
        self.complete = self.total is not None and self.have >= self.total
        failures = 0
        while not self.complete:
            before = self.have
            try:
                self.request()
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

    def request(self) -> None:
        """Request everything from the first missing byte on, and append it to the file."""
        from urllib import request

        from ... import __version__

        start = self.have
        headers = {"User-Agent": f"flowbdt/{__version__}"}
        if start:
            headers["Range"] = f"bytes={start}-"
        opener = request.OpenerDirector()  # web only, also where the server sends on to elsewhere
        for name in WEB_HANDLERS:
            opener.add_handler(getattr(request, name)())
        with opener.open(request.Request(self.url, headers=headers), timeout=TIMEOUT_S) as answer:
            # the content starts at 0 unless the server took the range
            sent = answer.headers
            of_range = _number(r"bytes (\d+)-", sent.get("Content-Range"))
            first = of_range if answer.status == 206 else 0
            if first not in (0, start):
                raise http.client.HTTPException(f"requested bytes from {start}, got from {first}")
            length = sent.get("Content-Length")
            self.total = self.agreed(None if length is None else first + int(length))
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
        """Raise FetchError for what another attempt cannot cure."""
        from urllib.error import HTTPError, URLError

        if isinstance(error, HTTPError):
            error.close()
            if error.code == 416 and self.have:  # nothing is missing, or what is there is too long
                self.complete = self.have == self.agreed(
                    _number(r"bytes \*/(\d+)", error.headers.get("Content-Range"))
                )
                if not self.complete:
                    self.partial.unlink(missing_ok=True)
                return
            if error.code in (408, 429) or error.code >= 500:
                return
            raise FetchError(
                f"{self.url} cannot be fetched: the server answers {error.code} {error.reason}. The"
                f" record may have moved: look at {self.record.page}, and give another address with"
                " --base-url, or put the file into the folder yourself"
            ) from error
        if isinstance(error, URLError) and not self.have:
            raise FetchError(
                f"no connection to {self.url}: {error.reason}. {self.advice}"
            ) from error
        if isinstance(error, OSError) and error.filename:
            raise FetchError(f"could not write {self.partial}: {error.strerror}") from error

    def broken(self, reason: str) -> FetchError:
        """Return the error for a connection that broke for good."""
        of = "" if self.total is None else f" of {self.total:,}"
        return FetchError(
            f"{self.url} broke off ({reason}); {self.have:,}{of} bytes are kept in {self.partial}:"
            f" run the same command again to resume. {self.advice}"
        )

    @property
    def advice(self) -> str:
        """Advice for a machine without network access."""
        return (
            f"Without network, download {self.file.name} elsewhere from {self.record.page} and put"
            f" it into {self.partial.parent}"
        )


def _number(pattern: str, header: str | None) -> int | None:
    """Return the number of a header; None if it has another form."""
    match = re.match(pattern, header or "")
    return int(match[1]) if match else None
