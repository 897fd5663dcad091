"""Options that commands share, the types of their values, and output to the terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import click

from ..errors import ConfigError

Decorator = Callable[[Any], Any]

TABLES = "HDF5 (.h5, .hdf5), .npy, .npz, .csv, .parquet or .root"
PATH = click.Path(path_type=Path)
VALUES = "values"
"""Where a context keeps what ``--json`` prints in the end."""
NUMBER = click.IntRange(min=0)


def positive_integer(value: str | int) -> int:
    """Read a positive whole number; 1e6 and 1_000_000 are allowed."""
    number = _number(value)
    if number.is_integer() and number >= 1:
        return int(number)
    raise click.BadParameter(f"expected a whole number of at least 1, got {value}")


def joined_numbers(value: str) -> list[int]:
    """Read a whole number, or several joined by +, as batch jobs pass them."""
    if not all(text.isdecimal() for text in value.split("+")):
        raise click.BadParameter(f"expected a whole number from 0, or several as 3+4, got {value}")
    return list(map(int, value.split("+")))


def positive_float(value: str | float) -> float:
    """Read a finite number above 0."""
    number = _number(value)
    if 0 < number < math.inf:
        return number
    raise click.BadParameter(f"expected a number above 0, got {value}")


def _number(value: str | float) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


class Registered(click.Choice):
    """A name of a registry or mapping, ``module`` and its ``name``; it is imported only for values.

    ``shown`` are the names that help shows.
    """

    def __init__(self, module: str, name: str, *shown: str) -> None:
        self.case_sensitive, self.module, self.name_of, self.shown = True, module, name, shown

    @property
    def choices(self) -> Sequence[str]:  # type: ignore[override]
        """Names of all entries."""
        return sorted(getattr(import_module(self.module, __package__), self.name_of))

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the names in brackets, without the registry."""
        return f"[{'|'.join(self.shown)}]"


