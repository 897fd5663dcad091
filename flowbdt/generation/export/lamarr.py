"""Models as functions of one shared object, as experiment software calls them.

The interface is that of LHCb's Lamarr (https://lamarrsim.github.io/SQLamarr): one C function for
each stage, ``float *NAME(float *out, const float *in)`` for probabilities and ``float *NAME(float
*out, const float *in, const float *random)`` for what is drawn from standard normal numbers.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from ... import __version__, atomic_files
from ...errors import ConfigError, RunError
from ...trees.density_ratio import DensityRatio
from ...trees.tree_arrays import forests
from ..packed.array_file import file_bytes, named
from ..packed.model_arrays import model_bytes
from ..packed.pack_columns import storage
from ..packed.pack_steps import pack_trees
from ..trained_flow import Flow
from .write_cpp import source

NAME = "stages"
"""Of source, header and library."""

HEADERS = ("flowbdt.hpp", "stages.hpp")

REJECTED, MOST_ATTEMPTS = 0.01, 40
"""Share of calls of a stage with rejection that may end with a rejected event, on average, and most
attempts to that end."""

HEAD = """stages as functions. All return out.
 * in: N_IN numbers, NaN where unknown. random: N_RANDOM standard normal numbers. Any number of
 * threads may call; nothing is kept between calls but two counters: _outside(), calls with an
 * input far outside of the training, and _failed(), calls that filled out with NaN, as for an
 * infinite input."""

EXPORTED = '#define EXPORTED extern "C" __attribute__((visibility("default")))'

FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden")


@dataclass(frozen=True)
class ExportedShares:
    """Columns ``made`` that add up to one with others, and the ``told`` ones they follow from.

    ``before`` are those of earlier stages, which are inputs; ``types`` those of the columns made,
    see `rounded_floats`. One more is made than told where the last of all is made; see
    `physics.response.shares`.
    """

    made: tuple[str, ...]
    told: tuple[str, ...]
    before: tuple[str, ...] = ()
    types: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportedStage:
    """A stage that becomes a function.

    ``flow`` is None for a stage of ``constant`` values by column, of which ``is_number`` tells
    whether they are numbers to draw, and not columns. ``shares`` are groups of ``outputs`` that add
    up to one; ``notes`` say by name how inputs are computed.
    """

    name: str
    flow: Flow | None
    outputs: tuple[str, ...]
    constant: Mapping[str, float] = field(default_factory=dict)
    is_number: bool = False
    shares: tuple[ExportedShares, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportedRejection:
    """A rejection of what several stages make, which becomes a function of all ``inputs``."""

    name: str
    ratio: DensityRatio
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class StageFunction:
    """A function of the library.

    ``inputs`` and ``outputs`` are names in order, those of probabilities ``p_`` and a value;
    ``n_random`` is how many standard normal numbers a call takes, None of probabilities, which take
    none; ``rejected`` the share of calls, on average, whose last attempt was kept although it was
    rejected; ``about`` lines for the header.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    n_random: int | None
    rejected: float
    about: tuple[str, ...]


def stage_of_run(flow: Flow, name: str) -> ExportedStage:
    """Return the stage of a single run."""
    return ExportedStage(name, flow, tuple(flow.columns["names"]))


def write_lamarr(
    stages: Sequence[ExportedStage | ExportedRejection],
    path: str | PathLike[str],
    attempts: int | None = None,
) -> tuple[list[StageFunction], Path | None]:
    """Write source, header and shared object of stages into a folder.

    Parameters
    ----------
    stages : what becomes functions, see `stage_of_run` and `physics.response.exported_stages`
    path : folder, made if it is not there
    attempts : most attempts of a stage with rejection, 1 leaves the rejection out; None for as many
        as leave a rejected event in 1% of the calls

    Returns
    -------
    The functions, and the path of the shared object, ``libstages.so``; None without a compiler
    (``$CXX``, c++, g++ or clang++; ``$CXXFLAGS`` are added).

    Raises
    ------
    ConfigError, before anything is written, if a stage cannot be a function; RunError if the folder
    cannot be written or the compiler fails.
    """
    if attempts is not None and attempts < 1:
        raise ConfigError(f"attempts must be at least 1, got {attempts}")
    known: dict[str, str] = {}
    for stage in stages:
        symbol = symbol_of(stage.name)
        if symbol in known:
            raise ConfigError(
                f"stages {known[symbol]!r} and {stage.name!r} would both be the function"
                f" {symbol!r}; give one of them another name"
            )
        known[symbol] = stage.name
    parts, functions = [], []
    for stage in stages:
        try:
            part, function = _written(stage, attempts)
        except ConfigError as error:
            raise ConfigError(f"stage {stage.name}: {error}") from error
        parts.append(part)
        functions.append(function)
    folder = atomic_files.make_folder(Path(path))
    own = re.compile(r'^#include ".*\n', re.MULTILINE)
    code = [*(own.sub("", source(name).read_text()) for name in HEADERS), EXPORTED, *parts]
    atomic_files.write_bytes(folder / f"{NAME}.cpp", "\n".join(code).encode())
    atomic_files.write_bytes(folder / f"{NAME}.h", _header(functions).encode())
    return functions, _compiled(folder)


