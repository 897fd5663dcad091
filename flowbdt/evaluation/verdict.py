"""A verdict in words: what tells generated events from real ones, by how much, and what helps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from ..tables import checks
from ..tables.event_table import EventTable, with_same_codes
from ..tables.formulas.expressions import declared
from ..tables.formulas.particles import proposed_particles
from .differences import label_of
from .evaluate import Evaluation
from .metrics import Result, binned_shares, quantile_edges
from .metrics.base import effective_size
from .metrics.classifier import MOST_CLASSES

FAR = 3.0
"""Standard errors above the floor from which a score of the whole table is one that tells."""
CHANCE = 0.01
"""That any of many single scores is called far although none is."""
MOST_NAMED = 4
"""Columns or pairs that a verdict names."""
MOST_PAIRED = 40
"""Columns of which all pairs are looked at; of wider tables those that differ most."""
BINS, PAIR_BINS = 20, 8
NEARLY_FIXED = 0.95
"""R2 of a column given the others from which a relation is to be suspected."""


@dataclass(frozen=True)
class Verdict:
    """What a comparison comes to.

    Parameters
    ----------
    headline : one sentence
    differences : what is off, and by how much
    advice : what usually helps
    pairs : the pairs of columns that differ most beyond what single columns do, worst first
    """

    headline: str
    differences: tuple[str, ...]
    advice: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]

    def text(self) -> str:
        """Return all sentences, one a line."""
        return "\n".join([self.headline, *(f"- {line}" for line in self.differences + self.advice)])


def tables_as_judged(evaluation: Evaluation, *tables: Any) -> list[EventTable]:
    """Return tables with the columns and codes of the first, and the observables judged."""
    kept = evaluation.settings
    observables = declared(kept.get("observables", ()), kept.get("particles"))[0]
    given = [EventTable.of(table) for table in tables]
    names = given[0].names
    return [observables.added_to(table.select(names)) for table in with_same_codes(given)]


def verdict_of(evaluation: Evaluation, real: EventTable, generated: EventTable) -> Verdict:
    """Return what an evaluation of these tables, of the same columns and codes, comes to."""
    results = [r for r in evaluation.results if r.excess is not None and r.name != "memorisation"]
    single = [r for r in results if r.column is not None]
    limit = NormalDist().inv_cdf(1 - CHANCE / max(len(single), 1))
    whole = [r for r in results if r.column is None and "mean_over_columns" not in r.settings]
    told = [r for r in whole if (r.excess or 0.0) >= FAR]
    off = sorted((r for r in single if (r.excess or 0.0) >= limit), key=_excess)
    pairs = list(_pairs(real, generated))
    lines = [*_columns(off, real, generated), *_lost(off), *_others(off)]
    lines += [words for _, words in pairs]
    if lines or told:
        judges = [r for r in told if r.name.startswith("auc")] or told
        what = "; ".join(f"{label_of(r.name)} {r.text()} (floor {r.floor_text()})" for r in judges)
        headline = f"Told from real: {what or 'single columns or pairs are off'}."
    elif whole or single:
        headline = "Not told from real within errors."
    else:
        headline = "No floor: no verdict."
    kept = float((evaluation.settings.get("generated") or {}).get("acceptance", 1.0))
    advice = list(_advice(evaluation, off, bool(lines or told), real, generated, kept))
    return Verdict(headline, tuple(lines), tuple(advice), tuple(names for names, _ in pairs))


def _excess(result: Result) -> float:
    return -(result.excess or 0.0)


def by_excess(names: Sequence[str], evaluation: Evaluation) -> list[str]:
    """Return names of columns, those farthest above the floor in any of their scores first."""
    worst = {
        name: max((r.excess or 0.0 for r in evaluation.results if r.column == name), default=0.0)
        for name in names
    }
    return sorted(names, key=lambda name: -worst[name])


# ---- what is off


def _columns(off: Sequence[Result], real: EventTable, generated: EventTable) -> Iterator[str]:
    found: dict[str, Result] = {}
    for result in off:
        if result.name in ("separation", "wasserstein"):
            found.setdefault(str(result.column), result)
    for name, result in list(found.items())[:MOST_NAMED]:
        label, unit = label_of(result.name), " standard deviations" * (result.unit == "std")
        words = f"{name}: {label} {result.text()}{unit} (floor {result.floor_text()})"
        yield words + _worst_bin(name, real, generated)
    if len(found) > MOST_NAMED:
        yield f"and {len(found) - MOST_NAMED} more columns"


def _lost(off: Sequence[Result]) -> Iterator[str]:
    for r in [r for r in off if r.name == "lost"][:MOST_NAMED]:
        real, made = r.settings["real"], r.settings["generated"]
        yield f"{r.column} given the other columns: R2 {made:.4g} where real has {real:.4g}"


def _others(off: Sequence[Result]) -> Iterator[str]:
    known = ("separation", "wasserstein", "lost")
    for r in [r for r in off if r.name not in known][:MOST_NAMED]:
        yield f"{r.column}: {label_of(r.name)} {r.text()} (floor {r.floor_text()})"


@dataclass(frozen=True)
class _Bins:
    """The bins of a column: edges, the outer ones infinite, or one bin for each of few values."""

    name: str
    edges: np.ndarray
    values: np.ndarray | None
    texts: Sequence[str] | None

    @classmethod
    def of(cls, name: str, real: EventTable, generated: EventTable, count: int) -> _Bins:
        both = [t.by_name()[name] for t in (real, generated)]
        values = np.unique(np.concatenate(both))
        if len(values) <= MOST_CLASSES:
            edges = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
            return cls(name, edges, values, real.categories.get(name))
        return cls(name, quantile_edges(both[0], count, real.weight), None, None)

    def place(self, table: EventTable) -> np.ndarray:
        """Return the bins (n,) of the rows."""
        return np.searchsorted(self.edges[1:-1], table.by_name()[self.name], side="right")

    def said(self, i: int) -> str:
        if self.values is not None:
            value = self.values[i]
            return f"{self.name} = {self.texts[int(value)] if self.texts else f'{value:g}'}"
        low, high = self.edges[i], self.edges[i + 1]
        if not np.isfinite(low):
            return f"{self.name} below {high:.4g}"
        return (
            f"{self.name} above {low:.4g}"
            if np.isinf(high)
            else f"{self.name} {low:.4g} to {high:.4g}"
        )


def _size(table: EventTable) -> float:
    return float(table.n if table.weight is None else effective_size(table.weight))


def _weight(table: EventTable) -> np.ndarray:
    return checks.relative_or_ones(table.weight, table.n)


def _pulls(p: np.ndarray, q: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return differences of shares in units of their errors; 0 where there are no events."""
    return np.divide(q - p, error, out=np.zeros_like(p), where=error > 0)


