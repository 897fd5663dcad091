"""Columns that are not real numbers: integers, categories, angles."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...errors import ConfigError, DataWarning, FormatError, InputError, plural
from ...typed_settings import AtLeastOne, AtLeastZero, check_fields, check_value
from ..skeleton import nearest_codes
from .base import LARGEST, TRANSFORMS, ColumnTransform, build_column, check_number, check_tails
from .choose import choose, choose_continuous, choose_integer_tails
from .rank import Distinct, find_spikes, spread_normal

MOST_CLASSES = 200
"""Distinct values of a column that a classifier draws; the cost of its trees grows with them."""

ATOM_SHARE = 0.01
"""Share of the rows from which on a repeated value is an atom for a classifier, see `Mixed`."""
EQUAL_SHARE = 0.02
"""Share of the rows from which on a column is taken as equal to another in part."""
FEWEST_REPEATS = 12
"""Rows that each of these needs."""
LEAST_COVER = 0.05
"""Share of the rows that atoms between smooth values must have to be worth a classifier."""
MOST_ATOMS = 30
"""Atoms of a column, the most frequent; the cost of its classifier grows with them."""
MOST_COMPARED = 2 * 10**8
"""Pairs of values that are compared to find columns that may be equal: less than a second."""

_INSIDE = 1e-3
"""Share of an integer's unit interval left free at each end, so that rounding cannot leave it."""


