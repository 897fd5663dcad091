"""The fit of each column of a table on its own: its transform, and why it has this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import seeding
from ...errors import ConfigError, InputError
from ...registry import unknown
from ..coordinates.learned_columns import Coordinates
from ..event_table import EventTable
from ..formulas.relations import Relation, order_relations
from .base import ColumnTransform, build_column
from .choose import choose, straightened
from .discrete import MOST_CLASSES, Classified, Mixed, find_repeats
from .patterns import as_stored
from .rounded_floats import floats_of
from .smooth import Standard

ROWS_PER_CLASS = 4
"""Rows per distinct number, from which on a classifier draws them and not the flow."""


@dataclass
class Column:
    """A column: its type, fitted transform (None: recomputed) with the reason, training range."""

    name: str
    dtype: str
    transform: ColumnTransform | None
    reason: str
    low: float
    high: float

    @property
    def is_alone(self) -> bool:
        """Return if classifiers draw the column, in part or as a whole."""
        return isinstance(self.transform, Classified | Mixed)


class ColumnFits:
    """Fit columns one by one.

    Parameters
    ----------
    spec, seed, classify, first, coordinates : as for `TableTransform`
    names : of the columns of the table and of those learned in place of some
    computed : the relations of the columns that are not learned, by name

    Raises ConfigError if ``spec`` names a column or a transform that does not exist, or one that is
    computed.
    """

    def __init__(
        self,
        spec: str | Mapping[str, Any],
        names: Sequence[str],
        computed: Mapping[str, str],
        *,
        seed: int,
        classify: bool,
        first: str | None,
        coordinates: Coordinates,
    ) -> None:
        self._computed, self._seed, self._classify = computed, seed, classify
        self._keeps_shape = first is not None  # see `straightened`
        self._coordinates = coordinates
        self._wanted = self._read(spec, names)

    def _read(self, spec: str | Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Return the specification of every column that is learned."""
        specs = {"*": spec} if not isinstance(spec, Mapping) else dict(spec)
        specs.pop("joint", None)
        rest = specs.pop("*", "auto")
        for name in specs:
            if name not in names:
                raise unknown("column (in transforms)", name, [*names, "*", "joint"])
            if name in self._computed:
                raise ConfigError(
                    f"column {name!r} is computed by the relation {self._computed[name]!r} and"
                    " needs no transform; remove one of the two"
                )
        for chain in (rest, *specs.values()):  # refuse what is unknown before any column is fitted
            for step in chain if isinstance(chain, (list, tuple)) else (chain,):
                built = None if step == "auto" else build_column(step)
                if isinstance(built, Mixed) and isinstance(chain, (list, tuple)):
                    raise ConfigError(
                        "transform 'mixed' is for a column as a whole, not a step of a chain; give"
                        " the other steps as its 'inner'"
                    )
        return {name: specs.get(name, rest) for name in names if name not in self._computed}

    def fit(self, table: EventTable, used: np.ndarray) -> list[Column]:
        """Return the columns of a table, fitted to its rows ``used`` (n,), bool.

        'mixed' ones wait for `fit_mixed`. Raises InputError if a column has no value there, or one
        outside the domain of its transform.
        """
        return [self._fit_column(i, table, used) for i in range(len(table.names))]

    def _fit_column(self, index: int, table: EventTable, used: np.ndarray) -> Column:
        name, dtype, every = table.names[index], table.dtypes[index], table.x[:, index]
        known = ~np.isnan(every)
        values, every = every[known & used], every[known]
        dtype = floats_of(every, dtype)
        if not len(values):
            raise InputError(f"column {name!r} has no value in the training rows: leave it out")
        if values.min() == values.max():
            values = every
        low, high = float(values.min()), float(values.max())
        if name not in self._wanted:
            return Column(name, dtype, None, self._computed[name], low, high)
        spec, reason = self._wanted[name], "as set"
        if spec == "auto" or low == high:
            spec, reason = choose(values, dtype, name in table.categories, every)
            classifies = self._classify and name not in self._coordinates.learned
            if classifies and spec == {"name": "categorical"}:
                spec, reason = _for_classifier(every, reason, name in table.categories)
            spec, reason = self._shaped(spec, reason, values)
        built = build_column(spec)
        if isinstance(built, Mixed):  # fitted when it is known what is smooth
            return Column(name, dtype, built, reason, low, high)
        if isinstance(built, Classified):
            values = every
        return Column(name, dtype, self._fitted(index, name, spec, values), reason, low, high)

    def _shaped(self, spec: Any, reason: str, values: np.ndarray) -> tuple[Any, str]:
        """Return a transform chosen for values (n,), with the reason, that keeps their shape."""
        return straightened(spec, reason, values) if self._keeps_shape else (spec, reason)

    def _fitted(self, index: int, name: str, spec: Any, values: np.ndarray) -> ColumnTransform:
        """Return the transform of a column, fitted to values (n,)."""
        rng = seeding.stream(self._seed, "fit-transform", index)
        try:
            return build_column(spec).fit(values, rng)
        except (ConfigError, InputError) as error:
            raise type(error)(f"column {name!r}: {error}") from error

    def fit_mixed(
        self,
        columns: Sequence[Column],
        table: EventTable,
        used: np.ndarray,
        relations: tuple[Relation, ...],
    ) -> tuple[Relation, ...]:
        """Find the columns of which classifiers draw a part, and fit them, in place, without it.

        Returns the relations in order, with those of columns that equal another in all rows: these
        are computed. Raises ConfigError if 'mixed' is set for a column that the flow does not learn
        as a number.
        """
        as_set = {
            i: c.transform.options()
            for i, c in enumerate(columns)
            if isinstance(c.transform, Mixed)
        }
        if not (self._classify or as_set):
            return relations
        places = self._places(columns, table)
        by_name = {table.names[i]: table.x[:, i] for i in places}
        for i, options in as_set.items():
            _check_mixed(table.names[i], options, by_name)
        # unlike ranks and integers, straightened columns do not have repeated values exactly
        bare = {
            i
            for i in places
            if self._keeps_shape
            and self._wanted[table.names[i]] == "auto"
            and isinstance(columns[i].transform, Standard)
        }

        def fits(i: int, j: int) -> bool:
            known = table.x[~np.isnan(table.x[:, j]), j]
            set_so = j in as_set and table.names[i] in as_set[j]["equal"]
            return (
                table.names[i] not in self._coordinates.targets
                and not set_so
                and np.array_equal(as_stored(known, columns[i].dtype), known)
            )

        found = find_repeats(table.x, places, fits, {*as_set, *bare})
        for i, (atoms, equal) in found.items():
            column = columns[i]
            if column.name in self._coordinates.targets:
                continue
            options = {"atoms": atoms.tolist(), "equal": [table.names[j] for j in equal]}
            if i in as_set:
                options |= {k: v for k, v in as_set[i].items() if v != "auto"}
            elif not self._classify or self._wanted[column.name] != "auto":
                continue
            elif copied := _with_copy(column, options["equal"], by_name, table, relations):
                relations = copied
                continue
            elif self._keeps_shape and not (i in bare and len(atoms)):
                continue  # a mixture for each value has them
            self._fit_part(i, column, options, by_name, used)
        return relations

    def _places(self, columns: Sequence[Column], table: EventTable) -> list[int]:
        """Return the places of the columns that may have repeated values, finer types first.

        Finer ones may equal coarser ones. Behind them those of which the flow draws coordinates:
        others may equal them.
        """
        learned = [
            i
            for i, c in enumerate(columns)
            if c.transform
            and c.transform.n_latent == 1
            and c.name not in (*table.categories, *self._coordinates.needed)
        ]
        learned.sort(key=lambda i: _fineness(table.dtypes[i]))
        return learned + [i for i, c in enumerate(columns) if c.name in self._coordinates.targets]

    def _fit_part(
        self,
        index: int,
        column: Column,
        options: dict[str, Any],
        by_name: Mapping[str, np.ndarray],
        used: np.ndarray,
    ) -> None:
        """Fit a mixed column, in place, to what is smooth of it."""
        values = by_name[column.name]
        known, kinds = ~np.isnan(values), Mixed(**options).kinds(values, by_name)
        every = known & (kinds == 0)
        smooth = every & used if (every & used).any() else every
        if not smooth.any():
            smooth, options["inner"] = known & (values == values[known][0]), "constant"
            column.reason = "no other values"
        elif options.get("inner", "auto") == "auto":
            inner, reason = choose(values[smooth], column.dtype, every=values[every])
            options["inner"], column.reason = self._shaped(inner, reason, values[smooth])
        spec = {"name": "mixed", **options}
        column.transform = fitted = self._fitted(index, column.name, spec, values[smooth])
        assert isinstance(fitted, Mixed)
        fitted.count(kinds[known])


