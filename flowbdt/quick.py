"""From a model file to its first event without most of the package: for programs that start often.

`FlowBDT.save` adds to a model file the arrays that the compiled loops read. `open_sampler` maps
them into memory, loads the machine code that another process kept, and imports neither numba,
XGBoost nor scikit-learn. Where arrays or machine code are missing it takes the usual way, with the
same events.
"""

from __future__ import annotations

import importlib
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from . import files, seeding, store
from .compiled import native, packed
from .latency import EventSampler

if TYPE_CHECKING:
    from .generation import Flow

FORMAT = 1
"""Of the packed arrays: raised when the loops read them otherwise. Others are not used."""

LOOPS = {"walk": "kernels", "restore": "columns", "predict": "forest"}
"""Compiled functions, and where they are."""


def open_sampler(
    path: str | PathLike[str], *, random_state: Any = None, first: int = 0
) -> EventSampler:
    """Return what gives events of a model file one by one, with as little delay as can be.

    Parameters
    ----------
    path : a file of `FlowBDT.save`, or the folder of a run
    random_state : seed; the events are those of `FlowBDT.sample` with the same seed
    first : number of the first event

    Raises
    ------
    FormatError
        If it is truncated, damaged, foreign, or of a newer format.
    InputError
        If the model starts from given events.
    """
    source = store.open_run(path)
    flow = PackedFlow.of(source) if isinstance(source, store.Archive) else None
    seed = seeding.resolve(random_state)
    if flow is not None:
        sampler = EventSampler(flow, seed, first)
        if flow.prepare(*sampler.memory) or _numba_is_usable():
            return sampler
    return EventSampler(_flow(source), seed, first)


def _numba_is_usable() -> bool:
    from .compiled.engine import available

    return available()


def _flow(source: store.Source) -> Flow:
    from .generation import Flow

    return Flow(source, 1)


class Loop:
    """A compiled function: kept machine code where there is some, else by numba.

    Parameters
    ----------
    name : of the function, see `LOOPS`
    types : of its arguments that are tuples with names, by place: module and class
    """

    def __init__(self, name: str, types: dict[int, tuple[str, str]]) -> None:
        self._name, self._types = name, types
        self._values: tuple[Any, ...] = ()
        self._kind = ""
        self._code: native.Code | None = None
        self._tried = False

    def prepare(self, values: tuple[Any, ...]) -> bool:
        """Set the arguments; return whether there is machine code for them."""
        kind, self._values = native.kind(values), values
        if kind != self._kind:  # code for others would misread them
            self._kind, self._code, self._tried = kind, None, False
        self._arguments = native.Arguments(values)
        self._code = self._code or native.load(self._name, values)
        return self._code is not None

    def __call__(self) -> int:
        """Work on the arguments that were set last."""
        if self._code is not None:
            return self._code(self._arguments)
        module = importlib.import_module(f".compiled.{LOOPS[self._name]}", __package__)
        function = getattr(module, self._name)
        values = list(self._values)
        for place, (home, kind) in self._types.items():
            named = getattr(importlib.import_module(f".compiled.{home}", __package__), kind)
            values[place] = named(*values[place])
        result = function(*values)
        if not self._tried:  # once: where nothing can be kept, every event would pay for it
            self._tried = True
            if native.put_aside(function, values, self._name):
                self._code = native.load(self._name, self._values)
        return int(result or 0)


class _Whole:
    """All steps for one point at a time; conditions that are unknown go the usual way."""

    def __init__(self, owner: PackedFlow) -> None:
        content = owner.content
        self._owner, self._content = owner, content
        layout = "layout"
        self._loop = Loop(
            "walk", {0: (layout, "Walk"), 1: (layout, "Form"), 2: (layout, "Trees"),
                     5: (layout, "Room")},
        )  # fmt: skip
        self._x: np.ndarray | None = None

    def prepare(self, x: np.ndarray, cond: np.ndarray) -> bool:
        """Set where the point and the conditions will be."""
        c, self._x = self._content, x
        return self._loop.prepare((c["walk"], c["form"], c["trees"], x, cond, c["room"]))

    def step_one(self, x: np.ndarray, cond: np.ndarray) -> None:
        """Carry one point x (1, m) in place; cond is (1, c), c may be 0."""
        if cond.shape[1] and np.isnan(cond[0]).any():
            whole = self._owner.flow.whole
            assert whole is not None  # it was when the file was written
            whole.step_one(x, cond)
            return
        if x is not self._x:
            self.prepare(x, cond)
        self._loop()


