"""Relations between columns that nobody declared: found in training rows, with their accuracy.

Sums, products and squares are found as dependent columns of a matrix, of any number of columns;
masses and angles of particles and functions of two columns are tried one by one. A subsample
proposes, all rows decide.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from ...errors import ConfigError
from ..event_table import EventTable
from ..formulas.expressions import Expression
from ..formulas.particles import OF_PAIR, OF_SUM, Particles, read_particles, wrapped
from ..formulas.relations import TOLERANCE, Relation, order_relations, relative_deviation, written
from ..transforms.choose import FEW_VALUES, MIN_ROWS

SUBSAMPLE = 2000
"""Rows that propose relations."""
MOST_PAIRED_COLUMNS = 64
"""Columns up to which functions of two of them are tried: 20,000 pairs and functions."""
UNLIKELY = 20.0
"""Minus the logarithm of the chance, all tries counted, from which on a find is none of chance."""
FREE, FREE_MASS = 1e-6, 1e-3
"""How far an exact relation may be off beside rounding, in standard deviations of its column: one
of particles may have been computed with masses that no column has."""
NEARLY = 3e-3
"""Root mean square residual, in standard deviations of a column, of a nearly exact relation."""
FEW_ROWS = 48
"""Rows that functions of two columns are tried on first."""
MOST_SOURCES = 8
"""Columns that one may be computed from."""

OF_ONE: dict[str, Callable[..., Any]] = {
    "abs({0})": np.abs,
    "log({0})": np.log,
    "exp({0})": np.exp,
    "cos({0})": np.cos,
    "sin({0})": np.sin,
    "sinh({0})": np.sinh,
    "cosh({0})": np.cosh,
}
EITHER_WAY: dict[str, Callable[..., Any]] = {
    "{0} * {1}": lambda a, b: a * b,
    "hypot({0}, {1})": np.hypot,
    "minimum({0}, {1})": np.minimum,
    "maximum({0}, {1})": np.maximum,
    "abs({0} - {1})": lambda a, b: np.abs(a - b),
    "abs(deltaphi({0}, {1}))": lambda a, b: np.abs(wrapped(a - b)),
}
OF_TWO: dict[str, Callable[..., Any]] = {
    "{0} / {1}": lambda a, b: a / b,
    "deltaphi({0}, {1})": lambda a, b: wrapped(a - b),
    "arctan2({0}, {1})": np.arctan2,
    "{0} * cos({1})": lambda a, b: a * np.cos(b),
    "{0} * sin({1})": lambda a, b: a * np.sin(b),
    "{0} * sinh({1})": lambda a, b: a * np.sinh(b),
    "{0} * cosh({1})": lambda a, b: a * np.cosh(b),
    "{0} / cosh({1})": lambda a, b: a / np.cosh(b),
}
"""Functions of one or two columns; of those in `EITHER_WAY` the two may change places."""


@dataclass(frozen=True)
class FoundRelation:
    """A relation of a table's columns, and how well its rows keep it.

    Parameters
    ----------
    text : such as ``"tau21 = tau2 / tau1"``
    deviation : largest relative deviation of all rows; of one that is not exact, that of 99%
    exact : whether all rows agree as `Relation.check` demands, but for rounding
    """

    text: str
    deviation: float
    exact: bool

    def describe(self) -> str:
        """Return the relation with its accuracy."""
        of = (
            "largest relative deviation"
            if self.exact
            else "relative deviation of 99% of rows up to"
        )
        return f"{self.text}   ({of} {self.deviation:.1g})"


def find_relations(
    table: EventTable, particles: Mapping[str, Any] | None = None, given: Sequence[str] = ()
) -> list[FoundRelation]:
    """Return relations that the rows of a table show, exact ones first, no column twice computed.

    Columns follow from columns and conditions.
    ``given`` are declared ones: their targets are left alone.

    That a find is none of chance: the rows of the target could be shuffled in so many ways without
    agreeing (the multinomial coefficient of its repeated values) that chance, with all tries
    counted, agrees less often than once in 5e8 times. Two flags that are rare therefore never count
    as equal. Tables of fewer than 20 rows show nothing, and each column of a relation needs ten.
    Exact ones hold as `Relation.check` demands, and as the last digits of their columns let them.
    """
    if table.n < MIN_ROWS:
        return []
    search = _Search(table, read_particles(particles), given)
    search.dependent("sum")
    search.dependent("product")
    search.kinematic()
    search.functions()
    search.dependent("squares")
    return sorted(search.found, key=lambda one: not one.exact)


@dataclass
class _Search:
    """The columns that are left, and what was found of them."""

    table: EventTable
    particles: Particles
    given: Sequence[str]
    found: list[FoundRelation] = field(default_factory=list)

    def __post_init__(self) -> None:
        table = self.table
        self.columns = table.by_name()
        self.every = [  # conditions first: columns follow from them, and never the other way
            name
            for name in (*table.cond_names, *table.names)
            if name not in table.categories
            and (known := self.columns[name][~np.isnan(self.columns[name])]).size
            and np.ptp(known) > 0
        ]
        self.numbers = [name for name in self.every if name in table.names]
        self.relations = list(
            order_relations(self.given, table.names, table.cond_names, self.particles)
        )
        self.tries = max(1, len(self.every) ** 3)
        rows = np.linspace(0, table.n - 1, min(table.n, SUBSAMPLE)).astype(int)
        self.sample = {name: self.columns[name][rows] for name in self.columns}
        self.chance = {name: _ways(self.sample[name]) for name in self.numbers}

    @property
    def targets(self) -> set[str]:
        """Columns that a relation computes."""
        return {relation.target for relation in self.relations}

    def enough(self, name: str, n_sources: int) -> bool:
        """Return if agreement in all rows of a column is none of chance."""
        known = int((~np.isnan(self.columns[name])).sum())
        likely = self.chance[name] < UNLIKELY + math.log(self.tries)
        return not likely and known >= 10 * (n_sources + 1)

    def offer(self, texts: Iterable[str]) -> bool:
        """Keep the best of relations that say the same; return if there is one."""
        best: tuple[FoundRelation, Relation] | None = None
        for text in texts:
            try:
                relation = Relation.parse(text, self.particles)
                if relation.target in self.targets or relation.target not in self.numbers:
                    continue
                if not self.enough(relation.target, len(relation.sources)):
                    continue
                order_relations(
                    [*self.relations, relation], self.table.names, self.table.cond_names
                )
            except ConfigError:  # a name that expressions do not have, or a circle
                continue
            one = self._accuracy(relation)
            if one is not None and (best is None or (one.exact and not best[0].exact)):
                best = one, relation
            if best is not None and best[0].exact:
                break
        if best is None:
            return False
        self.found.append(best[0])
        self.relations.append(best[1])
        return True

    def _accuracy(self, relation: Relation) -> FoundRelation | None:
        """Return a relation with its accuracy in all rows; None if it does not nearly hold."""
        for rows in (self.sample, self.columns):
            columns = {name: rows[name] for name in relation.sources}
            stored, expected = rows[relation.target], relation.evaluate(columns)
            missing = np.any([np.isnan(values) for values in columns.values()], axis=0)
            if (missing != np.isnan(stored)).any():
                return None
            stored, expected = stored[~missing], expected[~missing]
            defined = np.isfinite(expected)
            expected = np.where(defined, expected, 0.0)
            deviation = np.where(defined, relative_deviation(stored, expected), np.inf)
            if (np.sort(deviation)[: int(0.98 * len(deviation))] > 0.01).any():
                return None
        off = np.where(defined, stored - expected, np.inf)
        if (largest := float(deviation.max())) <= TOLERANCE:
            known = {name: values[~missing] for name, values in columns.items()}
            allowed = self._rounding(relation, known, stored, expected)
            return FoundRelation(relation.text, largest, bool((np.abs(off) <= allowed).all()))
        most = float(np.quantile(deviation, 0.99, method="higher"))
        near = most <= 0.01 and float((off**2).mean()) <= (NEARLY * float(stored.std())) ** 2
        if most <= TOLERANCE and not near:  # but for a few rows, and not of a column of few values
            counts = np.unique(stored, return_counts=True)[1]
            near = len(counts) > FEW_VALUES and 2 * int(counts.max()) < len(stored)
        return FoundRelation(relation.text, most, False) if near else None

    def _rounding(
        self,
        relation: Relation,
        columns: Mapping[str, np.ndarray],
        stored: np.ndarray,
        expected: np.ndarray,
    ) -> np.ndarray:
        """Return how far a relation (n,) may be off by the last digits of all its columns.

        That counts where numbers are far from 0 beside their spread: the end of a time interval is
        its beginning, but for a part in 1e9 that is all there is to learn.
        """
        digits = last_digit(stored)
        for name, values in columns.items():
            moved = relation.evaluate({**columns, name: values + last_digit(values)})
            digits = digits + np.abs(moved - expected)
        free = FREE_MASS if relation.expression.names & self.particles.keys() else FREE
        return np.asarray(0.51 * digits + free * stored.std())

    # ---- sums, products, squares

    def dependent(self, kind: str) -> None:
        """Look for columns that depend linearly on others: as they are, logarithms or squares."""
        gaps = {name: np.isnan(self.sample[name]) for name in self.every}
        patterns = {gaps[name].tobytes(): gaps[name] for name in self.every}
        for mask in patterns.values():
            if mask.any() and kind != "sum":
                continue
            names = [n for n in self.every if not (gaps[n] & ~mask).any()]
            if mask.any() and not any((gaps[n] == mask).all() for n in names):
                continue
            names = [n for n in names if not gaps[n].any() or (gaps[n] == mask).all()]
            self._dependent(kind, names, ~mask)

    def _dependent(self, kind: str, names: list[str], rows: np.ndarray) -> None:
        copies = {r.target for r in self.relations if len(r.sources) == 1}
        values = {}
        for name in names if kind == "sum" else [n for n in names if n not in copies]:
            column = self.sample[name][rows]
            if kind == "product":
                if (column == 0).any():
                    continue
                column = np.log(np.abs(column))
            if kind == "squares":
                column = column**2
            values[name] = column
        basis: list[str] = []
        dependent: list[dict[str, Fraction]] = []
        axes: list[np.ndarray] = []
        for name, column in values.items():
            centred = column - column.mean()
            size = float(np.sqrt((centred**2).mean()))
            if size <= 1e-9 * float(np.abs(column).max()):
                continue
            left = centred
            for _ in range(2 if axes else 0):  # twice: rounding of the first is taken out, too
                q = np.array(axes)
                left = left - (left @ q.T) @ q
            rest = float(np.sqrt((left**2).mean()))
            if rest < NEARLY * size and self._solve(kind, name, basis, values, dependent):
                if (target := self.relations[-1].target) in basis:  # the plainer one stays
                    basis[basis.index(target)] = name
                continue
            if rest > 1e-7 * size and 5 * (len(basis) + 1) < len(column):
                axes.append(left / np.linalg.norm(left))
                basis.append(name)

    def _solve(
        self,
        kind: str,
        name: str,
        basis: list[str],
        values: dict[str, np.ndarray],
        dependent: list[dict[str, Fraction]],
    ) -> bool:
        """Offer a dependent column as a sum (product, sum of squares) of a few of the basis.

        Sums that vanish are kept in ``dependent``: adding one may make the next shorter.
        """
        y = values[name] - values[name].mean()
        used, spread = list(basis), float(y.std())
        for least in (0.02, 0.003):  # of each column's part in the sum
            used, found = list(basis), np.zeros(0)
            for _ in range(4):
                a = np.stack([values[n] - values[n].mean() for n in used], axis=1)
                scale = a.std(axis=0)
                found = np.linalg.lstsq(a / scale, y, rcond=None)[0]
                kept = np.abs(found) > least * spread
                found = found / scale
                if kept.all() or not kept.any():
                    break
                used = [n for n, keep in zip(used, kept, strict=True) if keep]
            if not 0 < len(used) <= MOST_SOURCES:
                continue
            a = np.stack([values[n] - values[n].mean() for n in used], axis=1)
            if float((y - a @ found).std()) > NEARLY * spread:
                continue
            terms: dict[str, Any] = {name: Fraction(-1)}
            terms |= {n: _simple(c, kind) for n, c in zip(used, found, strict=True)}
            if any(not isinstance(c, Fraction) for c in terms.values()):
                if len(used) > 1 or kind != "sum":
                    continue
            else:
                for zero in dependent:
                    terms = _shorter(terms, zero)
                dependent.append(terms)
            if self.offer(self._texts(kind, terms)):
                return True
        return False

    def _texts(self, kind: str, members: dict[str, Any]) -> Iterator[str]:
        """Yield a sum that vanishes, solved for each member, the plainest first."""
        build = {"sum": self._sum, "product": self._product, "squares": self._root}[kind]
        solved = []
        for target, own in members.items():
            terms = [(name, -c / own) for name, c in members.items() if name != target]
            text = f"{written(target)} = {build(target, terms)}"
            odd = text.count(" - ") + sum(abs(c) != 1 for _, c in terms)
            solved.append((odd, len(text) // 8, -self.every.index(target), text))
        yield from (text for *_, text in sorted(solved))

    def _residual(self, target: str, expression: str, ratio: bool) -> float:
        """Return what is to be added (a factor with ``ratio``) to an expression: usual, short."""
        with np.errstate(all="ignore"):
            there = Expression.parse(expression, "relation").numbers(self.sample)
            there = self.sample[target] / there if ratio else self.sample[target] - there
        there = there[np.isfinite(there)]
        middle = float(np.median(there))
        size = abs(middle) if ratio else float(np.nanmax(np.abs(self.sample[target])))
        spread = float(np.median(np.abs(there - middle))) + 1e-9 * size
        return float(ratio) if abs(ratio - middle) <= spread else _shortest(middle, spread)

    def _sum(self, target: str, terms: list[tuple[str, Any]]) -> str:
        terms = sorted(terms, key=lambda one: one[1] < 0)
        text = ""
        for name, c in terms:
            sign = ("-" if c < 0 else "") if not text else (" - " if c < 0 else " + ")
            text += f"{sign}{_factor(abs(c))}{written(name)}"
        constant = self._residual(target, text, ratio=False)
        if constant and terms[0][1] < 0:
            return f"{constant:.12g} - {text[1:]}"
        return f"{text}{' - ' if constant < 0 else ' + '}{abs(constant):.12g}" if constant else text

    def _product(self, target: str, terms: list[tuple[str, Any]]) -> str:
        above = [_power(name, c) for name, c in terms if c > 0]
        below = [_power(name, -c) for name, c in terms if c < 0]
        text = " * ".join(above) or "1"
        text += (
            f" / {below[0]}" if len(below) == 1 else f" / ({' * '.join(below)})" if below else ""
        )
        factor = self._residual(target, text, ratio=True)
        return (
            text
            if factor == 1
            else f"{factor:.12g} * {text}"
            if above
            else f"{factor:.12g}{text[1:]}"
        )

    def _root(self, target: str, terms: list[tuple[str, Any]]) -> str:
        squares = [
            (f"{_factor(abs(c))}{written(n)} ** 2", c)
            for n, c in sorted(terms, key=lambda t: t[1] < 0)
        ]
        text = "".join(
            f"{'' if not i else ' + '}{t}" if c > 0 else f" - {t}"
            for i, (t, c) in enumerate(squares)
        )
        return f"sqrt({text})"

    # ---- functions of particles and of one or two columns

    def kinematic(self) -> None:
        """Look for masses, momenta and angles of particles, of one, two or all of them."""
        known, names = self.particles, list(self.particles)
        groups = [*((name,) for name in names), *itertools.combinations(names, 2)]
        groups += [tuple(names)] if len(names) > 2 else []
        calls = [
            f"{function}({', '.join(group)})"
            for group in groups
            for function in (*OF_SUM, *(OF_PAIR if len(group) == 2 else ()))
        ]
        self._try(calls, {n: one.sources for n, one in known.items()})

    def functions(self) -> None:
        """Look for functions of one column and of two."""
        names = [n for n in self.every if not np.isnan(self.sample[n]).any()]
        left = [n for n in names if n in self.numbers and n not in self.targets]
        left = [n for n in left if self.enough(n, 1)]
        if not left:
            return
        x, y = self._few(names), self._few(left)
        n = len(names)
        pairs = n if 1 < n <= MOST_PAIRED_COLUMNS else 0
        i, j = (each.ravel() for each in np.indices((pairs, pairs)))
        for forms, places in (
            (OF_ONE, (np.arange(n),)),
            (EITHER_WAY, (i[i < j], j[i < j])),
            (OF_TWO, (i[i != j], j[i != j])),
        ):
            for form, function in forms.items():
                with np.errstate(all="ignore"):
                    expected = function(*(x[k] for k in places))
                for row, target in _agreeing(expected, y):
                    sources = [names[k[row]] for k in places]
                    if left[target] not in sources:
                        call = form.format(*map(written, sources))
                        self.offer([f"{written(left[target])} = {call}"])

    def _few(self, names: Sequence[str]) -> np.ndarray:
        """Return a few rows of columns (d, k)."""
        n = len(next(iter(self.sample.values())))
        rows = np.linspace(0, n - 1, min(n, FEW_ROWS)).astype(int)
        return np.stack([self.sample[name][rows] for name in names])

    def _try(self, calls: Sequence[str], own: Mapping[str, set[str]]) -> None:
        """Offer calls as columns that agree in a few rows; ``own``: columns of particles."""
        left = [n for n in self.numbers if n not in self.targets and self.enough(n, 1)]
        if not left:
            return
        rows = dict(zip(self.sample, self._few(list(self.sample)), strict=True))
        y = np.stack([rows[name] for name in left])
        for call in calls:
            expression = Expression.parse(call, "relation", self.particles)
            used = set(expression.sources).union(*(own[p] for p in expression.names & own.keys()))
            if not used <= rows.keys():
                continue
            for _, target in _agreeing(expression.numbers(rows)[None], y):
                if left[target] not in used:
                    self.offer([f"{written(left[target])} = {call}"])


def last_digit(values: np.ndarray) -> np.ndarray:
    """Return what the last digit of values (n,) counts: of decimals, printed or single precision.

    0 for integers, next to nothing for doubles.
    """
    broken, size = values[values != np.rint(values)], np.abs(values)
    if not len(broken):
        return np.zeros(len(values))
    few = broken[np.linspace(0, len(broken) - 1, min(len(broken), 200)).astype(int)]
    parts = [f"{value:.15e}".split("e") for value in few.tolist()]
    counts = [len(mantissa.strip("-").replace(".", "").rstrip("0")) for mantissa, _ in parts]
    most = max(counts)
    if most > 9 and (few != few.astype(np.float32)).any():
        return np.asarray(1e-14 * size)
    decimals = max(n - 1 - int(power) for n, (_, power) in zip(counts, parts, strict=True))
    power = np.floor(np.log10(np.maximum(size, 1e-300)))
    printed = np.maximum(10.0 ** (power + 1 - most), 10.0**-decimals)
    return np.maximum(printed, 2.4e-7 * size) if most > 6 else printed


def _agreeing(expected: np.ndarray, y: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the places of functions (m, k) and of columns (d, k) that nearly agree."""
    tried = np.ones((len(expected), len(y)), dtype=bool)
    for rows in (slice(0, 6), slice(None)):
        a, b = np.nonzero(tried)
        here, there = expected[a, rows], y[b, rows]
        with np.errstate(all="ignore"):
            size = np.maximum(np.abs(here), np.abs(there))
            near = np.abs(here - there) <= 0.01 * size + 1e-9 * np.abs(y).max(axis=1)[b, None]
        tried[a, b] = near.mean(axis=1) >= (0.8 if rows.stop else 0.95)
    yield from zip(*map(np.ndarray.tolist, np.nonzero(tried)), strict=True)


