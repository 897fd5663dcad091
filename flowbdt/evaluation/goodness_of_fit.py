"""Goodness of fit: how likely two samples of one distribution differ as much as two given ones.

Boosted trees learn the log of the ratio of densities from one half of the events; the other half
tells whether they have learned something. As they have not seen its labels, these can be permuted,
and one classifier is enough for a p-value that is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..seeding import derive, split_mask, stream
from ..tables import checks
from ..tables.conditions import ColumnScaling
from ..tables.event_table import EventTable, with_same_codes
from ..trees.density_ratio import DensityRatio
from ..trees.signed_weights import positive_weights
from .metrics.classifier import partners_of

HALF = 0.5
FEWEST = 40
"""Events of each sample at least."""

FEWEST_TESTED = 5
"""Tested events of each sample that a bin needs."""


@dataclass(frozen=True)
class GoodnessOfFit:
    """The answer of a test, for all events or those of a bin.

    Parameters
    ----------
    p_value : probability of such a statistic or a larger one where the distributions are equal
    statistic : mean log ratio of the second sample above that of the first, in nats
    sigmas : the statistic above its mean without a difference, in units of its spread there
    n_first, n_second : events that were tested, about half of all
    low, high : edges of the bin; infinite for all events
    bins : the same test in each bin
    """

    p_value: float
    statistic: float
    sigmas: float
    n_first: int
    n_second: int
    low: float = -np.inf
    high: float = np.inf
    bins: tuple[GoodnessOfFit, ...] = ()

    def text(self, by: str | None = None) -> str:
        """Return a line, and one for each bin of a column ``by``."""
        where = "" if by is None else f"{by} {self.low:.4g} to {self.high:.4g}: "
        where = where if np.isfinite([self.low, self.high]).any() else ""
        line = f"{where}p = {self.p_value:.3g} ({self.sigmas:+.1f} sigma)"
        return "\n".join([line, *(f"  {each.text(by)}" for each in self.bins)])

    def to_json(self) -> dict[str, Any]:
        """Return plain values; edges of all events are None."""
        content = asdict(self)
        edges = {k: content[k] if np.isfinite(content[k]) else None for k in ("low", "high")}
        return content | edges | {"bins": [each.to_json() for each in self.bins]}


def goodness_of_fit(
    first: Any,
    second: Any,
    *,
    weight_first: Any = None,
    weight_second: Any = None,
    by: str | None = None,
    n_bins: int = 4,
    n_permutations: int = 999,
    seed: int = 0,
    n_threads: int = 1,
) -> GoodnessOfFit:
    """Test if two samples are of one distribution.

    Parameters
    ----------
    first, second : tables with the same columns, n and k rows; NaN and categories are allowed.
        Conditions of an EventTable are columns, too
    weight_first, weight_second : event weights (n,) and (k,), by default those of the tables, of
        either sign; with any, p comes from the errors of the weighted means, not from permutations
    by : a column, such as a condition: the test is made in ``n_bins`` bins of equal counts, too,
        and as a whole it compares events of the same bin only, so that how often conditions come
        does not count. Events of both samples with equal values there, and equal conditions, are
        learned from or tested together
    n_permutations : of the labels of tested events
    seed : of the split, of the trees and of the permutations

    Raises InputError if a sample has fewer than 40 events, columns differ, or ``by`` is none.

    Source: Lopez-Paz, Oquab, "Revisiting classifier two-sample tests", arXiv 1610.06545 (the test);
    the log of the ratio for its statistic as in D'Agnolo, Wulzer, "Learning new physics from a
    machine", arXiv 1806.02350, here of events that were not learned from.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> x, y = rng.normal(size=(2, 1000, 1))
    >>> goodness_of_fit(x, y + 0.5).p_value
    0.001
    """
    tables = with_same_codes([EventTable.of(each, missing=True) for each in (first, second)])
    one = _with_conditions(tables[0])
    other = _with_conditions(tables[1]).select(one.names)
    if min(one.n, other.n) < FEWEST:
        raise InputError(
            f"goodness of fit needs {FEWEST} events of each sample, got {one.n} and {other.n}"
        )
    if by is not None:
        checks.known_columns([by], one.names, "bins of goodness of fit")
    given = [
        table.weight if weight is None else weight
        for table, weight in ((one, weight_first), (other, weight_second))
    ]
    weights = [
        np.ones(table.n) if weight is None else checks.weights(weight, table.n, signed=True)
        for table, weight in zip((one, other), given, strict=True)
    ]
    x, labels = np.vstack([one.x, other.x]), np.repeat([False, True], [one.n, other.n])
    names = dict.fromkeys([*tables[0].cond_names, *([by] if by else [])])
    shared = [one.names.index(name) for name in names]
    partners = partners_of(x[: one.n, shared], x[one.n :, shared]) if shared else None
    groups = np.arange(len(x)) if partners is None else partners
    learned = split_mask(int(groups.max()) + 1, HALF, derive(seed, "fit-split"))[groups]
    scores = _log_ratio(x, labels, np.concatenate(weights), learned, seed, n_threads)
    unit = all(weight is None for weight in given)
    tested = _Tested(
        scores[~learned],
        labels[~learned],
        None if unit else np.concatenate(weights)[~learned],
        n_permutations,
    )
    if by is None:
        return tested.result(np.zeros(len(tested.scores), dtype=int), derive(seed, "permute"))
    column = x[~learned, one.names.index(by)]
    edges = np.unique(np.nanquantile(column, np.arange(1, n_bins) / n_bins))
    place = np.where(np.isnan(column), len(edges) + 1, np.searchsorted(edges, column, "right"))
    limits = np.concatenate([[np.nanmin(column)], edges, [np.nanmax(column)]])
    bins = tuple(tested.in_bins(place, limits, seed))
    return tested.result(place, derive(seed, "permute"), bins=bins)


def _with_conditions(table: EventTable) -> EventTable:
    if table.cond is None:
        return table
    return replace(table.with_columns(table.cond_names, table.cond), cond=None, cond_names=())


def _log_ratio(
    x: np.ndarray,
    labels: np.ndarray,
    weight: np.ndarray,
    learned: np.ndarray,
    seed: int,
    n_threads: int,
) -> np.ndarray:
    """Return the log ratio (n,) of the second sample to the first, learned from some rows."""
    parts, kept = [], []
    for label in (True, False):
        rows = learned & (labels == label)
        own = positive_weights(x[rows], weight[rows], seed=derive(seed, "fit-sign", int(label)))
        parts.append(x[rows])
        kept.append(own.weight)
    # the second class has equal weights: events of it are as many as their weights say
    rng = stream(seed, "fit-draw")
    if kept[1].min() < kept[1].max():
        share = kept[1] / kept[1].sum()
        parts[1] = parts[1][rng.choice(len(share), len(share), p=share)]
    scaling = ColumnScaling.fit(x)
    scaled = [scaling.forward(part) for part in (*parts, x)]
    ratio = DensityRatio.fit(
        scaled[0], scaled[1], kept[0], seed=derive(seed, "fit-trees"), n_threads=n_threads
    )
    inputs = np.ascontiguousarray(scaled[2], dtype=np.float32)
    return np.asarray(ratio.log_ratio(inputs), dtype=np.float64).reshape(len(x))


@dataclass(frozen=True, eq=False)
class _Tested:
    """Log ratios (n,) of tested events, whether they are of the second sample, weights if any."""

    scores: np.ndarray
    labels: np.ndarray
    weight: np.ndarray | None
    n_permutations: int

    def in_bins(self, place: np.ndarray, limits: np.ndarray, seed: int) -> Iterator[GoodnessOfFit]:
        for i in range(len(limits) - 1):
            mine = place == i
            if min(self.labels[mine].sum(), (~self.labels[mine]).sum()) >= FEWEST_TESTED:
                weight = None if self.weight is None else self.weight[mine]
                part = _Tested(self.scores[mine], self.labels[mine], weight, self.n_permutations)
                yield part.result(place[mine], derive(seed, "permute", i), limits[i], limits[i + 1])

    def result(
        self,
        place: np.ndarray,
        seed: int,
        low: float = -np.inf,
        high: float = np.inf,
        bins: tuple[GoodnessOfFit, ...] = (),
    ) -> GoodnessOfFit:
        """Return the test of events that are compared with those at the same place (n,)."""
        counts = int((~self.labels).sum()), int(self.labels.sum())
        tested = self._permuted if self.weight is None else self._weighted
        return GoodnessOfFit(*tested(place, seed), *counts, float(low), float(high), bins)

    def _permuted(self, place: np.ndarray, seed: int) -> tuple[float, float, float]:
        """Return p, statistic and sigmas by permutations within places."""
        rng, totals, share = stream(seed, "permutations"), np.zeros(self.n_permutations + 1), 0
        for i in np.unique(place):
            scores, labels = self.scores[place == i], self.labels[place == i]
            n, k = len(labels), int(labels.sum())
            if not 0 < k < n:
                continue
            scores = scores - scores.mean()  # then sums of the second sample tell all
            # of n - k and k events: the difference of means is n / (k (n - k)) of the sum
            factor = n / (k * (n - k)) * n
            totals[0] += factor * scores[labels].sum()
            for j in range(self.n_permutations):
                totals[1 + j] += factor * scores[rng.permutation(n)[:k]].sum()
            share += n
        totals /= max(share, 1)
        near = 1e-9 * np.abs(totals).max()
        above, equal = (totals[1:] > totals[0] + near).sum(), abs(totals[1:] - totals[0]) <= near
        p = (above + rng.random() * equal.sum() + 1) / (self.n_permutations + 1)
        spread = totals[1:].std() or 1.0
        return float(min(p, 1.0)), float(totals[0]), float((totals[0] - totals[1:].mean()) / spread)

    def _weighted(self, place: np.ndarray, seed: int) -> tuple[float, float, float]:
        """Return the same by the errors of weighted means."""
        from scipy.special import ndtr

        assert self.weight is not None
        total, variance, share = 0.0, 0.0, 0.0
        for i in np.unique(place):
            means, errors, mass = [], 0.0, 0.0
            for label in (False, True):
                rows = (place == i) & (self.labels == label)
                w, s = self.weight[rows], self.scores[rows]
                if w.sum() <= 0:
                    break
                means.append(float(w @ s / w.sum()))
                errors += float((w**2 @ (s - means[-1]) ** 2) / w.sum() ** 2)
                mass += len(s)
            if len(means) == 2:
                total += mass * (means[1] - means[0])
                variance, share = variance + mass**2 * errors, share + mass
        sigmas = total / np.sqrt(variance) if variance > 0 else 0.0
        return float(ndtr(-sigmas)), total / max(share, 1.0), float(sigmas)
