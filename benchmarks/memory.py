"""Peak memory of training one step at 1, 20 and 100 noise repetitions.

    python benchmarks/memory.py [--quick]

Each fit runs in a process of its own; peaks are above the imported process with the events loaded.
Beside them: the bytes that XGBoost cannot do without, and the same fit from ordinary arrays in
which every event is written down as often as it is used, as the reference implementation does.

The necessary bytes per row are: label and margin, 4 per output each; gradient, 8 per output;
bins, 1 per input. For vector leaves XGBoost's ``hist`` always makes a second gradient in the other
memory order (8 more per output); the ratio is printed with and without counting it.
"""

from __future__ import annotations

import argparse

import common
import numpy as np

from flowbdt.config import BOOSTER_DEFAULTS
from flowbdt.flow.closed_form import PRECONDITIONERS
from flowbdt.flow.couplings import COUPLINGS
from flowbdt.flow.paths import PATHS
from flowbdt.flow.step_inputs import StepInputs
from flowbdt.tables.transforms import JointTransform
from flowbdt.training.noisy_pairs import LatentEvents, NoisyPairs, TimeStep
from flowbdt.trees.boosted_trees import BoostedTrees

N_COLUMNS = 12
PARAMETERS = {**BOOSTER_DEFAULTS, "n_estimators": 3}  # memory does not grow with trees


def make_events(n_rows: int) -> LatentEvents:
    """Return latent events; their values do not matter here."""
    z = np.random.default_rng(0).normal(size=(n_rows, N_COLUMNS)).astype(np.float32)
    return LatentEvents(z, np.arange(n_rows))


def plain_inputs() -> StepInputs:
    """Return what trees see: the point only, with nothing known in closed form."""
    nothing = PRECONDITIONERS.build("none").fit(np.zeros((1, N_COLUMNS)), seed=0)
    joint = JointTransform("none").fit(np.zeros((1, N_COLUMNS)))
    return StepInputs(nothing.at(PATHS.build("linear"), 0.5), joint, ["latent"])


def make_pairs(events: LatentEvents, n_repeats: int) -> NoisyPairs:
    """Return what a step at t = 0.5 learns from."""
    return NoisyPairs(
        events,
        PATHS.build("linear"),
        COUPLINGS.build("independent"),
        TimeStep(0, 0.5, 0.6),
        inputs=plain_inputs(),
        n_repeats=n_repeats,
        seed=1,
        purpose="train",
    )


def ours(events: LatentEvents, n_repeats: int) -> None:
    """Fit as the package does: batches made on demand."""
    BoostedTrees(PARAMETERS).fit(make_pairs(events, n_repeats), None, seed=1, n_threads=1)


def duplicated(events: LatentEvents, n_repeats: int) -> None:
    """Fit from arrays with every repetition written out (float32, better than the reference)."""
    import xgboost

    x1 = np.repeat(events.z, n_repeats, axis=0)
    x0 = np.random.default_rng(1).normal(size=x1.shape).astype(np.float32)
    settings = {k: PARAMETERS[k] for k in ("max_depth", "max_bin", "multi_strategy")}
    matrix = xgboost.DMatrix(0.5 * x1 + 0.5 * x0, label=x1 - x0)
    xgboost.train({**settings, "tree_method": "hist", "nthread": 1}, matrix, 3)


def measure(kind: str, n_rows: int, n_repeats: int) -> float:
    """Return the peak in MiB of one kind of fit, after a small one has loaded everything."""
    function = {"ours": ours, "duplicated": duplicated}[kind]
    function(make_events(200), 1)
    return float(common.measured(function, make_events(n_rows), n_repeats)["peak_mib"])


def necessary_mib(n_rows: int, gradients: int) -> float:
    """Return label, margin, ``gradients`` gradients and bins of n_rows rows, in MiB."""
    return n_rows * N_COLUMNS * (4 + 4 + 8 * gradients + 1) / 2**20


def main() -> None:
    """Print the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2,500 rows instead of 25,000")
    n_rows = 2_500 if parser.parse_args().quick else 25_000
    rows = []
    for n_repeats in (1, 20, 100):
        peak = common.in_fresh_process(measure, "ours", n_rows, n_repeats)
        other = common.in_fresh_process(measure, "duplicated", n_rows, n_repeats)
        one, two = (necessary_mib(n_rows * n_repeats, g) for g in (1, 2))
        rows.append(
            {
                "repeats": n_repeats,
                "peak_mib": peak,
                "necessary_mib": two,
                "ratio": peak / two,
                "necessary_one_gradient_mib": one,
                "ratio_one_gradient": peak / one,
                "duplicated_mib": other,
                "duplicated_over_ours": other / peak,
            }
        )
    print(f"peak memory of one step, {n_rows} events x {N_COLUMNS} columns, MiB")
    print(common.table(rows))
    common.finish({"rows": n_rows, "columns": N_COLUMNS, "by_repeats": rows})


if __name__ == "__main__":
    main()
