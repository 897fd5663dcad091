"""A large sample to HDF5: peak memory, time per event, and equal bytes for two sizes of blocks.

    python benchmarks/stream.py [--quick] [-n 1e7] [--blocks 40960 8192]

Each generation is a process of its own. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, in_fresh_process, peak_mib, table

from flowbdt import EventTable, FlowBDT
from flowbdt.atomic_files import digest_file

COLUMNS = 12


def toy_model(path: Path) -> None:
    """Train a small model of 12 columns, of float32 and whole numbers, and save it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, COLUMNS)) @ rng.normal(size=(COLUMNS, COLUMNS))
    x[:, 0] = np.exp(0.3 * x[:, 0])
    x[:, 1] = np.rint(x[:, 1])
    data = EventTable.of(x.astype(np.float32), [f"x{i}" for i in range(COLUMNS)])
    FlowBDT(preset="fast", n_steps=4, random_state=1).fit(data).save(path)


def generate(model: str, out: str, n: int, block_rows: int | None) -> dict[str, Any]:
    """Generate in this process; return what it took."""
    loaded = FlowBDT.load(model)
    loaded.sample(1, random_state=1)  # machine code is loaded, or made, before the clock starts
    wall, cpu = time.perf_counter(), time.process_time()
    loaded.sample_to(out, n, random_state=1, block_rows=block_rows)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_us": 1e6 * cpu / n, "wall_us": 1e6 * wall / n, "peak_mib": peak_mib()}


def measure(folder: Path, n: int, block_rows: int | None) -> dict[str, Any]:
    """Generate from ``folder/model.flow`` in a fresh process; return cost, size and digest."""
    out = folder / "new.h5"
    found: dict[str, Any] = in_fresh_process(
        generate, str(folder / "model.flow"), str(out), n, block_rows
    )
    size = out.stat().st_size / 2**20
    result = {"block_rows": block_rows, **found, "file_mib": size, "digest": digest_file(out)}
    out.unlink()
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="50,000 events")
    parser.add_argument("-n", type=lambda text: int(float(text)), default=10_000_000)
    parser.add_argument("--blocks", type=int, nargs="+", default=[40_960, 8_192])
    parser.add_argument("--folder", type=Path, help="where files go (some GB)")
    options = parser.parse_args()
    options.n = 50_000 if options.quick else options.n
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        toy_model(folder / "model.flow")
        rows = [measure(folder, options.n, block) for block in options.blocks]
    print(table([{**row, "digest": row["digest"][:12]} for row in rows]))
    finish(
        {
            "n": options.n,
            "columns": COLUMNS,
            "peak_mib": max(row["peak_mib"] for row in rows),
            "us_per_event": rows[0]["cpu_us"],
            "wall_us_per_event": rows[0]["wall_us"],
            "equal": len({row["digest"] for row in rows}) == 1,
            "cpus": os.cpu_count(),
        }
    )


if __name__ == "__main__":
    main()
