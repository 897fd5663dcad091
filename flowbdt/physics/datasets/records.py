"""Public records: where the files of a benchmark are, and what is known of them.

`records.json` beside the bundled sample lists them. Sizes and checksums come from the source that
is named with each record; where no source gives one, it is left open and the file counts as
unverified.
"""

from __future__ import annotations

import fnmatch
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from ...registry import unknown

ZENODO = "https://zenodo.org/records/{record}/files"


@dataclass(frozen=True)
class RecordFile:
    """One file of a record.

    Parameters
    ----------
    name : str
    size : int, bytes, or None where no source gives it
    algorithm, checksum : str, "md5" or "sha256" and the digest in hexadecimal; None likewise
    """

    name: str
    size: int | None = None
    algorithm: str | None = None
    checksum: str | None = None

    @property
    def verified(self) -> bool:
        """Whether a cited source gives a checksum."""
        return self.checksum is not None


@dataclass(frozen=True)
class Record:
    """A published set of files.

    Parameters
    ----------
    name : str, as in `flowbdt data fetch`
    title, doi, licence, cite : str
    number : int, of the Zenodo record
    reader : str, the data set in `DATASETS` that reads the files
    usual : names of the files that are fetched unless others are asked for
    sources : where names, sizes and checksums were found
    files : tuple of RecordFile
    """

    name: str
    title: str
    doi: str
    licence: str
    cite: str
    number: int
    reader: str
    usual: tuple[str, ...]
    sources: tuple[str, ...]
    files: tuple[RecordFile, ...]

    @property
    def page(self) -> str:
        """The address that stays when the host moves."""
        return f"https://doi.org/{self.doi}"

    @property
    def base_url(self) -> str:
        """The folder on the web that holds the files."""
        return ZENODO.format(record=self.number)

    def select(self, patterns: Sequence[str] = ()) -> tuple[RecordFile, ...]:
        """Return the files that match any of the patterns such as ``"*_1.hdf5"``, in order.

        Without patterns the usual files. Raises ConfigError for a pattern that matches nothing.
        """
        wanted = list(patterns) or list(self.usual)
        names = [file.name for file in self.files]
        for pattern in wanted:
            if not fnmatch.filter(names, pattern):
                raise unknown(f"file of {self.name!r}:", pattern, names)
        return tuple(f for f in self.files if any(fnmatch.fnmatch(f.name, p) for p in wanted))

    def describe(self) -> str:
        """Return what is known of the record and of its files, line by line."""
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
    text = (resources.files("flowbdt.physics.data") / "records.json").read_text()
    found = json.loads(text)["records"]
    return {name: _record(name, found[name]) for name in sorted(found)}


def overview() -> str:
    """Return name, address and title of every record."""
    return "\n".join(f"{r.name:15} {r.page}\n{'':15} {r.title}" for r in records().values())


def record(name: str) -> Record:
    """Return one record. Raises ConfigError that lists the known names."""
    if name not in records():
        raise unknown("record of public files:", name, records())
    return records()[name]


def _record(name: str, entry: dict) -> Record:
    texts = {key: entry[key] for key in ("title", "doi", "licence", "cite", "reader")}
    return Record(
        name=name,
        number=entry["record"],
        usual=tuple(entry["usual"]),
        sources=tuple(entry["sources"]),
        files=tuple(_file(key, known) for key, known in entry["files"].items()),
        **texts,
    )


def _file(name: str, known: dict) -> RecordFile:
    algorithm = next((a for a in ("sha256", "md5") if a in known), None)
    return RecordFile(
        name, known.get("size"), algorithm, None if algorithm is None else known[algorithm]
    )
