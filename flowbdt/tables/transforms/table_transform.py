"""The transform of a whole table: each column on its own, relations, then all columns jointly."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ... import seeding
from ...atomic_files import to_plain
from ...errors import ConfigError, DataWarning, FormatError, InputError, plural, reading
from ...registry import unknown
from ...typed_settings import AtLeastZero, Stored, check_stored
from .. import checks
from ..coordinates.learned_columns import Coordinates, StoredCoordinates
from ..coordinates.turn import StoredTurn, Turn
from ..event_table import EventTable
from ..formulas.particles import read_particles
from ..formulas.relations import Relation, order_relations
from ..html_table import html_table
from ..skeleton import Skeleton, StoredSkeleton
from .base import ColumnTransform
from .column_fits import Column, ColumnFits
from .discrete import Classified, Mixed, codes_of
from .joint_transform import JointTransform
from .patterns import Pattern, as_stored
from .rank import Rank
from .rounded_floats import ROUNDED, number_type

FORMAT = 1
MAX_WHITENED = 64
"""Above this number of latent columns "auto" standardises instead of whitening."""
MOST_HOT = 40
"""Columns of `TableTransform.one_hot`."""
FAR = 0.5
"""Widths of its training range that a computed column may lie beyond it. Of real rows at most .4 in
n of momenta and masses do, where n have been trained on, and .7 in n of the heaviest tails.
"""
NARROW = 1e-3
"""Least such width, in units of the largest value: less may be rounding."""
MISSING = "{} is missing"
KIND = "kind of {}"
"""Names of the discrete columns that say so of another column."""


class TableTransform:
    """Map a table of events to latent columns and back, fitted on training rows only.

    Parameters
    ----------
    spec : "auto", a transform name for all columns, or a mapping from column names to a name, a
        mapping with ``name`` and options, or a list (a chain). ``"*"`` stands for the columns not
        named (without it: "auto"), ``"joint"`` for the joint transform ("auto": whiten up to
        64 latent columns, standardise above).
    relations : sequence of str, such as ``"tau21 = tau2 / tau1"``; their targets are not learned
        but computed again from the generated columns, after rounding to the type of each column,
        and from conditions
    seed : int, for the random numbers that spread repeated values
    classify : True leaves columns of few values to classifiers (transform 'classified') where
        "auto" decides; else each value is an interval of a latent axis ('categorical')
    particles : that relations may name, see `flowbdt.tables.formulas.particles.Particle`
    first : a column that classifiers draw, to be drawn before all others. Where "auto" decides,
        columns keep their shape then, see `choose.straightened`
    order : columns that classifiers draw, to be drawn next, in this order
    coordinates : columns that are learned in place of some of the table; ``spec`` may name them
    turn : of the events, that is not learned: `inverse` gives events without it, `turned` enters it

    Notes
    -----
    Where values are missing (NaN), a column that classifiers draw has NaN as one more value. Of
    others, a discrete column more says where they are missing together (`gaps`), and what stands
    in their place in latent space is drawn from the known values of the column, unless
    `refit_joint` is told better. The same holds for values that are repeated or equal to those of
    another column (transform 'mixed').

    Constant columns are kept exactly (with a DataWarning at fit) whatever was asked for. Event
    weights enter the joint transform, not the column transforms: these are only coordinates.
    Random numbers are keyed by column and block of rows, so that chunking cannot change them.

    Examples
    --------
    >>> table = EventTable.of(np.random.default_rng(0).lognormal(size=(100, 2)), ["a", "b"])
    >>> transform = TableTransform({"a": "log", "joint": "standardise"}).fit(table)
    >>> bool(np.allclose(transform.inverse(transform.forward(table)), table.x))
    True
    """

    def __init__(
        self,
        spec: str | Mapping[str, Any] = "auto",
        relations: Sequence[str] = (),
        seed: int = 0,
        classify: bool = False,
        particles: Mapping[str, Any] | None = None,
        first: str | None = None,
        order: Sequence[str] = (),
        coordinates: Coordinates = Coordinates(),  # noqa: B008 (immutable)
        turn: Turn = Turn(),  # noqa: B008 (immutable)
    ) -> None:
        self.spec = spec
        self.relations = relations
        self.seed = seed
        self.classify = classify
        self.particles = dict(particles or {})
        self.first, self.order = first, order
        self.conditions: tuple[str, ...] = ()
        self.coordinates, self.turn = coordinates, turn

    def fit(self, table: EventTable, used: np.ndarray | None = None) -> TableTransform:
        """Learn from a table; what is smooth from its rows ``used`` (n,), bool, only.

        What is discrete comes from all rows: values of classified columns, repeated and equal ones,
        gaps and rules. None of them is then broken by rows that were set aside for validation.

        Raises ConfigError if a column, transform, option or relation is unknown or contradictory;
        InputError if there are fewer than two rows, a relation does not hold, or a value lies
        outside the domain of its transform.
        """
        used = np.ones(table.n, dtype=bool) if used is None else used
        checks.min_rows(int(used.sum()), 2, "fitting the table transform")
        table = self.turn.out_of(table)
        rows = table if used.all() else table.take(used)
        self.conditions = table.cond_names
        self.ordered_relations = order_relations(
            self.relations, table.names, table.cond_names, read_particles(self.particles)
        )
        for relation in self.ordered_relations:
            relation.check(rows)
        self.coordinates.check(rows, [relation.target for relation in self.ordered_relations])
        wide = self.coordinates.added_to(table)
        fits = ColumnFits(
            self.spec,
            wide.names,
            self._computed,
            seed=self.seed,
            classify=self.classify,
            first=self.first,
            coordinates=self.coordinates,
        )
        columns = fits.fit(wide, used)
        self.columns, self._learned = columns[: len(table.names)], columns[len(table.names) :]
        self._check_needed()
        self.ordered_relations = fits.fit_mixed(self.columns, table, used, self.ordered_relations)
        self._set_gaps(self._find_gaps(table))
        self._warn_of_constants()
        self.refit_joint(self.latent_rows(rows), rows.weight)
        known = self._classified()
        codes = {name: self._codes(table, name, values) for name, values in known.items()}
        kinds = [name for name, pattern in self.patterns.items() if pattern.mixed is not None]
        for name in self.order:
            if name not in known:
                raise unknown("discrete column (in order)", name, known)
        first = [name for name in (self.first, *self.order, *kinds) if name is not None]
        self.skeleton = Skeleton.fit(known, codes, list(dict.fromkeys(first)))
        return self

    def refit_joint(self, latent: np.ndarray, weight: np.ndarray | None = None) -> None:
        """Fit the joint transform to `latent_rows` (n, m) of training rows; NaN is filled."""
        joint = self.spec.get("joint", "auto") if isinstance(self.spec, Mapping) else "auto"
        if joint == "auto":
            joint = "whiten" if latent.shape[1] <= MAX_WHITENED else "standardise"
        self._joint = JointTransform.build(joint).fit(self._filled(latent), weight)

    def reweighted(self, z: np.ndarray, used: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Take over the distributions that columns have with other weights (n,); return z (n, m).

        That is what transforms to a normal distribution ('rank') know; ``z`` are the latent events
        so far, and ``used`` (n,), bool, are those that count.
        """
        latent, start = self.latent_of(z), 0
        for column in self.all_columns:
            width = 0 if column.transform is None else column.transform.n_latent
            rank = (
                column.transform.smooth if isinstance(column.transform, Mixed) else column.transform
            )
            if isinstance(rank, Rank):
                values = latent[:, start]
                latent[:, start] = rank.reweighted(values[used], weight[used])(values)
            start += width
        return self._joint.forward(latent)

    def _filled(self, latent: np.ndarray) -> np.ndarray:
        """Return latent columns (n, m) with draws from the known values where one is missing."""
        if not np.isnan(latent).any():
            return latent
        filled, rng = latent.copy(), seeding.stream(self.seed, "fill")
        for values in filled.T:
            missing = np.isnan(values)
            if missing.any():
                values[missing] = rng.choice(values[~missing], int(missing.sum()))
        return filled

    def _find_gaps(self, table: EventTable) -> tuple[tuple[str, ...], ...]:
        """Return the learned columns with missing values, those always missing together as one.

        Columns that classifiers draw, in part or as a whole, stay alone.
        """
        groups: dict[Any, list[str]] = {}
        for column in self.columns:
            missing = np.isnan(table.column(column.name))
            if self._is_drawn(column) and missing.any():
                key = column.name if column.is_alone else missing.tobytes()
                groups.setdefault(key, []).append(column.name)
        return tuple(map(tuple, groups.values()))

    def _is_drawn(self, column: Column) -> bool:
        """Return if the flow or a classifier draws a column, as it stands or in coordinates."""
        return column.transform is not None or column.name in self.coordinates.targets

    @property
    def _computed(self) -> dict[str, str]:
        """The columns that follow from others, with their relations."""
        declared = {relation.target: relation.text for relation in self.ordered_relations}
        return declared | self.coordinates.targets

    def _check_needed(self) -> None:
        """Raise ConfigError unless the flow draws what coordinates need as it stands."""
        for column in self.columns:
            if column.name in self.coordinates.needed and (
                column.transform is None or column.is_alone
            ):
                raise ConfigError(
                    f"column {column.name!r} is needed by learned columns, so the flow must draw"
                    f" it, but it is {column.reason}; fit with coordinates='columns'"
                )

    def _set_gaps(self, gaps: Sequence[Sequence[str]]) -> None:
        """Keep gaps, and what the discrete columns say that are none of the table, by name.

        A mixed column comes behind those that it may equal, later ones of the table first.
        """
        self.gaps, kinds = tuple(map(tuple, gaps)), {}
        names, missing = self.names, self._with_gaps
        self.mixed = self._mixed_in_order()
        for name, transform in self.mixed.items():
            dtype = self.columns[names.index(name)].dtype
            pattern = Pattern((name,), names, transform, name in missing, dtype)
            kinds[self._free(KIND.format(name))] = pattern
        self._copies = [pattern for pattern in kinds.values() if len(pattern.values) == 1]
        self.patterns = {k: pattern for k, pattern in kinds.items() if len(pattern.values) > 1}
        alone = {column.name for column in self.columns if column.is_alone}
        for group in self.gaps:
            if alone.isdisjoint(group):
                self.patterns[self._free(MISSING.format(group[0]))] = Pattern(group, names)

    @property
    def has_copies(self) -> bool:
        """True if a column always equals another, or has one value, and no classifier says so."""
        return bool(self._copies)

    def _free(self, name: str) -> str:
        while name in self.names:
            name += "?"
        return name

    @property
    def _with_gaps(self) -> set[str]:
        """Names of the learned columns that are missing in some rows."""
        return {name for group in self.gaps for name in group}

    @property
    def may_be_missing(self) -> set[str]:
        """Names of the columns that are missing in some rows."""
        names = self._with_gaps
        for relation in self.ordered_relations:  # in order: sources before targets
            if not names.isdisjoint(relation.sources):
                names.add(relation.target)
        return names

    def _classified(self) -> dict[str, np.ndarray]:
        """Return the values of the columns that classifiers draw, NaN last where it is one."""
        missing, known = self._with_gaps, {}
        for column in self.columns:
            if isinstance(column.transform, Classified):
                values = column.transform.values
                gap = [np.nan] if column.name in missing else []
                known[column.name] = np.append(values, gap)
        return {**known, **{name: pattern.values for name, pattern in self.patterns.items()}}

    def _codes(self, table: EventTable, name: str, values: np.ndarray) -> np.ndarray:
        """Return the codes (n,), int, of a column that classifiers draw."""
        pattern = self.patterns.get(name)
        if pattern is not None:
            return pattern.codes(self.by_name(table.x))
        return codes_of(table.column(name), values)

    @property
    def numeric_places(self) -> list[int]:
        """The places of the columns that the flow draws: what classifiers can see."""
        return [
            i
            for i, c in enumerate(self.columns)
            if self._is_drawn(c) and (c.transform is None or c.transform.n_latent)
        ]

    def codes(self, table: EventTable) -> np.ndarray:
        """Return the codes (n, q), int, of the columns that classifiers draw, in their order."""
        table = self.turn.out_of(table)
        known = zip(self.skeleton.names, self.skeleton.values, strict=True)
        columns = [self._codes(table, name, values) for name, values in known]
        return np.stack(columns, axis=1) if columns else np.zeros((table.n, 0), dtype=np.int64)

    def one_hot(self, table: EventTable) -> np.ndarray:
        """Return a column of 0 and 1 for each value but the last (n, q) of discrete columns.

        Of the columns that classifiers draw, those of few values, in order, while there is room.
        """
        columns, codes, room = [np.zeros((table.n, 0))], self.codes(table), MOST_HOT
        for code, name, values in zip(
            codes.T, self.skeleton.names, self.skeleton.values, strict=True
        ):
            if name not in self.patterns and len(values) - 1 <= room:
                room -= len(values) - 1
                columns.append(np.eye(len(values))[code, :-1])
        return np.hstack(columns)

    def _warn_of_constants(self) -> None:
        gaps = self._with_gaps
        names = [c.name for c in self.columns if c.transform and c.transform.name == "constant"]
        names = [name for name in names if name not in gaps and name != self.turn.drawn]
        if names:
            shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            warnings.warn(
                f"{plural(len(names), 'column')} with one value in all training rows will be"
                f" generated with exactly this value: {shown}",
                DataWarning,
                stacklevel=3,
            )

    def forward(self, table: EventTable, first_row: int = 0) -> np.ndarray:
        """Return latent values z (n, n_latent), float64, without units.

        The table has the columns of the fit in any order; targets of relations may be missing.
        Random numbers belong to blocks of rows, so ``first_row``, the number of its first row in
        the whole data set, is a multiple of `seeding.BLOCK`. Raises InputError.
        """
        if first_row < 0 or first_row % seeding.BLOCK:
            raise InputError(
                f"first_row must be a multiple of {seeding.BLOCK}, got {first_row}; cut the table"
                " at such rows"
            )
        return self._joint.forward(self._filled(self.latent_rows(table, first_row)))

    def latent_rows(self, table: EventTable, first_row: int = 0) -> np.ndarray:
        """Return the latent columns (n, m) of a table before the joint transform; NaN as there."""
        x, table = np.full((table.n, len(self.columns)), np.nan), self.turn.out_of(table)
        for i, column in enumerate(self.columns):
            if self._is_drawn(column):
                x[:, i] = table.column(column.name)
        rows = [np.empty((0, len(self._column_latent_names())))]
        for b, low, high in seeding.block_ranges(table.n):
            numbers = self._block_numbers(first_row // seeding.BLOCK + b)
            cond = None if table.cond is None else table.cond[low:high]
            rows.append(self.latent_columns(x[low:high], numbers, cond))
        return np.vstack(rows)

    def _block_numbers(self, block: int) -> Callable[[int, np.ndarray], np.random.Generator]:
        return lambda column, known: seeding.stream(self.seed, "dequantise", column, block)

    def latent_columns(
        self,
        x: np.ndarray,
        rng_of: Callable[[int, np.ndarray], Any],
        cond: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the latent columns (n, m) before the joint transform; NaN where `smooth` is.

        ``rng_of`` returns the random numbers of a column, by its number, for some rows (n,), bool.
        ``cond`` (n, c) are conditions in the units of the table.
        """
        x, latent = self.with_learned(x, cond), [np.empty((len(x), 0))]
        for index, column in enumerate(self.all_columns):
            if column.transform is not None and column.transform.n_latent:
                known, values = ~np.isnan(x[:, index]), np.ascontiguousarray(x[:, index])
                block = np.full((len(x), column.transform.n_latent), np.nan)
                block[known] = column.transform.forward(values[known], rng_of(index, known))
                latent.append(block)
        return np.hstack(latent)

    def with_learned(self, x: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
        """Return the smooth values of rows x (n, d), and behind them the learned columns."""
        return np.hstack([self.smooth(x), self.coordinates.forward(self.by_name(x, cond), len(x))])

    def by_name(self, x: np.ndarray, cond: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return the columns (n,) of rows x (n, d) by name, as views, and conditions (n, c)."""
        columns = dict(zip(self.names, x.T, strict=True))
        if cond is not None and self.conditions:
            columns |= zip(self.conditions, cond.T, strict=True)
        return columns

    @property
    def needs_conditions(self) -> bool:
        """True if a relation or a learned column uses a condition."""
        relations = (*self.ordered_relations, *self.coordinates.relations)
        used = [one.expression for one in relations] + [*self.coordinates.learned.values()]
        return not {name for one in used for name in one.sources}.isdisjoint(self.conditions)

    @property
    def computed_from(self) -> dict[str, list[str]]:
        """The columns that are computed from each condition."""
        relations = (*self.coordinates.relations, *self.ordered_relations)
        found = {
            name: [relation.target for relation in relations if name in relation.sources]
            for name in self.conditions
        }
        return {name: targets for name, targets in found.items() if targets}

    def reach(self) -> np.ndarray | None:
        """Return the ends (2, d) of what computed columns are believed, before a turn, if any are.

        A relation may diverge where what it is of is just possible: a momentum of the mass of two
        nearly collinear particles. Infinite for columns that are learned, hardly vary, or follow
        from conditions, which may lie far outside of the training.
        """
        ends = np.tile([[-np.inf], [np.inf]], len(self.columns))
        given = {*self.conditions, *self.coordinates.relative}
        for relation in (*self.coordinates.relations, *self.ordered_relations):
            place = self.names.index(relation.target)
            low, high = self.columns[place].low, self.columns[place].high
            if not given.isdisjoint(relation.sources):
                given.add(relation.target)
            elif high - low > NARROW * max(abs(low), abs(high)):
                margin = FAR * (high - low)
                ends[:, place] = low - margin, high + margin
        return ends if np.isfinite(ends).any() else None

    def smooth(self, x: np.ndarray) -> np.ndarray:
        """Return rows x (n, d) with NaN where a value is not for the flow, see `Mixed`."""
        result, columns = x, self.by_name(x)
        for i, column in enumerate(self.columns):
            if isinstance(column.transform, Mixed):
                result = result.copy() if result is x else result
                result[column.transform.kinds(x[:, i], columns) > 0, i] = np.nan
        return result

    def refuse_gaps(self, table: EventTable) -> None:
        """Raise InputError if a value is missing in a column that has all in training."""
        whole = [name for name in self.names if name not in self.may_be_missing]
        checks.finite(table.select(whole).x, whole, "the table")

    def inverse(
        self, z: np.ndarray, codes: np.ndarray | None = None, cond: np.ndarray | None = None
    ) -> np.ndarray:
        """Return events x (n, d), float64, all columns in the order of the fit.

        ``codes`` (n, q) are those of `codes`; needed if there are such columns. ``cond`` (n, c) are
        conditions in the units of the table, needed if a relation uses them. Columns are rounded
        to the type they came in before relations are computed, so that these hold on the stored
        values. Where a relation is undefined for a generated event the target takes the nearest end
        of its training range, with a DataWarning. Raises InputError if z does not have shape
        (n, n_latent) or is not finite.
        """
        if len(self.skeleton) and codes is None:
            raise InputError("codes of the columns that classifiers draw are needed")
        if cond is None and self.needs_conditions:
            raise InputError("relations use conditions: those of each row are needed")
        x = self.numeric_columns(z, cond)
        self.complete(x, codes, cond)
        return x

    def numeric_columns(self, z: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
        """Return `inverse` before `complete`: what the flow alone says."""
        return self.columns_of(self.latent_of(z), cond)

    def latent_of(self, z: np.ndarray) -> np.ndarray:
        """Return the latent columns (n, m) before the joint transform. Raises as `inverse`."""
        z = np.asarray(z, dtype=np.float64)
        if z.ndim != 2 or z.shape[1] != self.n_latent:
            raise InputError(f"latent values must have shape (n, {self.n_latent}), got {z.shape}")
        checks.finite(z, self.latent_names, "latent values")
        with np.errstate(over="ignore", invalid="ignore"):
            return np.nan_to_num(self._joint.inverse(z), nan=0.0)

    def columns_of(self, latent: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
        """Return `numeric_columns` of the latent columns (n, m) before the joint transform.

        ``cond`` (n, c) are conditions in the units of the table.
        """
        x = np.empty((len(latent), len(self.all_columns)))
        start = 0
        for i, column in enumerate(self.all_columns):
            if column.transform is not None:
                stop = start + column.transform.n_latent
                values = column.transform.inverse(np.ascontiguousarray(latent[:, start:stop]))
                x[:, i] = as_stored(values, column.dtype)
                start = stop
        return self.without_learned(x, cond)

    def without_learned(self, x: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
        """Return columns (n, d) from such as `with_learned` has, with what follows from these."""
        if not len(self.coordinates):
            return x
        result, learned = (
            np.ascontiguousarray(x[:, : len(self.columns)]),
            x[:, len(self.columns) :],
        )
        known = dict(zip(self.coordinates.names, learned.T, strict=True))
        self._compute(self.coordinates.relations, self.by_name(result, cond) | known)
        return result

    def complete(
        self,
        x: np.ndarray,
        codes: np.ndarray | None,
        cond: np.ndarray | None,
        gaps: bool = True,
    ) -> None:
        """Fill in classified columns from their codes (n, q), then relations, in place.

        ``cond`` as for `inverse`. What is missing becomes NaN, unless ``gaps`` is False.
        """
        names = self.names
        for k, name in enumerate(self.skeleton.names):
            assert codes is not None
            if name not in self.patterns:
                x[:, names.index(name)] = self.skeleton.values[k][codes[:, k]]
            self.enter_kinds(x, codes, k)
        for pattern in self._copies:
            pattern.enter(x, np.zeros(len(x), dtype=np.int64))
        for k, name in enumerate(self.skeleton.names if gaps else ()):
            assert codes is not None
            if name in self.patterns:
                pattern = self.patterns[name]
                missing = codes[:, k] == pattern.missing
                for place in pattern.places if missing.any() else ():
                    x[missing, place] = np.nan
        self.recompute(x, cond)

    def enter_kinds(self, x: np.ndarray, codes: np.ndarray, k: int) -> None:
        """Enter in rows x (n, d), in place, what discrete column k says, see `Pattern.enter`.

        ``codes`` (n, q) are known up to it.
        """
        pattern = self.patterns.get(self.skeleton.names[k])
        if pattern is not None:
            pattern.enter(x, codes[:, k])

    def without_turn(self, x: np.ndarray) -> np.ndarray:
        """Return rows x (n, d) with their turn taken out; NaN where it is unknown."""
        if not self.turn:
            return x
        x = x.copy()
        columns = self.by_name(x)
        for name, values in self.turn.taken_out(columns).items():
            columns[name][:] = values
        return x

    def turned(
        self, x: np.ndarray, angle: np.ndarray, cond: np.ndarray | None = None
    ) -> np.ndarray:
        """Return events x (n, d) of `inverse` turned by angles (n,), and what follows from them."""
        if not self.turn:
            return x
        x = x.copy()
        columns, dtypes = self.by_name(x), {c.name: number_type(c.dtype) for c in self.columns}
        for name, values in self.turn.turned(columns, angle).items():
            columns[name][:] = as_stored(values, dtypes[name].str)
        self.recompute(x, cond)
        return x

    def recompute(self, x: np.ndarray, cond: np.ndarray | None) -> None:
        """Fill in the targets of the relations of events (n, d), in place; NaN without a source.

        ``cond`` as for `inverse`.
        """
        self._compute(self.ordered_relations, self.by_name(x, cond))

    def _compute(self, relations: Sequence[Relation], by_name: dict[str, np.ndarray]) -> None:
        """Fill in the targets of relations in columns (n,) by name, in place."""
        for relation in relations:
            column = self.columns[self.names.index(relation.target)]
            sources = {name: by_name[name] for name in relation.sources}
            missing = np.any([np.isnan(values) for values in sources.values()], axis=0)
            values = np.where(missing, 0.0, relation.evaluate(sources))
            values = as_stored(_within_floats(relation, values, column), column.dtype)
            by_name[relation.target][:] = np.where(missing, np.nan, values)

    @property
    def n_latent(self) -> int:
        """Number of latent columns; 0 if all columns are constant."""
        return self._joint.n_latent

    @property
    def joint(self) -> JointTransform:
        """The joint transform after the column transforms."""
        return self._joint

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns, in the order of the fit."""
        return tuple(column.name for column in self.columns)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """Names of the latent columns: column names, or axis0, axis1, ... after whitening."""
        return self._joint.names(self._column_latent_names())

    @property
    def all_columns(self) -> list[Column]:
        """The columns of the table, and behind them those that are learned in their place."""
        return [*self.columns, *self._learned]

    def _column_latent_names(self) -> list[str]:
        names: list[str] = []
        for column in self.all_columns:
            k = column.transform.n_latent if column.transform is not None else 0
            names += [column.name if k == 1 else f"{column.name}:{i}" for i in range(k)]
        return names

    def describe(self) -> list[str]:
        """Return one line per column (transform, reason, range allowed) and one for all jointly."""
        lines = []
        for column in self.all_columns:
            if column.name == self.turn.drawn:
                others = ", ".join(sorted(self.turn.columns - {column.name}))
                lines.append(
                    f"{column.name}: not learned, drawn evenly as the common turn of {others}"
                    if others
                    else f"{column.name}: not learned, drawn evenly"
                )
            elif column.transform is None:
                lines.append(f"{column.name}: not learned, computed as {column.reason}")
            else:
                lines.append(f"{column.name}: {column.transform.describe()} [{column.reason}]")
            if column.dtype in ROUNDED:
                lines[-1] += f", rounded to {ROUNDED[column.dtype]} bits of the mantissa"
            if column.name in self.coordinates.learned:
                lines[-1] += f", learned as {self.coordinates.learned[column.name].text}"
        n_columns = plural(len(self._column_latent_names()), "latent column")
        lines += [f"missing {_together(group)}: {', '.join(group)}" for group in self.gaps]
        lines += self.skeleton.describe()
        return [*lines, f"joint: {self._joint.name}, {self.n_latent} of {n_columns} kept"]

    def _repr_html_(self) -> str:
        """Return the lines of `describe` for notebooks."""
        lines = [line.partition(": ") for line in self.describe()]
        return html_table(
            f"{plural(len(self.names), 'column')}, {plural(self.n_latent, 'latent column')}",
            [{"column": name, "what is done to it": text} for name, _, text in lines],
        )

    def transform_spec(self) -> dict[str, Any]:
        """Return the specification with every automatic choice written out.

        Print it, edit it, pass it back as ``spec``: unedited, it gives the same transform.
        """
        spec = {c.name: c.transform.resolved() for c in self.all_columns if c.transform}
        return {**spec, "joint": self._joint.resolved()}

    def to_json(self) -> dict[str, Any]:
        """Return everything `from_json` needs, as a JSON-like dict; no training rows."""
        columns, learned = (
            [
                vars(column) | {"transform": column.transform and column.transform.to_json()}
                for column in some
            ]
            for some in (self.columns, self._learned)
        )
        coordinates = {**self.coordinates.to_json(), "columns": learned}
        return {
            "format": FORMAT,
            "seed": self.seed,
            "columns": columns,
            **({"coordinates": coordinates} if len(self.coordinates) else {}),
            **({"turn": self.turn.to_json()} if self.turn else {}),
            "relations": [relation.text for relation in self.ordered_relations],
            **({"conditions": list(self.conditions)} if self.needs_conditions else {}),
            **({"particles": to_plain(self.particles)} if self._names_particles else {}),
            **({"gaps": [list(group) for group in self.gaps]} if self.gaps else {}),
            "joint": self._joint.to_json(),
            **({"skeleton": self.skeleton.to_json()} if len(self.skeleton) else {}),
        }

    @property
    def _names_particles(self) -> bool:
        return any(
            not one.expression.particles.keys().isdisjoint(one.expression.names)
            for one in self.ordered_relations
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TableTransform:
        """Rebuild a fitted transform, bit-equal in what it computes. Raises FormatError."""
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            got = data.get("format") if isinstance(data, Mapping) else type(data).__name__
            raise FormatError(
                f"a stored table transform must have format {FORMAT}, got {got!r}; it is from"
                " another release or not a transform"
            )
        check_stored(data, StoredTable, "a stored table transform")
        with reading("a stored table transform"):
            particles = data.get("particles")
            result = cls("auto", tuple(data["relations"]), data["seed"], particles=particles)
            coordinates = data.get("coordinates") or {"columns": []}
            result.columns, result._learned = (
                [
                    Column(**column | {"transform": stored and ColumnTransform.from_json(stored)})
                    for column in columns
                    for stored in [column["transform"]]
                ]
                for columns in (data["columns"], coordinates["columns"])
            )
            result.coordinates = Coordinates.from_json(data.get("coordinates"), result.names)
            result.turn = Turn.from_json(data.get("turn"))
            if not {*result.turn.columns, *result.turn.reference} <= {*result.names}:
                raise FormatError("its turn is of other columns")
            if result.coordinates.names != tuple(column.name for column in result._learned):
                raise FormatError("its learned columns are not those of its coordinates")
            for column in result.all_columns:
                if not column.low <= column.high or number_type(column.dtype).kind not in "fiub":
                    raise FormatError(f"column {column.name!r} has an impossible range or type")
            result.conditions = tuple(data.get("conditions") or ())
            result.ordered_relations = order_relations(
                result.relations, result.names, result.conditions, read_particles(particles)
            )
            if result._computed.keys() != {
                column.name for column in result.columns if not column.transform
            }:
                raise FormatError("its relations are not those of the columns without transform")
            result._joint = JointTransform.from_json(data["joint"])
            if result._joint.mean.size != len(result._column_latent_names()):
                raise FormatError("its joint transform is of another number of columns")
            result._check_needed()
            result._set_gaps(data.get("gaps") or ())
            result._check_gaps()
            skeleton = data.get("skeleton") or {"names": [], "exclusions": []}
            result.skeleton = Skeleton.from_json(skeleton, result._classified())
            result.spec = result.transform_spec()
        return result

    def _mixed_in_order(self) -> dict[str, Mixed]:
        """Return the mixed columns by name, each behind those that it may equal.

        Raises ConfigError if these are not learned, or copies, or form a circle.
        """
        ordered: dict[str, Mixed] = {}
        mixed = {c.name: c.transform for c in self.columns[::-1] if isinstance(c.transform, Mixed)}
        learned = {
            c.name
            for c in self.columns
            if self._is_drawn(c) and not isinstance(c.transform, Classified)
        } - {name for name, transform in mixed.items() if transform.is_copy}
        while waiting := [name for name in mixed if name not in ordered]:
            ready = (name for name in waiting if not {*waiting} & {*mixed[name].equal})
            name = next(ready, "")
            if not name or not learned.issuperset(mixed[name].equal):
                raise ConfigError(
                    "transform 'mixed': a column can equal such as are learned and may not equal it"
                    f" in turn, nor are but copies; that is not so of {name or ', '.join(waiting)}"
                )
            ordered[name] = mixed[name]
        return ordered

    def _check_gaps(self) -> None:
        """Raise FormatError unless stored gaps are of learned columns, each named once."""
        learned = {c.name: c.is_alone for c in self.columns if self._is_drawn(c)}
        names = [name for group in self.gaps for name in group]
        alone = all(len(g) == 1 or (g and not any(map(learned.get, g))) for g in self.gaps)
        if len(set(names)) < len(names) or not set(names) <= learned.keys() or not alone:
            raise FormatError("its columns with missing values are not those that are learned")


class StoredColumn(Stored):
    """A column of a stored table transform."""

    name: str
    dtype: str
    transform: dict[str, Any] | None
    reason: str
    low: float
    high: float


class StoredTable(Stored):
    """A stored table transform."""

    format: int
    seed: AtLeastZero
    columns: list[StoredColumn]
    relations: list[str]
    joint: dict[str, Any]
    skeleton: StoredSkeleton | None = None
    gaps: list[list[str]] | None = None
    conditions: list[str] | None = None
    particles: dict[str, dict[str, str | int | float]] | None = None
    coordinates: StoredCoordinates | None = None
    turn: StoredTurn | None = None


def _together(columns: Sequence[str]) -> str:
    return "together in some rows" if len(columns) > 1 else "in some rows"


def _within_floats(relation: Relation, values: np.ndarray, column: Column) -> np.ndarray:
    """Replace undefined results of a relation by the ends of the target's training range."""
    values = np.array(values, dtype=np.float64)
    undefined = ~np.isfinite(values)
    if undefined.any():
        values = np.nan_to_num(values, nan=column.low, posinf=column.high, neginf=column.low)
        count = plural(int(undefined.sum()), "generated event")
        warnings.warn(
            f"relation {relation.text!r} is undefined in {count};"
            f" {column.name!r} was set to an end of its training range there",
            DataWarning,
            stacklevel=4,
        )
    return values
