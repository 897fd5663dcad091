"""Differences between the scores of generators, with errors that tell which of them are real."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..seeding import stream
from ..tables.checks import relative_or_ones
from ..tables.event_table import EventTable
from .evaluate import Evaluation, aligned
from .metrics import METRICS, Result, quantile_edges, separation_of_shares
from .metrics.base import effective_size, uncertain
from .metrics.marginal import noise_free_share, separation_floor

REAL_FROM = 2.0
"""Standard errors from which a difference counts as real."""

BY_CHANCE = 0.0455
"""Share of differences of nothing that come out as real."""

NO_ORDER = ("memorisation",)
"""Scores that should be near their floor, from either side: less is not better."""

REPLICAS = 200
ALL_PAIRS = 4


@dataclass(frozen=True)
class Difference:
    """Score of the entry ``second`` minus that of ``first``, with its standard error.

    ``paired``: the error leaves out the scatter common to both (real events, splits and seeds of
    the judge).
    """

    metric: str
    column: str | None
    first: str
    second: str
    value: float
    error: float
    paired: bool

    @property
    def sigmas(self) -> float:
        """The difference in standard errors; infinite if it has none."""
        if self.error > 0:
            return self.value / self.error
        return math.copysign(math.inf, self.value) if self.value else 0.0

    @property
    def real(self) -> bool:
        """True if the difference is at least `REAL_FROM` standard errors."""
        return abs(self.sigmas) >= REAL_FROM

    @property
    def better(self) -> str | None:
        """Name of the better one; None if the difference is not real, or small is not good."""
        if not self.real or self.metric in NO_ORDER:
            return None
        return self.second if self.value < 0 else self.first

    def to_json(self) -> dict[str, Any]:
        """Return a dict that JSON can hold; ``sigmas`` that are infinite are None."""
        sigmas = self.sigmas if math.isfinite(self.sigmas) else None
        return {**asdict(self), "sigmas": sigmas, "better": self.better}


def difference(first: Result, second: Result, names: tuple[str, str]) -> Difference:
    """Return the difference of two scores of the same metric and column.

    Scores are paired where both were judged against the same real events by judges of the same
    seeds, which shows in equal floors; then classifiers saw the same splits.

    Notes
    -----
    Error of paired AUCs: from the differences d of the k splits, whose test events overlap,
    ``s^2 (1 / k + test / train)`` with s^2 the variance of d. Few splits make that a poor estimate,
    so it is kept between two bounds. Above: both errors, as of independent scores. Below: the
    half of both variances that comes from the generated events, which are independent.

    References
    ----------
    Nadeau, Bengio, "Inference for the generalization error", Machine Learning 52 (2003) 239,
    section 3; the bounds are derived here.
    """
    value, error = second.value - first.value, math.hypot(first.error, second.error)
    if (splits := _same_splits(first, second)) is not None:
        share = float(first.settings["test_share"])
        spread = float(splits.var(ddof=1)) * (1.0 / len(splits) + share / (1.0 - share))
        error = min(max(math.sqrt(spread), error / math.sqrt(2.0)), error)
    return Difference(first.name, first.column, *names, value, error, splits is not None)


def _same_splits(first: Result, second: Result) -> np.ndarray | None:
    """Return the differences (k,) split by split; None if the judges did not see the same."""
    judges = [
        (*map(r.settings.get, ("n_model_seeds", "n_split_seeds", "seed")), r.n, r.floor_text())
        for r in (first, second)
    ]
    aucs = [r.settings.get("aucs") for r in (first, second)]
    if not all(aucs) or first.floor is None or judges[0] != judges[1]:
        return None
    means = [np.asarray(rows, dtype=float).mean(axis=1) for rows in aucs]
    return means[1] - means[0] if len(means[0]) == len(means[1]) > 1 else None


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs to compare: all pairs of a few entries, else each with the first."""
    if len(names) <= ALL_PAIRS:
        return list(itertools.combinations(names, 2))
    return [(names[0], name) for name in names[1:]]


