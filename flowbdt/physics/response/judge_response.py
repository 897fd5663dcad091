"""Judge a chain on events that it was not trained on: real against generated output, bin by bin."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ...errors import ConfigError, InputError
from ...evaluation.metrics.base import Result, uncertain
from ...evaluation.metrics.classifier import classifier_auc, make_mlp
from ...evaluation.metrics.joint import correlation_distance, frechet_distance
from ...evaluation.metrics.marginal import tag_roc, wasserstein, weighted_quantiles
from ...registry import unknown
from ...seeding import derive, split_mask, stream
from ...tables.event_table import EventTable
from ...tables.formulas.particles import OF_SUM, Particle, wrapped
from ...trees.boosted_trees import make_classifier
from .chain import ChainContent, ResponseChain
from .declaration import Home, Stage
from .events import Events, Objects, check_finite
from .quantities import Quantity
from .stage_tables import Rows, matched_rows, matches_of, needed_branches, stage_table

RATIOS, DIFFERENCES, ANGLES = ("pt", "mass", "energy", "E"), ("eta", "rapidity"), ("phi",)
"""Endings of branches that are compared with the parent's of the same ending."""

SMALLEST_BIN = 500
"""Objects in a bin, at least."""
FEW_VALUES = 10
"""Values of a branch of the parent by which repeated values are told apart."""
FEWEST_OF_CLASS = 100
"""Objects of each class of a ROC curve, and events with a pair, at least."""
REPEATED = 0.01
"""Share of one value from which on it is a repeated one."""
DRAWN_KINDS = ("number", "properties", "event")
"""Stages that may have a reliability curve."""
RELIABILITY_BINS = 10
"""Bins of a reliability curve, of equal counts."""
MOST_JUDGED = 20_000
"""Rows of each kind that classifiers see."""

QUANTILES = {"16%": 0.16, "median": 0.5, "84%": 0.84}
TAILS = {**QUANTILES, "95%": 0.95, "99%": 0.99}
"""Of quantities of the event: missing momentum, masses of pairs."""
Bins = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Comparison:
    """A number of real and of generated events.

    ``error`` is that of the difference: bootstrap of the events, with the error that the training
    events leave.
    """

    quantity: str
    bin: str
    n: int
    real: float
    generated: float
    error: float

    @property
    def pull(self) -> float:
        """The difference in units of its error."""
        return (self.generated - self.real) / self.error if self.error > 0 else 0.0


