"""Six observables of Z + jets by `flowbdt.physics.unfolding`, with misses and fakes put in by hand.

    python -m experiments.unfolding.closure --data FOLDER [--events 10000] [--methods omnifold]

A tenth of the jets is not seen, more of the light ones, and a tenth of the seen ones are fakes,
more of the heavy ones; the same in data and simulation. Separation x100 in 50 bins from truth that
passes, and in floors: truth against truth, as many events as the data have.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from experiments.unfolding import scores
from experiments.unfolding.samples import OBSERVABLES, samples
from flowbdt import EventTable
from flowbdt.physics.unfolding import UnfoldingInputs, unfold
from flowbdt.seeding import stream

LOST, FAKES = 0.1, 0.1


def flags(table: EventTable, mass: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pass_truth and pass_reco (n,); ``mass`` are quantiles (n,) of the truth's mass."""
    rng = stream(seed, "flags")
    seen = rng.random(table.n) < 1 - 2 * LOST * (1 - mass)
    true = ~seen | (rng.random(table.n) < 1 - 2 * FAKES * mass)
    return true, seen


def detector(table: EventTable) -> EventTable:
    """Return the detector level as a table."""
    assert table.cond is not None
    return EventTable.of(table.cond, table.cond_names)


def main() -> None:
    """Print a table of each kind of data."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--events", type=int, default=10_000, help="of the data (%(default)s)")
    parser.add_argument("--methods", nargs="+", default=["omnifold"])
    parser.add_argument("--iterations", type=int, help="by default cross-validation chooses")
    options = parser.parse_args()
    events = samples(options.data, smoke=False)
    simulation, n = events.train.take(slice(0, 2 * options.events)), options.events
    ranked = np.sort(simulation.column("mass"))

    def quantiles(table: EventTable) -> np.ndarray:
        return np.searchsorted(ranked, table.column("mass")) / len(ranked)

    true, seen = flags(simulation, quantiles(simulation), 1)
    for where, (data, spare) in {
        "closure": (events.test, events.train),
        "other generator": (events.nature, events.spare),
    }.items():
        data = data.take(slice(0, n))
        data_true, data_seen = flags(data, quantiles(data), 2)
        inputs = UnfoldingInputs.of(
            EventTable.of(simulation.x, OBSERVABLES),
            detector(simulation),
            detector(data.take(data_seen)),
            pass_truth=true,
            pass_reco=seen,
            outside="keep",
        )
        truth = data.x[data_true]
        floor = np.array(scores.floors(np.vstack([data.x, spare.x]), len(truth))["separation"][0])
        rows = {"floor": floor, "not unfolded": _separations(truth, inputs.data.x, None)}
        rows["simulation"] = _separations(truth, simulation.x[true], None)
        for method in options.methods:
            start = time.process_time()
            found = unfold(inputs, method, n_iterations=options.iterations, random_state=1)
            total = 0.0 if found.table.weight is None else found.table.weight.sum()
            rows[method] = _separations(truth, found.table.x, found.table.weight)
            print(
                f"{where}, {method}: {time.process_time() - start:.0f} CPU s,"
                f" {found.record['iterations']} iterations,"
                f" events {total:.0f} of {len(truth)}, chi2 per bin"
                f" {np.round(list(found.closure().values()), 2)}",
                flush=True,
            )
        print(f"\n| {where} | " + " | ".join(OBSERVABLES) + " |\n|---|" + "---|" * len(OBSERVABLES))
        for name, values in rows.items():
            cells = [f"{v:.3f} ({v / f:.2f})" for v, f in zip(values, floor, strict=True)]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        print()


def _separations(truth: np.ndarray, x: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    weight = np.ones(len(x)) if weight is None else weight
    columns = range(truth.shape[1])
    return np.array([scores.separation(truth[:, i], x[:, i], weight) for i in columns])


if __name__ == "__main__":
    main()