def differences(entries: Mapping[str, Evaluation]) -> list[Difference]:
    """Return the differences of all scores that both of a pair have.

    All pairs of up to `ALL_PAIRS` entries, of more only those with the first. Raises ConfigError if
    there are fewer than two entries, or nothing that two of them share.
    """
    if len(entries) < 2:
        raise ConfigError(f"there must be two or more to compare, got {len(entries)}")
    derived = {name: entry.settings.get("observables", []) for name, entry in entries.items()}
    first, *others = derived
    for name in others:
        if derived[name] != derived[first]:
            raise ConfigError(
                f"{first} was judged with the observables {derived[first] or 'none'}, {name} with"
                f" {derived[name] or 'none'}: scores of other columns cannot be compared; judge"
                " both with the same ones"
            )
    table = side_by_side(entries)
    result = [
        difference(scores[names[0]], scores[names[1]], names)
        for names in pairs(list(entries))
        for scores in table.values()
        if names[0] in scores and names[1] in scores
    ]
    if not result:
        raise ConfigError(f"{', '.join(entries)} share no metric; evaluate them with the same ones")
    return result


def side_by_side(
    entries: Mapping[str, Evaluation],
) -> dict[tuple[str, str | None], dict[str, Result]]:
    """Return metric and column -> entry -> result, in the order in which they were evaluated."""
    table: dict[tuple[str, str | None], dict[str, Result]] = {}
    for name, evaluation in entries.items():
        for result in evaluation.results:
            table.setdefault((result.name, result.column), {})[name] = result
    return table


# ---- separation power of two samples beside the same real events


