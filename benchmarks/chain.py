"""Cost of a detector's response by a chain of stages: training, generation, memory of long files.

    python benchmarks/chain.py RUN EVENTS [--events 40000,200000]

RUN is the folder of a chain (`flowbdt response fit`), EVENTS a ROOT file with its input. The file
is repeated until it has as many events, each number in a process of its own: the peak above a
chain that was loaded must not grow with it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import finish, in_fresh_process, measured, table

from flowbdt.physics.response import ResponseChain
from flowbdt.physics.response.chain import BLOCK_EVENTS, stage_folder
from flowbdt.physics.response.generate_objects import StageSampler
from flowbdt.tables.event_collections import read_collections, write_collections


def training(run: Path) -> list[dict[str, Any]]:
    """Return CPU seconds and trees of each stage: steps, classifiers of columns, rejection."""
    rows = []
    for name, stage in ResponseChain.load(run).content_.stages.items():
        folder = stage_folder(run, name)
        reports = [json.loads(p.read_text()) for p in sorted(folder.glob("steps/*.report.json"))]
        cpu = {True: 0.0, False: 0.0}
        for report in reports:
            cpu["time" in report] += report["cpu_seconds"]
        row = {
            "stage": name,
            "rows": stage.rows,
            "steps, s": cpu[True],
            "classifiers, s": cpu[False],
        }
        file = folder / "rejection.report.json"
        if file.exists():
            found = json.loads(file.read_text())
            row |= {"rejection, s": found["cpu_seconds"], "kept": found["acceptance"]}
        rows.append(row)
    for file in sorted((run / "rejections").glob("*.json")):
        found = json.loads(file.read_text())
        row = {"stage": f"{file.stem}, all columns", "rows": found["rows"]}
        rows.append(row | {"rejection, s": found["cpu_seconds"], "kept": found["acceptance"]})
    return rows


def repeated(file: Path, n: int) -> Iterator[Any]:
    """Yield so many events, those of a file again and again."""
    while n > 0:
        for block in read_collections(file, block_rows=BLOCK_EVENTS):
            yield block[:n]
            n -= len(block)
            if n <= 0:
                return


def generation(run: Path, file: Path, n: int) -> dict[str, Any]:
    """Generate the output of n events into a file: time of each stage, peak memory."""
    chain, spent = ResponseChain.load(run), dict[str, float]()
    for _ in chain.sample_blocks(repeated(file, 100), outside=None, random_state=1):
        pass  # whatever is loaded at first use
    owner: Any = StageSampler
    call = owner.__call__

    def timed(self: StageSampler, *rows: Any) -> Any:
        start = time.process_time()
        made = call(self, *rows)
        took = time.process_time() - start
        spent[self.stage.name] = spent.get(self.stage.name, 0.0) + took
        return made

    objects = [home.name for home in chain.content_.homes if not home.is_event]
    counts = dict.fromkeys(objects, 0)

    def made() -> Iterator[Any]:
        for block in chain.sample_blocks(repeated(file, n), outside=None, random_state=1):
            for name in objects:
                counts[name] += len(block.collections[name])
            yield block.to_awkward()

    owner.__call__ = timed
    try:
        with TemporaryDirectory() as folder:
            found = measured(write_collections, Path(folder) / "made.root", made())
    finally:
        owner.__call__ = call
    n_objects = sum(counts.values())
    by_stage = {f"{name}, us": 1e6 * took / n_objects for name, took in spent.items()}
    total = {"us per object": 1e6 * found["cpu_s"] / n_objects, "peak, MiB": found["peak_mib"]}
    return {"events": n, "objects": n_objects, **total, **by_stage}


def main() -> None:
    """Print what training took, and time and memory of generation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a chain")
    parser.add_argument("file", type=Path, help="ROOT file with its input")
    parser.add_argument("--events", default="40000,200000", help="numbers of events, with commas")
    given = parser.parse_args()
    trained = training(given.run)
    print(table(trained))
    numbers = [int(n) for n in given.events.split(",")]
    rows = [in_fresh_process(generation, given.run, given.file, n) for n in numbers]
    print(table(rows))
    finish({"training": trained, "generation": rows})


if __name__ == "__main__":
    main()
