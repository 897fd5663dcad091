"""The functions of `core.cpp` on arrays, called by ctypes, which lets other threads run meanwhile.

Every class here is one part of a model, made of the arrays of one file (see `packed.array_file`).
The core checks them when it opens a part, so that no index leads out of them, and raises
FormatError. A part never changes and may be used by several threads at a time.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from typing import Any

import numpy as np

from ...errors import FormatError, InputError
from . import sources

Content = bytes | memoryview

BUILD = "python setup.py build_ext --inplace"
"""Builds the core in a copy of the repository."""

ADVICE = f"install a C++17 compiler and flowbdt again (in a copy of the repository: {BUILD})"

ERRORS: dict[int, type[Exception]] = {1: FormatError, 2: InputError}


@functools.cache
def _loaded() -> tuple[Any, str | None]:
    """Return the library, or None and why it cannot be used."""
    if not sources.LIBRARY.exists():
        return None, f"the compiled core was not built: {ADVICE}"
    try:
        library = ctypes.CDLL(str(sources.LIBRARY))
        library.flowbdt_sources.restype = library.flowbdt_error.restype = ctypes.c_char_p
        built_from = library.flowbdt_sources().decode()
    except (OSError, AttributeError) as error:
        return None, f"the compiled core cannot be loaded ({error}): {ADVICE}"
    if built_from != sources.digest():
        return (
            None,
            f"the compiled core was built from other sources than those beside it: {ADVICE}",
        )
    return library, None


def why_not() -> str | None:
    """Return why the core cannot be used here, or None if it can."""
    return _loaded()[1]


def function(name: str, *kinds: Any) -> Any:
    """Return a function of the core that returns a status; ``kinds`` are those of its arguments.

    What is returned raises what the status says: FormatError, InputError, or MemoryError.
    """
    library, reason = _loaded()
    if library is None:
        raise RuntimeError(f"{name} was called although {reason}")
    found = library[name]
    found.argtypes, found.restype = kinds, ctypes.c_int

    def call(*values: Any) -> None:
        status = found(*values)
        if status:
            raise ERRORS.get(status, MemoryError)(library.flowbdt_error().decode())

    return call


POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t


MEMORY: Any = ctypes.c_char * 0
"""At the memory of an array: made six times faster than ``array.ctypes``."""


def memory(array: np.ndarray) -> Any:
    """Return the memory of a contiguous array as an argument of the core."""
    try:
        return MEMORY.from_buffer(array)
    except TypeError:  # read-only, or not contiguous
        if not array.flags.c_contiguous:
            raise InputError("the core reads contiguous arrays only") from None
        return array.ctypes.data


def contiguous(array: Any, shape: tuple[int, ...], what: str, kind: Any = np.float64) -> np.ndarray:
    """Return an array as the core reads it. Raises InputError if it has another shape."""
    result = np.ascontiguousarray(array, dtype=kind)
    if result.shape != shape:
        raise InputError(f"{what} must have the shape {shape}, got {result.shape}")
    return result


class Part:
    """A part of a model that the core holds, opened from the content of a file.

    ``more`` is what else the core asks to open it; ``name`` is that of the file, for messages.
    """

    KIND = ""
    N_SIZES = 4
    """Most numbers that the core tells of a part."""

    def __init__(self, content: Content, name: str, more: Any = None) -> None:
        whole = np.frombuffer(content, np.uint8)
        handle, sizes = POINTER(), (SIZE * self.N_SIZES)()
        kinds = (POINTER, POINTER, SIZE, ctypes.c_char_p, POINTER, POINTER)
        opened = function(f"flowbdt_open_{self.KIND}", *kinds)
        opened(more, memory(whole), len(whole), name.encode(), ctypes.byref(handle), sizes)
        self._content, self.handle, self.sizes = whole, handle.value, tuple(sizes)
        close = _loaded()[0][f"flowbdt_close_{self.KIND}"]
        close.argtypes, close.restype = (POINTER,), None
        weakref.finalize(self, close, self.handle)


class Steps(Part):
    """All steps of a flow, from noise to data; ``single``: in float32."""

    KIND = "steps"

    def __init__(self, content: Content, name: str, single: bool = False) -> None:
        super().__init__(content, name, b"single" if single else None)
        self.m, self.n_cond = self.sizes[:2]
        self._walk = function("flowbdt_walk", POINTER, POINTER, POINTER, POINTER, SIZE)

    def walk(self, x: np.ndarray, cond: np.ndarray, form: Form | None = None) -> None:
        """Carry points x (n, m) in place; cond (n, c) is NaN where unknown.

        Both are contiguous and float64. ``form`` is the closed form for those conditions that are
        known, where the steps cannot tell it.
        """
        given = None if form is None else form.handle
        self._walk(self.handle, given, memory(x), memory(cond), len(x))


class Form(Part):
    """The closed form of some steps where just these conditions are known."""

    KIND = "form"

    def __init__(self, content: Content, name: str, steps: Steps) -> None:
        super().__init__(content, name, steps.handle)


class Trees(Part):
    """Trees of neighbouring outputs; each sum has the bits that XGBoost gives it.

    ``part`` is their name in the file.
    """

    KIND = "trees"

    def __init__(self, content: Content, name: str, part: bytes = b"trees") -> None:
        super().__init__(content, name, part)
        self.shape = self.n_inputs, self.n_outputs = self.sizes[:2]
        self._predict = function("flowbdt_predict", POINTER, POINTER, SIZE, POINTER)

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return (n, m), float32, for inputs (n, p), float32; NaN is missing."""
        rows = np.ascontiguousarray(inputs, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.n_inputs:
            raise InputError(f"trees of {self.n_inputs} inputs cannot take shape {rows.shape}")
        result = np.empty((len(rows), self.n_outputs), dtype=np.float32)
        self._predict(self.handle, memory(rows), len(rows), memory(result))
        return result


class Columns(Part):
    """The inverse transform, from latent points to columns. See `InverseArrays`."""

    KIND, N_SIZES = "columns", 6

    def __init__(self, content: Content, name: str) -> None:
        super().__init__(content, name)
        self.m, self.n_columns, self.n_cond, self._takes_conditions, self.n_derived = self.sizes[:5]
        self.turns = bool(self.sizes[5])
        kinds = (POINTER, POINTER, POINTER, POINTER, SIZE, POINTER)
        self._restore, self._turn = (function(f"flowbdt_{n}", *kinds) for n in ("restore", "turn"))

    def inverse(self, z: np.ndarray, cond: np.ndarray | None, x: np.ndarray) -> int:
        """Fill x (n, d) from z (n, m) and conditions (n, c), in the units of the table, float64.

        Returns how often a relation is undefined.
        """
        return self._fill(self._restore, z, cond, x)

    def turn(self, x: np.ndarray, angle: np.ndarray, cond: np.ndarray | None) -> int:
        """Turn events x (n, d) of `inverse` by angles (n,), in place; the rest is as there."""
        return self._fill(self._turn, contiguous(angle, (len(x),), "angles"), cond, x)

    def _fill(self, fill: Any, values: np.ndarray, cond: np.ndarray | None, x: np.ndarray) -> int:
        given, undefined = None, SIZE()
        if self._takes_conditions:
            cond = contiguous(cond, (len(x), self.n_cond), "conditions")
            given = memory(cond)
        fill(self.handle, memory(values), given, memory(x), len(x), ctypes.byref(undefined))
        return undefined.value


class Attempt(ctypes.Structure):
    """An attempt at a single event in one call, see `FlowbdtAttempt`: always the same memory.

    Parameters
    ----------
    steps, columns : of a model
    ratio : the trees of its rejection, which see the columns, then the conditions, then what is
        computed of both, or None
    centre, scale : of the columns (d,), before these trees

    Attributes
    ----------
    z : noise (m,), which is carried to its end
    scaled, cond : conditions (c,), scaled and in the units of the table
    x : the event (d,)
    log_ratio : (1,), float32, with a ratio
    """

    _fields_ = (
        *((name, POINTER) for name in ("_steps", "form", "_columns", "_ratio")),
        *((f"_{n}", POINTER) for n in ("centre", "scale", "z", "scaled", "cond", "x")),
        *((f"_{n}", POINTER) for n in ("inputs", "log_ratio")),
        ("undefined", ctypes.c_int64),
    )

    def __init__(
        self,
        steps: Steps,
        columns: Columns,
        ratio: Trees | None,
        centre: np.ndarray,
        scale: np.ndarray,
    ) -> None:
        n_inputs, across = (0, 1) if ratio is None else (ratio.n_inputs, ratio.sizes[2])
        d, c = columns.n_columns, steps.n_cond
        reads = columns.n_cond if columns._takes_conditions else c
        if (columns.m, reads) != (steps.m, c) or n_inputs not in (0, d + c + columns.n_derived):
            raise InputError("steps, columns and ratio of one event must be of one model")
        self.z, self.x, self.scaled, self.cond = map(np.zeros, (steps.m, d, c, c))
        self.log_ratio = np.zeros(across, np.float32)
        arrays = {
            "centre": contiguous(centre, (d,), "centres"),
            "scale": contiguous(scale, (d,), "scales"),
            "inputs": np.zeros(n_inputs, np.float32),
            **{n: getattr(self, n) for n in ("z", "x", "scaled", "cond", "log_ratio")},
        }
        parts = {"_steps": steps, "_columns": columns, "_ratio": ratio}
        handles = {name: part and part.handle for name, part in parts.items()}
        super().__init__(**handles, **{f"_{n}": a.ctypes.data for n, a in arrays.items()})
        self._kept = arrays, parts  # as long as this is there
        self._make, self._this = function("flowbdt_attempt", POINTER), ctypes.byref(self)

    def run(self) -> int:
        """Make the event; return how often a relation is undefined, -1 if the event is lost."""
        self._make(self._this)
        return int(self.undefined)


class Discrete(Part):
    """The classifiers of all discrete columns in one pass, row by row. See `DiscreteArrays`."""

    KIND = "discrete"

    def __init__(self, content: Content, name: str) -> None:
        super().__init__(content, name)
        self.n_columns, self.n_known, self.n_discrete = self.sizes[:3]
        self._draw = function("flowbdt_draw", *[POINTER] * 5, SIZE)

    def draw(self, x: np.ndarray, known: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return the codes (n, q) of rows x (n, d), whose numbers of other kinds are entered.

        ``known`` (n, k) as for `classifier_inputs`, ``uniform`` (q, n) random numbers.
        """
        n = len(x)
        known = contiguous(known, (n, self.n_known), "what classifiers know")
        uniform = contiguous(uniform, (self.n_discrete, n), "uniform numbers")
        if x.shape != (n, self.n_columns) or x.dtype != np.float64 or not x.flags.c_contiguous:
            raise InputError(f"rows of {self.n_columns} columns are needed, got shape {x.shape}")
        codes = np.empty((n, self.n_discrete), dtype=np.int64)
        places = (memory(each) for each in (x, known, uniform, codes))
        self._draw(self.handle, *places, n)
        return codes
