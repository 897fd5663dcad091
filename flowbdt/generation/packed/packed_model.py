"""Packed models: the arrays of compiled generation in a model file, mapped into memory.

The file is eight bytes with the length of a description in JSON, the description, and the arrays,
each at a multiple of 64 bytes from the beginning.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import math
from functools import cached_property
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ... import atomic_files
from ...errors import FormatError
from ...tables.conditions import stored_scaling
from ...training import run_directory
from ..compiled import kept_machine_code
from ..compiled.arrays import (
    DEEPEST_STACK,
    FormArrays,
    InverseArrays,
    SolverArrays,
    TreeArrays,
    make_workspace,
    n_inputs,
    n_values,
)
from .check_arrays import check_inverse, check_steps, check_trees

if TYPE_CHECKING:
    from ..trained_flow import Flow

FORMAT = 5
"""Of the packed arrays: raised when the loops read them otherwise. Others are not used."""

LINE = 64
"""Bytes of a line of the cache."""

LOOPS = {"walk": "closed_form_loops", "restore": "column_loops", "predict": "tree_loops"}
"""Compiled functions, and their modules."""

MOST = 1 << 24
"""Latent columns and columns are fewer."""

TUPLES = {
    "walk": SolverArrays,
    "form": FormArrays,
    "trees": TreeArrays,
    "inverse": InverseArrays,
    "ratio": TreeArrays,
}
"""Names in the file of the arrays of the loops; ``ratio`` is None without rejection."""


class Loop:
    """A compiled function of `LOOPS`: kept machine code where there is some, else by numba."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._values: tuple[Any, ...] = ()
        self._kind = ""
        self._code: kept_machine_code.MachineCode | None = None
        self._tried = False

    def prepare(self, *values: Any) -> bool:
        """Set the arguments; return whether there is machine code for them."""
        kind, self._values = kept_machine_code.argument_kind(values), values
        if kind != self._kind:  # code for others would misread them
            self._kind, self._code, self._tried = kind, None, False
        self._arguments = kept_machine_code.Arguments(values)
        self._code = self._code or kept_machine_code.load_code(self._name, values)
        return self._code is not None

    def __call__(self) -> int:
        """Run on the arguments that were set last."""
        if self._code is not None:
            return self._code(self._arguments)
        module = importlib.import_module(f"..compiled.{LOOPS[self._name]}", __package__)
        function = getattr(module, self._name)
        result = function(*self._values)
        if not self._tried:  # once: where nothing can be kept, every event would pay for it
            self._tried = True
            if kept_machine_code.keep_code(function, self._values, self._name):
                self._code = kept_machine_code.load_code(self._name, self._values)
        return int(result or 0)


class _PackedSteps:
    """All steps for one point at a time; unknown conditions need the whole flow."""

    def __init__(self, content: dict[str, Any], source: run_directory.Source) -> None:
        solver, form, m = content["walk"], content["form"], content["n_latent"]
        size, n_slots = n_inputs(solver, form, m, len(content["conditions"])), solver.slot.max() + 1
        self._workspace = make_workspace(size, m, int(n_slots), form)
        self._arrays = solver, form, content["trees"]
        self._source, self._loop = source, Loop("walk")
        self._x: np.ndarray | None = None

    def prepare(self, x: np.ndarray, cond: np.ndarray) -> bool:
        self._x = x
        return self._loop.prepare(*self._arrays, x, cond, self._workspace)

    @cached_property
    def flow(self) -> Flow:
        """The whole flow."""
        return load_flow(self._source)

    def step_one(self, x: np.ndarray, cond: np.ndarray) -> None:
        """Carry one point x (1, m) in place; cond is (1, c), c may be 0."""
        if cond.shape[1] and np.isnan(cond[0]).any():
            compiled = self.flow.compiled_flow
            assert compiled is not None  # it was when the file was written
            compiled.step_one(x, cond)
            return
        if x is not self._x:
            self.prepare(x, cond)
        self._loop()