def combined(*options: Decorator) -> Decorator:
    """Return a decorator that adds several options, in this order in the help."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def flag(name: str, text: str) -> Decorator:
    """Add an option without a value."""
    return click.option(name, is_flag=True, help=text)


def file(*names: str, metavar: str = "FILE", **settings: Any) -> Decorator:
    """Add an option that names a file or folder."""
    return click.option(*names, type=PATH, metavar=metavar, **settings)


def output(metavar: str, text: str, **settings: Any) -> Decorator:
    """Add ``--output``."""
    return file("-o", "--output", metavar=metavar, help=text, **settings)


def integer(*names: str, metavar: str = "N", **settings: Any) -> Decorator:
    """Add an option with a positive whole number."""
    return click.option(*names, type=positive_integer, metavar=metavar, **settings)


def assignments(text: str) -> Decorator:
    """Add ``--set`` as the parameter ``settings``."""
    return click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help=text)


def seed(default: int = 0) -> Decorator:
    """Add ``--seed``."""
    return click.option("--seed", type=NUMBER, default=default, metavar="N", help="Random seed.")


def mapping(name: str, example: str, text: str, **settings: Any) -> Decorator:
    """Add an option that is a mapping in YAML; raises ConfigError if it is anything else."""

    def read(value: str) -> dict[str, Any]:
        from ..config import read_yaml

        content = read_yaml(value, f"{name} {value!r}")
        if not isinstance(content, dict):
            raise ConfigError(f"{name} must be a mapping such as '{example}', got {value!r}")
        return content

    def callback(_: click.Context, option: click.Parameter, value: Any) -> Any:
        if option.multiple:
            return [read(one) for one in value]
        return None if value is None else read(value)

    text = f"{text}, e.g. '{example}'."
    return click.option(name, metavar="YAML", callback=callback, help=text, **settings)


def sampler(text: str, **settings: Any) -> Decorator:
    """Add ``--sampler``."""
    return mapping("--sampler", "{solver: euler}", text, **settings)


def _read_particles(_: click.Context, option: click.Parameter, value: Any) -> Any:
    """Read ``e1=pt:pt1,eta:eta1,phi:phi1,mass:0.000511``, also with YAML behind the sign."""
    from ..config import read_yaml

    particles: dict[str, Any] = {}
    for text in value:
        name, equals, parts = (part.strip() for part in text.partition("="))
        if not parts.startswith("{"):
            parts = "{" + ", ".join(part.replace(":", ": ", 1) for part in parts.split(",")) + "}"
        content = read_yaml(parts, f"{option.opts[0]} {text!r}") if equals else None
        if not isinstance(content, dict) or name in particles:
            raise ConfigError(
                f"{option.opts[0]} is written {PARTICLE}, once for each particle; got {text!r}"
            )
        particles[name] = content
    return particles or None


PARTICLE = "e1=pt:pt1,eta:eta1,phi:phi1,mass:0.000511"

observables = combined(
    click.option(
        "--observable",
        "observables",
        multiple=True,
        metavar="'A = EXPRESSION'",
        callback=lambda _context, _option, value: list(value) or None,
        help="Further column to judge, e.g. 'mee = mass(e1, e2)'; repeatable.",
    ),
    click.option(
        "--particle",
        "particles",
        multiple=True,
        metavar="NAME=PARTS",
        callback=_read_particles,
        help=f"Particle that expressions may name, e.g. {PARTICLE} (or E, px, py, pz; or px, py,"
        " pz, mass); repeatable. Without --observable, masses and distances of pairs are judged.",
    ),
)

run = click.argument("run", type=PATH, help="Run folder or model file.")
planned = click.argument("run", type=PATH, help="Folder of a planned run.")
EXECUTOR = Registered(
    "..training.executors", "EXECUTORS", "dask", "htcondor", "joblib", "serial", "slurm"
)
executor = click.option("--executor", type=EXECUTOR, help="Where jobs run.")
threads = integer("--threads", "n_threads", help="Number of threads; by default all of this job.")
cond = file("--conditions", "--cond", "cond", help="Conditions, one row per event.")
weight = click.option("--weight", metavar="COLUMN", help="Column with event weights.")
quick = flag("--quick", "Train fewer classifiers: larger errors.")


def _noted(*names: str, text: str) -> Decorator:
    """Add a flag that is noted in the context, not passed to the command."""

    def note(context: click.Context, option: click.Parameter, value: bool) -> None:
        context.meta[str(option.name)] = value

    return click.option(*names, is_flag=True, expose_value=False, callback=note, help=text)


printing = combined(
    _noted("-q", "--quiet", text="No progress bars, no summary."),
    _noted("--json", text="Print one JSON object in place of text."),
)
"""Options of every command."""


def refuse_given(reason: str, *names: str) -> None:
    """Raise ConfigError if one of these parameters was given in a call that has no use for it."""
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is click.core.ParameterSource.COMMANDLINE:
            raise ConfigError(f"{parameter.opts[0]} has nothing to act on: {reason}")


def is_quiet() -> bool:
    """Return whether the command was called with ``--quiet``."""
    return bool(click.get_current_context().meta["quiet"])


def is_silent() -> bool:
    """Return whether nothing but errors, or one JSON object, may be printed."""
    return is_quiet() or bool(click.get_current_context().meta["json"])


def say(text: str, **values: Any) -> None:
    """Print a summary, unless the command is quiet; with ``--json`` keep values in its place."""
    show("" if is_quiet() else text, **values)


def show(text: str, **values: Any) -> None:
    """Print what was asked for; with ``--json`` keep values, lists of several calls joined."""
    meta = click.get_current_context().meta
    if not meta["json"]:
        if text:
            click.echo(text)
        return
    kept = meta.setdefault(VALUES, {})
    for name, value in values.items():
        before = kept.get(name)
        kept[name] = [*before, *value] if isinstance(before, list) else value


def three_digits(number: float) -> str:
    """Return a number with three digits that count, without an exponent: 1.27, 1,270."""
    return f"{float(f'{number:.3g}'):,.12g}"


class _NoBar:
    """What a progress bar is where nobody looks; tqdm takes long to import."""

    n = initial = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def update(self, n: int = 1) -> None: ...

    def set_description(self, text: str) -> None: ...


def bar(**settings: Any) -> Any:
    """Return a progress bar, hidden when the command is quiet or no terminal is attached."""
    if is_silent() or not sys.stderr.isatty():
        return _NoBar()
    from tqdm import tqdm

    return tqdm(leave=False, **settings)


class EvaluationsCommand(click.Command):
    """Command whose option ``--evaluations`` takes numbers until the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_repeat_option("--evaluations", args)))


def _repeat_option(option: str, words: Sequence[str]) -> Iterator[str]:
    """Write ``--evaluations 4 8`` as ``--evaluations 4 --evaluations 8``, as click needs it."""
    values = -1
    for word in words:
        if word.startswith("-"):
            values = 0 if word == option else -1
        elif values >= 0:
            if values > 0:
                yield option
            values += 1
        yield word
