"""Z to ee learned by its particles: mass, edges and angles of generated events, and three judges.

    python benchmarks/zee.py [--quick] [--coordinates particles,columns]

The electrons are those of `flowbdt.physics.ZToEE`; with ``--data FOLDER`` those of
``FOLDER/zee.csv.gz``, the same rows before they were rounded to float32. M is the mass of the
massless pair, appended; each model is fitted with and without that column, in the default preset
and with nothing set by hand, to 9,400 rows. As
many generated ones are judged against as many others of the file, with the mass of the pair among
the columns; floors are those of the training rows. ``--quick``: 1,500 rows.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd

from flowbdt import EventTable, FlowBDT, evaluate
from flowbdt.physics import ZToEE
from flowbdt.tables.formulas.expressions import Expression
from flowbdt.tables.formulas.particles import proposed_particles, read_particles

COLUMNS = tuple(f"{name}{i}" for i in (1, 2) for name in ("pt", "eta", "phi", "Q", "type"))
JUDGES = ("auc_gb", "auc_mlp", "auc_residual")


def read(folder: Path | None) -> pd.DataFrame:
    """Return the electrons with the mass of the pair, in random order."""
    frame = ZToEE().load().to_frame() if folder is None else pd.read_csv(folder / "zee.csv.gz")
    frame = frame[list(COLUMNS)].copy()
    frame["M"] = mass(frame)
    return frame.sample(frac=1.0, random_state=0, ignore_index=True)


def mass(frame: pd.DataFrame) -> np.ndarray:
    """Return the masses (n,) of the two electrons, massless ones."""
    particles = read_particles(proposed_particles(COLUMNS))
    call = f"mass({', '.join(particles)})"
    return Expression.parse(call, "observable", particles).value(EventTable.of(frame).by_name())


def figures_of(frame: pd.DataFrame) -> dict[str, float]:
    """Return the shares that a physicist looks at first, and the ends of ranges."""
    m, dphi = mass(frame), np.abs(frame.phi1 - frame.phi2)
    return {
        "86 to 96 GeV": float(((m > 86) & (m < 96)).mean()),
        "outside 60 to 120": float(((m < 60) | (m > 120)).mean()),
        "dphi > 2.8": float((np.minimum(dphi, 2 * np.pi - dphi) > 2.8).mean()),
        "least pt": float(frame[["pt1", "pt2"]].min().min()),
        "most |eta|": float(frame[["eta1", "eta2"]].abs().max().max()),
        "most |phi|": float(frame[["phi1", "phi2"]].abs().max().max()),
    }


def run(train: pd.DataFrame, test: pd.DataFrame, coordinates: str) -> dict[str, Any]:
    """Fit, generate and judge."""
    start = time.process_time()
    model = FlowBDT(
        coordinates=coordinates,
        executor={"name": "serial", "n_threads": 1},
        random_state=1,
    ).fit(train)
    fit_s = time.process_time() - start
    model.sample(10, random_state=2)  # compiles
    start = time.process_time()
    new = model.sample(len(test), random_state=2)
    row: dict[str, Any] = {
        "columns": train.shape[1],
        "coordinates": coordinates,
        "fit CPU s": fit_s,
        "us per event": 1e6 * (time.process_time() - start) / len(test),
        "kept": model.acceptance_,
        **figures_of(new),
    }
    if "M" in new:
        row["M off"] = float(np.abs(new["M"] / mass(new) - 1).max())
    samples = [frame.assign(M=mass(frame)) for frame in (test, new, train)]
    scores = evaluate(
        *samples[:2], training=samples[2], observables=[], quick=True, metrics=list(JUDGES)
    )
    for name in JUDGES:
        row[name] = scores.get(name).value
        row[f"{name} floor"] = scores.get(name).floor
    print(*(model.flow().settings.get(name) for name in ("relations", "require")))
    return row


def main() -> None:
    """Print a line for each model, after one for real rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of zee.csv.gz")
    parser.add_argument("--quick", action="store_true", help="1,500 rows")
    parser.add_argument("--coordinates", default="particles", help="'columns' to compare")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    frame, n = read(arguments.data), 1500 if arguments.quick else 9400
    train, test = frame[:n], frame[n : 2 * n].reset_index(drop=True)
    rows: list[dict[str, Any]] = [{"columns": "real", **figures_of(test)}]
    for coordinates in arguments.coordinates.split(","):
        for left_out in ([], ["M"]):
            kept = [name for name in frame if name not in left_out]
            rows.append(run(train[kept], test[kept], coordinates))
    print(common.table(rows))
    common.finish({f"{row['columns']} {row.get('coordinates', '')}": row for row in rows})


if __name__ == "__main__":
    main()
