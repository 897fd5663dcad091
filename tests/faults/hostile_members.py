"""Members of a model file, changed on purpose, and packed again with the right hashes."""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from hashed_members import hashed

from flowbdt.training import run_directory
from flowbdt.trees.ubjson import read_ubjson

Place = tuple[Any, ...]

OTHER_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 2**40, 1e308, float("nan"), float("inf"), "", "nan", "x" * 3000,
    [], [1.5], {}, {"name": "x"}, [[["a"]]],
)  # fmt: skip
MARKS = {"int8": b"i", "uint8": b"U", "int16": b"I", "int32": b"l", "int64": b"L",
         "float32": b"d", "float64": b"D"}  # fmt: skip


def members(content: bytes) -> dict[str, bytes]:
    """Return the members of a model file by name, without the arrays of compiled generation."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {n: archive.read(n) for n in archive.namelist() if n != run_directory.PACKED}


def with_hashes(content: dict[str, bytes]) -> bytes:
    """Return a model file whose digests are right for what it holds, as far as they can be."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, one in hashed(content).items():
            archive.writestr(name, one)
    return buffer.getvalue()


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield where every entry of nested mappings and lists stands; of long lists only some."""
    if place:
        yield place
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*place, key))
    elif isinstance(value, list):
        for i in sorted({*range(min(len(value), 2)), len(value) - 1} - {-1}):
            yield from places(value[i], (*place, i))


def at(value: Any, place: Place) -> Any:
    """Return the entry at a place."""
    for key in place:
        value = value[key]
    return value


def changed(value: Any, rng: np.random.Generator) -> tuple[Any, str]:
    """Return nested content with one entry removed, added or replaced, and what was done."""
    value = copy.deepcopy(value)
    every = list(places(value))
    place = every[int(rng.integers(len(every)))]
    above, key = at(value, place[:-1]), place[-1]
    how = int(rng.integers(6))
    if how == 0:
        del above[key]
        return value, f"without {place}"
    if how == 1 and isinstance(above[key], dict):
        above[key]["surprise"] = 1
        return value, f"unknown entry in {place}"
    if how == 2 and isinstance(above[key], list):
        above[key].extend(above[key][:1] or [0])
        return value, f"longer {place}"
    if isinstance(above[key], np.ndarray):
        above[key], what = changed_array(above[key], rng)
        return value, f"{what} in {place}"
    other = OTHER_VALUES[int(rng.integers(len(OTHER_VALUES)))]
    if isinstance(above[key], str) and above[key].isdigit() and rng.random() < 0.7:
        other = str(rng.choice([0, 1, 2, 7, 1000, 2**31, 10**12]))
    above[key] = copy.deepcopy(other)
    return value, f"{str(other)[:20]!r} at {place}"


def changed_array(array: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Return an array with another number, length or type, and what was done."""
    how = int(rng.integers(5))
    if how == 0:
        return np.concatenate([array.ravel(), array.ravel()[:1]]), "another length"
    if how == 1:
        return array.ravel()[: array.size // 2], "half the length"
    if how == 2:
        kinds = [kind for kind in MARKS if kind != array.dtype.name]
        with np.errstate(all="ignore"):
            return array.astype(kinds[int(rng.integers(len(kinds)))]), "another type"
    result = np.array(array, dtype=array.dtype.newbyteorder("="))
    if not result.size:
        return np.ones(3, result.dtype), "numbers where none are"
    numbers = [-1, 0, 1, 2, 100, 2**30] if result.dtype.kind in "iu" else [np.nan, np.inf, -3e38]
    number = numbers[int(rng.integers(len(numbers)))]
    with np.errstate(all="ignore"):
        result.ravel()[int(rng.integers(result.size))] = np.array(number).astype(result.dtype)
    return result, f"{number}"


def hostile_json(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Return changed JSON; now and then nested without end."""
    if rng.random() < 0.03:
        return b"[" * 100_000, "nested without end"
    value, what = changed(json.loads(content), rng)
    return json.dumps(value).encode(), what


def hostile_booster(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Return a changed booster."""
    kind = rng.random()
    if kind < 0.1:
        cut = int(rng.integers(len(content)))
        return content[:cut], "cut short"
    if kind < 0.25:
        place = int(rng.integers(len(content)))
        byte = bytes([int(rng.integers(256))])
        return content[:place] + byte + content[place + 1 :], f"byte {place}"
    value = read_ubjson(content)
    if kind < 0.7:  # in the trees, where it matters
        trees = value["learner"]["gradient_booster"]["model"]["trees"]
        number = int(rng.integers(len(trees)))
        trees[number], what = changed(trees[number], rng)
    else:
        value, what = changed(value, rng)
    return b"".join(written(value)), what


def written(value: Any) -> Iterator[bytes]:
    """Yield UBJSON."""
    if isinstance(value, dict):
        yield b"{"
        for key, item in value.items():
            yield _text(str(key))
            yield from written(item)
        yield b"}"
    elif isinstance(value, np.ndarray):
        yield b"[$" + MARKS[value.dtype.name] + b"#L" + struct.pack(">q", value.size)
        yield value.astype(value.dtype.newbyteorder(">")).tobytes()
    elif isinstance(value, list):
        yield b"[#L" + struct.pack(">q", len(value))
        for item in value:
            yield from written(item)
    elif isinstance(value, str):
        yield b"S" + _text(value)
    elif value is None or isinstance(value, bool):
        yield {None: b"Z", True: b"T", False: b"F"}[value]
    elif isinstance(value, int):
        yield b"L" + struct.pack(">q", value)
    else:
        yield b"D" + struct.pack(">d", value)


def _text(text: str) -> bytes:
    return b"L" + struct.pack(">q", len(text.encode())) + text.encode()


def hostile_file(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Return a changed ``.npz`` file whose bytes may hold JSON, boosters and whole models."""
    with np.load(io.BytesIO(content)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    inner = sorted(name for name, array in arrays.items() if array.dtype == np.uint8)
    if not inner or rng.random() < 0.4:
        return hostile_arrays(content, rng)
    name = inner[int(rng.integers(len(inner)))]
    held = arrays[name].tobytes()
    if held[:2] == b"PK":
        whole = members(held)
        of = sorted(n for n in whole if n != "manifest.json")[int(rng.integers(len(whole) - 1))]
        changed_one, what = HOSTILE[of[of.rindex(".") :]](whole[of], rng)
        held, what = with_hashes({**whole, of: changed_one}), f"{what} in {of}"
    else:
        try:
            json.loads(held)
        except ValueError:
            held, what = hostile_booster(held, rng)
        else:
            held, what = hostile_json(held, rng)
    buffer = io.BytesIO()
    np.savez(buffer, **{**arrays, name: np.frombuffer(held, np.uint8)})
    return buffer.getvalue(), f"{what} in {name}"


def hostile_arrays(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Return a changed ``.npz`` file."""
    with np.load(io.BytesIO(content)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    names = sorted(arrays)
    name, save = names[int(rng.integers(len(names)))], np.savez
    how = int(rng.integers(7))
    if how == 0:
        del arrays[name]
        what = "missing"
    elif how == 1:
        arrays[name] = np.array([{"an": "object"}, None], dtype=object)
        what = "objects"
    elif how == 2:
        arrays["surprise"] = np.zeros(3)
        what = "one more"
    elif how == 3:
        save, what = np.savez_compressed, "compressed"
        arrays[name] = np.zeros(10_000_000)
    elif arrays[name].dtype.kind in "iuf":
        array, what = changed_array(arrays[name], rng)
        same = array.size == arrays[name].size
        arrays[name] = array.reshape(arrays[name].shape) if same else array
    else:
        arrays[name], what = np.array("surprise"), "another text"
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue(), f"{what} in {name}"


HOSTILE = {".ubj": hostile_booster, ".json": hostile_json, ".npz": hostile_arrays}
"""Ending of a member -> what changes it."""
