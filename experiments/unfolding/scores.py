"""Distances to the truth, their bootstrap replicas and floors."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.unfolding.samples import OBSERVABLES
from flowbdt.evaluation.metrics import binned_shares, quantile_edges, separation_of_shares
from flowbdt.evaluation.metrics.coverage import coverage
from flowbdt.seeding import stream

N_BINS = 50
N_REPLICAS = 40
LEVELS = (0.5, 0.68, 0.95)
N_FLOORS = 10
SHOWN_BINS = 40


def separation(truth: np.ndarray, x: np.ndarray, weight: np.ndarray) -> float:
    """Return the separation power x100 in 50 bins by quantiles of the truth (n,)."""
    edges = quantile_edges(truth, N_BINS)
    known = binned_shares(truth, np.ones(len(truth)), edges)
    return float(separation_of_shares(known, binned_shares(x, weight, edges)))


class Distance:
    """Wasserstein-1 between two samples of one column, for many sets of weights: sorts once."""

    def __init__(self, truth: np.ndarray, x: np.ndarray) -> None:
        both = np.concatenate([truth, x])
        self._order = np.argsort(both, kind="stable")
        self._steps = np.diff(both[self._order])
        self._scale = truth.std()

    def __call__(self, weight_truth: np.ndarray, weight: np.ndarray) -> float:
        """Return the distance in standard deviations of the truth."""
        shares = [weight_truth / weight_truth.sum(), -weight / weight.sum()]
        difference = np.cumsum(np.concatenate(shares)[self._order])[:-1]
        return float(np.abs(difference) @ self._steps / self._scale)


def distances(
    truth: np.ndarray, x: np.ndarray, weight: np.ndarray, of_event: np.ndarray | None
) -> dict[str, Any]:
    """Return the distances (6,) and their bootstrap replicas (b, 6).

    Parameters
    ----------
    truth : ndarray (n, 6), the events that were unfolded, at particle level
    x, weight : ndarray (k, 6), (k, 6) or (k,): the unfolded events
    of_event : ndarray (k,), the row of ``truth`` that an unfolded event was made from, so that
        both are drawn together; None if the unfolded events are other ones, drawn for themselves

    Notes
    -----
    Replicas of the same number have the same weights of ``truth`` in every method, so that
    differences of methods can be taken replica by replica. Nothing is trained anew.
    """
    weight = weight if weight.ndim == 2 else np.repeat(weight[:, None], x.shape[1], axis=1)
    of_column = [Distance(truth[:, i], x[:, i]) for i in range(x.shape[1])]
    ones = np.ones(len(truth))
    value = [d(ones, weight[:, i]) for i, d in enumerate(of_column)]
    replicas = []
    for b in range(N_REPLICAS):
        drawn = stream(0, "bootstrap truth", b).poisson(1.0, len(truth)).astype(float)
        other = stream(0, "bootstrap other", b).poisson(1.0, len(x)).astype(float)
        factor = other if of_event is None else drawn[of_event]
        replicas.append([d(drawn, weight[:, i] * factor) for i, d in enumerate(of_column)])
    return {"w1": value, "replicas": np.round(replicas, 6).tolist()}


def score(
    truth: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray,
    of_event: np.ndarray | None,
    edges: list[np.ndarray],
) -> dict[str, Any]:
    """Return separations, distances and histograms of unfolded events; as `distances`."""
    columns = weight if weight.ndim == 2 else np.repeat(weight[:, None], x.shape[1], axis=1)
    parts = [(truth[:, i], x[:, i], columns[:, i]) for i in range(x.shape[1])]
    return {
        "separation": [separation(*part) for part in parts],
        **distances(truth, x, weight, of_event),
        "histograms": [
            np.round(binned_shares(v, w, e), 7).tolist()
            for (_, v, w), e in zip(parts, edges, strict=True)
        ],
    }


def score_draws(
    truth: np.ndarray,
    draws: np.ndarray,
    weight: np.ndarray | None,
    edges: list[np.ndarray],
    seed: int,
) -> dict[str, Any]:
    """Return scores of draws (k, n, 6) with weights (k, n): separation of one draw per event.

    As many events as the truth has are compared in the separation, whose floor depends on the
    number; distances are those of all draws.
    """
    k, n, d = draws.shape
    weight = np.ones((k, n)) if weight is None else weight
    of_event = np.tile(np.arange(n), k)
    found = score(truth, draws.reshape(k * n, d), weight.ravel(), of_event, edges)
    chosen = draws[chosen_draw(weight, seed), np.arange(n)]
    found["separation"] = [separation(truth[:, i], chosen[:, i], np.ones(n)) for i in range(d)]
    return found


def chosen_draw(weight: np.ndarray, seed: int) -> np.ndarray:
    """Return the number (n,) of one draw per event, by its weight (k, n)."""
    total = np.cumsum(weight, axis=0)
    uniform = stream(seed, "chosen draw").random(weight.shape[1])
    return np.minimum((total < uniform * total[-1]).sum(axis=0), len(weight) - 1)


def calibration(truth: np.ndarray, draws: np.ndarray) -> dict[str, list[float]]:
    """Return level -> coverage of each observable's central interval; draws (k, n, 6)."""
    return {
        f"{level:g}": [
            coverage(truth[:, i], draws[:, :, i].T, level=level).value
            for i in range(truth.shape[1])
        ]
        for level in LEVELS
    }


def floors(truth: np.ndarray, n: int, seed: int = 0) -> dict[str, list[list[float]]]:
    """Return scores of truth against truth, ``n`` events each: mean and its error per column.

    The mean of random disjoint pairs of the same size.
    """
    found = []
    for i in range(N_FLOORS):
        rows = stream(seed, "floor", i).permutation(len(truth))
        n = min(n, len(truth) // 2)
        a, b, ones = truth[rows[:n]], truth[rows[n : 2 * n]], np.ones(n)
        pairs = [(a[:, j], b[:, j]) for j in range(truth.shape[1])]
        found.append(
            [[separation(*p, ones) for p in pairs], [Distance(*p)(ones, ones) for p in pairs]]
        )
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(N_FLOORS)
    names = ("separation", "w1")
    return {name: [mean[i].tolist(), error[i].tolist()] for i, name in enumerate(names)}


def shown_edges(tables: list[np.ndarray]) -> list[np.ndarray]:
    """Return bin edges of the figures, the same for all methods."""
    both = np.vstack(tables)
    edges = []
    for i, name in enumerate(OBSERVABLES):
        low, high = np.quantile(both[:, i], [0.0 if name == "ln_rho" else 0.001, 0.995])
        if name == "multiplicity":
            step = max(round((high - low) / SHOWN_BINS), 1)
            edges.append(np.arange(np.floor(low), high + step, step) - 0.5)
        else:
            edges.append(np.linspace(low, high, SHOWN_BINS + 1))
    return edges
