"""``flowbdt data``: public data sets and their download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from . import options
from .options import bar, say


@click.group()
def data_group() -> None:
    """List public data sets, and download them."""


@data_group.command("list")
@click.argument("name", required=False, help="A record, to list its files.")
@options.quiet
def list_records_command(name: str | None) -> None:
    """List the public records, or the files of one."""
    from ..physics.datasets.records import overview, record

    listing = f"{overview()}\n\ntheir files: flowbdt data list NAME"
    click.echo(listing if name is None else record(name).describe())


@data_group.command()
@click.argument("name", help="A record of 'flowbdt data list'.")
@click.argument("files", nargs=-1, help="Names or patterns such as '*'; by default the usual ones.")
@options.output("FOLDER", "Folder for the files; by default NAME.")
@click.option("--base-url", metavar="URL", help="Web folder of a mirror that has the files.")
@options.quiet
def fetch_command(
    name: str, files: Sequence[str], output: Path | None, base_url: str | None
) -> None:
    """Download and verify files; continue interrupted downloads."""
    from ..physics.datasets.records import fetch_file, record

    source = record(name)
    folder = output or Path(source.name)
    for file in source.select(files):
        with bar(total=file.size, desc=file.name, unit="B", unit_scale=True) as progress:
            done = fetch_file(source, file, folder, base_url=base_url, on_bytes=progress.update)
        say(done.text())
    say(f"licence: {source.licence}; cite {source.cite} and {source.page}")