@dataclass(frozen=True)
class Binned:
    """Bins (d, n) of real and of generated events, by the quantiles of the real ones."""

    real: np.ndarray
    made: np.ndarray
    weights: tuple[np.ndarray, np.ndarray]
    n_bins: int

    @classmethod
    def of(cls, real: EventTable, made: EventTable, n_bins: int = 50) -> Binned:
        """Find the bins of every column."""
        edges = [quantile_edges(real.column(name), n_bins, real.weight) for name in real.names]
        inner = list(zip(real.names, (e[1:-1] for e in edges), strict=True))
        bins = [
            np.stack([np.searchsorted(e, table.column(name), side="right") for name, e in inner])
            for table in (real, made)
        ]
        tables = (real, made)
        weights = [relative_or_ones(t.weight, t.n) for t in tables]
        return cls(bins[0], bins[1], (weights[0], weights[1]), n_bins)

    def separations(self) -> np.ndarray:
        """Return the separation power x100 of every column (d,)."""
        return np.asarray(separation_of_shares(*self._shares(1.0, 1.0)))

    def replica(self, real: Any, made: Any) -> np.ndarray:
        """Return the separations (d,) with every event counted so often, (n,) and (k,).

        The differences of the histograms are first shrunk by what noise alone explains,
        or a replica would have the noise twice (see `metrics.separation_power`).
        """
        p, q = self._shares(1.0, 1.0)
        floor = separation_floor(p, q, [effective_size(weight) for weight in self.weights])
        change = 0.5 * (1.0 - noise_free_share(p, q, floor))[:, None] * (p - q)
        p_drawn, q_drawn = self._shares(real, made)
        return np.asarray(separation_of_shares(p_drawn - change, q_drawn + change))

    def _shares(self, real: Any, made: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the shares (d, b) of real and generated events per bin."""
        shares = []
        for rows, weight in (
            (self.real, self.weights[0] * real),
            (self.made, self.weights[1] * made),
        ):
            counts = [np.bincount(row, weight, minlength=self.n_bins) for row in rows]
            shares.append(np.stack(counts) / weight.sum())
        return shares[0], shares[1]


def separation_differences(
    first: Binned, second: Binned, *, same_noise: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return differences (d + 1,) of the separation, and errors; the last is that of the mean.

    The errors come from events drawn anew, the same real ones for both samples. With
    ``same_noise`` generated events of one row come from the same noise and are drawn together.
    """
    rng = stream(seed, "separation-differences")
    n_real, n_made = first.real.shape[1], (first.made.shape[1], second.made.shape[1])
    replicas = []
    for _ in range(REPLICAS):
        real = rng.poisson(1.0, n_real)
        made = rng.poisson(1.0, n_made[0])
        other = made if same_noise else rng.poisson(1.0, n_made[1])
        replicas.append(second.replica(real, other) - first.replica(real, made))
    value = second.separations() - first.separations()
    spread = np.asarray(replicas)
    with_mean = np.column_stack([spread, spread.mean(axis=1)])
    return np.append(value, value.mean()), with_mean.std(axis=0, ddof=1)


def with_paired_separations(
    scores: Sequence[Difference], real: EventTable, samples: Mapping[str, EventTable], seed: int
) -> list[Difference]:
    """Return the differences with those of the separation paired by the real events."""
    binned = {name: Binned.of(real, table.select(real.names)) for name, table in samples.items()}
    known: dict[tuple[str, str, str | None], float] = {}
    for first, second in {(d.first, d.second) for d in scores}:
        if first in binned and second in binned:
            _, errors = separation_differences(
                binned[first], binned[second], same_noise=False, seed=seed
            )
            columns = zip((*real.names, None), errors.tolist(), strict=True)
            known |= {(first, second, column): error for column, error in columns}
    return [
        replace(d, error=known[key], paired=True)
        if d.metric == "separation" and (key := (d.first, d.second, d.column)) in known
        else d
        for d in scores
    ]


# ---- for people


def text(
    entries: Mapping[str, Evaluation], listed: Sequence[Difference], *, columns: bool = False
) -> str:
    """Return scores, differences and verdicts as text; ``columns`` adds those of single columns."""
    shown = [d for d in listed if columns or d.column is None]
    return "\n".join([*_scores(entries, columns), "", *_verdicts(shown), "", *legend(shown)])


def legend(shown: Sequence[Difference]) -> list[str]:
    """Return the number of real differences, and explanations."""
    real = sum(d.real for d in shown)
    return [
        f"{real} of {len(shown)} differences are real: {REAL_FROM:g} standard errors or more; of"
        f" so many about {BY_CHANCE * len(shown):.1f} would be by chance alone",
        "paired: judged on the same real events, splits and seeds, whose scatter is left out of the"
        " error",
    ]


def _scores(entries: Mapping[str, Evaluation], columns: bool) -> list[str]:
    rows = [("metric", "column", *entries, "floor (truth)")]
    for key, results in side_by_side(entries).items():
        if columns or key[1] is None:
            one = next(iter(results.values()))
            cells = [results[name].text() if name in results else "-" for name in entries]
            rows.append((label_of(one.name), key[1] or "", *cells, one.floor_text()))
    evaluations = [evaluations_of(e) for e in entries.values()]
    if set(evaluations) != {"-"}:
        rows.append(("evaluations of the velocity", "", *evaluations, ""))
    return aligned(rows, n_left=len(rows[0]))


def label_of(metric: str) -> str:
    """Return the name of a metric in tables."""
    return METRICS.get(metric).label if metric in METRICS.names() else metric


def evaluations_of(evaluation: Evaluation) -> str:
    """Return the evaluations of the velocity that an event took; "-" if not known."""
    return str((evaluation.settings.get("generated") or {}).get("n_evaluations", "-"))


def verdict(d: Difference) -> str:
    """Return the verdict on a difference in words."""
    return f"{d.better} is better" if d.better else "differ" if d.real else "not told apart"


def _verdicts(shown: Sequence[Difference]) -> list[str]:
    rows = [("difference", "metric", "column", "value", "in std. errors", "paired", "verdict")]
    for d in shown:
        value, paired = uncertain(d.value, d.error), "yes" if d.paired else "no"
        pair, label = f"{d.second} - {d.first}", label_of(d.metric)
        cells = (value, f"{d.sigmas:+.1f}", paired, verdict(d))
        rows.append((pair, label, d.column or "", *cells))
    return aligned(rows, n_left=len(rows[0]))
