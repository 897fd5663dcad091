"""What the studies share: options, tables, the closing JSON line."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # CPU seconds are compared

RUNS = "runs.json"


def parser(question: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every study has."""
    result = argparse.ArgumentParser(description=question)
    result.add_argument("--smoke", action="store_true", help="a few hundred events, in seconds")
    result.add_argument("--data", type=Path, metavar="FOLDER", help="folder with the public files")
    result.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where to write")
    return result


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table; the columns are those of the first row."""
    names = list(rows[0])
    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    lines += [" | ".join(str(row.get(name, "")) for name in names) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def kept(folder: Path | None, nothing: Any) -> Any:
    """Return the runs that a study has kept in its folder, ``nothing`` if there are none."""
    file = None if folder is None else folder / RUNS
    return json.loads(file.read_text()) if file is not None and file.exists() else nothing


def keep(runs: Any, folder: Path | None) -> None:
    """Write all runs of a study so far, so that it can be stopped and taken up again."""
    from flowbdt.files import write_json  # imports numpy, which must see the line above

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RUNS, runs)


def finish(figures: Mapping[str, Any], folder: Path | None, name: str) -> None:
    """Write the figures beside the pictures and print them as the last line."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    print(json.dumps(figures, sort_keys=True))
