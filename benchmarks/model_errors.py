"""How often bands of an ensemble contain the truth of closed forms, and what its events are worth.

Usage: python benchmarks/model_errors.py [--toys NAMES] [--trainings N] [--rows N] [--replicas N]
[--events N] [--quick]; prints a line per toy. Bands are those of histograms of 20 bins of equal
true content, at 68%. ``jets`` are those of the package, 12 columns, and their truth is the held-out
events, whose error is part of the bands. The worth of events is the number of real ones whose
histograms deviate from
the truth as those of the ensemble do, beside what the spread of the replicas says.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from flowbdt import FlowBDT
from flowbdt.evaluation.model_errors import amplification, bin_errors
from flowbdt.physics import bundled
from flowbdt.tables.event_table import EventTable

BINS = 20


def correlated(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.multivariate_normal([0, 1], [[1, 0.7], [0.7, 2]], n)


def mixture(n: int, rng: np.random.Generator) -> np.ndarray:
    few, many = rng.normal([2, 0], [0.5, 1], (n, 2)), rng.normal([-1, 1], [1, 0.6], (n, 2))
    return np.where(rng.random(n)[:, None] < 0.3, few, many)


def falling(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.column_stack([rng.exponential(1, n), rng.gamma(2, 1, n)])


def bounded(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.column_stack([rng.uniform(0, 1, n), rng.beta(2, 5, n)])


def peak(n: int, rng: np.random.Generator) -> np.ndarray:
    mass = np.where(rng.random(n) < 0.4, rng.normal(91, 2.5, n), 60 + rng.exponential(20, n))
    return np.column_stack([mass, rng.lognormal(0, 0.5, n)])


def ring(n: int, rng: np.random.Generator) -> np.ndarray:
    radius, angle = rng.normal(2, 0.4, n), rng.uniform(-np.pi, np.pi, n)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def tails(n: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_t(5, n)
    return np.column_stack([x, 0.5 * x**2 + rng.gumbel(0, 1, n)])


def jets(n: int, rng: np.random.Generator) -> np.ndarray:
    """Of more events than there are to train: those held out."""
    pool = bundled().load("train").x
    pool = bundled().load("test").x if n > len(pool) else pool
    return rng.permutation(pool)[:n]


FRESH = (ring, tails)
"""Toys that no setting was chosen by."""

TOYS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    f.__name__: f for f in (correlated, mixture, falling, bounded, peak, *FRESH, jets)
}


def judge(name: str, given: argparse.Namespace) -> str:
    """Return what trainings on one toy say: coverage with and without model error, and worth."""
    truth, start = TOYS[name](2_000_000, np.random.default_rng(99)), time.process_time()
    edges = np.quantile(truth, np.linspace(0, 1, BINS + 1), axis=0)
    edges[0], edges[-1] = -1e300, 1e300
    known = (1 - 1 / BINS) / BINS / len(truth)
    inside, claimed, squares = [], [], []
    for number in range(given.trainings):
        x = TOYS[name](given.rows, np.random.default_rng(1000 + number))
        executor = {"name": "serial", "n_threads": 1}
        settings = {"preset": "fast", "executor": executor, "random_state": number}
        model = FlowBDT(n_replicas=given.replicas, **settings).fit(x)
        new = model.sample(given.events, random_state=1)
        replica = model.replicas_of(given.events, 1)
        for j in range(x.shape[1]):
            found = bin_errors(new[:, j], replica, edges[:, j])
            off = np.abs(found.share - 1 / BINS)
            bands = (np.sqrt(error**2 + known) for error in (found.total, found.statistical))
            inside.append([(off < band).mean() for band in bands])
            squares.append((off**2 - found.statistical**2 - known).sum())
        worth = amplification(EventTable.of(new), replica)
        claimed.append([1 / one.events for one in worth if one.region == "all"])
    both, alone = np.mean(inside, axis=0)
    real = (1 - 1 / BINS) / np.mean(np.reshape(squares, (-1, truth.shape[1])), axis=0)
    says = 1 / np.mean(claimed, axis=0)
    columns = ", ".join(f"{a:,.0f} ({b:,.0f})" for a, b in zip(real, says, strict=True))
    seconds = time.process_time() - start
    return (
        f"{name:12} in the band {both:.1%}, without model error {alone:.1%}; worth by the truth (by"
        f" replicas) {columns}; {seconds:.0f} CPU s"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toys", default=",".join(TOYS))
    parser.add_argument("--trainings", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--quick", action="store_true", help="one small training of two toys")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.toys, arguments.trainings, arguments.rows = "correlated,peak", 1, 1_000
    for toy in arguments.toys.split(","):
        print(judge(toy, arguments), flush=True)