def symbol_of(name: str) -> str:
    """Return the name of a stage as one of C. Raises ConfigError if there is none."""
    symbol = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not re.match(r"[A-Za-z]", symbol):
        raise ConfigError(f"the name of a function begins with a letter, {name!r} does not")
    return symbol


def compile_command(folder: Path, compiler: str = "c++") -> list[str]:
    """Return the command that makes the shared object of a folder."""
    added = shlex.split(os.environ.get("CXXFLAGS", ""))
    files = [str(folder / f"{NAME}.cpp"), "-o", str(folder / f"lib{NAME}.so")]
    return [*shlex.split(compiler), *FLAGS, *added, *files]


def _compiled(folder: Path) -> Path | None:
    wanted = os.environ.get("CXX")
    found = wanted or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if found is None:
        return None
    command = compile_command(folder, found)
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise RunError(f"the compiler cannot be run ({error}): set CXX to another one") from error
    if done.returncode:
        raise RunError(f"{shlex.join(command)} failed:\n{done.stderr[-2000:]}")
    return folder / f"lib{NAME}.so"


def _written(
    stage: ExportedStage | ExportedRejection, attempts: int | None
) -> tuple[str, StageFunction]:
    """Return the code of a stage, and its function."""
    if isinstance(stage, ExportedRejection):
        return _rejection(stage)
    if stage.flow is None:
        return _constant(stage)
    flow, symbol = stage.flow, symbol_of(stage.name)
    own, rest = f"{symbol}_model", ""
    arguments = [f"{own}_bytes", f"sizeof {own}_bytes", json.dumps(stage.name)]
    inputs, low, high = flow.condition_names, *flow.condition_ranges.limits
    about = []
    for i, name in enumerate(inputs):
        far = f", far outside below {low[i]:g} and above {high[i]:g}" if low[i] <= high[i] else ""
        codes = f", code of {', '.join(flow.categories[name])}" if name in flow.categories else ""
        about.append(f"in[{i}]: {stage.notes.get(name, name)}{codes}{far}")
    skeleton, rejected, n_random = flow.transform.skeleton, 0.0, None
    if not flow.n_latent and len(skeleton) == 1 and flow.ratio is None:
        values = skeleton.values[0].tolist()
        texts = flow.categories.get(skeleton.names[0])
        said = [f"{v:g}" if texts is None or v != v else texts[int(v)] for v in values]
        outputs = tuple(f"p_{one}" for one in said)
        about.append(f"out: probabilities of {skeleton.names[0]}")
    else:
        outputs, names = stage.outputs, list(flow.columns["names"])
        n_attempts, lost = 1, 1.0 - flow.acceptance
        if len(flow.cuts):
            raise ConfigError(
                "a function has no events to draw in place of those that do not meet require"
                f" {flow.cuts.text} ({1 - flow.required:.1%}); export Flow(open_run(path),"
                " requires=False), and leave these out of its events"
            )
        if flow.ratio is not None or flow.reach is not None:
            enough = np.ceil(np.log(REJECTED) / np.log(np.clip(lost, 1e-9, 0.999)))
            n_attempts = attempts or int(min(enough, MOST_ATTEMPTS))
            rejected = lost**n_attempts
        n_random = n_attempts * (flow.n_noise + 1) - 1
        shared = {name for one in stage.shares for name in one.made}
        order = [0 if name in shared else names.index(name) for name in outputs]
        groups = [
            f"{{{_braced(map(outputs.index, one.made))}, {_braced(map(names.index, one.told))},"
            f" {_braced(map(inputs.index, one.before))},"
            f" {_braced(storage(dtype)[0] for dtype in one.types)}}}"
            for one in stage.shares
        ]
        arguments += [str(n_attempts), _braced(order), f"{{{', '.join(groups)}}}"]
        rest = ", random"
        about.append(f"out: {', '.join(outputs)}")
    if len(arguments) == 3:
        arguments.append("1")
    kind = "event" if rest else "probabilities"
    function = StageFunction(symbol, inputs, outputs, n_random, rejected, tuple(about))
    return _code(
        function, "Stage", model_bytes(flow), arguments, f"{kind}(out, in{rest})"
    ), function


