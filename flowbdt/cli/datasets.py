"""``flowbdt data``: which public data sets there are, and how they come here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .options import add_command, add_group, bar, say


def add_data(commands: Any) -> None:
    """Add the group to the parser of all commands."""
    actions = add_group(commands, "data", "list public data sets, and download them")
    listing = add_command(actions, "list", run_list, "list the public records, or the files of one")
    listing.add_argument("record", nargs="?", metavar="NAME", help="one record, file by file")
    fetch = add_command(
        actions, "fetch", run_fetch, "download and verify files; an interrupted download goes on"
    )
    fetch.add_argument("record", metavar="NAME", help="as 'flowbdt data list' names it")
    fetch.add_argument(
        "files", nargs="*", metavar="FILE", help="names or patterns such as '*'; else the usual"
    )
    fetch.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="by default NAME")
    fetch.add_argument(
        "--base-url", metavar="URL", help="folder on the web that holds the files, for a mirror"
    )


def run_list(options: argparse.Namespace) -> None:
    """flowbdt data list."""
    from ..physics.datasets.records import overview, record

    if options.record is None:
        print(f"{overview()}\n\ntheir files: flowbdt data list NAME")
    else:
        print(record(options.record).describe())


def run_fetch(options: argparse.Namespace) -> None:
    """flowbdt data fetch."""
    from ..physics.datasets.records import fetch_file, record

    found, new_bar = record(options.record), bar(options)
    folder = options.output or Path(found.name)
    for file in found.select(options.files):
        with new_bar(total=file.size, desc=file.name, unit="B", unit_scale=True) as progress:
            done = fetch_file(
                found, file, folder, base_url=options.base_url, on_bytes=progress.update
            )
        say(options, done.text())
    say(options, f"licence: {found.licence}; cite {found.cite} and {found.page}")
