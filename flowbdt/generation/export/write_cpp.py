"""A trained flow for C++: a model file, the header that reads it, a C interface, an example."""

from __future__ import annotations

from importlib import resources
from importlib.abc import Traversable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ... import atomic_files
from ..packed.cpp_file import pack
from ..packed.pack_flow import arrays_of, flow_of
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


def write_cpp(model: FlowBDT | Flow, path: str | PathLike[str]) -> None:
    """Write a folder from which a C++17 program generates events without any other library.

    Parameters
    ----------
    model : a fitted model, or a `Flow`, e.g. with another sampler
    path : folder, made if it is not there. ``model.bin`` is written last, whole or not at all

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    ConfigError
        If a part of the model cannot be exported, with what to do instead.
    RunError
        If the folder cannot be written.
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
    return pack(arrays_of(flow_of(model)))


def source(name: str) -> Traversable:
    """Return one of `SOURCES` as it ships with the package."""
    return resources.files(__package__).joinpath("cpp", *name.split("/"))
