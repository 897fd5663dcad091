"""Whole files or none: write aside, flush, rename; and the digests that tell a whole file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import platform
import re
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, cast

import numpy as np

from .errors import FormatError, RunError, reading

WEEK_S = 7 * 24 * 3600

_tidied: set[str] = set()
"""Folders that this process has cleaned: with 10,000 files a look takes longer than a write."""


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds.

    The temporary name is unique, so that two workers on the same step do no harm, and ends as
    ``path`` does, because some writers choose a format by ending. Raises RunError when the disk
    is full or the folder cannot be written. What killed processes left in the folder is removed
    before the first write into it.
    """
    path = Path(path)
    folder = os.path.abspath(path.parent)
    if folder not in _tidied:
        _tidied.add(folder)
        remove_leftovers(path.parent, below=False)
    part = path.with_name(f".part-{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield part
        with open(part, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(part, path)
    except OSError as error:
        reason = error if error.errno else f"no space is left ({error})"
        raise RunError(
            f"could not write {path}: {reason}. Nothing was left half-written; free space or"
            " choose another folder, then run the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # a path through a file is no folder to clean
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold a folder against other processes, after removing what killed ones left half-written.

    It is made if absent, and removed if nothing is in it afterwards. Raises RunError if another
    process holds it, or it cannot be written.
    """
    folder = make_folder(folder)
    path = folder / "lock"
    try:
        handle = open(path, "a")  # noqa: SIM115
    except OSError as error:
        raise RunError(f"could not write {path}: {error}; choose another folder") from error
    with handle:
        if not _lock(handle, path):
            raise RunError(f"another process is writing to {folder}: wait for its end")
        remove_leftovers(folder)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()


def _lock(handle: Any, path: Path) -> bool:
    """Lock an open file until it is closed, where the system can; return False if another has it.

    Also if it was removed meanwhile, by the process that had it until now.
    """
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # not everywhere, and not on every file system
        pass
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle.fileno()), os.stat(path))
    return False


PART = re.compile(r"\.part-([^-]+)-(\d+)-[^-]+-.")
"""Beginning of a temporary name: machine and process."""


def _host() -> str:
    return platform.node().replace("-", "_") or "host"


def remove_leftovers(folder: Path, below: bool = True) -> None:
    """Delete temporary files of processes that no longer run on this machine.

    Also in folders ``below``, unless it is False. Those of living processes stay, and for a week
    those of other machines, which may share the folder.
    """
    folders = itertools.islice(os.walk(folder), None if below else 1)
    names = ((top, name) for top, _, files in folders for name in files)
    for path in (Path(top, name) for top, name in names):
        match = PART.match(path.name)
        if match is None:
            continue
        host, pid = match.groups()
        here = host == _host()
        with contextlib.suppress(OSError):  # removed meanwhile, or another's
            if not _runs(int(pid)) if here else time.time() - path.stat().st_mtime > WEEK_S:
                path.unlink()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 asks only
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content`` whole or not at all."""
    with atomic(path) as part:
        part.write_bytes(content)


def make_folder(path: str | Path) -> Path:
    """Make a folder to write into, and those above it. Raises RunError with what to do."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError("it cannot be written")
    except OSError as error:
        raise RunError(
            f"cannot make the folder {path}: {error}. Choose another, or remove what is in its way"
        ) from error
    return Path(path)


def check_target(path: str | Path) -> None:
    """Raise RunError, before the work, if a file could not be written; make its folder."""
    make_folder(Path(path).parent)
    if Path(path).is_dir():
        raise RunError(f"{path} is a folder: choose the name of a file to write")


def move(source: Path, target: Path) -> None:
    """Rename a file within a folder's file system. Raises RunError with what to do."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
    except OSError as error:
        raise RunError(
            f"could not move {source} to {target}: {error}. Make the folder writable, then run the"
            " same command again"
        ) from error


def to_plain(value: Any) -> Any:
    """Turn numpy scalars and arrays, tuples and paths into what JSON and YAML can hold."""
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


def json_bytes(value: Any) -> bytes:
    """Return the one JSON text of ``value`` that we write: sorted keys, so that bytes compare."""
    return (json.dumps(to_plain(value), indent=1, sort_keys=True) + "\n").encode()


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as JSON, whole or not at all."""
    write_bytes(path, json_bytes(value))


def read_json(path: str | Path) -> Any:
    """Read a JSON file, as `parse_json`. Raises FormatError if it is missing or broken."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist") from error
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error}") from error
    return parse_json(content, str(path))


def parse_json(content: bytes | str, what: str) -> Any:
    """Parse JSON of finite numbers. Raises FormatError that names the file when it is broken."""
    try:
        return json.loads(content, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not readable JSON ({error}); it may be truncated") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def save_array(handle: IO[bytes], array: np.ndarray) -> None:
    """Write an array as ``.npy`` into an open file. Raises OSError on a full disk.

    Into a plain file numpy writes by itself, and then loses the end of it without an error.
    """
    np.save(cast("IO[bytes]", SimpleNamespace(write=handle.write)), array, allow_pickle=False)


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write an array as ``.npy``, whole or not at all."""
    with atomic(path) as part, open(part, "wb") as handle:
        save_array(handle, array)


def stored_array(
    arrays: Mapping[str, Any],
    name: str,
    shape: Sequence[int | None],
    kind: str = "f",
    low: float = -np.inf,
    high: float = np.inf,
) -> np.ndarray:
    """Return an array that a file holds.

    ``shape`` has None where any length will do, ``kind`` is "f" for floats, "i" for whole numbers,
    "u" for bytes. Raises FormatError unless type and shape are these, and all numbers finite and
    between ``low`` and ``high``.
    """
    array = arrays.get(name)
    wanted = "x".join("n" if size is None else str(size) for size in shape) or "single"
    if not isinstance(array, np.ndarray) or array.dtype.kind != kind or array.ndim != len(shape):
        got = getattr(array, "dtype", type(array).__name__), getattr(array, "shape", "none")
    elif any(size not in (None, length) for size, length in zip(shape, array.shape, strict=True)):
        got = array.dtype, array.shape
    elif array.size and not (
        np.isfinite(array).all() and low <= array.min() <= array.max() <= high
    ):
        raise FormatError(
            f"the stored array {name!r} must hold finite numbers from {low:g} to {high:g}"
        )
    else:
        return array
    kinds = {"f": "floating-point numbers", "i": "whole numbers", "u": "bytes"}[kind]
    raise FormatError(
        f"the stored array {name!r} must hold {wanted} {kinds}, got {got[0]} of shape {got[1]}"
    )


def read_arrays(content: bytes, what: str) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` file as `numpy.savez` writes it, without pickle.

    Raises FormatError if it is damaged, or has a member twice or compressed: that could be far
    larger in memory than in the file.
    """
    with reading(what), zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        if len(set(names)) < len(names) or any(member.compress_type for member in members):
            raise FormatError("it has a member twice, or compressed ones")
        arrays: dict[str, np.ndarray] = {}
        for name, member in zip(names, members, strict=True):
            with archive.open(member) as stored:
                arrays[name] = np.lib.format.read_array(stored, allow_pickle=False)
        return arrays


def digest_bytes(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def digest_array(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's entries in row order, without a copy if they lie so."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def digest_file(path: str | Path) -> str:
    """Return the SHA-256 of a file, read in blocks."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-like value: equal settings, equal digest."""
    return digest_bytes(json_bytes(value))