def _rejection(stage: ExportedRejection) -> tuple[str, StageFunction]:
    symbol, (trees, n_inputs) = symbol_of(stage.name), forests(stage.ratio.to_bytes())
    ceiling = {"ratio.ceiling": np.array([stage.ratio.ceiling])}
    content = file_bytes({**named("ratio", pack_trees(trees), n_inputs, 1), **ceiling})
    about = [f"in[{i}]: {name}" for i, name in enumerate(stage.inputs)]
    about.append("out: the chance to keep an object of all stages; else draw it anew")
    function = StageFunction(symbol, stage.inputs, ("p_keep",), None, 0.0, tuple(about))
    own = f"{symbol}_model_bytes"
    arguments = [own, f"sizeof {own}", json.dumps(stage.name)]
    return _code(function, "Rejection", content, arguments, "probabilities(out, in)"), function


def _code(
    function: StageFunction, kind: str, content: bytes, arguments: Sequence[str], call: str
) -> str:
    """Return a model as an array, an object of it, and the functions that call it."""
    words = ",\n".join(map(_line, np.frombuffer(content, "<u8").reshape(-1, 8).tolist()))
    symbol = function.name
    own = f"{symbol}_model"
    return (
        f"alignas(64) static const std::uint64_t {own}_bytes[] = {{\n{words}}};\n"
        f"static const flowbdt::{kind} {own}({', '.join(arguments)});\n"
        f"EXPORTED {_declared(function)} {{ return {own}.{call}; }}\n"
        f"EXPORTED unsigned long long {symbol}_outside(void) {{ return {own}.outside(); }}\n"
        f"EXPORTED unsigned long long {symbol}_failed(void) {{ return {own}.failed(); }}\n"
    )


def _constant(stage: ExportedStage) -> tuple[str, StageFunction]:
    values, symbol = stage.constant, symbol_of(stage.name)
    if stage.is_number:
        outputs: tuple[str, ...] = tuple(f"p_{value:g}" for value in values.values())
        numbers, n_random = [1.0], None
    else:
        outputs, n_random = stage.outputs, 0
        numbers = [float(values[name]) for name in outputs]
    about = ("out: the same for all",)
    function = StageFunction(symbol, (), outputs, n_random, 0.0, about)
    filled = " ".join(f"out[{i}] = {value!r}f;" for i, value in enumerate(numbers))
    unused = "" if stage.is_number else " (void)random;"
    return (
        f"EXPORTED {_declared(function)} {{ (void)in;{unused} {filled} return out; }}\n"
        f"EXPORTED unsigned long long {symbol}_outside(void) {{ return 0; }}\n"
        f"EXPORTED unsigned long long {symbol}_failed(void) {{ return 0; }}\n",
        function,
    )


def _line(words: Sequence[int]) -> str:
    return ",".join(f"{word:#x}" for word in words)


def _braced(numbers: Iterable[int]) -> str:
    return f"{{{', '.join(map(str, numbers))}}}"


def _declared(function: StageFunction) -> str:
    random = "" if function.n_random is None else ", const float *random"
    return f"float *{function.name}(float *out, const float *in{random})"


def _header(functions: Sequence[StageFunction]) -> str:
    lines = [f"/* flowBDT {__version__}: {HEAD} */", "#ifndef STAGES_H", "#define STAGES_H"]
    lines += ["#ifdef __cplusplus", 'extern "C" {', "#endif", ""]
    for one in functions:
        said = [f" * {text}".replace("*/", "* /") for text in one.about]
        lines += [f"/* {one.name}", *said, " */"]
        counts = {"N_IN": len(one.inputs), "N_OUT": len(one.outputs), "N_RANDOM": one.n_random}
        lines += [f"#define {one.name}_{k} {n}" for k, n in counts.items() if n is not None]
        named = {"IN": one.inputs, "OUT": one.outputs}
        lines += [f"#define {one.name}_{k} {json.dumps(';'.join(v))}" for k, v in named.items()]
        lines += [f"{_declared(one)};", f"unsigned long long {one.name}_outside(void);"]
        lines += [f"unsigned long long {one.name}_failed(void);", ""]
    return "\n".join([*lines, "#ifdef __cplusplus", "}", "#endif", "#endif", ""])
