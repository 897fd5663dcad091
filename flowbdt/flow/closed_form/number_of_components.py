"""Starts of the fit, and the number of components by the likelihood of held-out rows."""

from __future__ import annotations

import numpy as np

from ... import seeding
from ...seeding import split_mask
from .expectation_maximisation import Mixture, Rows, Settings, iterate, start

GRID = (1, 2, 5, 10, 20, 40, 80, 160)
"""Numbers of components that the search tries, from small to large."""

N_STARTS = 3
START_ROWS = 6_000
START_ITERATIONS = 10
"""Several starts are compared after a few iterations on some of the rows: cheap, and enough."""

SEARCH_ROWS = 20_000
SEARCH_ITERATIONS = 25
HELD_OUT = 0.2
FEWEST_HELD_OUT = 20
"""The search uses fewer rows and iterations than the fit, and a fifth of the rows to compare."""


def fit(rows: Rows, n_components: int, settings: Settings, seed: int, max_iter: int) -> Mixture:
    """Return the best of a few starts, iterated on all rows."""
    return iterate(best_start(rows, n_components, settings, seed), rows, settings, max_iter)[0]


def best_start(rows: Rows, n_components: int, settings: Settings, seed: int) -> Mixture:
    """Return the likeliest of a few short fits to some of the rows."""
    few = rows.take(_some(len(rows.y), max(START_ROWS, 50 * n_components), seed, "mixture-start"))
    best, highest = None, -np.inf
    for number in range(1 if n_components == 1 else N_STARTS):
        rng = seeding.stream(seed, "mixture-start", n_components, number)
        first = start(few, n_components, settings, rng)
        mixture, likelihood = iterate(first, few, settings, START_ITERATIONS)
        if best is None or likelihood > highest:
            best, highest = mixture, likelihood
    assert best is not None  # there is at least one start
    return best


def search(
    rows: Rows, settings: Settings, seed: int, max_iter: int, given: np.ndarray
) -> tuple[Mixture, dict[int, float]]:
    """Return the mixture with the best number of components, and what was found for each.

    Compared is the mean log-likelihood of held-out rows given their conditions (the variables
    ``given``, (p,), bool), which is what generation needs. The search stops when it falls.
    """
    rows_used = _some(len(rows.y), SEARCH_ROWS, seed, "mixture-search")
    held = split_mask(len(rows_used), HELD_OUT, seeding.derive(seed, "mixture-held-out"))
    found: dict[int, float] = {}
    if held.sum() < FEWEST_HELD_OUT:
        return fit(rows, 1, settings, seed, max_iter), found
    train, test = rows.take(rows_used[~held]), rows.take(rows_used[held])
    best: Mixture | None = None
    for n in GRID:
        if n > 1 and n * (rows.y.shape[1] + 2) > len(train.y):
            break
        mixture = fit(train, n, settings, seed, SEARCH_ITERATIONS)
        found[n] = _held_out(mixture, test, given)
        if best is not None and found[n] < max(list(found.values())[:-1]):
            break
        best = mixture
    assert best is not None  # the grid starts at 1
    return iterate(best, rows, settings, max_iter)[0], found


def _held_out(mixture: Mixture, test: Rows, given: np.ndarray) -> float:
    density = mixture.log_density(test)
    if given.any():
        density = density - mixture.log_density(test, given)
    return float(np.average(density, weights=test.weight))


def _some(n: int, at_most: int, seed: int, purpose: str) -> np.ndarray:
    """Return row numbers, rising: all, or a keyed choice of ``at_most``."""
    if n <= at_most:
        return np.arange(n)
    return np.sort(seeding.stream(seed, purpose).permutation(n)[:at_most])
