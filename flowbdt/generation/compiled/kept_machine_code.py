"""Machine code that numba made once, called without numba: it takes long to import.

Where numba has compiled a loop for the arguments at hand, its object code is put aside with a small
function that reads the arguments from memory. Another process loads both by llvmlite alone. Kept
code belongs to a processor, to the versions of numba and llvmlite, and to the files of this folder;
any other is not used, and none that somebody else could have written.

A file is the length of a header (8 bytes), the CRC-32 of all that follows (4 bytes), the header as
JSON, and both objects.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import struct
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 2
FOLDER = Path(__file__).parent
ENTRY = "flowbdt_entry"


def folder() -> Path:
    """Return where machine code is kept: beside the sources, or where there is a place to write."""
    chosen, beside = os.environ.get("NUMBA_CACHE_DIR"), FOLDER / "__pycache__"
    if chosen or os.access(beside, os.W_OK):
        return Path(chosen or beside)
    return Path.home() / ".cache" / "flowbdt"


def key() -> str:
    """Return what machine code depends on: processor, versions, sources."""
    import llvmlite
    import llvmlite.binding as llvm

    numba = importlib.util.find_spec("numba")
    places = [Path(numba.origin).parent / "_version.py"] if numba and numba.origin else []
    places += sorted(FOLDER.glob("*.py"))
    stamps = [(p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in places if p.exists()]
    features = llvm.get_host_cpu_features().flatten()
    settings = sorted((k, v) for k, v in os.environ.items() if k.startswith("NUMBA_"))
    versions = [FORMAT, sys.platform, llvmlite.__version__, llvm.get_host_cpu_name(), features]
    return hashlib.sha256(repr([*versions, stamps, settings]).encode()).hexdigest()


def flat(value: Any) -> list[int | float]:
    """Return an argument as numba passes it: numbers and addresses.

    An array is 0, 0, size, bytes of an entry, address, shape, strides.
    """
    if isinstance(value, tuple):
        return [number for each in value for number in flat(each)]
    if isinstance(value, np.ndarray):
        place = value.ctypes.data if value.size else 0
        return [0, 0, value.size, value.itemsize, place, *value.shape, *value.strides]
    return [float(value) if isinstance(value, float) else int(value)]


def argument_kind(value: Any) -> str:
    """Return what of an argument decides which code fits: types, dimensions, what is locked."""
    if isinstance(value, tuple):
        return f"({','.join(argument_kind(each) for each in value)})"
    if isinstance(value, np.ndarray):
        writable = "w" if value.flags.writeable else "r"
        return f"{value.dtype.str}{value.ndim}{writable}{'c' if value.flags.c_contiguous else 'a'}"
    return type(value).__name__


class Arguments:
    """Arguments in memory as an entry reads them, and the arrays they point to.

    Later calls may change the numbers in the arrays.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = tuple(values)
        numbers = flat(self.values)
        kinds = "".join("d" if isinstance(number, float) else "q" for number in numbers)
        self._table = np.frombuffer(bytearray(struct.pack(f"{kinds}3q", *numbers, 0, 0, 0)), "i8")
        self.result = self._table[-3:-2]  # then room for what numba says of an error
        self.address = ctypes.c_void_p(self._table.ctypes.data)


def keep_code(dispatcher: Any, values: Sequence[Any], name: str) -> bool:
    """Keep the code by which a compiled function works on such arguments; return whether it could.

    Private members of numba are used: where they differ from today, there is nothing to keep.
    """
    if not _can_load():
        return False
    try:
        content = _content(dispatcher, tuple(values))
        _write(_path(name, values), content)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, OSError, RuntimeError):
        return False
    return True


def _path(name: str, values: Sequence[Any]) -> Path:
    tag = hashlib.sha256(argument_kind(tuple(values)).encode()).hexdigest()[:16]
    return folder() / f"native-{name}-{tag}.bin"


def _write(path: Path, content: bytes) -> None:
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    # a new file of a name that nobody can foresee: the folder may be open to others
    number, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with open(number, "wb") as handle:
            handle.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    """Return what is in a file that only we, root, or who installed the package could write.

    Raises PermissionError if it is another's: the code in it would run with our rights.
    """
    with open(path, "rb") as handle:
        status = os.fstat(handle.fileno())
        if status.st_uid not in (0, os.geteuid(), FOLDER.stat().st_uid) or status.st_mode & 0o022:
            raise PermissionError(f"{path} could have been written by others")
        return handle.read()


