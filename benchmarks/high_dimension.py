"""One time step of a table with 368 columns: cost, memory, and loss beside full gradients.

    python benchmarks/high_dimension.py --data FOLDER [--quick]

FOLDER has `dataset_1_photons_1.hdf5` of the Fast Calorimeter Simulation Challenge (Zenodo 8099322);
without it a made-up table of the same shape is used. Trained on 5,000 showers at the settings of
`balanced`, with these kinds of trees on the same closed-form velocity and the same noise:

- balanced: the package's choice for tables of many columns;
- full, 256 bins: each tree serves all columns, splits by the gradient of all of them;
- full, 32 bins: the same with coarser histograms.

Every step is trained in a process of its own. The loss is the root mean square of what is left of
the velocity on 4,000 other showers with fixed noise. Most of it is noise that nothing can explain,
so the share of the variance that trees explain is printed too.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np

from flowbdt.config import ModelConfig
from flowbdt.tables.event_table import EventTable

FILE = "dataset_1_photons_1.hdf5"
N_ROWS, N_HELD_OUT, N_COLUMNS = 5_000, 4_000, 368

FULL = {"outputs_per_group": 0, "split_outputs": 0}
KINDS: dict[str, dict[str, Any]] = {
    "balanced": {},
    "full, 256 bins": {**FULL, "max_bin": 256},
    "full, 32 bins": {**FULL, "max_bin": 32},
}


def showers(folder: Path | None, quick: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return energies (rows, columns) to train on and to hold out, as the file has them (MeV)."""
    n_rows, n_held_out, n_columns = (1_000, 1_000, 80) if quick else (N_ROWS, N_HELD_OUT, N_COLUMNS)
    n = n_rows + n_held_out
    if folder is None:
        x = made_up(n)
    else:
        import h5py

        with h5py.File(folder / FILE) as file:
            x = file["showers"][:n].astype(np.float64)
    return x[:n_rows, :n_columns], x[n_rows:, :n_columns]


def made_up(n: int) -> np.ndarray:
    """Return a table of positive columns with zeros, driven by ten hidden numbers per row."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(n, 10))
    mixed = np.tanh(hidden @ rng.normal(size=(10, N_COLUMNS))) + hidden[:, :1]
    energy = np.exp(mixed + 0.5 * rng.normal(size=mixed.shape))
    return np.where(energy < 0.3, 0.0, energy)


def plan(kind: str, options: argparse.Namespace, folder: str) -> None:
    """Plan a run, with everything that is fitted once for all steps."""
    from flowbdt.training.plan import Inputs, make_plan
    from flowbdt.training.run_directory import RunDirectory

    table = EventTable.of(showers(options.data, options.quick)[0])
    config = ModelConfig(preconditioner=options.preconditioner, booster=KINDS[kind])
    make_plan(Inputs(table, config, 1), RunDirectory(folder))


def measure(kind: str, options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Train one step of a planned run, and judge it on the showers held out."""
    from flowbdt.training.run_directory import RunDirectory, model_name
    from flowbdt.training.train_step import run_task
    from flowbdt.trees.boosted_trees import BoostedTrees

    run = RunDirectory(folder)
    times = np.array(run.read_json("plan.json")["grid"]["times"])
    step = int(np.argmin(np.abs(times - options.time)))
    cost = common.measured(run_task, folder, step)
    trees = BoostedTrees.from_bytes(run.read(model_name(step)))
    inputs, target = judged_on(run, step, options)
    left = target - trees.predict(inputs)
    return {
        "trees": kind,
        "count": cost["result"]["trees"],
        "cpu_s": cost["cpu_s"],
        "peak_mib": cost["peak_mib"],
        "loss": float(np.sqrt(np.mean(left**2, dtype=np.float64))),
        "loss_without_trees": float(np.sqrt(np.mean(target**2, dtype=np.float64))),
        "explained_percent": 100 * float(1 - np.sum(left**2) / np.sum(target**2)),
        "time": cost["result"]["time"],
    }


def judged_on(run: Any, step: int, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Return what trees see of showers that were not trained on, and what they should answer."""
    from flowbdt.flow.couplings import COUPLINGS
    from flowbdt.flow.paths import PATHS
    from flowbdt.tables.transforms import TableTransform
    from flowbdt.training.noisy_pairs import LatentEvents, NoisyPairs, TimeStep
    from flowbdt.training.run_directory import task_name
    from flowbdt.training.task_files import planned_inputs

    task, fitted = run.read_json(task_name(step)), run.read_json("transform.json")
    held_out = EventTable.of(showers(options.data, options.quick)[1])
    z = TableTransform.from_json(fitted).forward(held_out).astype(np.float32)
    pairs = NoisyPairs(
        LatentEvents(z, np.arange(len(z))),
        PATHS.build(task["path"]),
        COUPLINGS.build(task["coupling"]),
        TimeStep(step, task["time"], task["next_time"]),
        inputs=planned_inputs(run, task),
        n_repeats=1,
        seed=1,
        purpose="held out",
    )
    batches = list(pairs)
    inputs = np.concatenate([batch.inputs for batch in batches])
    return inputs, np.concatenate([batch.target for batch in batches])


def figures_of(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Plan in one process and measure the step in another, so that memory does not mix."""
    with tempfile.TemporaryDirectory() as folder:
        common.in_fresh_process(plan, kind, options, f"{folder}/run")
        return dict(common.in_fresh_process(measure, kind, options, f"{folder}/run"))


def main() -> None:
    """Print the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help=f"folder with {FILE}")
    parser.add_argument("--preconditioner", default="mixture", help="closed form under the trees")
    parser.add_argument("--time", type=float, default=0.875, help="the trained one nearest to it")
    parser.add_argument("--quick", action="store_true", help="1,000 rows, 80 columns")
    options = parser.parse_args()
    rows = [figures_of(kind, options) for kind in KINDS]
    ours, full = rows[0], rows[1]
    print(f"one step at t = {ours['time']:.3f}, preconditioner {options.preconditioner}")
    print(common.table(rows))
    figures = {
        "cpu_s": ours["cpu_s"],
        "peak_mib": ours["peak_mib"],
        "loss_over_full": ours["loss"] / full["loss"],
        "bars": {"cpu_s": 60, "peak_mib": 2048, "loss_over_full": 1.02},
        "steps": rows,
    }
    common.finish(figures)


if __name__ == "__main__":
    main()
