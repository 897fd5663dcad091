"""Numba's options, and vector operations that the compiler rarely makes out of loops.

Numba keeps machine code on disk and makes it anew when the file of a function changes, but not
when that of a function it calls does: so all of it goes when any file of this folder is newer.

LLVM cuts vectors of fixed length to what the processor has. Every element is computed as if alone.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numba
from llvmlite import ir
from numba import extending

from .arrays import LANES

intrinsic: Any = extending.intrinsic
types: Any = numba.types

FUSED = {"contract"}
"""Products may be added without being rounded first."""

ANY_ORDER = {"contract", "reassoc", "nsz", "nnan"}
"""The same, and sums in the order that suits the processor; of the components of one row only."""


def forget_older_code(folder: Path) -> None:
    """Remove numba's indices in a folder's ``__pycache__`` that are older than a source file."""
    newest = max(source.stat().st_mtime for source in folder.glob("*.py"))
    for index in folder.glob("__pycache__/*.nbi"):
        with contextlib.suppress(OSError):  # another process was first, or we may not write
            if index.stat().st_mtime < newest:
                index.unlink()


forget_older_code(Path(__file__).parent)


def compiled(function: Callable[..., Any], merged: set[str] = FUSED) -> Any:
    """Compile when first called; kept on disk where there is a place to write."""
    # no references are counted: arrays come from outside and are never kept
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}
    try:
        return numba.njit(function, cache=True, fastmath=merged, **options)
    except RuntimeError:  # neither the package's folder nor a cache folder can be written
        return numba.njit(function, fastmath=merged, **options)


def compiled_functions(module: ModuleType) -> dict[str, Any]:
    """Return the names of a module that does not import numba, its functions compiled."""
    names = dict(vars(module))
    for name, value in vars(module).items():
        if isinstance(value, FunctionType) and value.__module__ == module.__name__:
            names[name] = compiled(FunctionType(value.__code__, names, name))
    return names


def in_any_order(function: Callable[..., Any]) -> Any:
    """Compile a function that adds up over components."""
    return compiled(function, ANY_ORDER)


def kept_code(dispatcher: Any, values: tuple[Any, ...]) -> tuple[bytes, bytes, str, int]:
    """Return object code, bitcode, name and number of arguments of what numba keeps on disk.

    Raises AttributeError, KeyError, TypeError, ValueError if there is nothing for such arguments,
    or this numba keeps its code in another form.
    """
    registry = importlib.import_module("numba.core.registry")
    context = registry.cpu_target.target_context
    signature = tuple(numba.typeof(value) for value in values)
    cache = dispatcher._cache
    stored = cache._cache_file.load(cache._index_key(signature, context.codegen()))
    (_, how, (code, bitcode)), described = stored[0], stored[1]
    if how != "object":
        raise ValueError(f"numba keeps its code as {how}")
    return code, bitcode, described.llvm_func_name, len(described.args)


REGISTER = 16
"""Rows that fit into one register."""

FLOAT, BYTE, BIT, WORD = ir.FloatType(), ir.IntType(8), ir.IntType(1), ir.IntType(64)


def _place(context: Any, builder: Any, array: Any, value: Any, at: Any, kind: Any) -> Any:
    """Return a pointer to element ``at`` of the memory of an array, to be read as a ``kind``."""
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())


def _filled(builder: Any, value: Any, length: int) -> Any:
    """Return a vector whose elements are all ``value``."""
    vector = ir.VectorType(value.type, length)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), length), [0] * length)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def _comparer(gaps: bool) -> Callable[..., Any]:
    """Return what compares 64 float32 with a cut; none is NaN unless there are ``gaps``."""

    @intrinsic
    def compare(typing, values, at, cut, marks, to, beyond):  # type: ignore[no-untyped-def]
        """Set ``marks[to]`` to the bits that say which ``values`` from ``at`` on are not below.

        NaN is not below if ``beyond`` is 1.
        """
        kinds = (types.int64, types.float32, marks, types.int64, types.uint8)
        signature = types.void(values, *kinds)

        def make(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            at, cut, bits = (
                arguments[1],
                _filled(builder, arguments[2], REGISTER),
                ir.IntType(REGISTER),
            )
            place = _place(context, builder, marks, arguments[3], arguments[4], bits)
            for k in range(LANES // REGISTER):
                first = builder.add(at, ir.IntType(64)(k * REGISTER))
                kind = ir.VectorType(FLOAT, REGISTER)
                x = _place(context, builder, values, arguments[0], first, kind)
                x = builder.load(x, align=4)
                result = builder.bitcast(builder.fcmp_ordered(">=", x, cut), bits)
                if gaps:
                    gap = builder.bitcast(builder.fcmp_unordered("uno", x, x), bits)
                    wanted = builder.neg(builder.zext(arguments[5], bits))
                    result = builder.or_(result, builder.and_(gap, wanted))
                builder.store(result, builder.gep(place, [ir.IntType(64)(k)]), align=2)
            return context.get_dummy_value()

        return signature, make

    return compare


compare_rows, compare_gaps = _comparer(False), _comparer(True)


def _chooser(depth: int) -> Callable[..., Any]:
    """Return what goes from the comparisons of a tree of such depth to its leaves."""

    @intrinsic
    def choose(typing, marks, at, chosen, to):  # type: ignore[no-untyped-def]
        """Set the 64 bytes of ``chosen`` from ``to`` on: the leaf of each lane.

        The comparisons of node k are the bits of ``marks[at + k]``. Bit l of a leaf is what is
        decided at level l. From the lowest level upwards each node knows the decisions below it.
        """
        signature = types.void(marks, types.int64, chosen, types.int64)

        def make(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            below: list[Any] = []
            for level in reversed(range(depth)):
                n = 1 << level
                first = builder.add(arguments[1], ir.IntType(64)(n))
                vector = ir.VectorType(WORD, n)
                place = _place(context, builder, marks, arguments[0], first, vector)
                decided = builder.load(place, align=8)
                below = [decided, *(_taken(builder, decided, bits, n) for bits in below)]
            lanes = ir.VectorType(BYTE, LANES)
            leaf: Any = ir.Constant(lanes, [0] * LANES)
            for level, bits in enumerate(below):
                mask = builder.bitcast(bits, ir.VectorType(BIT, LANES))
                more = builder.or_(leaf, ir.Constant(lanes, [1 << level] * LANES))
                leaf = builder.select(mask, more, leaf)
            place = _place(context, builder, chosen, arguments[2], arguments[3], lanes)
            builder.store(leaf, place, align=1)
            return context.get_dummy_value()

        return signature, make

    return choose


def _taken(builder: Any, decided: Any, bits: Any, n: int) -> Any:
    """Return ``n`` words: of the first or, where ``decided`` has a bit, the second half of 2 n."""
    nothing = ir.Constant(bits.type, ir.Undefined)
    halves = (
        ir.Constant(ir.VectorType(ir.IntType(32), n), list(range(first, first + n)))
        for first in (0, n)
    )
    zero, one = (builder.shuffle_vector(bits, nothing, half) for half in halves)
    return builder.xor(zero, builder.and_(decided, builder.xor(zero, one)))


choose_2, choose_3, choose_4, choose_5, choose_6, choose_7 = (_chooser(d) for d in range(2, 8))


def _adder(length: int) -> Callable[..., Any]:
    """Return what adds vectors of ``length`` float32, one after the other."""

    @intrinsic
    def add(typing, sums, at, leaves, places):  # type: ignore[no-untyped-def]
        """Add to the sums at ``at`` the leaves at all ``places``, in this order."""
        signature = types.void(sums, types.int64, leaves, places)

        def make(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            kind = ir.VectorType(FLOAT, length)
            place = _place(context, builder, sums, arguments[0], arguments[1], kind)
            total = builder.load(place, align=4)
            for i in range(places.count):
                at = builder.extract_value(arguments[3], i)
                leaf = _place(context, builder, leaves, arguments[2], at, kind)
                total = builder.fadd(total, builder.load(leaf, align=4))
            builder.store(total, place, align=4)
            return context.get_dummy_value()

        return signature, make

    return add


add_16, add_4, add_1 = _adder(16), _adder(4), _adder(1)
