"""Known values of rows to be completed: what they say, and whether an event can have them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from ... import seeding
from ...errors import DataWarning, InputError, plural
from .. import checks
from ..conditions import MARGIN, ConditionRanges
from ..formulas.relations import TOLERANCE
from .column_fits import Column
from .discrete import Categorical, Classified, Mixed
from .patterns import as_stored
from .rounded_floats import number_type
from .table_transform import TableTransform


class KnownValues:
    """What a fitted table transform says of rows x (n, d) with gaps (NaN where unknown)."""

    def __init__(self, transform: TableTransform) -> None:
        self._transform = transform

    def codes(self, x: np.ndarray, settled: bool = False) -> np.ndarray:
        """Return the codes (n, q) that follow from values x (n, d), NaN and -1 where unknown.

        With ``settled`` known values are those of no unknown column, see `guess_equal`.
        """
        return self._transform.skeleton.codes_given(self._with_patterns(x, settled))

    def _with_patterns(self, x: np.ndarray, settled: bool = False) -> dict[str, np.ndarray]:
        """Return values (n,) by name; a known one shows that it is not missing."""
        columns = self._transform.by_name(x)
        known = dict(columns)
        for name, pattern in self._transform.patterns.items():
            there = np.any([~np.isnan(columns[column]) for column in pattern.columns], axis=0)
            codes = np.zeros(len(x))
            if pattern.mixed is not None:
                codes = pattern.codes(columns)
                shares = pattern.mixed.possible(columns[pattern.columns[0]], columns)
                there &= settled | ~shares[:, 1:].any(axis=1)
            known[name] = np.where(there, codes, np.nan)
        return known

    def enter_sources(self, x: np.ndarray, cond: np.ndarray | None = None) -> None:
        """Enter what known values say of unknown columns of which they are computed, in place.

        That is where one source of a relation is unknown, and the relation can be solved for it;
        ``cond`` (n, c) are the conditions of the rows.
        """
        names = self._transform.names
        for relation in reversed(self._transform.ordered_relations):
            columns = self._transform.by_name(x, cond)
            unknown = {name: np.isnan(columns[name]) for name in relation.sources}
            alone = np.sum(list(unknown.values()), axis=0) == 1
            alone &= ~np.isnan(columns[relation.target])
            for name in [one for one in relation.sources if one in names]:
                rows = np.flatnonzero(alone & unknown[name])
                if len(rows):
                    place = names.index(name)
                    solved = relation.solved(name, {k: v[rows] for k, v in columns.items()})
                    if number_type(self._transform.columns[place].dtype).kind in "iub":
                        whole = np.rint(solved)
                        solved = np.where(np.abs(solved - whole) < TOLERANCE, whole, solved)
                    x[rows, place] = solved

    def guess_equal(
        self, x: np.ndarray, uniform_of: Callable[[int], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rows x (n, d) with known values entered in columns that may equal them, by chance.

        And the logs of the probabilities of these guesses (n,). Where a known value is no atom it
        is smooth, or that of an unknown column (NaN); shares in training decide. ``uniform_of``
        returns a uniform number for each row, for a column by its number.
        """
        x, log_share = x.copy(), np.zeros(len(x))
        columns = self._transform.by_name(x)
        for name, mixed in reversed(
            self._transform.mixed.items()
        ):  # those that it may equal come after
            if len(mixed.equal):
                i = self._transform.names.index(name)
                shares = mixed.possible(x[:, i], columns)
                rows = np.flatnonzero(shares[:, 1:].any(axis=1))
                shares = shares[rows] / shares[rows].sum(axis=1, keepdims=True)
                chosen = seeding.drawn(shares, uniform_of(i)[rows])
                log_share[rows] += np.log(shares[np.arange(len(rows)), chosen])
                for k, other in enumerate(mixed.equal):
                    columns[other][rows[chosen == 1 + k]] = x[rows[chosen == 1 + k], i]
        return x, log_share

    def check(
        self,
        x: np.ndarray,
        categories: Mapping[str, Sequence[str]],
        cond: np.ndarray | None = None,
    ) -> None:
        """Refuse known values of rows x (n, d), NaN where unknown, that no event could have.

        ``categories`` are the texts of the columns that have codes, ``cond`` (n, c) the conditions
        of the rows. Raises InputError for a value that a column cannot have, and for values of
        several columns that contradict each other.
        """
        for column, values in zip(self._transform.columns, x.T, strict=True):
            _check_column(column, values, categories.get(column.name))
        columns = self._transform.by_name(x)
        for column in self._transform.columns:
            if isinstance(column.transform, Mixed):
                column.transform.check_given(column.name, columns)
        self._transform.coordinates.check_given(self._transform.by_name(x, cond))
        known = self._with_patterns(x)
        with_conditions = {**self._transform.by_name(x, cond), **known}
        for relation in self._transform.ordered_relations:
            relation.check_given(with_conditions)
            known[relation.target] = with_conditions[relation.target]
        kinds = {
            n: p.mixed.texts() for n, p in self._transform.patterns.items() if p.mixed is not None
        }
        self._transform.skeleton.check_given(known, {**categories, **kinds})

    def ranges(self, categories: Collection[str]) -> ConditionRanges:
        """Return the training ranges of the columns; NaN for those of ``categories``."""
        limits = [
            (np.nan, np.nan) if c.name in categories else (c.low, c.high)
            for c in self._transform.columns
        ]
        low, high = np.array(limits).T
        for name, least in self._transform.turn.angles.items():
            i = self._transform.names.index(name)
            low[i], high[i] = least, least + 2 * np.pi
        return ConditionRanges(self._transform.names, low, high, what="given values")


def _check_column(column: Column, values: np.ndarray, texts: Sequence[str] | None) -> None:
    rows = np.flatnonzero(~np.isnan(values))
    present = values[rows]
    wrong = np.zeros(len(rows), dtype=bool)
    if column.transform is not None:
        wrong = ~column.transform.holds(present)
    if texts is None and isinstance(column.transform, Classified | Categorical):
        many = len(column.transform.values) > checks.FEW_NUMBERS  # a quantity, no label
        margin = np.inf if many else MARGIN * (column.high - column.low)
        near = wrong & (present >= column.low - margin) & (present <= column.high + margin)
        if near.any():
            warnings.warn(
                f"column {column.name!r} has {plural(int(near.sum()), 'given value')} beside"
                " those of the training rows; what is drawn takes the nearest of these for it",
                DataWarning,
                stacklevel=4,
            )
        wrong &= ~near
    if number_type(column.dtype).kind in "iub":
        wrong |= as_stored(present, column.dtype) != present
    if not wrong.any():
        return
    row, value = rows[np.argmax(wrong)], present[np.argmax(wrong)]
    said = f"{value:.12g}" if texts is None else repr(texts[int(value)])
    how = column.dtype if column.transform is None else column.transform.describe()
    raise InputError(
        f"the given value {said} of column {column.name!r} in row {row} is none that the model"
        f" can have ({plural(int(wrong.sum()), 'row')} with such values); in training the"
        f" column was: {how}. Correct the value, or leave it out (NaN)"
    )
