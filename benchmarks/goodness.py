"""How often the test of goodness of fit finds a difference, beside the AUC of the same classifier.

Usage: python benchmarks/goodness.py [--events N] [--trials N] [--quick]; prints a line per
distortion. Both samples have three columns and N events, the first is standard normal. Power is
the share of trials with p below 5% and 1%; without a difference it is 5% and 1%.
"""

from __future__ import annotations

import argparse
import time
from unittest import mock

import common
import numpy as np
from scipy.stats import kstest, rankdata

from flowbdt.evaluation import goodness_of_fit as fit
from flowbdt.seeding import stream

LEVELS = (0.05, 0.01)


def none(x: np.ndarray, rng: np.random.Generator) -> None:
    pass


def width(x: np.ndarray, rng: np.random.Generator) -> None:
    x *= 1.15


def correlation(x: np.ndarray, rng: np.random.Generator) -> None:
    x[:, 1] = 0.25 * x[:, 0] + np.sqrt(1 - 0.25**2) * x[:, 1]


def bump(x: np.ndarray, rng: np.random.Generator) -> None:
    rows = rng.random(len(x)) < 0.04
    x[rows] = rng.normal(1.5, 0.1, (rows.sum(), 3))


def shift(x: np.ndarray, rng: np.random.Generator) -> None:
    x[:, 0] += 0.2


def tail(x: np.ndarray, rng: np.random.Generator) -> None:
    x[rng.random(len(x)) < 0.06] *= 3


def p_values(seen: fit._Tested, seed: int) -> float:
    """Return the p-value of the AUC by permutations."""
    ranks, k, rng = rankdata(seen.scores), int(seen.labels.sum()), stream(seed, "AUC")
    own = [ranks[rng.permutation(len(ranks))[:k]].sum() for _ in range(seen.n_permutations)]
    above = np.greater_equal(own, ranks[seen.labels].sum()).sum()
    return float((above + 1) / (seen.n_permutations + 1))


def trial(distortion: str, n: int, seed: int) -> tuple[float, float]:
    """Return the p-values of both tests of one classifier."""
    rng = stream(seed, f"goodness {distortion}")
    first, second = rng.normal(size=(2, n, 3))
    DISTORTIONS[distortion](second, rng)
    with mock.patch.object(fit, "_Tested", side_effect=fit._Tested) as made:
        found = fit.goodness_of_fit(first, second, seed=seed)
    return found.p_value, p_values(fit._Tested(*made.call_args.args), seed)


DISTORTIONS = {f.__name__: f for f in (none, width, correlation, bump, shift, tail)}


def main() -> None:
    """Print a line for each distortion."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=600)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="ten trials")
    options = parser.parse_args()
    for name in DISTORTIONS:
        start, n_trials = time.process_time(), 10 if options.quick else options.trials
        found = np.array([trial(name, options.events, seed) for seed in range(n_trials)])
        row = {"difference": name}
        for level in LEVELS:
            ours, auc = (found < level).mean(axis=0)
            row |= {f"power at {level:.0%}": f"{ours:.3f}", f"AUC at {level:.0%}": f"{auc:.3f}"}
        uniform = kstest(found[:, 0], "uniform").pvalue
        row |= {"KS p of uniform": f"{uniform:.2g}", "CPU s": f"{time.process_time() - start:.0f}"}
        print(common.table([row]), flush=True)


if __name__ == "__main__":
    main()
