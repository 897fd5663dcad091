"""The discrete part of a row: columns of few values, which classifiers draw one after the other."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from ..errors import DataWarning, FormatError, InputError, plural
from ..typed_settings import AtLeastZero, Stored

EXPECTED = 20.0
"""Rows that two values of two columns would share by chance, from which on none is a rule: with
independent columns that happens once in 5e8 pairs. From 8 on, .8% of the rows of adult had such a
pair in held-out rows, from 20 on .2%: columns are not independent."""

FEWEST = 3
"""Rows for each value of a column, on average, from which on another is taken as its function."""


class StoredExclusion(Stored):
    """Values of two columns that never meet: numbers of the columns in order, pairs of codes."""

    before: AtLeastZero
    column: AtLeastZero
    pairs: list[tuple[AtLeastZero, AtLeastZero]]


class StoredSkeleton(Stored):
    """A stored skeleton."""

    names: list[str]
    exclusions: list[StoredExclusion]


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The discrete columns of a table in the order in which they are drawn.

    Parameters
    ----------
    names : columns, in order
    values : of each column the values (K,) that it can have, rising, NaN last where it may be
        missing; a code is a place among them
    allowed : for two columns i < j that exclude values of each other, which ones may meet,
        bool (K_i, K_j)
    """

    names: tuple[str, ...] = ()
    values: tuple[np.ndarray, ...] = ()
    allowed: Mapping[tuple[int, int], np.ndarray] = field(default_factory=dict)

    @property
    def n_values(self) -> dict[str, int]:
        """Of each column, in order, the number of its values."""
        return {name: len(of) for name, of in zip(self.names, self.values, strict=True)}

    @classmethod
    def fit(
        cls,
        known: Mapping[str, np.ndarray],
        codes: Mapping[str, np.ndarray],
        first: Sequence[str] = (),
    ) -> Self:
        """Find the order and the rules of discrete columns.

        ``known`` has the values of each column, ``codes`` (n,) those of the training rows. After
        those that are to be ``first``, columns of large entropy: on real tables held-out rows were
        more likely then, and a function of a column never comes before it.
        """
        entropy = {name: _entropy(code) for name, code in codes.items()}
        rest = [name for name in known if name not in first]
        rest.sort(key=lambda name: (-entropy[name], -len(known[name])))
        names = (*first, *rest)
        allowed = {}
        for j, column in enumerate(names):
            for i, before in enumerate(names[:j]):
                sizes = len(known[before]), len(known[column])
                meet = _may_meet(codes[before], codes[column], *sizes)
                if not meet.all():
                    allowed[i, j] = meet
        return cls(names, tuple(known[name] for name in names), allowed)

    def __len__(self) -> int:
        return len(self.names)

    def allows(self, codes: np.ndarray, column: int) -> np.ndarray | None:
        """Return which values (n, K) a column may have beside earlier ones (n, j), bool.

        None if all are allowed.
        """
        rules = [meet[codes[:, i]] for (i, j), meet in self.allowed.items() if j == column]
        return np.logical_and.reduce(rules) if rules else None

    def follows(self, column: int) -> bool:
        """Return if a column is a function of one before it."""
        return any(j == column and _is_function(meet) for (_, j), meet in self.allowed.items())

    def are_missing(self, codes: np.ndarray, column: int) -> np.ndarray:
        """Return where the codes (n, q) of a column are that of a missing value, bool (n,)."""
        last = len(self.values[column]) - 1
        gap = bool(np.isnan(self.values[column][last]))
        return (codes[:, column] == last) & gap

    def fills(self, codes: np.ndarray, column: int) -> np.ndarray:
        """Return which known values (n, K) a column may have beside all others (n, q), bool.

        Values before and after it in the order count, but for missing ones. Where no value fits,
        all do.
        """
        known = np.tile(~np.isnan(self.values[column]), (len(codes), 1))
        fits = known.copy()
        for (i, j), meet in self.allowed.items():
            if column in (i, j):
                other = i if column == j else j
                with_other = meet[codes[:, i]] if column == j else meet.T[codes[:, j]]
                fits &= with_other | self.are_missing(codes, other)[:, None]
        return np.where(fits.any(axis=1, keepdims=True), fits, known)

    def fits(self, known: np.ndarray, column: int) -> np.ndarray | None:
        """Return which values (n, K) of a column agree with later ones that are known, bool.

        ``known`` (n, q) are codes, -1 where unknown. None if all agree.
        """
        rules = [
            np.where(known[:, [j]] >= 0, meet.T[known[:, j]], True)
            for (i, j), meet in self.allowed.items()
            if i == column and (known[:, j] >= 0).any()
        ]
        return np.logical_and.reduce(rules) if rules else None

    def codes_given(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the codes (n, q) of the values nearest to those (n,) by name, -1 where NaN."""
        n = len(next(iter(columns.values())))
        codes = np.full((n, len(self)), -1, dtype=np.int64)
        for k, (name, values) in enumerate(zip(self.names, self.values, strict=True)):
            known = ~np.isnan(columns[name])
            codes[known, k] = nearest_codes(columns[name][known], values)
        return codes

    def check_given(
        self, columns: Mapping[str, np.ndarray], categories: Mapping[str, Sequence[str]]
    ) -> None:
        """Look for given values, (n,) by name and NaN where unknown, that never met in training.

        Raises InputError, with the texts of ``categories``, where one column follows from the
        other; elsewhere a DataWarning: a few rows of other data have such pairs.
        """
        codes = self.codes_given(columns)
        for k, (name, values) in enumerate(zip(self.names, self.values, strict=True)):
            codes[values[codes[:, k]] != columns[name], k] = -1  # another than the known ones
        for (i, j), meet in self.allowed.items():
            both = np.flatnonzero((codes[:, i] >= 0) & (codes[:, j] >= 0))
            wrong = ~meet[codes[both, i], codes[both, j]]
            if not wrong.any():
                continue
            row = both[np.argmax(wrong)]
            first, second = (
                self._said(k, codes[row, k], categories.get(self.names[k])) for k in (i, j)
            )
            pair = f"{first} and {second} in row {row} never meet in training"
            count = f"({plural(int(wrong.sum()), 'row')} of this kind)"
            if function := self._function(i, j):
                raise InputError(
                    f"given values contradict each other: {pair}, since {function} {count};"
                    " correct them, or leave one out"
                )
            warnings.warn(f"given values are unusual: {pair} {count}", DataWarning, stacklevel=3)

    def _function(self, i: int, j: int) -> str | None:
        """Return that one of two columns follows from the other, the later one where both do."""
        meet = self.allowed[i, j]
        if _is_function(meet):
            return f"{self.names[j]} follows from {self.names[i]}"
        return f"{self.names[i]} follows from {self.names[j]}" if _is_function(meet.T) else None

    def _said(self, column: int, code: int, texts: Sequence[str] | None) -> str:
        value = self.values[column][code]
        return f"{self.names[column]} = {f'{value:g}' if texts is None else texts[int(value)]!r}"

    def describe(self) -> list[str]:
        """Return one line on the order, and one for each rule."""
        if not self.names:
            return []
        lines = [f"drawn by classifiers, in this order: {', '.join(self.names)}"]
        for (i, j), meet in self.allowed.items():
            if function := self._function(i, j):
                lines.append(function)
            else:
                count = int((~meet).sum())
                lines.append(
                    f"{self.names[i]}, {self.names[j]}: {count} pairs of values never meet"
                )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return order and rules as a JSON-like mapping."""
        exclusions = [
            {"before": i, "column": j, "pairs": np.argwhere(~meet).tolist()}
            for (i, j), meet in self.allowed.items()
        ]
        return {"names": list(self.names), "exclusions": exclusions}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], known: Mapping[str, np.ndarray]) -> Self:
        """Rebuild from what `to_json` gave, checked by `StoredSkeleton`. Raises FormatError."""
        names = tuple(stored["names"])
        if sorted(names) != sorted(known):
            raise FormatError("its order of discrete columns is not of these columns")
        values, allowed = tuple(known[name] for name in names), {}
        for rule in stored["exclusions"]:
            i, j = rule["before"], rule["column"]
            if not i < j < len(names):
                raise FormatError(
                    "a rule of its discrete columns is not of a column and one before"
                )
            meet = np.ones((len(values[i]), len(values[j])), dtype=bool)
            first, second = np.reshape(rule["pairs"], (-1, 2)).astype(np.int64).T
            if max(first, default=0) >= len(meet) or max(second, default=0) >= meet.shape[1]:
                raise FormatError("a rule of its discrete columns names a value that is not there")
            meet[first, second] = False
            allowed[i, j] = meet
        return cls(names, values, allowed)


