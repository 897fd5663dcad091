"""What all files of the command line share: adding a command, reading numbers, talking."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

Command = Callable[[argparse.Namespace], None]

TABLES = "HDF5 (.h5, .hdf5), .npy, .npz, .csv or .parquet"


def add_command(commands: Any, name: str, function: Command, help_text: str) -> Any:
    """Add a command that calls ``function``; return its parser."""
    parser = commands.add_parser(name, help=help_text, description=_sentence(help_text))
    parser.set_defaults(command=function)
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bars, no summary")
    return parser


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def add_settings(parser: Any, help_text: str) -> None:
    """Add ``--set`` and ``--executor``."""
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=help_text)
    parser.add_argument("--executor", choices=executors(), help="where steps are trained")


def add_group(commands: Any, name: str, help_text: str) -> Any:
    """Add a group of commands; return what its commands are added to."""
    parser = commands.add_parser(name, help=help_text, description=_sentence(help_text))
    return parser.add_subparsers(title="actions", required=True, metavar="ACTION")


def add_seed(parser: Any, default: int = 0) -> None:
    """Add ``--seed``."""
    parser.add_argument("--seed", type=seed, default=default, help="seed (%(default)s)")


def executors() -> list[str]:
    """Return the names of the executors."""
    from ..training.executors import EXECUTORS

    return EXECUTORS.names()


def count(text: str) -> int:
    """Read a whole positive number; 1e6 and 1_000_000 are welcome."""
    try:
        value = float(text)
        if value == int(value) and value >= 1:
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")


def seed(text: str) -> int:
    """Read a seed."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a seed is a whole number of at least 0, got {text}")
    return int(text)


def say(options: argparse.Namespace, text: str) -> None:
    """Print, unless asked to be quiet."""
    if text and not options.quiet:
        print(text, flush=True)


def bar(options: argparse.Namespace) -> Callable[..., Any]:
    """Return tqdm, silent when asked to be or when nobody watches."""
    from functools import partial

    from tqdm import tqdm

    return partial(tqdm, disable=options.quiet or not sys.stderr.isatty(), leave=False)