@TRANSFORMS.register("integer")
@dataclass(eq=False)
class Integer(ColumnTransform):
    """Add uniform noise in [0, 1) and treat the column as continuous; the inverse rounds down.

    With ``step``, ``offset``, ``decimals`` or ``divisor`` this is done to the number k of a point
    on a lattice, x = (offset + step k) / (divisor 10^decimals), which comes back as the decimals
    are printed. Spikes (see `find_spikes`) get no noise, so that they remain what they are.

    Parameters
    ----------
    inner : specification of a continuous transform of k + u, or "auto"
    tails : "auto", "limit", "extend", or {"low": ..., "high": ...}
        "limit": generated values are clipped to the training range on this side; "extend": as
        far as the inner transform goes. "auto": limit below if no value is negative (without
        decimals), and wherever the extreme value holds at least 0.5% of the rows.
    step, offset : in units of the last decimal
    decimals : number of them
    divisor : what a step is a fraction of: multiples of 2/3 have step 2 and divisor 3

    References
    ----------
    Uniform dequantisation: L. Theis, A. van den Oord, M. Bethge, arXiv:1511.01844, section 3.1.
    """

    name = "integer"
    draws = True
    fitted = ("minimum", "maximum", "limited", "spikes")
    inner: str | Mapping[str, Any] | Sequence[Any] = "auto"
    tails: str | Mapping[str, str] = "auto"
    step: float = 1.0
    offset: float = 0.0
    decimals: int = 0
    divisor: int = 1

    def fit(self, values: np.ndarray, rng: np.random.Generator) -> Integer:
        check_number(self.offset, "offset of 'integer'")
        if check_number(self.step, "step of 'integer'", positive=True) == 0:
            raise ConfigError("step of 'integer' must not be 0")
        check_value(self.decimals, AtLeastZero, "decimals of 'integer'")
        check_value(self.divisor, AtLeastOne, "divisor of 'integer'")
        exact, wrong = self._number(values), ~self.holds(values)
        if wrong.any():
            row = int(np.argmax(wrong))
            kind = "integral values" if self._is_plain() else "values on its lattice"
            raise ConfigError(
                f"transform 'integer' needs {kind}, got {values[row]!r} in training row"
                f" {row}; use 'rank' for a column that mixes both"
            )
        number = np.rint(exact)
        self.minimum, self.maximum = float(number.min()), float(number.max())
        tails = check_tails(self.tails, "'integer'")
        self.limited = choose_integer_tails(number, tails, self._divisor() == 1)
        distinct = Distinct.of(number)
        self.spikes = distinct.values[find_spikes(distinct)]
        spread = self._dequantise(values, rng)
        unit = self.step / self._divisor()
        spec = choose_continuous(spread, unit)[0] if self.inner == "auto" else self.inner
        self._set_inner(build_column(spec).fit(spread, rng))
        if not self.n_latent:
            raise ConfigError(f"the inner transform of 'integer' must be continuous, got {spec!r}")
        return self

    def holds(self, values: np.ndarray) -> np.ndarray:
        exact = self._number(values)
        whole = not (self._divisor() > 1 or self.step % 1 or self.offset % 1)
        # for rounding
        near = 0.0 if whole and np.abs(values).max(initial=0.0) < 2.0**53 else 0.1
        return np.asarray(np.abs(exact - np.rint(exact)) <= near)

    def _is_plain(self) -> bool:
        return (self.step, self.offset, self._divisor()) == (1, 0, 1)

    def _divisor(self) -> float:
        return self.divisor * 10.0**self.decimals

    def _number(self, values: np.ndarray) -> np.ndarray:
        return (values * self._divisor() - self.offset) / self.step

    def _set_inner(self, inner: ColumnTransform) -> None:
        self._inner, self.n_latent = inner, inner.n_latent

    def _dequantise(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        number = np.rint(self._number(values))
        noise = _INSIDE + (1 - 2 * _INSIDE) * rng.random(values.shape[0])
        return number + np.where(np.isin(number, self.spikes), 0.5, noise)

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self._inner.forward(self._dequantise(values, rng), rng)

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        number = np.clip(np.floor(self._inner.inverse(latent)), *whole_range(vars(self)))
        return (self.offset + self.step * number) / self._divisor()

    def options(self) -> dict[str, Any]:
        """Return the options by name, those of a lattice only where there is one."""
        left_out = {"step", "offset", "decimals"} if self._is_plain() else set()
        left_out |= {"divisor"} if self.divisor == 1 else set()
        return {k: v for k, v in super().options().items() if k not in left_out}

    def resolved(self) -> dict[str, Any]:
        inner, tails = self._inner.resolved(), dict(self.limited)
        return {"name": self.name, **self.options(), "inner": inner, "tails": tails}

    def state(self) -> dict[str, Any]:
        return {**super().state(), "inner": self._inner.to_json()}

    def load(self, state: Mapping[str, Any]) -> None:
        super().load({"spikes": [], **state})  # files of formats 1 to 3 have none
        self._set_inner(ColumnTransform.from_json(state["inner"]))

    def describe(self) -> str:
        tails = ", ".join(f"{side} {what}" for side, what in self.limited.items())
        unit, zero = self.step / self._divisor(), self.offset / self._divisor()
        low, high = (zero + unit * number for number in (self.minimum, self.maximum))
        kind = "integer" if self._is_plain() else f"multiples of {unit:.12g}"
        return (
            f"{kind} from {low:g} to {high:g}, dequantised; tails: {tails};"
            f" k + u: {self._inner.describe()}"
        )


def whole_range(learned: Mapping[str, Any]) -> tuple[float, float]:
    """Return the least and the largest value that an `Integer` gives, from its state."""
    limited = learned["limited"]
    low = learned["minimum"] if limited["low"] == "limit" else -LARGEST
    return low, learned["maximum"] if limited["high"] == "limit" else LARGEST


def lattice_of(options: Mapping[str, Any]) -> tuple[float, float, float] | tuple[()]:
    """Return offset, step and divisor of an `Integer`; nothing if they change no number."""
    if "step" not in options:
        return ()
    divisor = options.get("divisor", 1) * 10.0 ** options["decimals"]
    return float(options["offset"]), float(options["step"]), divisor


@TRANSFORMS.register("categorical")
class Categorical(ColumnTransform):
    """Give each distinct value an interval of the normal latent axis, as wide as it is frequent.

    `forward` draws a normal number restricted to the interval, so that the latent column is
    exactly standard normal; `inverse` returns the value of the interval. Only training values are
    ever generated. Other values go to the nearest training value, with a DataWarning.
    """

    name = "categorical"
    draws = True
    fitted = ("values", "edges")

    def fit(self, values: np.ndarray, rng: np.random.Generator) -> Categorical:
        from scipy.special import ndtri

        self.values, counts = np.unique(values, return_counts=True)
        self.edges = ndtri(np.cumsum(counts)[:-1] / values.shape[0])
        return self

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        code = codes_of(values, self.values)
        edges = np.concatenate([[-np.inf], self.edges, [np.inf]])
        return spread_normal(edges[code], edges[code + 1], rng.random(values.shape))[:, None]

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        return self.values[np.searchsorted(self.edges, latent[:, 0], side="right")]

    def holds(self, values: np.ndarray) -> np.ndarray:
        return np.isin(values, self.values)

    def describe(self) -> str:
        n_values = self.values.size
        return f"{plural(int(n_values), 'distinct value')}, each an interval of a normal; no others"


def codes_of(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the places of values (n,) among rising known ones (K,), int.

    NaN, a missing value, is known if it is the last of them; its code is the last then. Others than
    the known ones count as the nearest one, with a DataWarning.
    """
    missing = np.isnan(values)
    if missing.any() and np.isnan(known[-1]):
        code = np.full(values.shape, known.size - 1)
        code[~missing] = codes_of(values[~missing], known[:-1])
        return code
    known = known[~np.isnan(known)]
    code = np.minimum(np.searchsorted(known, values), known.size - 1)
    unknown = known[code] != values
    if unknown.any():
        code = np.where(unknown, nearest_codes(values, known), code)
        warnings.warn(
            f"{plural(int(unknown.sum()), 'row')} of a categorical column hold values that are"
            " not in the training rows; they are treated as the nearest one that is",
            DataWarning,
            stacklevel=3,
        )
    return code


@TRANSFORMS.register("classified")
@dataclass(eq=False)
class Classified(ColumnTransform):
    """Leave a column of few values to a boosted classifier, which draws it given the others.

    It has no latent column; `TableTransform.skeleton` has what is drawn, and in which order. Only
    training values are ever generated.
    """

    name = "classified"
    n_latent = 0
    fitted = ("values", "counts")

    def fit(self, values: np.ndarray, rng: np.random.Generator) -> Classified:
        self.values, counts = np.unique(values, return_counts=True)
        if self.values.size > MOST_CLASSES:
            raise ConfigError(
                f"{self.values.size} distinct values are too many for a classifier, which can have"
                f" up to {MOST_CLASSES}; use 'categorical', or join rare ones"
            )
        self.counts = counts.astype(np.float64)
        return self

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.empty((len(values), 0))

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        return np.full(len(latent), self.values[np.argmax(self.counts)])

    def holds(self, values: np.ndarray) -> np.ndarray:
        return np.isin(values, self.values)

    def describe(self) -> str:
        n_values = plural(int(self.values.size), "distinct value")
        return f"{n_values}, drawn by a classifier given other columns; no others"


def find_repeats(
    x: np.ndarray,
    places: Sequence[int],
    fits: Callable[[int, int], bool],
    forced: Collection[int] = (),
) -> dict[int, tuple[np.ndarray, list[int]]]:
    """Return the atoms, and the later columns it equals in part, of each column that is worth it.

    Columns are ``places`` of rows x (n, d), NaN where missing. An atom is a spike (`find_spikes`)
    with `ATOM_SHARE` of the rows; an equality a spike at 0 of the difference with `EQUAL_SHARE`,
    rows at atoms left out. A column with an equality is worth it, or one whose atoms have
    `LEAST_COVER` without those at its ends, since a rank has limits exactly; or one of ``forced``.
    A column with the values of another wherever it is known is a copy, which alone may equal an
    earlier one; no other column equals it. ``fits(i, j)`` tells if column i can hold the values of
    column j.
    """
    found: dict[int, tuple[np.ndarray, list[int]]] = {}
    atoms, smooth = {}, x.copy()
    for i in places:
        distinct = Distinct.of(x[~np.isnan(x[:, i]), i])
        counts = np.where(find_spikes(distinct), distinct.counts, 0)
        kept = np.sort(np.argsort(-counts, kind="stable")[:MOST_ATOMS])
        kept = kept[counts[kept] > max(FEWEST_REPEATS, ATOM_SHARE * distinct.n)]
        between = kept[(kept > 0) & (kept < len(counts) - 1)]
        atoms[i] = distinct.values[kept]
        smooth[np.isin(x[:, i], atoms[i]), i] = np.nan
        if i in forced or counts[between].sum() > LEAST_COVER * distinct.n:
            found[i] = (atoms[i], [])
    pairs = list(_maybe_equal(x, smooth, places))
    copies: dict[int, int] = {}
    for i, later in pairs:
        for j in later:
            for copy, other in ((i, j), (j, i)):
                free = not {i, j} & copies.keys()
                if free and _is_copy(x[:, copy], x[:, other]) and fits(copy, other):
                    copies[copy] = other
    for copy, other in copies.items():
        while other in copies:
            other = copies[other]
        found[copy] = (np.array([]), [other])
    for i, later in pairs:
        later = [j for j in later if not {i, j} & copies.keys() and fits(i, j)]
        equal, rest = [], smooth[:, i].copy()
        while later:
            shares = [_share_equal(rest, x[:, j]) for j in later]
            if not max(shares):
                break
            equal.append(later.pop(int(np.argmax(shares))))
            rest[rest == x[:, equal[-1]]] = np.nan
        if equal:
            found[i] = (atoms[i], equal)
    return dict(sorted(found.items()))


def _maybe_equal(
    x: np.ndarray, smooth: np.ndarray, places: Sequence[int]
) -> Iterator[tuple[int, list[int]]]:
    """Yield, last column first, the later ones that some rows, evenly spaced, do not exclude."""
    n_rows = max(MOST_COMPARED // len(places) ** 2, 100) if places else 1
    rows = slice(None, None, -(-len(x) // n_rows))
    for k, i in reversed(list(enumerate(places[:-1]))):
        later = np.array(places[k + 1 :])
        others, both = x[rows][:, later], ~np.isnan(x[rows, i])
        same = (others == x[rows, i][:, None])[both] | np.isnan(others[both])
        share = (others == smooth[rows, i][:, None]).mean(axis=0)
        yield i, later[same.all(axis=0) | (share > EQUAL_SHARE / 4)].tolist()


def _is_copy(values: np.ndarray, other: np.ndarray) -> bool:
    """Return if known values (n,) are those of another column, which is known there, too."""
    known = ~np.isnan(values)
    return bool(known.sum() > FEWEST_REPEATS and (values == other)[known].all())


def _share_equal(smooth: np.ndarray, other: np.ndarray) -> float:
    """Return the share of rows in which two columns are equal, 0 if that may be by chance.

    ``smooth`` (n,) is NaN where it does not count.
    """
    if not (other == smooth).any():
        return 0.0
    with np.errstate(over="ignore"):
        distinct = Distinct.of((other - smooth)[~np.isnan(other) & ~np.isnan(smooth)])
    zero = np.flatnonzero((distinct.values == 0) & find_spikes(distinct))
    count = int(distinct.counts[zero].sum())
    return count / len(smooth) if count > max(FEWEST_REPEATS, EQUAL_SHARE * len(smooth)) else 0.0


@TRANSFORMS.register("mixed")
@dataclass(eq=False)
class Mixed(ColumnTransform):
    """Leave atoms, and values equal to another column, to a classifier, and the rest to the flow.

    A discrete column more says of each row of which *kind* its value is: smooth (0), one of the
    atoms, equal to one of other columns, or missing. Where it is not smooth the flow learns draws
    in its place. `TableTransform` finds what stands as "auto", and tells `fit` smooth values only.

    Parameters
    ----------
    atoms : "auto" (see `find_repeats`), or a list of values to keep exactly
    equal : "auto", or a list of names of later columns; where several are equal the first counts
    inner : specification of the transform of smooth values, or "auto"
    """

    name = "mixed"
    fitted = ("shares",)
    shares = np.zeros(0)
    atoms: Literal["auto"] | list[float] = "auto"
    equal: Literal["auto"] | list[str] = "auto"
    inner: str | Mapping[str, Any] | Sequence[Any] = "auto"

    def __post_init__(self) -> None:
        for name in ("atoms", "equal"):
            value = getattr(self, name)
            if isinstance(value, str) and value != "auto":
                raise ConfigError(
                    f"{name} of transform 'mixed' must be 'auto' or a list, got {value!r}"
                )
        check_fields(self, "option of transform 'mixed'")
        for atom in self.atoms if self.atoms != "auto" else ():
            check_number(atom, "an atom of transform 'mixed'")

    def fit(self, values: np.ndarray, rng: np.random.Generator) -> Mixed:
        spec = choose(values)[0] if self.inner == "auto" else self.inner
        self._inner = build_column(spec).fit(values, rng)
        if isinstance(self._inner, Classified | Mixed):
            raise ConfigError(f"the inner transform of 'mixed' is for the flow, got {spec!r}")
        self.n_latent, self.draws = self._inner.n_latent, self._inner.draws
        # of one column alone nothing is found
        self.atoms = [] if self.atoms == "auto" else self.atoms
        self.equal = [] if self.equal == "auto" else self.equal
        self.shares = np.eye(1, 1 + len(self.atoms) + len(self.equal))[0]
        return self

    def kinds(self, values: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the kinds (n,), int, of values (n,), beside those of other columns by name."""
        kind, n_atoms = np.zeros(len(values), dtype=np.int64), len(self.atoms)
        for k in reversed(range(len(self.equal))):
            kind[values == columns[self.equal[k]]] = 1 + n_atoms + k
        for k, atom in enumerate(self.atoms):
            kind[values == atom] = 1 + k
        return kind

    def possible(self, values: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the shares (n, 1 + e) of being smooth, and of each equality, that are possible.

        Where the value is known and no atom, and others are known (not NaN) or not.
        """
        others = np.array([columns[name] for name in self.equal], dtype=np.float64)
        open_ = np.isnan(others.reshape(len(self.equal), len(values)).T)
        shares = np.delete(self.shares, np.s_[1 : 1 + len(self.atoms)])
        shares = shares * np.hstack([np.ones((len(values), 1)), open_])
        return shares * ((self.kinds(values, columns) == 0) & ~np.isnan(values))[:, None]

    def count(self, kinds: np.ndarray) -> None:
        """Learn the shares of the kinds (n,) of all known values."""
        counts = np.bincount(kinds, minlength=1 + len(self.atoms) + len(self.equal))
        self.shares = counts / len(kinds)

    @property
    def occurring(self) -> np.ndarray:
        """The kinds, rising, that the column can have, besides missing."""
        return np.flatnonzero(self.shares)

    @property
    def is_copy(self) -> bool:
        """True if known values are always those of one other column."""
        return self.occurring.tolist() == [1 + len(self.atoms)]

    def texts(self) -> list[str]:
        """Return what each kind that occurs is, in words."""
        texts = ["smooth", *(f"{a:g}" for a in self.atoms), *(f"equal to {e}" for e in self.equal)]
        return [texts[kind] for kind in self.occurring]

    def check_given(self, name: str, columns: Mapping[str, np.ndarray]) -> None:
        """Raise InputError if known values of column ``name`` (n,) are of no kind that occurs."""
        values = columns[name]
        wrong = ~np.isnan(values) & (self.kinds(values, columns) == 0)
        wrong &= ~self.possible(values, columns).any(axis=1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(
                f"given values contradict each other: column {name!r} is {values[row]:g} in row"
                f" {row}, but in training it always was {' or '.join(self.texts())}"
                f" ({plural(int(wrong.sum()), 'row')} of this kind); correct it, or leave it out"
            )

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self._inner.forward(values, rng)

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        return self._inner.inverse(latent)

    def holds(self, values: np.ndarray) -> np.ndarray:
        smooth = self._inner.holds(values) & bool(self.shares[0])
        return np.isin(values, self.atoms) | smooth | bool(len(self.equal))

    @property
    def smooth(self) -> ColumnTransform:
        """The transform of smooth values."""
        return self._inner

    def resolved(self) -> dict[str, Any]:
        return {"name": self.name, **self.options(), "inner": self._inner.resolved()}

    def state(self) -> dict[str, Any]:
        return {**super().state(), "inner": self._inner.to_json()}

    def load(self, state: Mapping[str, Any]) -> None:
        super().load(state)
        n_kinds = 1 + len(self.atoms) + len(self.equal)
        if len(self.shares) != n_kinds or not self.shares.any() or (self.shares < 0).any():
            raise FormatError("its shares are not those of its atoms and equal columns")
        self._inner = ColumnTransform.from_json(state["inner"])
        self.n_latent, self.draws = self._inner.n_latent, self._inner.draws

    def describe(self) -> str:
        shares = zip(self.texts(), self.shares[self.occurring], strict=True)
        kinds = [f"{text} ({100 * share:.3g}%)" for text, share in shares]
        how = f"by a classifier: {', '.join(kinds)}" if len(kinds) > 1 else f"always {kinds[0]}"
        return f"{how}; smooth: {self._inner.describe()}" if self.shares[0] else how


@TRANSFORMS.register("circular")
@dataclass(eq=False)
class Circular(ColumnTransform):
    """Map an angle to a point in the plane: two latent columns r cos, r sin, no seam.

    The radius r is drawn from a Rayleigh distribution, so that a uniform angle gives an exact
    two-dimensional standard normal. Derived here. Angles outside [low, low + period) are wrapped
    into it, both in the unit of the column; ``low`` None means -period / 2.
    """

    name = "circular"
    n_latent = 2
    draws = True
    period: float = 2 * np.pi
    low: float | None = None

    def fit(self, values: np.ndarray, rng: np.random.Generator) -> Circular:
        if check_number(self.period, "period of 'circular'") <= 0:
            raise ConfigError(f"period of 'circular' must be positive, got {self.period!r}")
        if self.low is not None:
            check_number(self.low, "low of 'circular'")
        return self

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        low, period = angle_range(vars(self))
        angle = (2 * np.pi / period) * np.remainder(values - low, period)
        # never 0: there the direction would be lost
        radius = np.sqrt(-2 * np.log1p(-(1e-12 + (1 - 2e-12) * rng.random(values.shape[0]))))
        return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        low, period = angle_range(vars(self))
        turn = np.remainder(np.arctan2(latent[:, 1], latent[:, 0]) / (2 * np.pi), 1.0)
        values = low + period * turn
        return np.where(values < low + period, values, low)

    def describe(self) -> str:
        low, period = angle_range(vars(self))
        return f"angle, period {period:g}; generated values in [{low:g}, {low + period:g})"


def angle_range(options: Mapping[str, Any]) -> tuple[float, float]:
    """Return the lower end and the period of the angles of a `Circular`, from its options."""
    low, period = options["low"], float(options["period"])
    return -period / 2 if low is None else float(low), period
