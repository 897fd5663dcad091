"""Collections of objects in ROOT files: branches with as many values as an event has objects.

``Jet_pt`` has ``nJet`` values per event; `read_collections` returns both as awkward arrays, and
`write_collections` writes them back. Tables with one row per event are read by `read_table`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic_files import atomic
from ..errors import InputError, RunError, plural
from ..registry import unknown
from .formats.base import split_path
from .formats.root import (
    Branch,
    GrowingTree,
    branches,
    kind_of,
    need_uproot,
    opened_tree,
    reading,
)
from .formats.table_files import errors_of, existing, format_to_write

if TYPE_CHECKING:
    import awkward as ak


def read_collections(
    path: str | Path, columns: Sequence[str] | None = None, block_rows: int = 65536
) -> Iterator[ak.Array]:
    """Read branches of a ROOT file in blocks of events, jagged ones included.

    Parameters
    ----------
    path : str or Path, ending .root; of several trees ``events.root:Events`` chooses one
    columns : names of branches to read, or patterns such as ``Jet_*``; the branches that count
        what jagged ones hold come with them. None for all
    block_rows : events in memory at a time

    Yields
    ------
    awkward.Array of at most ``block_rows`` events, with the branches as its fields, in the types
    and in the order of the file: numbers ``events.nJet``, lists of numbers ``events.Jet_pt``,
    texts, arrays of fixed length, lists of lists.

    Raises
    ------
    InputError, FormatError
        If there is no such tree or branch, or a branch is of a type that has no awkward array; if
        the file is damaged, or a branch has another number of values than its counter says.
    MissingExtra
        If uproot is not installed.
    """
    if block_rows < 1:
        raise InputError(f"block_rows must be at least 1, got {block_rows}")
    path = existing(_root_file(path))
    need_uproot(path)
    import awkward as ak

    with opened_tree(path) as (tree, _):
        with reading(path):
            found = branches(tree, path)
        chosen = _chosen(found, columns, path)
        for low in range(0, int(tree.num_entries), block_rows):
            rows = slice(low, low + block_rows)
            arrays = {name: branch.array(rows) for name, branch in chosen.items()}
            with errors_of(path):
                _counted(arrays, {name: b.counter for name, b in chosen.items() if b.counter}, low)
            yield ak.zip(arrays, depth_limit=1)


def branch_counters(path: str | Path) -> dict[str, str]:
    """Return the counter of each jagged branch, as `write_collections` takes them.

    Of a branch without one, such as a vector of C++, it is a new branch of its own, ``n`` and the
    name. Raises the errors of `read_collections`.
    """
    path = existing(_root_file(path))
    with opened_tree(path) as (tree, _), reading(path):
        found = branches(tree, path)
    counters = {}
    for name in (name for name, branch in found.items() if branch.kind == "jagged"):
        new = f"n{name}" if f"n{name}" not in found else f"n{name}_"
        counters[name] = found[name].counter or new
    return counters


def write_collections(
    path: str | Path,
    blocks: ak.Array | Iterable[ak.Array],
    counters: Mapping[str, str] | None = None,
    rntuple: bool = False,
) -> int:
    """Write events with collections as the TTree ``Events``, whole or not at all.

    Numbers, truth values, texts, and lists and arrays of fixed length of numbers keep their types
    and order; counters are int32. Equal events give equal bytes, whatever their blocks.

    Parameters
    ----------
    path : str or Path, ending .root
    blocks : events as `read_collections` yields them; one array, or one after the other
    counters : name of the counter by name of the jagged branch, as `branch_counters` returns them.
        By default ``Jet_pt`` is counted by ``nJet``, and a name without "_" by ``n`` and the name
    rntuple : write an RNTuple in place of the TTree

    Returns
    -------
    int, the number of events.

    Raises
    ------
    InputError
        If a branch is of a type that cannot be written, branches of one counter differ in length,
        or a counter that is among the branches has another value; names branch and event.
    RunError, MissingExtra
        If the file cannot be written, or uproot is not installed.
    """
    path = _root_file(path)
    format_to_write(path)
    if not path.parent.is_dir():
        raise RunError(f"the folder of {path} does not exist: make it first")
    need_uproot(path)
    n_rows = 0
    tree: GrowingTree | None = None
    with atomic(path) as part:
        try:
            given: Iterable[Any] = [blocks] if hasattr(blocks, "fields") else blocks
            for events in given:
                if not events.fields:
                    raise InputError(
                        f"events for {path} have no fields: name the branches, as in"
                        " ak.zip({'Jet_pt': pt}, depth_limit=1)"
                    )
                arrays = {name: events[name] for name in events.fields}
                if tree is None:
                    tree = GrowingTree(part, counter_names(arrays, counters or {}), rntuple)
                tree.extend(_counted(arrays, tree.counters, n_rows), len(events))
                n_rows += len(events)
            if tree is None:
                raise InputError(f"there is nothing to write to {path}; expected events")
            tree.close()
        finally:
            if tree is not None:
                tree.abandon()
    return n_rows


def counter_names(arrays: Mapping[str, Any], counters: Mapping[str, str]) -> dict[str, str]:
    """Return the name of the counter of each jagged branch: the one given, or ``nJet``."""
    jagged = [name for name, values in arrays.items() if kind_of(values) == "jagged"]
    names: dict[str, str] = {}
    for name in jagged:
        counter = counters.get(name) or f"n{name.partition('_')[0]}"
        if counter in jagged or counter == name:
            raise InputError(f"branch {name!r} cannot be counted by {counter!r}: name the counters")
        names[name] = counter
    return names


def _root_file(path: str | Path) -> Path:
    path = Path(path)
    if split_path(path)[0].suffix.lower() != ".root":
        raise InputError(f"{path} must be a ROOT file (.root): others have no collections")
    return path


def _chosen(
    found: Mapping[str, Branch], columns: Sequence[str] | None, path: Path
) -> dict[str, Branch]:
    """Return the branches to read and their counters, in the order of the file."""
    if isinstance(columns, str):
        raise InputError(f"columns must be a list of texts, got the text {columns!r}")
    wanted = set(found) if columns is None else set()
    for name in columns or ():
        matching = [name] if name in found else fnmatch.filter(found, name)
        if not matching:
            raise InputError(str(unknown(f"branch (in {path})", name, found)))
        wanted.update(matching)
    wanted |= {found[name].counter for name in wanted} & set(found)
    chosen = {name: branch for name, branch in found.items() if name in wanted}
    for name, branch in chosen.items():
        if branch.unreadable:
            raise InputError(f"{path}: branch {name!r} {branch.refusal}")
    return chosen


def _counted(arrays: dict[str, Any], counters: Mapping[str, str], first: int) -> dict[str, Any]:
    """Return the branches; refuse numbers of values that are not those of the counter.

    ``first`` is the number of the first event, for messages.
    """
    import awkward as ak

    counts: dict[str, tuple[str, np.ndarray]] = {
        name: (name, np.asarray(arrays[name])) for name in {*counters.values()} & {*arrays}
    }
    for name, counter in counters.items():
        if name not in arrays:
            continue
        found = np.asarray(ak.num(arrays[name]))
        other, expected = counts.setdefault(counter, (name, found))
        differs = found != expected
        if differs.any():
            row = int(np.argmax(differs))
            values, there = plural(int(found[row]), "value"), "is" if other == counter else "has"
            raise InputError(
                f"branch {name!r}, counted by {counter!r}, has {values} in event {first + row},"
                f" where {other!r} {there} {expected[row]}: correct the events, or give it a"
                " counter of its own"
            )
    return arrays
