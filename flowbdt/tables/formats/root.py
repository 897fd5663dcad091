"""Tables in .root: a TTree or an RNTuple is read, a TTree is written; needs uproot.

Branches of one value per event are columns. Of branches with several the k-th value is the column
``NAME_k``. Files that we write have the tree ``Events``, with categories as texts, and beside it
the description of the table as the text ``flowbdt``.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import re
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic_files import digest_file, json_bytes
from ...errors import FlowbdtError, FormatError, InputError, MissingExtra
from ...registry import unknown
from ..event_table import Categories, EventTable
from .base import (
    FORMATS,
    GrowingFile,
    StoredColumns,
    TableFormat,
    Writer,
    checked_description,
    split_path,
    unreadable,
)

TREE, DESCRIPTION = "Events", "flowbdt"
"""Names in files that we write."""
BASKET = 2**15
"""Rows of a basket: the unit in which rows are written, however they were appended."""
READ_TOGETHER = 2**18
"""Rows that are read at a time to count objects."""
NUMBERS = (
    "bool",
    "float32",
    "float64",
    *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)),
)
TREES = ("TTree", "TNtuple", "TNtupleD", "TChain", "ROOT::RNTuple")
GROUP = "counted by "
"""Begins the name under which uproot takes branches of one counter."""
UNSET = uuid.UUID("0f10bd70-f10b-4d70-8f10-bd700f10bd70")
"""Stands in a file until its content is known, from which its identifier follows."""


@FORMATS.register(".root")
class Root(TableFormat):
    """ROOT, read and written in blocks."""

    in_blocks = True
    parts = "tree"

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[StoredColumns]:
        with opened_tree(path) as (tree, description):
            with reading(path):
                stored = _stored_columns(tree, description, path)
            yield stored

    def count_rows(self, path: Path) -> int:
        with opened_tree(path) as (tree, _):
            if not tree.num_entries:
                raise InputError(f"{path} has no rows; expected at least one event")
            return int(tree.num_entries)

    def attributes(self, path: Path) -> dict[str, Any]:
        with opened_tree(path) as (_, description):
            return dict(description.get("attributes", {}))

    def writer(self, part: Path, path: Path, attributes: Mapping[str, Any]) -> Writer:
        return RootWriter(GrowingTree(part), attributes)


# ---- reading


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn uproot's errors about a broken file, of many kinds, into FormatError."""
    need_uproot(path)
    try:
        yield
    except FlowbdtError:
        raise
    except Exception as error:
        text = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise unreadable(path, ValueError(text)) from error


def need_uproot(path: Path) -> Any:
    """Return the module. Raises MissingExtra."""
    try:
        import uproot
    except ImportError as error:
        raise MissingExtra.of(f"uproot, which reads and writes {path},", error, "root") from error
    return uproot