def _for_classifier(every: np.ndarray, reason: str, is_category: bool) -> tuple[Any, str]:
    """Return the transform of a column with few values (n,), with the reason."""
    n_values = len(np.unique(every))
    if n_values > MOST_CLASSES:
        reason += f", more than {MOST_CLASSES}: too many for a classifier"
    elif not is_category and every.size < ROWS_PER_CLASS * n_values:
        reason += ", with too few rows for a classifier"
    else:
        return {"name": "classified"}, reason
    return {"name": "categorical"}, reason


def _check_mixed(name: str, options: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
    """Raise ConfigError unless a column set to be mixed and those it may equal are here."""
    equal = () if options["equal"] == "auto" else options["equal"]
    wrong = [one for one in (name, *equal) if one not in columns]
    if wrong:
        raise ConfigError(
            f"column {name!r}: transform 'mixed' is for numbers that the flow learns and that may"
            f" equal others of these, which {wrong[0]!r} is not"
        )


def _with_copy(
    column: Column,
    equal: Sequence[str],
    columns: Mapping[str, np.ndarray],
    table: EventTable,
    relations: tuple[Relation, ...],
) -> tuple[Relation, ...] | None:
    """Return relations with that of a column that equals another in all rows, if names allow.

    The column is computed then.
    """
    names = [column.name, *equal[:1]]
    text = " = ".join(name if name.isidentifier() else f"`{name}`" for name in names)
    here, there = columns[names[0]], columns[names[-1]]
    if len(names) == 1 or not np.array_equal(here, there, equal_nan=True):
        return None
    try:
        ordered = order_relations([*relations, text], table.names, table.cond_names)
    except ConfigError:  # not with these names
        return None
    column.transform, column.reason = None, text
    return ordered


def _fineness(dtype: str) -> tuple[bool, int]:
    """Return a key by which floats come before other types, wider ones first."""
    kind = np.dtype(dtype)
    return kind.kind != "f", -kind.itemsize if kind.kind == "f" else 0