def _content(dispatcher: Any, values: tuple[Any, ...]) -> bytes:
    """Return key, names and both objects as one file."""
    import llvmlite.binding as llvm

    from .compiler import kept_code

    code, bitcode, name, n_arguments = kept_code(dispatcher, values)
    module = llvm.parse_bitcode(bitcode)
    function = module.get_function(name)
    types = [str(argument.type) for argument in function.arguments]
    if len(types) - 2 != len(flat(values)) or n_arguments != len(values):
        raise ValueError("numba passes its arguments unlike any known version")
    needed = [f.name for f in module.functions if f.is_declaration]
    needed += [v.name for v in module.global_variables if v.is_declaration]
    outside = [each for each in needed if not each.startswith("llvm.")]
    entry = _machine().emit_object(llvm.parse_assembly(_entry(name, types)))
    header = {"key": key(), "needs": outside, "sizes": [len(code), len(entry)]}
    first = json.dumps(header).encode()
    body = first + code + entry
    return len(first).to_bytes(8, "little") + zlib.crc32(body).to_bytes(4, "little") + body


def _entry(name: str, types: Sequence[str]) -> str:
    """Return a function that reads the arguments of another one from memory and calls it.

    Two come first: where the result goes, and where a description of an error goes.
    """
    n = len(types) - 2
    quoted = '"' + name.replace("\\", "\\5C").replace('"', "\\22") + '"'
    lines = [f"declare i32 @{quoted}({', '.join(types)})"]
    lines += [f"define i32 @{ENTRY}(ptr %table) {{"]
    lines += [f"  %out{k} = getelementptr i64, ptr %table, i64 {n + k}" for k in range(2)]
    passed = ["ptr %out0", "ptr %out1"]
    for i, kind in enumerate(types[2:]):
        whole = kind in ("double", "ptr", "i64")
        lines.append(f"  %p{i} = getelementptr i64, ptr %table, i64 {i}")
        lines.append(f"  %v{i} = load {kind if whole else 'i64'}, ptr %p{i}")
        if not whole:
            lines.append(f"  %a{i} = trunc i64 %v{i} to {kind}")
        passed.append(f"{kind} %{'v' if whole else 'a'}{i}")
    lines.append(f"  %done = call i32 @{quoted}({', '.join(passed)})")
    return "\n".join([*lines, "  ret i32 %done", "}"])


def _machine() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), jit=True
    )


class MachineCode:
    """Kept machine code that was loaded; call it with `Arguments`."""

    def __init__(self, content: bytes, header: dict[str, Any]) -> None:
        import llvmlite.binding as llvm

        _resolve(header["needs"])
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
        low = 0
        for size in header["sizes"]:
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(content[low : low + size]))
            low += size
        self._engine.finalize_object()
        kind_ = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
        self._call = kind_(self._engine.get_function_address(ENTRY))

    def __call__(self, arguments: Arguments) -> int:
        """Call, and return the whole number that the function returns (0 if none).

        Raises RuntimeError if the function failed.
        """
        status = self._call(arguments.address)
        if status == -1 or status > 0:
            raise RuntimeError(f"compiled code failed ({status})")
        return int(arguments.result[0])


def _resolve(names: Sequence[str]) -> None:
    """Let the code find what is outside of it; what only numba's wrapper needs is never called."""
    import llvmlite.binding as llvm

    process = ctypes.CDLL(None)
    stop = ctypes.cast(process.abort, ctypes.c_void_p).value
    for name in names:
        if llvm.address_of_symbol(name) is None and not hasattr(process, name):
            llvm.add_symbol(name, stop)


def _can_load() -> bool:
    """Return True on the systems on which kept code was tested."""
    return sys.platform.startswith("linux")


def load_code(name: str, values: Sequence[Any]) -> MachineCode | None:
    """Return kept code for such arguments, None if there is none that fits this machine."""
    if not _can_load():
        return None
    try:
        stored = _read(_path(name, values))
        size, crc = (int.from_bytes(raw, "little") for raw in (stored[:8], stored[8:12]))
        if crc != zlib.crc32(stored[12:]):
            return None
        header: dict[str, Any] = json.loads(stored[12 : 12 + size])
        return MachineCode(stored[12 + size :], header) if header["key"] == key() else None
    except (OSError, ValueError, KeyError, ImportError, RuntimeError):
        return None