class _Way:
    """Latent points back to columns."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content, self._x = content, None
        self._loop = Loop("restore", {0: ("inverse", "Way")})

    def prepare(self, z: np.ndarray, x: np.ndarray | None) -> bool:
        """Set where latent point and columns will be."""
        c, self._x = self._content, x  # type: ignore[assignment]
        return self._loop.prepare((c["way"], z, x, c["latent"], c["stack"]))

    def back(self, z: np.ndarray, x: np.ndarray) -> int:
        """Fill x (1, d) from z (1, m); return how often a relation is undefined."""
        if x is not self._x:
            self.prepare(z, x)
        return self._loop()


class _Ratio:
    """The rejection of one event at a time."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content, self._ceiling = content, content["ceiling"]
        self._loop = Loop("predict", {0: ("layout", "Trees"), 5: ("layout", "Room")})
        self._result = np.zeros((1, 1), np.float32)
        self._seen: np.ndarray | None = None

    def prepare(self, seen: np.ndarray) -> bool:
        """Set where what the trees see will be, (1, p) float32."""
        c, self._seen = self._content, seen
        trees = c["trees"]
        return self._loop.prepare((trees, 0, len(trees[0]), seen, self._result, c["room"]))

    def keeps(self, x: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return whether to keep the event x (1, p), as `DensityRatio.keeps`."""
        if x is not self._seen:
            self.prepare(x)
        self._loop()
        kept: np.ndarray = uniform * self._ceiling < np.exp(self._result[0].astype(np.float64))
        return kept


class PackedFlow:
    """What `EventSampler` needs of a flow, from packed arrays.

    Parameters
    ----------
    source : the file
    content : of its packed arrays
    """

    def __init__(self, source: store.Archive, content: dict[str, Any]) -> None:
        self._source, self.content = source, content
        self.n_latent: int = content["n_latent"]
        self.n_columns: int = content["n_columns"]
        self.condition_names = tuple(content["conditions"])
        self.from_source = False
        self.whole, self.way = _Whole(self), _Way(content)
        self.ratio = _Ratio(content["ratio"]) if content["ratio"] else None

    @classmethod
    def of(cls, source: store.Archive) -> PackedFlow | None:
        """Return the flow of a file; None if it has no packed arrays that can be used here.

        Raises FormatError if they are damaged.
        """
        memory = source.mapped(store.PACKED)
        if memory is None or not importlib.util.find_spec("numba"):
            return None
        present = files.digest_bytes(source.read("manifest.json"))
        try:
            content = packed.unpack(memory)
            usable = content["format"] == FORMAT and content["manifest"] == present
        except (ValueError, KeyError, TypeError, AttributeError):
            return None  # whole, but packed by another release
        return cls(source, content) if usable else None

    def prepare(self, z: np.ndarray, cond: np.ndarray, x: np.ndarray, seen: np.ndarray) -> bool:
        """Set where everything will be; return whether something can work on it without numba."""
        found = [self.whole.prepare(z, cond), self.way.prepare(z, x)]
        if self.ratio is not None:
            found.append(self.ratio.prepare(seen))
        return all(found)

    @cached_property
    def flow(self) -> Flow:
        """The whole flow, for what the packed arrays cannot do."""
        return _flow(self._source)

    def rows(self, seed: int, rows: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Return events (k, d) as `Flow.rows`."""
        return self.flow.rows(seed, rows, cond)


def pack(flow: Flow) -> bytes | None:
    """Return the arrays of a flow for its model file; None where not all of it is compiled."""
    if flow.whole is None or flow.way is None or flow.from_source:
        return None
    from .compiled.inverse import DEEPEST_STACK

    known = np.ones(len(flow.condition_names), dtype=bool)
    walk, form, rooms = flow.whole.form(known)
    content = {
        "format": FORMAT,
        "manifest": files.digest_bytes(flow.source.read("manifest.json")),
        "n_latent": flow.n_latent,
        "n_columns": flow.n_columns,
        "conditions": list(flow.condition_names),
        "walk": tuple(walk),
        "form": tuple(form),
        "trees": tuple(flow.whole.trees),
        "room": _empty(rooms.take()),
        "way": tuple(flow.way.way),
        "latent": packed.Zeros(np.zeros(len(flow.way.way.scale))),
        "stack": packed.Zeros(np.zeros(DEEPEST_STACK)),
        "ratio": _packed_ratio(flow),
    }
    return packed.pack(content)


def _packed_ratio(flow: Flow) -> dict[str, Any] | None:
    if flow.ratio is None:
        return None
    trees = flow.classifier()
    room = _empty(trees.room())
    return {"ceiling": flow.ratio.ceiling, "trees": tuple(trees.trees), "room": room}


def _empty(room: tuple[np.ndarray, ...]) -> tuple[packed.Zeros, ...]:
    return tuple(packed.Zeros(array) for array in room)
