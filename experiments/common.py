"""What the studies share: options, tables, the closing JSON line."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from flowbdt import EventTable
    from flowbdt.flow.fields import VelocityField

os.environ.setdefault("OMP_NUM_THREADS", "1")  # CPU seconds are compared; before numpy is imported

RUNS = "runs.json"


def parser(question: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every study has."""
    result = argparse.ArgumentParser(description=question)
    result.add_argument("--smoke", action="store_true", help="a few hundred events, in seconds")
    result.add_argument("--data", type=Path, metavar="FOLDER", help="folder with the public files")
    result.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where to write")
    return result


def jets(data: Path | None) -> tuple[EventTable, EventTable]:
    """Return training and test events of the 12 jet observables, without a folder the bundled."""
    from flowbdt.physics import JetNetHLV, bundled

    source = bundled() if data is None else JetNetHLV(data / "jetnet")
    return source.load("train"), source.load("test")


def by_unipc(
    field: VelocityField, x0: np.ndarray, evaluations: int, cond: np.ndarray | None = None
) -> np.ndarray:
    """Return where UniPC takes the noise x0, with so many evaluations of a network."""
    from flowbdt import integrate
    from flowbdt.flow.schedules import SCHEDULES
    from flowbdt.flow.solvers import SOLVERS

    grid, solver = SCHEDULES.build("warped")(evaluations), SOLVERS.build("unipc")
    end: np.ndarray = integrate(solver, field, x0, grid, cond).x
    return end


def n_evaluations(sampler: Mapping[str, Any]) -> int:
    """Return how often sampler settings ask the field per event, on the straight line."""
    from flowbdt.flow.schedules import SCHEDULES
    from flowbdt.flow.solvers import SOLVERS, evaluations

    grid = SCHEDULES.build(sampler.get("spacing", "uniform"))(sampler["n_steps"])
    return len(evaluations(SOLVERS.build(sampler["solver"]), grid))


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
    from flowbdt.atomic_files import write_json

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RUNS, runs)


def finish(figures: Mapping[str, Any], folder: Path | None, name: str) -> None:
    """Write the figures beside the pictures and print them as the last line."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    print(json.dumps(figures, sort_keys=True))