@contextlib.contextmanager
def opened_tree(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Return the tree that a path such as ``events.root:Events`` names, and our description.

    Raises FormatError if the file is damaged or foreign, InputError if the tree is not there, or
    none is named and there are several.
    """
    file, name = split_path(path)
    with contextlib.ExitStack() as stack:
        with reading(file):
            opening = {"array_cache": None, "object_cache": None}
            handle = stack.enter_context(need_uproot(file).open({str(file): None}, **opening))
            if handle.file.fEND > file.stat().st_size:
                raise FormatError(f"{file} is truncated: copy or make it again")
            kinds = handle.classnames(recursive=True)
            tree = handle[_tree_name(kinds, name, file)]
            stored = f"{DESCRIPTION};1"
            described = json.loads(handle[stored]) if kinds.get(stored) == "TObjString" else {}
        yield tree, checked_description(described, file)


def _tree_name(kinds: Mapping[str, str], name: str, file: Path) -> str:
    """Return the name of the tree to read, with its cycle if one is asked for."""
    trees = {key for key, kind in kinds.items() if kind in TREES}
    names = {key.partition(";")[0] for key in trees}
    if not trees:
        others = ", ".join(f"{key} ({kind})" for key, kind in list(kinds.items())[:10])
        raise InputError(f"{file} has no tree (TTree or RNTuple); it has {others or 'nothing'}")
    if not name:
        if len(names) > 1:
            listed = ", ".join(f"{file.name}:{key}" for key in sorted(names))
            raise InputError(f"{file} has several trees: name one, such as {listed}")
        return names.pop()
    if name not in trees | names:
        raise InputError(str(unknown(f"tree in {file}:", name, names)))
    return name


class Branch:
    """A branch of one or several values per event, that stands for them.

    ``kind``: "flat", "text", "fixed" (``size`` values), "jagged", or "other"; ``counter`` is the
    branch with the numbers of values, where there is one.
    """

    def __init__(
        self, source: Any, n_rows: int, form: Any, name: str, field: str, path: Path
    ) -> None:
        self._source, self._field, self._path = source, field, path
        self.kind, self.size = _kind(form)
        self.unreadable = form is None
        self.shape = (n_rows, self.size) if self.kind == "fixed" else (n_rows,)
        self.dtype: str | None = None
        self.name = f"{name}.{field}" if field else name
        leaves = source.member("fLeaves") if hasattr(source, "has_member") else ()
        counts = [leaf.member("fLeafCount", none_if_missing=True) for leaf in leaves]
        self.counter = counts[0].member("fName") if counts and counts[0] is not None else ""
        self.refusal = self._refusal()

    def _refusal(self) -> str:
        name, prefix = self.name, self.name.partition("_")[0]
        taken = f"take them as the columns {name}_0, {name}_1, ..., by name or pattern"
        return {
            "jagged": f"has as many values as the event has objects: {taken} ('{prefix}_*_[0-3]':"
            " four of each, NaN where there are fewer), name other columns, or read collections by"
            " flowbdt.tables.event_collections.read_collections",
            "fixed": f"has {self.size} values per event: {taken} ('{name}_*'), or name others",
            "other": "is of a type that is no number, text or list of numbers"
            f" ({_type_name(self._source)}): name other columns",
        }.get(self.kind, "")

    def array(self, rows: slice) -> Any:
        """Return the values of some rows as an awkward array."""
        low, high, _ = rows.indices(self.shape[0])
        with reading(self._path):
            values = self._source.array(entry_start=low, entry_stop=high, library="ak")
            values = values[self._field] if self._field else values
            if len(values) != high - low:
                raise FormatError(
                    f"{self._path}: branch {self.name!r} has {len(values)} values in {high - low}"
                    " rows: copy or make the file again"
                )
        return values

    def __getitem__(self, rows: slice) -> np.ndarray:
        values = self.array(rows)
        with reading(self._path):
            if self.kind == "text":
                return np.array([*values.to_list(), None], dtype=object)[:-1]
            array = np.asarray(values.to_numpy())
            return array if self.dtype is None else array.astype(self.dtype)

    def most(self) -> int:
        """Return the largest number of values of an event."""
        import awkward as ak

        if self.kind == "fixed":
            return self.size
        spans = range(0, self.shape[0], READ_TOGETHER)
        counts = (ak.num(self.array(slice(low, low + READ_TOGETHER))) for low in spans)
        return max((int(ak.max(count)) for count in counts if len(count)), default=0)


class _Element:
    """The ``index``-th value of each event of a branch, missing where it has fewer.

    ``latest`` are the rows and values of the branch of a tree that was read last.
    """

    def __init__(self, branch: Branch, index: int, latest: dict[Any, Any]) -> None:
        self._branch, self._index, self.shape = branch, index, branch.shape[:1]
        self._latest = latest

    def __getitem__(self, rows: slice) -> Any:
        import awkward as ak
        import pandas as pd

        key = (self._branch.name, rows.start, rows.stop)
        if key not in self._latest:
            self._latest.clear()
            self._latest[key] = self._branch.array(rows)
        values = self._latest[key]
        if self._branch.kind == "fixed":
            return ak.to_numpy(values[:, self._index])
        there = ak.to_numpy(ak.num(values) > self._index)
        found = ak.to_numpy(values[there][:, self._index])
        result = np.zeros(len(there), dtype=found.dtype)
        result[there] = found
        if found.dtype.kind == "f":
            result[~there] = np.nan
            return result
        kind = pd.arrays.BooleanArray if found.dtype == bool else pd.arrays.IntegerArray
        return kind(result, ~there)


def branches(tree: Any, path: Path) -> dict[str, Branch]:
    """Return the branches of a tree without further branches below them, in order."""
    if hasattr(tree, "branches"):
        items = [item for item in tree.iteritems(recursive=True) if not item[1].branches]
        forms = [_tree_form(source) for _, source in items]
    else:
        items = [(source.name, source) for source in tree.fields]
        forms = [source.to_akform()[0].contents[0] for _, source in items]
    plain = Counter(source.name for _, source in items)
    found: dict[str, Branch] = {}
    for (place, source), form in zip(items, forms, strict=True):
        name = source.name if plain[source.name] == 1 else place.replace("/", ".")
        name = re.sub(r"(\[\d*\])+$", "", name)  # of an array in an object that was split
        fields = form.fields if getattr(form, "is_record", False) else [""]
        for field in fields:
            inner = form.content(field) if field else form
            branch = Branch(source, int(tree.num_entries), inner, name, field, path)
            if branch.name in found:
                raise InputError(
                    f"{path} has several branches called {branch.name!r}: write a tree of"
                    " branches with names of their own"
                )
            found[branch.name] = branch
    return found


def _type_name(source: Any) -> str:
    try:
        return str(source.typename)
    except Exception:  # of types that uproot does not know
        return "unknown to uproot"


def _tree_form(source: Any) -> Any:
    """Return the awkward form of a branch of a TTree; None if it has none."""
    try:
        return source.interpretation.awkward_form(source.file)
    except Exception:  # of many kinds, for types that uproot cannot read
        return None


def _kind(form: Any) -> tuple[str, int]:
    """Return the kind of a branch, and its number of values where that is fixed."""
    if form is None:
        return "other", 0
    if form.parameter("__array__") == "string":
        return "text", 1
    if form.is_numpy and len(form.inner_shape) < 2:
        kind = "fixed" if form.inner_shape else "flat"
        return (kind, *form.inner_shape, 1)[:2] if form.primitive in NUMBERS else ("other", 0)
    if form.is_regular and _kind(form.content)[0] == "flat":
        return "fixed", form.size
    return ("jagged" if form.is_list and _kind(form.content)[0] == "flat" else "other"), 0


def _stored_columns(tree: Any, description: dict[str, Any], path: Path) -> StoredColumns:
    """Return columns whose values are read when they are sliced."""
    found = branches(tree, path)
    if not found:
        raise InputError(f"{path} has no branches; expected at least one")
    texts = description.get("categories", {})
    for name, dtype in description.get("dtypes", {}).items():
        if name in found and found[name].kind == "flat" and name not in texts:
            found[name].dtype = dtype
    several = {name: b for name, b in found.items() if b.kind in ("jagged", "fixed")}
    most, latest = dict[str, int](), dict[Any, Any]()

    def derive(pattern: str) -> dict[str, Any]:
        exact = re.fullmatch(r"(.+)_(\d+)", pattern)
        if exact is not None and exact[1] in several:
            branch, index = several[exact[1]], int(exact[2])
            fits = branch.kind == "jagged" or index < branch.size
            return {pattern: _Element(branch, index, latest)} if fits else {}
        if any(fnmatch.fnmatchcase(name, pattern) for name in several):
            return {}  # which asks for all values, and is refused
        made: dict[str, Any] = {}
        for name, branch in several.items():
            names = [f"{name}_{index}" for index in range(1000)]
            matching = fnmatch.filter(names, pattern)
            if not matching:
                continue
            group = branch.counter or name
            if group not in most:
                most[group] = branch.most()
            there = names[: most[group]]
            made |= {n: _Element(branch, there.index(n), latest) for n in matching if n in there}
        return made

    arrays: dict[str, Any] = {**found}
    stored = StoredColumns.described(arrays, description)
    stored.derive = derive
    return stored


# ---- writing


class GrowingTree:
    """A ROOT file with one TTree, or RNTuple, that grows; its bytes depend on the rows alone.

    Rows are held back until a basket of each branch is full, so memory is bounded by one basket and
    what is added at once. ``counters`` names, for jagged branches, the branch with the numbers of
    values; those of one counter have equal numbers.
    """

    def __init__(
        self, part: Path, counters: Mapping[str, str] | None = None, rntuple: bool = False
    ) -> None:
        uproot = need_uproot(part)
        self._part, self.counters, self._rntuple = part, dict(counters or {}), rntuple
        self._held: list[dict[str, Any]] = []
        self._n_held = 0
        self._types: dict[str, str] = {}
        self._tree: Any = None
        with _timeless():
            settings = {"compression": uproot.ZLIB(4), "uuid_function": lambda: UNSET}
            self._handle = GrowingFile(part, "w+b")
            self._file = uproot.recreate(self._handle, **settings)

    def extend(self, arrays: Mapping[str, Any], n_rows: int) -> None:
        """Add rows: arrays (n,) of numpy or awkward by the names of branches, in one order."""
        types = {name: str(_type(values)) for name, values in arrays.items()}
        for name in types if not self._types else ():
            if name == "" or "/" in name or re.search(r"\[\d*\]", name):
                raise InputError(
                    f"ROOT takes no branch called {name!r}: rename it without / and []"
                )
        self._types = self._types or types
        if list(types.items()) != list(self._types.items()):
            raise InputError(f"blocks must have equal branches, got {self._types} and {types}")
        self._held.append(dict(arrays))
        self._n_held += n_rows
        if self._n_held >= BASKET:
            self._flush(self._n_held - self._n_held % BASKET)

    def close(self, description: Mapping[str, Any] | None = None) -> None:
        """Write what is held back and the description, then the identifier of the file."""
        if self._n_held or self._tree is None:
            self._flush(self._n_held)
        with _timeless():
            if description is not None:
                self._file[DESCRIPTION] = json_bytes(description).decode()
            self._file.close()
        self._handle.check()
        self._handle.close()
        content = uuid.UUID(hex=digest_file(self._part)[:32], version=4)
        with open(self._part, "r+b") as handle:
            head = handle.read(4096)
            handle.seek(0)
            handle.write(head.replace(UNSET.bytes, content.bytes))

    def abandon(self) -> None:
        """Close the file without writing what is held back."""
        self._handle.close()

    def _flush(self, n_rows: int) -> None:
        if not self._held:
            return
        names = list(self._held[0])
        held = {name: _joined([arrays[name] for arrays in self._held]) for name in names}
        for low in range(0, n_rows, BASKET):
            self._write({name: values[low:][:BASKET] for name, values in held.items()}, n_rows)
        if n_rows == 0:
            self._write(held, 0)
        self._n_held -= n_rows
        self._held = [{name: _alone(values[n_rows:]) for name, values in held.items()}]

    def _write(self, arrays: dict[str, Any], n_rows: int) -> None:
        branches: Any = self._listed(arrays) if self._rntuple else self._grouped(arrays)
        with _timeless():
            if self._tree is None and self._rntuple:
                self._tree = self._file.mkrntuple(TREE, branches.layout.form)
            elif self._tree is None:
                self._tree = self._file.mktree(
                    TREE,
                    _branch_types(branches),
                    counter_name=lambda group: group.removeprefix(GROUP),
                    field_name=lambda outer, inner: inner or outer,
                    initial_basket_capacity=64,
                )
            if n_rows:
                self._tree.extend(branches)
        self._handle.check()

    def _listed(self, arrays: dict[str, Any]) -> Any:
        """Return fields of an RNTuple: branches, and counters before the first that they count."""
        import awkward as ak

        _branch_types(arrays)
        fields: dict[str, Any] = {}
        for name, values in arrays.items():
            counter = self.counters.get(name)
            if counter is not None and counter not in arrays and counter not in fields:
                fields[counter] = ak.values_astype(ak.num(values), np.int32)
            fields[name] = values
        return ak.zip(fields, depth_limit=1)

    def _grouped(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return branches of one counter as one list of records, in the order of the first."""
        import awkward as ak

        groups: dict[str, dict[str, Any]] = {}
        for name, values in arrays.items():
            if name in self.counters:
                groups.setdefault(GROUP + self.counters[name], {})[name] = values
            elif name in self.counters.values():
                groups.setdefault(GROUP + name, {})
            else:
                groups[name] = {"": values}
        return {
            group: parts[""] if "" in parts else ak.zip(parts, depth_limit=2)
            for group, parts in groups.items()
        }


def _alone(values: Any) -> Any:
    """Return values in memory of their own: a slice would keep all that was ever held back."""
    import awkward as ak

    return values.copy() if isinstance(values, np.ndarray) else ak.to_packed(values)


def _joined(arrays: list[Any]) -> Any:
    import awkward as ak

    plain = all(isinstance(values, np.ndarray) for values in arrays)
    return np.concatenate(arrays) if plain else ak.concatenate(arrays)


def _type(values: Any) -> Any:
    return values.dtype if isinstance(values, np.ndarray) else values.type.content


def kind_of(values: Any) -> str:
    """Return the kind of branch that an array makes; see `Branch`."""
    import awkward as ak

    return _kind(ak.to_packed(ak.Array(values)).layout.form)[0]


def _branch_types(branches: Mapping[str, Any]) -> dict[str, Any]:
    """Return the types of branches as uproot takes them."""
    types: dict[str, Any] = {}
    for name, values in branches.items():
        types[name] = _type(values)
        for part in getattr(values, "fields", ()) or ("",):
            inner = values[part] if part else values
            if kind_of(inner) == "other":
                raise InputError(
                    f"branch {part or name!r} cannot be written to a tree, it has the type"
                    f" {_type(inner)}; expected numbers, truth values, texts or lists of numbers"
                )
    return types


_writing = threading.Lock()


@contextlib.contextmanager
def _timeless() -> Iterator[None]:
    """Let uproot write the beginning of ROOT's calendar instead of the present time."""
    import uproot

    begin: Callable[[Any], int] = lambda when: (1 << 22) | (1 << 17)  # noqa: E731
    with _writing:
        now = uproot._util.datetime_to_code
        uproot._util.datetime_to_code = begin
        try:
            yield
        finally:
            uproot._util.datetime_to_code = now


class RootWriter(Writer):
    """Write columns in blocks to a tree."""

    def __init__(self, tree: GrowingTree, attributes: Mapping[str, Any]) -> None:
        self._tree, self._attributes = tree, attributes
        self._description: dict[str, Any] = {}
        self._categories: Categories | None = None

    def append(self, table: EventTable) -> None:
        if self._categories is None:
            self._categories = table.categories
        elif table.categories != self._categories:
            table = table.recoded(self._categories)
        columns = StoredColumns.of(table, self._attributes)
        self._description = self._description or columns.description
        arrays = {
            name: _storable(values, columns.categories.get(name))
            for name, values in columns.arrays.items()
        }
        self._tree.extend(arrays, table.n)

    def close(self) -> None:
        self._tree.close(self._description)

    def abandon(self) -> None:
        self._tree.abandon()


def _storable(values: np.ndarray, categories: tuple[str, ...] | None) -> Any:
    """Return a column in a type that ROOT has: categories, where none is missing, as texts."""
    if categories is not None and values.dtype.kind in "iu":
        import awkward as ak

        return ak.Array(categories)[values]
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values.astype(np.float64) if values.dtype.itemsize > 8 else values