@dataclass(frozen=True)
class ResponseScores:
    """What `judge_response` found: comparisons, and by stage areas under ROC curves by judge.

    ``distances`` by stage: mean Wasserstein-1 of its columns in standard deviations, Frechet
    distance x1000 and distance of the correlations of conditions and columns together; with the
    areas of trees and `Comparison` they are the metrics of FlowSim (arXiv 2402.13684).
    """

    comparisons: list[Comparison]
    areas: dict[str, dict[str, Result]]
    n_events: int
    distances: dict[str, dict[str, Result]] = field(default_factory=dict)

    def summary(self) -> dict[str, dict[str, float]]:
        """Return bins, chi2 per bin and largest pull of each quantity."""
        pulls: dict[str, list[float]] = {}
        for one in self.comparisons:
            pulls.setdefault(one.quantity, []).append(one.pull)
        return {
            name: {
                "bins": len(of),
                "chi2_per_bin": float(np.square(of).mean()),
                "largest_pull": float(np.abs(of).max()),
            }
            for name, of in pulls.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Return a dict that JSON can hold."""
        areas, distances = (
            {k: {j: r.to_json() for j, r in of.items()} for k, of in found.items()}
            for found in (self.areas, self.distances)
        )
        compared = [{**asdict(one), "pull": one.pull} for one in self.comparisons]
        return {
            "events": self.n_events,
            "summary": self.summary(),
            "areas": areas,
            "distances": distances,
            "comparisons": compared,
        }

    def text(self) -> str:
        """Return tables: by quantity, areas under ROC curves, and all bins."""
        lines = [f"{'quantity':44} bins  chi2/bin  largest pull"]
        for name, sums in self.summary().items():
            chi2, pull = sums["chi2_per_bin"], sums["largest_pull"]
            lines.append(f"{name:44} {sums['bins']:4}  {chi2:8.2f}  {pull:12.1f}")
        lines += ["", "real against generated, AUC (0.5: not told apart)"]
        for name, judges in self.areas.items():
            said = "  ".join(f"{judge} {result.text()}" for judge, result in judges.items())
            lines.append(f"{name:24} {said}")
        lines += ["", "distances of real and generated"]
        for name, found in self.distances.items():
            said = "  ".join(f"{what} {result.text()}" for what, result in found.items())
            lines.append(f"{name:24} {said}")
        lines += ["", f"{'quantity':44} {'bin':44} {'n':>7} {'real':>10} {'generated':>10}  pull"]
        for one in self.comparisons:
            numbers = f"{one.real:10.4g} {uncertain(one.generated, one.error):>18}"
            lines.append(f"{one.quantity:44} {one.bin:44} {one.n:7} {numbers} {one.pull:5.1f}")
        return "\n".join(lines)


def judge_response(
    chain: ResponseChain,
    events: Any,
    *,
    bins: Bins | None = None,
    tags: Mapping[str, str] | None = None,
    pairs: Mapping[str, str] | None = None,
    seed: int = 0,
    n_bootstrap: int = 40,
    quick: bool = False,
) -> ResponseScores:
    """Generate output for the input of events, and compare it with their own.

    Parameters
    ----------
    events : as for `ResponseChain.fit`, not trained on
    bins : edges by branch or expression of the parent, such as ``{"GenJet_pt": [15, 20, 30, 50],
        "abs(GenJet_eta)": [0, 1.3, 2.5, 4.7]}``; by default quantiles of pt and abs(eta). Bins of
        fewer than 500 objects are left out
    tags : by column an expression of the parent that it should tell, such as ``{"Jet_btag":
        "GenJet_flavour == 5"}``: areas under ROC curves of objects with a parent, in all bins and
        beside each other value of few-valued branches that it uses
    pairs : by name an expression of objects, such as ``{"m_bb": "Jet_btag > 0.5", "m_mumu":
        "Muon_pt > 5"}``: how often two objects meet it, and the mass of the first two that do (of
        branches pt, eta, phi, and mass or 0)
    seed : of the generated events, bootstrap and classifiers
    n_bootstrap : replicas of the events
    quick : one split and one model of each classifier instead of three each

    Event weights that the chain was trained with count everywhere. Raises InputError if branches
    are missing.
    """
    chain.check_fitted()
    asked: Any = {"bins": bins, "tags": tags, "pairs": pairs}
    settings: Any = {"n_bootstrap": n_bootstrap, "quick": quick, "seed": seed}
    judge = ResponseJudge(chain.content_, Events.of(events), **asked, **settings)
    scores = judge(chain.sample(events, random_state=derive(seed, "judge")))
    return replace(scores, comparisons=[*scores.comparisons, *reliability(chain, judge.real)])


def reliability(chain: ResponseChain, real: Events) -> Iterator[Comparison]:
    """Yield the reliability curves of stages that are one classifier: of numbers, and of classes.

    In bins of the probability of at least one object, or of a class: how often there was one,
    beside the mean of the probability.
    """
    content = chain.content_
    for home in content.homes:
        for stage in home.stages:
            known = content.stages[stage.name]
            if known.constant is not None or not known.rows or stage.kind not in DRAWN_KINDS:
                continue
            flow = chain.flow(stage.name)
            if flow.discrete is None or flow.n_latent or len(flow.transform.skeleton) > 1:
                continue
            table = stage_table(stage, home, real, content.weight)
            nothing = np.full((table.n, 1), np.nan)
            values = flow.transform.skeleton.values[0]
            classes = list(enumerate(values[:FEW_VALUES]))
            if stage.kind == "number":
                classes = [(0, values[0])] if values[0] == 0 else []
            for code, value in classes:
                codes = np.full((table.n, 1), code)
                drawn = flow.discrete.log_probability(nothing, table.cond, codes)
                found, expected = table.x[:, 0] == value, np.exp(drawn)
                name = f"{stage.columns[0]} = {value:g}, by probability"
                if stage.kind == "number":  # at least one
                    found, expected = ~found, -np.expm1(drawn)
                    name = f"{home.name}: found, by probability"
                yield from _curve(name, found, expected, table.weight, known.rows)


def _curve(
    name: str, found: np.ndarray, expected: np.ndarray, weights: np.ndarray | None, trained: int
) -> Iterator[Comparison]:
    """Yield, in bins of probabilities (n,), how often it was so and what was expected."""
    n = len(found)
    weight = np.ones(n) if weights is None else weights
    order = np.argsort(expected, kind="stable")
    for rows in np.array_split(order, min(n // SMALLEST_BIN, RELIABILITY_BINS) or 1):
        share, mean = (np.average(of[rows], weights=weight[rows]) for of in (found, expected))
        variance = (weight[rows] ** 2).sum() / weight[rows].sum() ** 2 * mean * (1 - mean)
        cell = f"{expected[rows[0]]:.3f} to {expected[rows[-1]]:.3f}"
        error = float(np.sqrt(variance * (1 + n / trained)))
        yield Comparison(name, cell, len(rows), float(share), float(mean), error)


class ResponseJudge:
    """Compares output for the input of real events with their own; see `judge_response`.

    ``content`` says what a chain makes; others may make the same.
    """

    def __init__(
        self,
        content: ChainContent,
        real: Events,
        *,
        bins: Bins | None = None,
        tags: Mapping[str, str] | None = None,
        pairs: Mapping[str, str] | None = None,
        seed: int = 0,
        n_bootstrap: int = 40,
        quick: bool = False,
    ) -> None:
        homes = content.homes
        needed = {b for home in homes for b in needed_branches(home, content.weight)}
        known = {*real.names, *(f"n{name}" for name in real.collections)}
        if missing := sorted(needed - known):
            raise InputError(f"to judge a chain, events need its output too; missing: {missing}")
        check_finite(real, sorted(needed & set(real.names)))
        _check_bins(bins or {}, [str(home.parent) for home in homes if home.parent], real)
        self._asked = (
            bins,
            _read_tags(tags or {}, homes, real),
            _read_pairs(pairs or {}, homes, real),
        )
        self.content, self.seed, self.quick = content, seed, quick
        self.real = _without_dropped(homes, real)
        rng = stream(seed, "judge-bootstrap")
        one = np.ones(real.n) if content.weight is None else real.columns[content.weight]
        self.weights = np.vstack([one, one * rng.poisson(1.0, (n_bootstrap, real.n))])

    def __call__(self, generated: Any) -> ResponseScores:
        """Return what differs between real events and those generated for the same input."""
        content = self.content
        pair = self.real, _without_dropped(content.homes, Events.of(generated))
        comparisons: list[Comparison] = []
        for home in content.homes:
            rows = max(content.stages[home.stages[0].name].rows, 1)
            training = _training_share(home, self.real, rows)
            comparer = _Comparer(home, pair, self.weights, self.real.n, training)
            found = comparer.event() if home.is_event else comparer.objects(*self._asked)
            comparisons += found
        told = _told_apart(content, pair, self.seed, self.quick)
        return ResponseScores(comparisons, told[0], self.real.n, told[1])


def _without_dropped(homes: list[Home], events: Events) -> Events:
    """Return events without the objects that a chain leaves out."""
    for home in homes:
        if home.dropped:
            objects = events.collections[home.name]
            kept = matches_of(home, events).parent >= 0
            counts = np.bincount(objects.event[kept], minlength=events.n)
            columns = {name: values[kept] for name, values in objects.columns.items()}
            events = events.with_objects(home.name, Objects(counts, columns))
    return events


def _check_bins(bins: Bins, parents: Sequence[str], events: Events) -> None:
    """Raise ConfigError unless all bins are rising edges of an expression of a parent."""
    own = {branch for name in parents for branch in events.collections[name].columns}
    for text, edges in bins.items():
        numbers = isinstance(edges, Sequence) and not isinstance(edges, str)
        if not numbers or len(edges) < 2 or not all(a < b for a, b in itertools.pairwise(edges)):
            raise ConfigError(f"bins of {text!r} are two or more rising edges, got {edges!r}")
        quantity = Quantity.parse(f"axis = {text}")
        quantity.check({*events.names, *(f"n{name}" for name in events.collections)})
        if quantity.own.isdisjoint(own):
            raise ConfigError(f"bins of {text!r} must use a branch of {' or '.join(parents)}")


def _read_tags(tags: Mapping[str, str], homes: list[Home], events: Events) -> dict[str, Quantity]:
    """Return what columns should tell. Raises ConfigError unless it is of the parent."""
    columns = {c: str(home.parent) for home in homes if home.parent for c in home.columns}
    found = {}
    for column, text in tags.items():
        if column not in columns:
            raise unknown("column of a collection with a parent", column, columns)
        found[column] = quantity = Quantity.parse(f"tag = {text}")
        quantity.check(events.names)
        if quantity.own.isdisjoint(events.collections[columns[column]].columns):
            raise ConfigError(f"tags: {text!r} must use a branch of {columns[column]}")
    return found


def _read_pairs(
    pairs: Mapping[str, str], homes: list[Home], events: Events
) -> dict[str, tuple[str, Quantity, Particle]]:
    """Return by name collection, condition and particle of its objects. Raises ConfigError."""
    found = {}
    for name, text in pairs.items():
        quantity = Quantity.parse(f"pair = {text}")
        quantity.check(events.names)
        home = next((h for h in homes if not quantity.own.isdisjoint(h.columns)), None)
        if home is None or home.is_event or not quantity.own <= {*home.columns, *events.columns}:
            raise ConfigError(f"pairs: {text!r} must use generated branches of one collection")
        spec: dict[str, Any] = {part: f"{home.name}_{part}" for part in ("pt", "eta", "phi")}
        if missing := sorted(set(spec.values()) - set(home.columns)):
            raise ConfigError(f"pairs: {name!r} needs {', '.join(missing)}, which is not generated")
        mass = f"{home.name}_mass"
        spec["mass"] = mass if mass in home.columns else 0.0
        found[name] = home.name, quantity, Particle.read("one", spec)
    return found


def _training_share(home: Home, events: Events, rows: int) -> float:
    """Return judged over trained rows: the variance that training adds, in units of the other."""
    if home.is_event or home.parent is None:
        return events.n / rows
    return len(events.collections[home.parent]) / rows


class _Comparer:
    """Compares real and generated output of a collection or of event columns."""

    def __init__(
        self,
        home: Home,
        pair: tuple[Events, Events],
        weights: np.ndarray,
        n: int,
        training: float,
    ) -> None:
        self.home, self.pair, self.weights, self.n = home, pair, weights, n
        self.training = training

    def event(self) -> Iterator[Comparison]:
        """Yield mean and quantiles of event columns."""
        for name in self.home.columns:
            values = [(e.columns[name].astype(np.float64), np.arange(self.n)) for e in self.pair]
            yield from self._shape(name, "all", values, TAILS)

    def objects(
        self,
        bins: Bins | None,
        tags: Mapping[str, Quantity],
        pairs: Mapping[str, tuple[str, Quantity, Particle]],
    ) -> Iterator[Comparison]:
        """Yield what is compared of a collection."""
        yield from self._numbers()
        if self.home.parent is not None:
            cells = list(self._cells(bins))
            yield from self._efficiency(cells)
            yield from self._response(cells)
            for column in self.home.columns:
                if column in tags:
                    yield from self._tag(column, tags[column], cells)
        for name, (home, meets, particle) in pairs.items():
            if home == self.home.name:
                yield from self._pair(name, meets, particle)
        yield from self._repeated()

    def _numbers(self) -> Iterator[Comparison]:
        name = self.home.name
        every = np.arange(self.n)
        counts = [(e.collections[name].counts.astype(np.float64), every) for e in self.pair]
        yield self._mean(f"n{name} per event", "all", counts)
        if self.home.parent is not None and not self.home.dropped:
            fakes = []
            for events in self.pair:
                objects, parent = events.collections[name], matches_of(self.home, events).parent
                number = np.bincount(objects.event[parent < 0], minlength=self.n)
                fakes.append((number.astype(np.float64), every))
            yield self._mean(f"{name} without parent per event", "all", fakes)

    def _cells(self, bins: Bins | None) -> Iterator[tuple[str, np.ndarray]]:
        """Yield bins of parents: name, and which parents (p,) are in it."""
        events = self.pair[0]
        parents = events.collections[str(self.home.parent)]
        rows = Rows.of_objects(*_every(parents))
        axes = []
        for text, edges in self._edges(bins, rows):
            quantity = Quantity.parse(f"axis = {text}")
            values = quantity.values(events, rows.event, rows.own)
            spans = itertools.pairwise(edges)
            axes.append([(f"{text} {a:g}-{b:g}", (values >= a) & (values < b)) for a, b in spans])
        for parts in itertools.product(*axes):
            inside = np.logical_and.reduce([mask for _, mask in parts])
            if inside.sum() >= SMALLEST_BIN:
                yield ", ".join(name for name, _ in parts), inside

    def _edges(self, bins: Bins | None, rows: Rows) -> Iterator[tuple[str, Sequence[float]]]:
        if bins is not None:
            own = {text: b for text, b in bins.items() if self._is_own(text, rows)}
            yield from own.items()
            return
        name = self.home.parent
        for branch, text, n_bins in ((f"{name}_pt", "{}", 5), (f"{name}_eta", "abs({})", 3)):
            if branch in rows.own:
                values = rows.own[branch].astype(np.float64)
                values = np.abs(values) if "abs" in text else values
                inner = np.quantile(values, np.linspace(0, 1, n_bins + 1)[:-1])
                edges = sorted({float(f"{edge:.3g}") for edge in inner})
                yield text.format(branch), [*edges, float(f"{1.01 * values.max() + 1:.3g}")]

    def _is_own(self, text: str, rows: Rows) -> bool:
        sources = Quantity.parse(f"axis = {text}").own
        return not sources.isdisjoint(rows.own)

    def _efficiency(self, cells: list[tuple[str, np.ndarray]]) -> Iterator[Comparison]:
        event = self.pair[0].collections[str(self.home.parent)].event
        found = [(matches_of(self.home, e).number > 0).astype(np.float64) for e in self.pair]
        for name, inside in cells:
            values = [(one[inside], event[inside]) for one in found]
            yield self._mean(f"{self.home.name} efficiency", name, values)

    def _response(self, cells: list[tuple[str, np.ndarray]]) -> Iterator[Comparison]:
        parent = str(self.home.parent)
        known = self.pair[0].collections[parent].columns
        for column, other, ending in _compared_with_parent(self.home, self.home.columns, known):
            sign = "/" if ending in RATIOS else "-"
            found = [self._paired(events, column, other, ending) for events in self.pair]
            for name, inside in cells:
                values = [(r[inside[place]], event[inside[place]]) for r, event, place in found]
                if min(len(v) for v, _ in values) >= SMALLEST_BIN:
                    yield from self._shape(f"{column} {sign} {other}", name, values)

    def _paired(
        self, events: Events, column: str, other: str, ending: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return response, event and parent of matched objects (m,)."""
        objects, parents = events.collections[self.home.name], matches_of(self.home, events).parent
        rows = np.flatnonzero(parents >= 0)
        x = objects.columns[column][rows].astype(np.float64)
        y = events.collections[str(self.home.parent)].columns[other][parents[rows]]
        if ending in RATIOS:
            good = y > 0
            rows, x, y = rows[good], x[good], y[good]
        return _response(x, y, ending), objects.event[rows], parents[rows]

    def _tag(
        self, column: str, wanted: Quantity, cells: list[tuple[str, np.ndarray]]
    ) -> Iterator[Comparison]:
        """Yield areas under ROC curves in bins, and against each other value of the parent."""
        sides = []
        for events in self.pair:
            objects = events.collections[self.home.name]
            parent = matches_of(self.home, events).parent
            rows = np.flatnonzero(parent >= 0)
            of = Rows.of_objects(events.collections[str(self.home.parent)], parent[rows])
            yes = wanted.values(events, of.event, of.own) > 0
            sides.append((objects.columns[column][rows], yes, of, parent[rows]))
        groups = [("all", [np.ones(len(parent), dtype=bool) for *_, parent in sides])]
        groups += [(name, [inside[parent] for *_, parent in sides]) for name, inside in cells]
        for branch in sorted(wanted.own & sides[0][2].own.keys()):
            known = np.unique(sides[0][2].own[branch])
            for value in known if len(known) <= FEW_VALUES else ():
                of_value = [yes | (of.own[branch] == value) for _, yes, of, _ in sides]
                groups.append((f"against {branch} = {value:g}", of_value))
        what = f"{column} tells{wanted.text.partition('=')[2]}, ROC area"
        for name, masks in groups:
            tagged, truth, weight = [], [], []
            for (x, yes, of, _), mask in zip(sides, masks, strict=True):
                tagged.append(x[mask].astype(np.float64))
                truth.append(yes[mask])
                weight.append(self.weights[0, of.event[mask]])
            if min(np.bincount(yes, minlength=2).min() for yes in truth) < FEWEST_OF_CLASS:
                continue
            weights: Any = {"weight_real": weight[0], "weight_generated": weight[1]}
            result = tag_roc(*tagged, *truth, **weights)
            areas = result.settings["real"], result.settings["generated"]
            error = result.error * float(np.sqrt(1 + self.training / 2))
            yield Comparison(what, name, len(truth[0]), *areas, error)

    def _pair(self, name: str, meets: Quantity, particle: Particle) -> Iterator[Comparison]:
        """Yield how many events have two objects that meet a condition, and the mass of these."""
        masses = []
        for events in self.pair:
            rows = Rows.of_objects(*_every(events.collections[self.home.name]))
            kept = np.flatnonzero(meets.values(events, rows.event, rows.own) > 0)
            event = rows.event[kept]
            first = np.flatnonzero(np.diff(event, prepend=-1) > 0)
            first = first[np.append(event, -1)[first + 1] == event[first]]
            momenta = particle.momenta({k: v[kept] for k, v in rows.own.items()})
            masses.append((OF_SUM["mass"](momenta[first] + momenta[first + 1]), event[first]))
        every = np.arange(self.n)
        there = [(np.bincount(event, minlength=self.n) * 1.0, every) for _, event in masses]
        yield self._mean(f"events with {name}", "all", there)
        if min(len(event) for _, event in masses) >= FEWEST_OF_CLASS:
            yield from self._shape(name, "all", masses, TAILS)

    def _repeated(self) -> Iterator[Comparison]:
        """Yield shares of repeated values of columns, by values of few-valued parent branches."""
        for column in self.home.columns:
            values = self.pair[0].collections[self.home.name].columns[column]
            if values.dtype.kind != "f" or not len(values):
                continue
            known, counts = np.unique(values, return_counts=True)
            often = counts > REPEATED * len(values)
            for value in known[often]:
                for label, rows in self._groups():
                    parts = []
                    for events, mask in zip(self.pair, rows, strict=True):
                        objects = events.collections[self.home.name]
                        here = (objects.columns[column] == value).astype(np.float64)
                        parts.append((here[mask], objects.event[mask]))
                    if min(len(v) for v, _ in parts) >= SMALLEST_BIN:
                        yield self._mean(f"{column} = {value:g}", label, parts)

    def _groups(self) -> Iterator[tuple[str, list[np.ndarray]]]:
        """Yield groups of objects: name, and which (m,) of real and generated ones."""
        sizes = [len(events.collections[self.home.name]) for events in self.pair]
        yield "all", [np.ones(size, dtype=bool) for size in sizes]
        if self.home.parent is None:
            return
        parents = [matches_of(self.home, events).parent for events in self.pair]
        yield "without parent", [parent < 0 for parent in parents]
        for name, values in self.pair[0].collections[self.home.parent].columns.items():
            known = np.unique(values[:10_000])
            if values.dtype.kind in "iub" and 1 < len(known) <= FEW_VALUES:
                for value in known:
                    of = [(p >= 0) & (values[np.maximum(p, 0)] == value) for p in parents]
                    yield f"{name} = {value}", of

    def _mean(self, quantity: str, cell: str, values: list[Any]) -> Comparison:
        (mean, *_), replicas = self._both(values, lambda v, w: _weighted_mean(v, w)[:, None])
        return self._compared(quantity, cell, len(values[0][0]), mean, replicas, 0)

    def _shape(
        self, quantity: str, cell: str, values: list[Any], wanted: Mapping[str, float] = QUANTILES
    ) -> Iterator[Comparison]:
        """Yield mean, half of the 16 to 84% range, and quantiles."""

        def numbers(v: np.ndarray, w: np.ndarray) -> np.ndarray:
            quantiles = weighted_quantiles(v, w, list(wanted.values()))
            width = (quantiles[:, 2] - quantiles[:, 0]) / 2
            return np.column_stack([_weighted_mean(v, w), width, quantiles])

        found, replicas = self._both(values, numbers)
        for k, name in enumerate(("mean", "width", *wanted)):
            yield self._compared(
                f"{quantity}, {name}", cell, len(values[0][0]), found[k], replicas, k
            )

    def _both(self, values: list[Any], function: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return numbers of real and generated events (k, 2), and their replicas (B, k) each."""
        found, replicas = [], []
        for numbers, event in values:
            every = function(numbers, self.weights[:, event])
            found.append(every[0])
            replicas.append(every[1:])
        return list(np.array(found).T), replicas

    def _compared(
        self, quantity: str, cell: str, n: int, pair: Any, replicas: list[np.ndarray], k: int
    ) -> Comparison:
        difference = replicas[1][:, k] - replicas[0][:, k]
        variance = np.nanvar(difference) + self.training * np.nanvar(replicas[0][:, k])
        real, generated = map(float, pair)
        return Comparison(quantity, cell, n, real, generated, float(np.sqrt(variance)))


def _compared_with_parent(
    home: Home, columns: Sequence[str], known: Collection[str]
) -> Iterator[tuple[str, str, str]]:
    """Yield columns that have a response: with the parent's branch, and their ending."""
    for column in columns:
        ending = column.removeprefix(f"{home.name}_")
        other = f"{home.parent}_{ending}"
        if other in known and ending in (*RATIOS, *DIFFERENCES, *ANGLES):
            yield column, other, ending


def _response(x: np.ndarray, y: np.ndarray, ending: str) -> np.ndarray:
    """Return the response (m,) of numbers of objects and of their parents."""
    if ending in RATIOS:
        return x / y
    return x - y if ending in DIFFERENCES else wrapped(x - y)


def _every(objects: Objects) -> tuple[Objects, np.ndarray]:
    return objects, np.arange(len(objects))


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return means (B,) of values (m,) with weights (B, m)."""
    return np.asarray(weights @ values / np.maximum(weights.sum(axis=1), 1e-300))


def _told_apart(
    content: ChainContent, pair: tuple[Events, Events], seed: int, quick: bool
) -> tuple[dict[str, dict[str, Result]], dict[str, dict[str, Result]]]:
    """Return by stage how well classifiers tell real from generated, and distances.

    They see the columns of a stage and what `_seen_beside` returns. Real rows are those of every
    second event, generated ones of the others: the same conditions in both would tell a classifier
    what is in its test.
    """
    halves = [events.take(np.arange(k, events.n, 2)) for k, events in enumerate(pair)]
    judges: dict[str, Any] = {"trees": make_classifier, "network": make_mlp}
    repeats = 1 if quick else 3
    settings: Any = {"n_model_seeds": repeats, "n_split_seeds": repeats, "seed": seed}
    areas: dict[str, dict[str, Result]] = {}
    distances: dict[str, dict[str, Result]] = {}
    for home in content.homes:
        for stage in home.stages:
            if content.stages[stage.name].constant is not None:
                continue
            rows, weights = [], []
            for k, events in enumerate(halves):
                table = stage_table(stage, home, events, content.weight)
                beside = _seen_beside(stage, home, events, table)
                x = np.nan_to_num(np.hstack([beside, table.x]), posinf=0.0, neginf=0.0)
                share = min(MOST_JUDGED / max(table.n, 1), 1.0)
                used = split_mask(table.n, share, derive(seed, "judged", k)) | (share == 1)
                rows.append(x[used])
                weights.append(None if table.weight is None else table.weight[used])
            if min(map(len, rows)) < SMALLEST_BIN:
                continue
            weighted: Any = {"weight_real": weights[0], "weight_generated": weights[1]}
            areas[stage.name] = {
                name: classifier_auc(rows[0], rows[1], make, name=name, **settings, **weighted)
                for name, make in judges.items()
            }
            n_columns = table.x.shape[1]
            distances[stage.name] = _distances(rows, n_columns, weighted, seed)
    return areas, distances


def _seen_beside(stage: Stage, home: Home, events: Events, table: EventTable) -> np.ndarray:
    """Return what classifiers see of a stage beside its own columns, (n, c).

    Of objects with a parent, and of their number, that does not depend on how a chain puts its
    conditions: the branches of the parent, those of the event that the collection is given, columns
    of earlier stages, and the responses of columns. Of others the conditions.
    """
    if stage.kind not in ("number", "properties"):
        return np.zeros((table.n, 0)) if table.cond is None else table.cond
    parents = events.collections[str(home.parent)]
    rows, made = Rows.of_objects(*_every(parents)), list[str]()
    if stage.kind == "properties":
        rows = matched_rows(home, events)
        done = itertools.takewhile(lambda one: one != stage, home.properties)
        made = [column for one in done for column in one.columns]
    own = {name: rows.own[name].astype(np.float64) for name in (*parents.columns, *made)}
    given = {s for one in home.stages for q in one.quantities for s in q.sources}
    values = [*own.values(), *(events.columns[n][rows.event] for n in events.columns if n in given)]
    if stage.kind == "properties":
        pairs = _compared_with_parent(home, (*made, *stage.columns), parents.columns)
        with np.errstate(divide="ignore", invalid="ignore"):
            values += [_response(rows.own[a].astype(np.float64), own[b], e) for a, b, e in pairs]
    return np.column_stack(values)


def _distances(
    rows: list[np.ndarray], n_columns: int, weighted: Mapping[str, Any], seed: int
) -> dict[str, Result]:
    """Return distances of real and generated rows (n, c + d), the last d of which are columns."""
    settings: Any = {"n_bootstrap": 20, "seed": seed, **weighted}
    columns = zip(*(x[:, -n_columns:].T for x in rows), strict=True)
    each = [wasserstein(*both, **settings) for both in columns]
    error = float(np.sqrt(sum(one.error**2 for one in each))) / len(each)
    mean = float(np.mean([one.value for one in each]))
    frechet = frechet_distance(*rows, n_batches=4, seed=seed)
    return {
        "Wasserstein": Result("wasserstein", mean, error, each[0].n, unit="std"),
        "Frechet x1000": replace(frechet, value=1e3 * frechet.value, error=1e3 * frechet.error),
        "correlations": correlation_distance(*rows, **settings),
    }
