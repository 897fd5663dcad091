"""A trained flow for C++: a file of arrays, the header that reads it, an example."""

from __future__ import annotations

from importlib import resources
from importlib.abc import Traversable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ... import atomic_files
from .. import native
from ..native.sources import COMPILED
from ..packed.model_arrays import model_bytes
from ..trained_flow import Flow

if TYPE_CHECKING:
    from ...model import FlowBDT

MODEL = "model.bin"
KERNELS = tuple(name for name in COMPILED if name.startswith("lanes"))
SOURCES = (
    "flowbdt.hpp",
    "flowbdt_c.h",
    "flowbdt_c.cpp",
    *("lanes.hpp", "lanes_walker.hpp", "lanes_kernels.hpp", "lanes_rows.hpp", *KERNELS),
    "example/CMakeLists.txt",
    "example/main.cpp",
)


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


def source(name: str) -> Traversable:
    """Return one of `SOURCES` as it ships with the package."""
    return resources.files(native).joinpath(*name.split("/"))
