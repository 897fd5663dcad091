"""Train CaloForest's package on rows with labels, and generate: runs in the peers' interpreter.

    python peer.py JOB.json

The interpreter needs forest_diffusion_mo and numpy, not flowbdt. The job says ``rows`` and
``labels`` (npy), ``wanted`` (npy, one label per event), ``settings`` of ``ForestModel``,
``out`` (npy) and ``figures`` (JSON). Models pass through files in the working folder.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np


def cpu_seconds() -> float:
    """Return user and system time of this process and the children it has waited for."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def peak_mib() -> float:
    """Return the largest memory of this process, MiB; 0 where the system does not tell."""
    place = Path("/proc/self/status")
    lines = place.read_text().splitlines() if place.exists() else []
    return sum(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def numbers_learned(folder: Path, most: int = 6) -> int:
    """Return leaf values, thresholds and split columns, counted in a few models of a folder.

    A tree of n nodes has (n + 1) / 2 leaves, and (n - 1) / 2 splits of two numbers each.
    """
    import xgboost as xgb

    paths = sorted(folder.glob("*.ubj"))
    looked_at = paths[:: max(1, len(paths) // most)]
    total = 0
    for path in looked_at:
        booster = xgb.Booster()
        booster.load_model(path)
        trees = booster.get_dump()
        nodes = sum(text.count("\n") for text in trees)
        total += (nodes + len(trees)) // 2 + nodes - len(trees)
    return round(total * len(paths) / len(looked_at))


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Train, generate, write the events; return what it cost."""
    from forest_diffusion_mo import ForestModel

    rows = np.load(job["rows"]).astype(np.float32)
    labels, wanted = np.load(job["labels"]), np.load(job["wanted"])
    start, before = cpu_seconds(), peak_mib()
    model = ForestModel("model", n_jobs=1, **job["settings"])
    model.train(model.preprocess(rows, labels))
    trained, peak = cpu_seconds(), peak_mib()
    model.generate(len(wanted[:10]), label_y=wanted[:10], n_jobs=1)  # loads all models
    loaded = time.process_time()
    events = model.generate(len(wanted), label_y=wanted, n_jobs=1)
    bulk = time.process_time() - loaded
    start_one = time.process_time()
    model.generate(1, label_y=wanted[:1], n_jobs=1)
    one = time.process_time() - start_one
    np.save(job["out"], events[:, : rows.shape[1]])
    return {
        "train_cpu_s": trained - start,
        "peak_mib": peak - before,
        "ms_bulk": 1e3 * bulk / len(wanted),
        "ms_one": 1e3 * one,
        "n_parameters": numbers_learned(Path("model/train")),
        "version": metadata.version("forest_diffusion_mo"),
        "xgboost": metadata.version("xgboost-cpu" if _has("xgboost-cpu") else "xgboost"),
    }


def _has(name: str) -> bool:
    return any(found.metadata["Name"] == name for found in metadata.distributions())


def main() -> None:
    """Run the job whose file is the only argument."""
    job = json.loads(Path(sys.argv[1]).read_text())
    figures = run(job)
    Path(job["figures"]).write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
