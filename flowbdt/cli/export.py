"""``flowbdt export``: a trained run for programs that have no Python."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .options import add_command, say

WRITTEN = {
    "cpp": "folder with model.bin, flowbdt.hpp, a C interface and an example",
    "onnx": "one file, noise and conditions in, events out",
}


def add_export(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = add_command(commands, "export", run_export, "write a trained run for C++ or ONNX")
    parser.add_argument("model", metavar="MODEL", help="run folder or model file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    listed = "; ".join(f"{name}: {what}" for name, what in WRITTEN.items())
    parser.add_argument(
        "--format", choices=WRITTEN, help=f"{listed} (onnx if OUT ends in .onnx, else cpp)"
    )
    parser.add_argument(
        "--sampler",
        metavar="YAML",
        help="another way through the same step models, without rejection, e.g."
        " '{solver: heun, n_steps: 4}'; of solver, n_steps, spacing",
    )


def run_export(options: argparse.Namespace) -> None:
    """flowbdt export."""
    from ..generation.trained_flow import Flow
    from ..training import run_directory
    from .fit_and_generate import read_sampler

    sampler = read_sampler(options.sampler)
    flow = Flow(run_directory.open_run(options.model), sampler=sampler, compiled=False)
    name = options.format or ("onnx" if options.output.suffix == ".onnx" else "cpp")
    _writer(name)(flow, options.output)
    say(options, f"{options.output}: {WRITTEN[name]}")


def _writer(name: str) -> Callable[[Any, Any], None]:
    if name == "onnx":
        from ..generation.export.write_onnx import write_onnx

        return lambda flow, path: write_onnx(flow, str(path))
    from ..generation.export.write_cpp import write_cpp

    return write_cpp
