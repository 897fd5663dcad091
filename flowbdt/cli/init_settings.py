"""Settings that a table suggests, written as a file to be edited."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InputError
from . import options
from .fit_runs import particle_lines, read_events
from .options import TABLES, say

if TYPE_CHECKING:
    from ..config import RunConfig
    from ..tables.event_table import EventTable


@click.command()
@click.argument("table", type=options.PATH, help=f"Events: {TABLES}.")
@options.output("FILE", "Settings to write; by default config.yaml.", default=Path("config.yaml"))
@options.printing
def init_command(table: Path, output: Path) -> None:
    """Propose settings for a table, in a file to edit."""
    from ..atomic_files import check_target, write_bytes

    if output.exists():
        raise InputError(f"{output} exists: remove it, or name another file by -o")
    check_target(output)
    write_bytes(output, "".join(f"{line}\n" for line in _suggested(table)).encode())
    say(
        f"wrote {output}   next: edit it, then flowbdt fit {table} --config {output} -o run",
        file=output,
    )


def _suggested(path: Path) -> list[str]:
    """Return settings for a table in YAML, each with what led to it."""
    from ..config import RunConfig
    from ..tables.proposals.proposed_settings import Proposals, identifiers

    every = read_events(path, RunConfig(), missing=True)
    left_out = identifiers(every)
    table = every.select([name for name in every.names if name not in left_out])
    if not table.names:
        raise InputError(f"{path} has numbers of events only ({', '.join(left_out)})")
    found = Proposals.of(table)
    settings, cuts = RunConfig(**found.settings), {cut.text: cut.reason for cut in found.cuts}
    lines = [
        f"# Settings that {table.n} rows of {path.name} suggest: change or remove what is wrong.",
        "# With --dry-run, 'flowbdt fit' says what becomes of them.",
        "preset: balanced  # or fast",
        "",
        "# Columns to learn:",
        "columns:",
        *_list(_understood(table, settings)),
    ]
    lines += [f"# left out, {name}: {reason}" for name, reason in left_out.items()]
    lines += ["", "# Columns that are known when events are generated; take them out above:"]
    lines += ["conditions: []", "# weight: column of event weights"]
    if found.particles:
        lines += ["", "# Their names and numbers are those of particles; enter the masses:"]
        lines += ["particles:", *particle_lines(found.particles)]
    if settings.relations:
        lines += ["", "# All rows agree with these; generated events will:", "relations:"]
        lines += _list(dict.fromkeys(settings.relations, ""))
    nearly = [one.describe() for one in found.relations if not one.exact]
    if nearly:
        lines += ["", "# Nearly all rows nearly agree with these, which nothing holds:"]
        lines += [f"#   {text}" for text in nearly]
    if cuts:
        lines += ["", "# All rows keep these cuts; generated events will:", "require:"]
        lines += _list(cuts)
    return lines


def _understood(table: EventTable, settings: RunConfig) -> dict[str, str]:
    """Return what a fit with these settings makes of each column. Raises as the fit would."""
    import numpy as np

    from ..training.plan import Inputs, check_table, fitted_transform

    inputs = Inputs(table, replace(settings, random_state=0), 0).settled()
    check_table(inputs)
    transform, _ = fitted_transform(inputs, np.ones(table.n, dtype=bool))
    kinds = dict(line.split(": ", 1) for line in transform.describe() if ": " in line)
    return {name: kinds.get(name, "").split(";")[0] for name in table.names}


def _list(comments: dict[str, str]) -> list[str]:
    """Return lines of a YAML list of texts, with comments."""
    import yaml

    texts = [
        yaml.safe_dump([text], default_flow_style=True, width=10**6).strip()[1:-1]
        for text in comments
    ]
    width = max(map(len, texts))
    return [
        f"  - {text:{width}s}  # {comment}" if comment else f"  - {text}"
        for text, comment in zip(texts, comments.values(), strict=True)
    ]