def _is_beyond(name: str, real: EventTable, generated: EventTable) -> np.ndarray:
    """Return which generated events (n,) lie beyond the range of the real ones."""
    truth, made = real.by_name()[name], generated.by_name()[name]
    return np.asarray((made < truth.min()) | (made > truth.max()))


def _worst_bin(name: str, real: EventTable, generated: EventTable) -> str:
    """Return the bin whose share differs most, and what lies beyond the real range, in words."""
    bins = _Bins.of(name, real, generated, BINS)
    p, q = (binned_shares(t.by_name()[name], _weight(t), bins.edges) for t in (real, generated))
    variance = p * (1 - p) / _size(real) + q * (1 - q) / _size(generated)
    error = np.sqrt(np.maximum(variance, 0.0))  # a share of signed weights may be negative
    pull = _pulls(p, q, error)
    i, words = int(np.argmax(np.abs(pull))), ""
    if abs(pull[i]) >= 4:
        words = f"; {bins.said(i)} in {q[i]:.1%} of events, real {p[i]:.1%}"
    beyond = _is_beyond(name, real, generated)
    share = float(np.average(beyond, weights=_weight(generated)))
    return words + (
        f"; {share:.2%} beyond the range of real events" if share > 10 / _size(real) else ""
    )


def _pairs(real: EventTable, generated: EventTable) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield pairs that differ far more than their columns, with the bin of both that is worst.

    The chi^2 of joint shares less those of the two columns: from 6 standard deviations on.
    """
    names = [*real.names, *(n for n in real.cond_names if n in generated.by_name())]
    names = [n for n in names if all(np.isfinite(t.by_name()[n]).all() for t in (real, generated))]
    tables, sizes = (real, generated), (_size(real), _size(generated))
    places, of = {}, {}
    for name in names[:MOST_PAIRED]:
        of[name] = _Bins.of(name, real, generated, PAIR_BINS)
        places[name] = [of[name].place(table) for table in tables]
    weights = [_weight(table) / _weight(table).sum() for table in tables]

    def differ(
        codes: Sequence[np.ndarray], count: int
    ) -> tuple[float, int, np.ndarray, np.ndarray]:
        p, q = (
            np.bincount(code, weights=w, minlength=count)
            for code, w in zip(codes, weights, strict=True)
        )
        error = p / sizes[0] + q / sizes[1]
        terms = np.divide((p - q) ** 2, error, out=np.zeros_like(p), where=error > 0)
        return float(terms.sum()), int((error > 0).sum()) - 1, p, q

    alone = {name: differ(places[name], len(of[name].edges) - 1) for name in places}
    found = []
    for a, b in itertools.combinations(places, 2):
        wide = len(of[b].edges) - 1
        codes = [i * wide + j for i, j in zip(places[a], places[b], strict=True)]
        total, dof, p, q = differ(codes, (len(of[a].edges) - 1) * wide)
        rest = total - alone[a][0] - alone[b][0]
        free = max(dof - alone[a][1] - alone[b][1], 1)
        if (sigma := (rest - free) / np.sqrt(2 * free)) >= 6:
            pull = _pulls(p, q, np.sqrt(np.maximum(p / sizes[0] + q / sizes[1], 0.0)))
            i, j = divmod(int(np.argmax(np.abs(pull))), wide)
            k = i * wide + j
            where = f"{of[a].said(i)} and {of[b].said(j)}"
            found.append(((a, b), sigma, f"{where} in {q[k]:.2%} of events, real {p[k]:.2%}"))
    for names_of_pair, _, words in sorted(found, key=lambda one: -one[1])[: MOST_NAMED - 1]:
        yield names_of_pair, f"{' with '.join(names_of_pair)}: {words}"


# ---- what helps


def _advice(
    evaluation: Evaluation,
    off: Sequence[Result],
    differs: bool,
    real: EventTable,
    generated: EventTable,
    kept: float,
) -> Iterator[str]:
    settings = evaluation.settings
    if kept < 1:
        words = f"the rejection kept {kept:.0%} of the events that were drawn"
        if kept < 0.5:
            words += ": it had much to set right, and generation costs as much more. What the flow"
            words += " itself learns better (particles, relations) needs less of it"
        yield words
    if not differs:
        n = evaluation.sizes["compared"]
        yield f"smaller differences than {n:,} events of each show may be there: more show more"
        return
    computed = {text.partition("=")[0].strip() for text in settings.get("observables", ())}
    fixed = [
        str(r.column)
        for r in off
        if r.name == "lost" and r.settings["real"] >= NEARLY_FIXED and r.column not in computed
    ]
    if fixed:
        yield (
            f"the other columns fix {', '.join(fixed[:MOST_NAMED])} in real events: declare the"
            " relation ('flowbdt fit TABLE --dry-run' looks for it)"
        )
    proposed = proposed_particles(real.names)
    if proposed and not settings.get("particles"):
        yield f"names suggest particles ({', '.join(proposed)}): declare them (particles=)"
    if any(r.name == "profiles" for r in off):
        yield "columns that follow a condition are learned better relative to it (relative=)"
    most = 0.002 + 10 / real.n
    beyond = [name for name in real.names if _is_beyond(name, real, generated).mean() > most]
    if beyond:
        names = ", ".join(beyond[:MOST_NAMED])
        yield f"events lie beyond the real range of {names}: a cut ends it (require=)"
    if kept == 1 and settings.get("generated"):
        yield "a rejection takes out what boosted trees see (rejection=True)"
    yield "more training events, more steps"
