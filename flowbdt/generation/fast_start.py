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
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import atomic_files, seeding
from ..errors import FormatError
from ..training import run_directory
from .compiled import kept_machine_code
from .compiled.arrays import DEEPEST_STACK, Form, Trees, Walk, Way, make_room, n_inputs
from .one_event import EventSampler
from .packed import mapped_file
from .packed.check_arrays import check_steps, check_trees, check_way

if TYPE_CHECKING:
    from .trained_flow import Flow

FORMAT = 2
"""Of the packed arrays: raised when the loops read them otherwise. Others are not used."""

LOOPS = {"walk": "closed_form_loops", "restore": "column_loops", "predict": "tree_loops"}
"""Compiled functions, and where they are."""

MOST = 1 << 24
"""Latent columns and columns are fewer."""

TUPLES = {"walk": Walk, "form": Form, "trees": Trees, "way": Way, "ratio": Trees}
"""What of the packed content are arrays of the loops; ``ratio`` is None without rejection."""


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
    source = run_directory.open_run(path)
    flow = PackedFlow.of(source) if isinstance(source, run_directory.Archive) else None
    seed = seeding.resolve(random_state)
    if flow is not None:
        sampler = EventSampler(flow, seed, first)
        if flow.prepare(*sampler.memory) or _numba_is_usable():
            return sampler
    return EventSampler(_flow(source), seed, first)


def _numba_is_usable() -> bool:
    from .compiled.engine import available

    return available()


def _flow(source: run_directory.Source) -> Flow:
    from .trained_flow import Flow

    return Flow(source, 1)


class Loop:
    """A compiled function: kept machine code where there is some, else by numba.

    Parameters
    ----------
    name : of the function, see `LOOPS`
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._values: tuple[Any, ...] = ()
        self._kind = ""
        self._code: kept_machine_code.Code | None = None
        self._tried = False

    def prepare(self, values: tuple[Any, ...]) -> bool:
        """Set the arguments; return whether there is machine code for them."""
        kind, self._values = kept_machine_code.kind(values), values
        if kind != self._kind:  # code for others would misread them
            self._kind, self._code, self._tried = kind, None, False
        self._arguments = kept_machine_code.Arguments(values)
        self._code = self._code or kept_machine_code.load(self._name, values)
        return self._code is not None

    def __call__(self) -> int:
        """Work on the arguments that were set last."""
        if self._code is not None:
            return self._code(self._arguments)
        module = importlib.import_module(f".compiled.{LOOPS[self._name]}", __package__)
        function = getattr(module, self._name)
        result = function(*self._values)
        if not self._tried:  # once: where nothing can be kept, every event would pay for it
            self._tried = True
            if kept_machine_code.put_aside(function, self._values, self._name):
                self._code = kept_machine_code.load(self._name, self._values)
        return int(result or 0)


class _Whole:
    """All steps for one point at a time; conditions that are unknown go the usual way."""

    def __init__(self, owner: PackedFlow) -> None:
        walk, form, trees = (owner.content[name] for name in ("walk", "form", "trees"))
        m, n_cond = owner.n_latent, len(owner.condition_names)
        n_slots = int(walk.slot.max()) + 1
        room = make_room(n_inputs(walk, form, m, n_cond), m, n_slots, form)
        self._owner, self._arrays, self._room = owner, (walk, form, trees), room
        self._loop = Loop("walk")
        self._x: np.ndarray | None = None

    def prepare(self, x: np.ndarray, cond: np.ndarray) -> bool:
        """Set where the point and the conditions will be."""
        self._x = x
        return self._loop.prepare((*self._arrays, x, cond, self._room))

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

    def __init__(self, way: Way) -> None:
        self._way, self._loop = way, Loop("restore")
        self._memory = np.empty(len(way.scale)), np.empty(DEEPEST_STACK)
        self._x: np.ndarray | None = None

    def prepare(self, z: np.ndarray, x: np.ndarray) -> bool:
        """Set where latent point and columns will be."""
        self._x = x
        return self._loop.prepare((self._way, z, x, *self._memory))

    def back(self, z: np.ndarray, x: np.ndarray) -> int:
        """Fill x (1, d) from z (1, m); return how often a relation is undefined."""
        if x is not self._x:
            self.prepare(z, x)
        return self._loop()


class _Ratio:
    """The rejection of one event at a time."""

    def __init__(self, trees: Trees, ceiling: float, n_seen: int) -> None:
        self._trees, self._ceiling, self._loop = trees, ceiling, Loop("predict")
        self._room = make_room(n_seen, 1)
        self._result = np.zeros((1, 1), np.float32)
        self._seen: np.ndarray | None = None

    def prepare(self, seen: np.ndarray) -> bool:
        """Set where what the trees see will be, (1, p) float32."""
        self._seen, trees = seen, self._trees
        return self._loop.prepare((trees, 0, len(trees.table), seen, self._result, self._room))

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

    def __init__(self, source: run_directory.Archive, content: dict[str, Any]) -> None:
        self._source, self.content = source, content
        self.n_latent: int = content["n_latent"]
        self.n_columns: int = content["n_columns"]
        self.condition_names = tuple(content["conditions"])
        self.from_source = False
        self.whole, self.way, self.ratio = _Whole(self), _Way(content["way"]), None
        if content["ratio"] is not None:
            n_seen = self.n_columns + len(self.condition_names)
            self.ratio = _Ratio(content["ratio"], content["ceiling"], n_seen)

    @classmethod
    def of(cls, source: run_directory.Archive) -> PackedFlow | None:
        """Return the flow of a file; None if it has no packed arrays that can be used here.

        Raises FormatError if they are damaged, or would lead out of their memory.
        """
        memory = source.mapped(run_directory.PACKED)
        if memory is None or not importlib.util.find_spec("numba"):
            return None
        present = atomic_files.digest_bytes(source.read("manifest.json"))
        try:
            content = mapped_file.unpack(memory)
            if content["format"] != FORMAT or content["manifest"] != present:
                return None
            for name, kind in TUPLES.items():
                content[name] = None if content[name] is None else kind(*content[name])
            _check(content)
        except FormatError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # whole, but packed by another release
        return cls(source, content)

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
    known = np.ones(len(flow.condition_names), dtype=bool)
    walk, form, _ = flow.whole.form(known)
    content = {
        "format": FORMAT,
        "manifest": atomic_files.digest_bytes(flow.source.read("manifest.json")),
        "n_latent": flow.n_latent,
        "n_columns": flow.n_columns,
        "conditions": list(flow.condition_names),
        "walk": tuple(walk),
        "form": tuple(form),
        "trees": tuple(flow.whole.trees),
        "way": tuple(flow.way.way),
        "ratio": None if flow.ratio is None else tuple(flow.classifier.trees),
        "ceiling": None if flow.ratio is None else flow.ratio.ceiling,
    }
    return mapped_file.pack(content)


def _check(content: dict[str, Any]) -> None:
    """Refuse packed content that is not what `pack` returns. Raises FormatError."""
    m, d, names = content["n_latent"], content["n_columns"], content["conditions"]
    numbers = all(type(n) is int and 0 < n < MOST for n in (m, d))
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not (numbers and texts and isinstance(content["ceiling"], (float, NoneType))):
        raise FormatError("the packed arrays of this model are damaged: save the model anew")
    check_steps(content["walk"], content["form"], content["trees"], m, len(names))
    check_way(content["way"], m, d)
    if content["ratio"] is not None:
        check_trees(content["ratio"], d + len(names), 1)