class _PackedInverse:
    """The inverse transform of one latent point at a time."""

    def __init__(self, arrays: InverseArrays, n_columns: int) -> None:
        self._arrays, self._loop = arrays, Loop("restore")
        self._memory = np.empty(n_values(arrays, n_columns)), np.empty(DEEPEST_STACK)
        self._x: np.ndarray | None = None

    def prepare(self, z: np.ndarray, cond: np.ndarray, x: np.ndarray) -> bool:
        self._x = x
        return self._loop.prepare(self._arrays, z, cond, x, *self._memory)

    def inverse(self, z: np.ndarray, cond: np.ndarray, x: np.ndarray) -> int:
        """Fill x (1, d) from z (1, m) and conditions (1, c) in the units of the table.

        Returns how often a relation is undefined.
        """
        if x is not self._x:
            self.prepare(z, cond, x)
        return self._loop()


class _PackedRatio:
    """The rejection of one event at a time."""

    def __init__(self, trees: TreeArrays, ceiling: float, n_inputs: int) -> None:
        self._trees, self._ceiling, self._loop = trees, ceiling, Loop("predict")
        self._workspace = make_workspace(n_inputs, 1)
        self._result = np.zeros((1, 1), np.float32)
        self._inputs: np.ndarray | None = None

    def prepare(self, inputs: np.ndarray) -> bool:
        self._inputs, trees = inputs, self._trees
        workspace = self._workspace
        return self._loop.prepare(trees, 0, len(trees.table), inputs, self._result, workspace)

    def keeps(self, x: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return whether to keep the event x (1, p), as `DensityRatio.keeps`."""
        if x is not self._inputs:
            self.prepare(x)
        self._loop()
        kept: np.ndarray = uniform * self._ceiling < np.exp(self._result[0].astype(np.float64))
        return kept


class PackedGenerator(NamedTuple):
    """The compiled members of an `EventGenerator`, for one event at a time."""

    compiled_flow: _PackedSteps
    compiled_inverse: _PackedInverse
    ratio: _PackedRatio | None
    is_rowwise: bool = True


class PackedFlow:
    """The members of a `Flow` that `EventSampler` needs, from the packed arrays of a file."""

    from_source = draws_columns = derives = False

    def __init__(self, source: run_directory.Archive, content: dict[str, Any]) -> None:
        self.content = content
        self.n_latent: int = content["n_latent"]
        self.n_columns: int = content["n_columns"]
        self.condition_names = tuple(content["conditions"])
        self.scaling, self.condition_ranges = stored_scaling(content["columns"])
        ratio = None
        if content["ratio"] is not None:
            width = self.n_columns + len(self.condition_names)
            ratio = _PackedRatio(content["ratio"], content["ceiling"], width)
        steps = _PackedSteps(content, source)
        self.generator = PackedGenerator(
            steps, _PackedInverse(content["inverse"], self.n_columns), ratio
        )

    @classmethod
    def of(cls, source: run_directory.Archive) -> PackedFlow | None:
        """Return the flow of a file; None if it has no packed arrays that can be used here.

        Raises FormatError if they are damaged, or would lead out of their memory.
        """
        memory = source.mapped(run_directory.PACKED)
        if memory is None or not importlib.util.find_spec("numba"):
            return None
        manifest = atomic_files.parse_json(source.read("manifest.json"), f"{source.path}")
        stated = manifest.pop("packed", None) if isinstance(manifest, dict) else None
        if stated is None:
            return None
        if stated != hashlib.sha256(memory).hexdigest():
            raise FormatError(
                f"{source.path}: {run_directory.PACKED} is damaged; copy the file or save it again"
            )
        try:
            if np.frombuffer(memory, np.uint8).ctypes.data % LINE:
                return None  # another program packed the file anew
            content = mapped_content(memory)
            if (content["format"], content["manifest"]) != (FORMAT, atomic_files.digest(manifest)):
                return None
            for name, kind in TUPLES.items():
                content[name] = content[name] and kind(*content[name])
            _check(content)
            return cls(source, content)
        except FormatError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # whole, but packed by another release

    def prepare(
        self,
        z: np.ndarray,
        cond: np.ndarray,
        scaled: np.ndarray,
        x: np.ndarray,
        inputs: np.ndarray,
    ) -> bool:
        """Set the memory of all members; return whether all have machine code without numba."""
        steps, inverse, ratio, _ = self.generator
        prepared = [steps.prepare(z, scaled), inverse.prepare(z, cond, x)]
        return all([*prepared, ratio is None or ratio.prepare(inputs)])

    def rows(self, seed: int, rows: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Return events (k, d) as `Flow.rows`."""
        return self.generator.compiled_flow.flow.rows(seed, rows, cond)


def load_flow(source: run_directory.Source) -> Flow:
    """Return the whole flow of a run."""
    from ..trained_flow import Flow

    return Flow(source, 1)


def _condition_columns(flow: Flow) -> dict[str, Any]:
    """Return what `stored_scaling` reads, with the texts of conditions where there are any."""
    kept = {name: flow.columns.get(name) for name in ("names", "conditions", "scaling")}
    texts = {k: v for k, v in flow.columns["categories"].items() if k in flow.condition_names}
    return {**kept, "categories": texts} if texts else kept


def packed_bytes(flow: Flow) -> bytes | None:
    """Return the arrays of a flow for its model file; None if not all of it is compiled."""
    steps, inverse = flow.compiled_flow, flow.compiled_inverse
    if steps is None or inverse is None or flow.from_source or flow.draws_columns or flow.derives:
        return None
    solver, form, _ = steps.arrays_for(np.ones(len(flow.condition_names), dtype=bool))
    content = {
        "format": FORMAT,
        "manifest": atomic_files.digest(flow.manifest),
        "n_latent": flow.n_latent,
        "n_columns": flow.n_columns,
        "conditions": list(flow.condition_names),
        "columns": _condition_columns(flow),
        "walk": tuple(solver),
        "form": tuple(form),
        "trees": tuple(steps.trees),
        "inverse": tuple(inverse.arrays),
        "ratio": None if flow.ratio is None else tuple(flow.classifier.trees),
        "ceiling": None if flow.ratio is None else flow.ratio.ceiling,
    }
    return content_bytes(content)


def _check(content: dict[str, Any]) -> None:
    """Refuse content that is not that of `packed_bytes`. Raises FormatError."""
    m, d, names = content["n_latent"], content["n_columns"], content["conditions"]
    numbers = all(type(n) is int and 0 < n < MOST for n in (m, d))
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    known = len(content["columns"]["names"]) == d and content["columns"]["conditions"] == names
    if not (numbers and texts and known and isinstance(content["ceiling"], (float, NoneType))):
        raise FormatError("the packed arrays of this model are damaged: save the model anew")
    check_steps(content["walk"], content["form"], content["trees"], m, len(names))
    check_inverse(content["inverse"], m, d, len(names))
    if content["ratio"] is not None:
        check_trees(content["ratio"], d + len(names), 1)


def content_bytes(content: dict[str, Any]) -> bytes:
    """Return a mapping of numbers, texts, lists, tuples and arrays as bytes."""
    arrays: list[bytes] = []

    def described(value: np.ndarray | np.generic) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        place, raw = sum(map(len, arrays)), np.ascontiguousarray(value).tobytes()
        arrays.append(raw + bytes(-len(raw) % LINE))
        return {"array": [value.dtype.str, list(value.shape), place]}

    head = json.dumps(content, default=described).encode()
    head = len(head).to_bytes(8, "little") + head
    return b"".join([head, bytes(-len(head) % LINE), *arrays])


def mapped_content(memory: memoryview) -> dict[str, Any]:
    """Return the mapping of `content_bytes`; its arrays are read-only views of ``memory``.

    Tuples come as lists. Raises ValueError or KeyError if it is something else.
    """
    end = 8 + int.from_bytes(memory[:8], "little")
    start = end + -end % LINE

    def restored(value: dict[str, Any]) -> Any:
        return _mapped(memory, start, *value["array"]) if "array" in value else value

    content: dict[str, Any] = json.loads(bytes(memory[8:end]), object_hook=restored)
    return content


def _mapped(memory: memoryview, start: int, dtype: str, shape: list[int], at: int) -> np.ndarray:
    count = math.prod(shape)  # in whole numbers of any size: no product can overflow
    if min(shape, default=0) < 0 or at < 0:
        raise ValueError(f"an array of shape {shape} at {at}")
    if not count:
        array = np.zeros(shape, dtype)
    else:
        array = np.frombuffer(memory, dtype, count, start + at).reshape(shape)
    array.flags.writeable = False
    return array
