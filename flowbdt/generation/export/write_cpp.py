"""A trained flow for C++: a model file of named arrays, the header that reads it, an example.

The model file is little-endian::

    0   magic "FLOWBDT\\0"              8 bytes
    8   version of the format           uint32
    12  ORDER, as this machine has it   uint32
    16  size of the whole file          uint64
    24  CRC-32 of all from 64 on        uint32
    28  number of arrays                uint32
    64  one entry of 64 bytes per array: name (40 bytes, filled with zeros), kind (uint32), zero
        (uint32), where it begins (uint64), number of elements (uint64)
    ... the arrays, each at a multiple of 64 bytes

Names are those of the fields in `compiled.arrays`, after the name of the tuple: ``form.where``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.abc import Traversable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import __version__, atomic_files
from ...errors import ConfigError
from ...flow.closed_form.mixture_on_path import PreparedMixture
from ...flow.step_inputs import StepInputs
from ...trees.tree_arrays import forests
from ..compiled.arrays import NONE, FormArrays, InverseArrays, SolverArrays, TreeArrays, n_inputs
from ..event_selection import MOST_ATTEMPTS
from ..packed.pack_columns import pack_inverse
from ..packed.pack_steps import pack_trees
from ..trained_flow import Flow

if TYPE_CHECKING:
    from ...model import FlowBDT

MODEL = "model.bin"
SOURCES = (
    "flowbdt.hpp",
    "flowbdt_c.h",
    "flowbdt_c.cpp",
    "example/CMakeLists.txt",
    "example/main.cpp",
)

MAGIC = b"FLOWBDT\0"
VERSION = 2
"""Raised when a reader of before would misread the file."""

ORDER = 0x01020304
"""Read as another number where bytes stand in another order."""

ALIGNMENT, NAME_LENGTH = 64, 40

KINDS = {"uint8": 0, "uint16": 1, "int64": 2, "float32": 3, "float64": 4}

Arrays = dict[str, np.ndarray]


def write_cpp(model: FlowBDT | Flow, path: str | PathLike[str]) -> None:
    """Write a folder from which a C++17 program generates events without any other library.

    Parameters
    ----------
    model : a fitted model, or a `Flow`, e.g. with another sampler
    path : folder, made if it is not there. ``model.bin`` is written last, whole or not at all

    Raises
    ------
    NotFittedError if the model is not fitted; ConfigError if it cannot be exported, with what to do
    instead; RunError if the folder cannot be written.
    """
    content = model_bytes(model)  # all that can be refused is, before anything is written
    folder = Path(path)
    for name in SOURCES:
        target = folder / name
        atomic_files.make_folder(target.parent)
        atomic_files.write_bytes(target, source(name).read_bytes())
    atomic_files.write_bytes(folder / MODEL, content)


def model_bytes(model: FlowBDT | Flow) -> bytes:
    """Return what ``model.bin`` holds; equal models give equal bytes. Raises as `write_cpp`."""
    return file_bytes(arrays_of(flow_of(model)))


def source(name: str) -> Traversable:
    """Return one of `SOURCES` as it ships with the package."""
    return resources.files(__package__).joinpath("cpp", *name.split("/"))


def flow_of(model: FlowBDT | Flow) -> Flow:
    """Return the trained flow of a model. Raises NotFittedError."""
    if isinstance(model, Flow):
        return model
    return model.flow(compiled=False)


def check_exportable(flow: Flow) -> None:
    """Refuse what only Python can do. Raises ConfigError that says what to do instead."""
    sampler = flow.sampler
    other = "export with another sampler, e.g. sampler={'solver': 'adams_bashforth_3'}"
    if sampler.solver.stochastic:
        raise ConfigError(
            f"solver {sampler.name!r} draws random numbers and cannot be exported;"
            f" {other}, or fit with a deterministic solver"
        )
    if sampler.interpolate:
        raise ConfigError(
            "a sampler that interpolates between step models cannot be exported; choose steps"
            " whose times were trained"
        )
    if flow.from_source:
        raise ConfigError(
            "a model that starts from source events (coupling='given') cannot be exported; use"
            " model.sample(source=...)"
        )
    if flow.draws_columns:
        names = ", ".join(map(repr, flow.transform.skeleton.names))
        raise ConfigError(
            f"classifiers draw {names}, which cannot be exported; fit with the transform"
            " 'categorical' for these columns, 'rank' for a 'kind of' numbers"
        )
    if len(flow.cuts):
        raise ConfigError(
            f"an export has no events to draw in place of those that do not meet require"
            f" {flow.cuts.text} ({1 - flow.required:.1%}); export Flow(open_run(path),"
            " requires=False), and leave these out of its events"
        )
    if flow.ratio is not None and len(flow.observables):
        raise ConfigError(
            "the rejection of this model sees the observables"
            f" {', '.join(flow.observables.names)}, which an export does not compute; fit with"
            " rejection=False or observables=[], or export Flow(open_run(path), rejects=False)"
        )
    if not flow.n_latent:
        raise ConfigError("all columns of this model are constant: there is nothing to export")


def arrays_of(flow: Flow) -> Arrays:
    """Return all of a flow that generates events. Raises ConfigError if it cannot be exported.

    ``sizes``, int64, has in this order: columns, conditions, latent columns, inputs of trees,
    slots, whether latent points, end points and components are among the inputs, whether the
    joint transform mixes columns, most attempts per event, then of `FormArrays` kind, n_known,
    n_inner, n_components, n_out.
    """
    check_exportable(flow)
    steps, columns = flow.steps_as_arrays(), flow.columns
    try:
        inverse = pack_inverse(flow.transform)
    except ConfigError as error:
        raise ConfigError(
            f"a column cannot be exported ({error}); leave it out, or fit with another transform"
            " or type for it"
        ) from error
    m, n_cond = flow.n_latent, len(columns["conditions"])
    walk, form, _ = steps.arrays_for(np.ones(n_cond, dtype=bool))
    n_slots = steps.program.n_slots
    sizes = [len(columns["names"]), n_cond, m, n_inputs(walk, form, m, n_cond), n_slots]
    sizes += [walk.latent, walk.end_point, walk.components, inverse.mixes, MOST_ATTEMPTS]
    sizes += [form.kind, form.n_known, form.n_inner, form.n_components, form.n_out]
    return {
        "sizes": np.array(sizes, dtype=np.int64),
        **_texts(flow),
        **_fields("walk", walk),
        **_fields("form", form),
        **_fields("trees", steps.trees),
        **_fields("inverse", inverse),
        **(_mixture(steps.inputs) if n_cond and form.kind != NONE else {}),
        "scaling.centre": flow.scaling.centre,
        "scaling.scale": flow.scaling.scale,
        **_limits(flow),
        **_ratio(flow),
    }


def _fields(name: str, packed: FormArrays | SolverArrays | TreeArrays | InverseArrays) -> Arrays:
    fields = packed._asdict().items()
    return {f"{name}.{field}": value for field, value in fields if isinstance(value, np.ndarray)}


def _texts(flow: Flow) -> Arrays:
    columns, listed = flow.columns, list[str]()
    for name, values in flow.categories.items():
        listed += [name, str(len(values)), *values]
    return {
        "text.about": texts([__version__, str(flow.plan["digest"])]),
        "text.columns": texts(columns["names"]),
        "text.units": texts([str(unit or "") for unit in columns["units"]]),
        "text.types": texts(columns["dtypes"]),
        "text.conditions": texts(columns["conditions"]),
        "text.categories": texts(listed),
    }


def _mixture(inputs: Sequence[StepInputs]) -> Arrays:
    """Return the mixture, which the closed form needs where some conditions are unknown.

    All steps share it. ``motion`` (steps, 2) is the factor of the end point in the point of a step,
    and the variance of the noise in it.
    """
    prepared = [step.prepared for step in inputs if isinstance(step.prepared, PreparedMixture)]
    motion: list[Any] = [
        (1.0, 0.0) if each.layout.has_source else each.turn()[2:]  # type: ignore[index]
        for each in prepared
    ]
    mixture = prepared[0].mixture
    arrays = {
        "log_weights": mixture.log_weights,
        "means": mixture.means,
        **vars(mixture.covariances),
        "motion": np.array(motion),
    }
    return {f"mixture.{name}": np.asarray(a, dtype=np.float64) for name, a in arrays.items()}


def _limits(flow: Flow) -> Arrays:
    """Return the values between which conditions are near the training, NaN for no limit."""
    low, high = flow.condition_ranges.limits
    return {"limits.low": low, "limits.high": high} if len(low) else {}


def _ratio(flow: Flow) -> Arrays:
    if flow.ratio is None:
        return {}
    packed = pack_trees(forests(flow.ratio.to_bytes())[0])
    ceiling = np.array([flow.ratio.ceiling, flow.ratio.acceptance])
    return {**_fields("ratio", packed), "ratio.ceiling": ceiling}


def file_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return arrays of the types in `KINDS` as the bytes of one file, in their order."""
    entries, contents = [], []
    at = ALIGNMENT * (1 + len(arrays))
    for name, array in arrays.items():
        kind = KINDS[array.dtype.name]
        content = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        entries.append(struct.pack(f"<{NAME_LENGTH}sIIQQ", name.encode(), kind, 0, at, array.size))
        contents.append(content + bytes(-len(content) % ALIGNMENT))
        at += len(contents[-1])
    body = b"".join([*entries, *contents])
    head = struct.pack("<8sIIQII", MAGIC, VERSION, ORDER, at, zlib.crc32(body), len(arrays))
    return head.ljust(ALIGNMENT, b"\0") + body


def texts(values: list[str] | tuple[str, ...]) -> np.ndarray:
    """Return texts as UTF-8, each ended by a zero byte, uint8."""
    content = b"".join(value.encode().replace(b"\0", b" ") + b"\0" for value in values)
    return np.frombuffer(content, dtype=np.uint8)
