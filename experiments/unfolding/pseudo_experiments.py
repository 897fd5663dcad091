"""Coverage, covariance and bias of `flowbdt.physics.unfolding` on a closed form.

    python -m experiments.unfolding.pseudo_experiments [--n 20] [--events 3000] [--replicas 6]

Every pseudo-experiment draws simulation, data and background anew: normal truth with mean 0 in the
simulation and 0.3 in the data, resolution 0.3, efficiency a function of truth (a tenth is lost at
the mean), 20% of the selected events are fakes, 20% of the data are background.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from flowbdt.physics.unfolding import UnfoldingInputs, unfold, unfolding_errors
from flowbdt.seeding import stream

EDGES = [-1.5, -0.9, -0.5, -0.1, 0.3, 0.7, 1.1, 1.5, 2.1]
MEAN, SMEAR, FAKES, BACKGROUND = 0.3, 0.3, 0.2, 0.2
N_ITERATIONS = 7


def expected(n: int) -> np.ndarray:
    """Return the events of the data's truth in the bins."""
    below = [0.5 * (1 + math.erf((edge - MEAN) / math.sqrt(2))) for edge in EDGES]
    return n * np.diff(below)


def events(n: int, mean: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return both levels of a sample whose true events number n."""
    truth = rng.normal(mean, 1.0, n)
    reco = truth + rng.normal(0.0, SMEAR, n)
    seen = rng.random(n) < 0.95 / (1 + np.exp(-2.0 * (truth + 1.5)))
    n_fakes = rng.poisson(seen.sum() * FAKES / (1 - FAKES))
    return {
        "truth": np.append(truth, np.full(n_fakes, np.nan)),
        "reco": np.append(np.where(seen, reco, np.nan), rng.normal(-0.3, 1.2, n_fakes)),
        "pass_truth": np.repeat([True, False], [n, n_fakes]),
        "pass_reco": np.append(seen, np.ones(n_fakes, dtype=bool)),
    }


def inputs(n: int, seed: int) -> UnfoldingInputs:
    """Return a pseudo-experiment of about n true events, with four times the simulation."""
    rng = stream(seed, "pseudo-experiment")
    simulation, real = events(4 * n, 0.0, rng), events(rng.poisson(n), MEAN, rng)
    data = real["reco"][real["pass_reco"]]
    selected = 0.83 * n / (1 - FAKES)  # the background expected does not know the data
    n_background = selected * BACKGROUND / (1 - BACKGROUND)
    data = np.append(data, rng.normal(1.2, 0.4, rng.poisson(n_background)))
    background = rng.normal(1.2, 0.4, 4 * round(n_background))
    return UnfoldingInputs.of(
        {"truth": simulation["truth"]},
        {"reco": simulation["reco"]},
        {"reco": data},
        pass_truth=simulation["pass_truth"],
        pass_reco=simulation["pass_reco"],
        background={"reco": background},
        background_weight=np.full(len(background), n_background / len(background)),
        outside="keep",
    )


def main() -> None:
    """Run and print one line per score."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=20, help="pseudo-experiments (%(default)s)")
    parser.add_argument("--events", type=int, default=3000, help="of the data's truth")
    parser.add_argument("--replicas", type=int, default=6)
    options = parser.parse_args()
    start, truth = time.process_time(), expected(options.events)
    found, errors = [], []
    inside: dict[float, list[np.ndarray]] = {0.68: [], 0.95: []}
    for seed in range(options.n):
        result = unfold(inputs(options.events, seed), n_iterations=N_ITERATIONS, random_state=seed)
        own = unfolding_errors(result, options.replicas, prior=False)
        found.append(result.histogram("truth", EDGES))
        errors.append(own.table("truth", EDGES)["total"])
        for level, covered in inside.items():
            low, high = own.interval("truth", EDGES, level)
            covered.append((low <= truth) & (truth <= high))
        print(f"{seed}: {np.round((found[-1] - truth) / errors[-1], 2)}", flush=True)
    spread, mean_error = np.std(found, axis=0, ddof=1), np.mean(errors, axis=0)
    bias = (np.mean(found, axis=0) - truth) / mean_error
    for level, covered in inside.items():
        print(f"coverage of {level:.0%} intervals: {np.mean(covered):.3f}")
    print(f"error / spread, by bin: {np.round(mean_error / spread, 2)}")
    print(f"error / spread, mean: {np.mean(mean_error / spread):.3f}")
    print(f"bias in errors, by bin: {np.round(bias, 2)} (known to {options.n**-0.5:.2f})")
    print(f"bias in errors, mean absolute: {np.abs(bias).mean():.3f}")
    print(f"{time.process_time() - start:.0f} CPU s")


if __name__ == "__main__":
    main()
