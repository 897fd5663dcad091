"""Cost of a detector's response by a chain of stages: training, generation, memory of long files.

    python benchmarks/chain.py RUN EVENTS [--events 40000,200000] [--exported LIB]

RUN is the folder of a chain (`flowbdt response fit`), EVENTS a ROOT file with its input. The file
is repeated until it has as many events, each number in a process of its own: the peak above a
chain that was loaded must not grow with it. LIB is the folder of `flowbdt export RUN --abi lamarr
-o LIB`: its functions are called for every row that Python draws, or judges, with the same
conditions, one after the other in a loop in C.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from common import finish, in_fresh_process, measured, table

from flowbdt.generation.export.lamarr import symbol_of
from flowbdt.physics.response import ResponseChain
from flowbdt.physics.response.chain import BLOCK_EVENTS, stage_folder
from flowbdt.physics.response.generate_objects import StageSampler
from flowbdt.tables.event_collections import read_collections, write_collections
from flowbdt.trees.density_ratio import DensityRatio


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


LOOP = """
typedef float *(*probabilities)(float *, const float *);
typedef float *(*event)(float *, const float *, const float *);
void many(void *stage, const float *in, long n_in, const float *random, long n_random, long n) {
  float out[1000];
  for (long i = 0; i < n; ++i)
    if (random) ((event)stage)(out, in + i * n_in, random + i * n_random);
    else ((probabilities)stage)(out, in + i * n_in);
}
"""


def exported(run: Path, file: Path, n: int, folder: Path) -> dict[str, Any]:
    """Return CPU us of a library's functions for n events, per object of the first collection."""
    chain, library = ResponseChain.load(run), ctypes.CDLL(str((folder / "libstages.so").resolve()))
    header = (folder / "stages.h").read_text().split()
    spent, rng = defaultdict[str, float](float), np.random.default_rng(1)
    rejections = {
        id(chain.rejection(home.name).ratio): f"{home.name}_rejection"
        for home in chain.content_.homes
        if home.rejection is not None
    }
    with TemporaryDirectory() as place:
        loop = Path(place) / "loop.c"
        loop.write_text(LOOP)
        made = loop.with_suffix(".so")
        subprocess.run(["cc", "-O2", "-fPIC", "-shared", str(loop), "-o", str(made)], check=True)
        many = ctypes.CDLL(str(made)).many
    pointer, size = ctypes.c_void_p, ctypes.c_long
    many.argtypes = (pointer, pointer, size, pointer, size, size)

    def timed(symbol: str, rows: np.ndarray) -> None:
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        name, n_random, random = f"{symbol}_N_RANDOM", 0, None
        if name in header:
            n_random = int(header[header.index(name) + 1])
            random = rng.standard_normal((len(rows), n_random), dtype=np.float32)
        numbers = None if random is None else random.ctypes.data
        start = time.process_time()
        many(
            ctypes.cast(library[symbol], pointer),
            rows.ctypes.data,
            rows.shape[1],
            numbers,
            n_random,
            len(rows),
        )
        spent[symbol] += time.process_time() - start

    call, keeps = StageSampler.__call__, DensityRatio.keeps

    def drawn(self: Any, seed: int, events: Any, rows: Any, numbers: np.ndarray) -> Any:
        if self._flow is not None and len(numbers):
            names = self._flow.condition_names
            timed(symbol_of(self.stage.name), rows.conditions(events, self.stage, names))
        return call(self, seed, events, rows, numbers)

    def judged(self: Any, inputs: np.ndarray, uniform: np.ndarray) -> Any:
        if id(self) in rejections:
            timed(rejections[id(self)], inputs)
        return keeps(self, inputs, uniform)

    owner: Any = StageSampler
    ratio: Any = DensityRatio
    owner.__call__, ratio.keeps = drawn, judged
    try:
        first = next(home.name for home in chain.content_.homes if not home.is_event)
        events = chain.sample_blocks(repeated(file, n), outside=None, random_state=1)
        n_made = sum(len(each.collections[first]) for each in events)
    finally:
        owner.__call__, ratio.keeps = call, keeps
    by_function = {f"{name}, us": 1e6 * took / n_made for name, took in spent.items()}
    return {first: n_made, f"us per {first}": sum(by_function.values()), **by_function}


def main() -> None:
    """Print what training took, and time and memory of generation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a chain")
    parser.add_argument("file", type=Path, help="ROOT file with its input")
    parser.add_argument("--events", default="40000,200000", help="numbers of events, with commas")
    parser.add_argument("--exported", type=Path, help="folder of its Lamarr library")
    given = parser.parse_args()
    trained = training(given.run)
    print(table(trained))
    numbers = [int(n) for n in given.events.split(",")]
    rows = [in_fresh_process(generation, given.run, given.file, n) for n in numbers]
    print(table(rows))
    in_c = [exported(given.run, given.file, numbers[0], given.exported)] if given.exported else []
    print(table(in_c) if in_c else "")
    finish({"training": trained, "generation": rows, "exported": in_c})


if __name__ == "__main__":
    main()