def nearest_codes(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the places of the nearest to values (n,) among rising known ones (K,), NaN last."""
    return np.searchsorted(known[:-1] / 2 + known[1:] / 2, values)


def _is_function(meet: np.ndarray) -> bool:
    """Return if each value of a column leaves one of another, from those that may meet (K, K')."""
    return bool((meet.sum(axis=1) == 1).all())


def _entropy(codes: np.ndarray) -> float:
    shares = np.bincount(codes) / max(len(codes), 1)
    shares = shares[shares > 0]
    return round(float(-(shares * np.log(shares)).sum()), 9)


def _may_meet(before: np.ndarray, column: np.ndarray, n_before: int, n_values: int) -> np.ndarray:
    """Return which values of two columns may meet (K_i, K_j), from the codes (n,) of the rows.

    Where one column is a function of the other: those that did. Otherwise all but those that never
    did although chance alone would have brought them together.
    """
    counts = np.zeros((n_before, n_values))
    np.add.at(counts, (before, column), 1)
    met = counts > 0
    if (met.sum(axis=1) <= 1).all() and len(before) >= FEWEST * n_before and n_values > 1:
        return met | ~met.any(axis=1, keepdims=True)
    if (met.sum(axis=0) <= 1).all() and len(before) >= FEWEST * n_values and n_before > 1:
        return met | ~met.any(axis=0, keepdims=True)  # one before that follows from it
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / max(len(before), 1)
    return met | (expected < EXPECTED)