def _ways(values: np.ndarray) -> float:
    """Return the logarithm of the number of different orders of values (n,), NaN left out."""
    counts = np.unique(values[~np.isnan(values)], return_counts=True)[1]
    return math.lgamma(counts.sum() + 1) - sum(map(math.lgamma, (counts[counts > 1] + 1).tolist()))


def _simple(number: float, kind: str) -> Fraction | float:
    """Return the fraction of small numbers that is meant by a coefficient; else the number."""
    near = Fraction(number).limit_denominator(1 if kind == "squares" else 4)
    tolerance = 0.02 if kind != "sum" else 0.01
    if near and abs(near) <= 12 and abs(float(near) - number) < tolerance * abs(number):
        return near
    return float(number)


def _shorter(terms: dict[str, Any], zero: dict[str, Fraction]) -> dict[str, Any]:
    """Return terms, or these and a multiple of others that vanish, whichever are fewer."""
    for name in zero.keys() & terms.keys():
        ratio = terms[name] / zero[name]
        both = {n: terms.get(n, 0) - ratio * zero.get(n, 0) for n in {**terms, **zero}}
        fewer = {n: c for n, c in both.items() if c}
        if len(fewer) < len(terms):
            return fewer
    return terms


def _factor(number: Any) -> str:
    if number == 1:
        return ""
    if isinstance(number, Fraction) and number.denominator == 3:
        return f"{number.numerator} / 3 * "
    return f"{_shortest(float(number), 1e-8 * abs(number)):.12g} * "


def _shortest(number: float, tolerance: float) -> float:
    """Return the number of fewest digits that is as near as the tolerance."""
    printed = (float(f"{number:.{digits}g}") for digits in range(1, 17))
    return next((p for p in printed if abs(p - number) <= tolerance), number)


def _power(name: str, power: Any) -> str:
    if power == 1:
        return written(name)
    if power == Fraction(1, 2):
        return f"sqrt({written(name)})"
    return f"{written(name)} ** {float(power):.12g}"
