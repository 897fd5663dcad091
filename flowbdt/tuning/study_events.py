"""The events of a study: its table, and which of them a trial learns from and is judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, FormatError
from ..seeding import derive, row_uniform
from ..tables.event_table import EventTable
from ..training.run_directory import RunDirectory

SHARES = {"fit": 0.6, "select": 0.25, "guard": 0.15}
"""Of the events that are handed in: what trials learn from, what they are compared on, and what
nobody looks at before the last few are left. With folds the first two are one."""

FEWEST_ROWS = 200
"""Events of a table that can be searched for."""

FEWEST_IN_FOLD = 40
"""Events of a fold, which are what one judgement sees: some fewer than of the smallest table."""


@dataclass(frozen=True)
class Parts:
    """The parts of a table of n rows; who belongs where depends on row number and seed alone.

    Parameters
    ----------
    n : rows
    seed : of the study
    folds : parts of equal size, each of which is what is held out once; None is one held-out share

    Raises
    ------
    ConfigError
        If there are too few rows, or ``folds`` is no whole number from 2 with events for each.
    """

    n: int
    seed: int
    folds: int | None = None

    def __post_init__(self) -> None:
        if self.n < FEWEST_ROWS:
            raise ConfigError(f"a search needs {FEWEST_ROWS} events to judge by, got {self.n}")
        if self.folds is None:
            return
        if isinstance(self.folds, bool) or not isinstance(self.folds, int) or self.folds < 2:
            raise ConfigError(
                f"folds must be a whole number from 2, got {self.folds!r}; leave it out to hold one"
                " share of the events out"
            )
        most = int((~self.guard).sum()) // FEWEST_IN_FOLD
        if self.folds > most:
            raise ConfigError(
                f"{self.folds} folds of {self.n} events are too small to judge by"
                f" ({FEWEST_IN_FOLD} events each are needed); take {most} folds or fewer"
            )

    @property
    def rounds(self) -> int:
        """How often a trial is trained and judged."""
        return self.folds or 1

    @property
    def guard(self) -> np.ndarray:
        """Which rows no trial sees, (n,) bool."""
        return self._shares() == "guard"

    def held(self, fold: int = 0) -> np.ndarray:
        """Return which rows a trial is judged on, (n,) bool; ``fold`` from 0 to rounds - 1."""
        return self._shares() == "select" if self.folds is None else self.fold_of_row() == fold

    def fit(self, fold: int = 0) -> np.ndarray:
        """Return which rows a trial learns from, (n,) bool: none of those held out or guarded."""
        return ~self.guard & ~self.held(fold)

    def _shares(self) -> np.ndarray:
        """Return the name of each row's share, (n,), by a keyed hash of its number."""
        uniform = row_uniform(self.n, derive(self.seed, "tune-split"))
        edges = np.cumsum(list(SHARES.values()))[:-1]
        return np.array(list(SHARES))[np.searchsorted(edges, uniform, side="right")]

    def fold_of_row(self) -> np.ndarray:
        """Return the fold of each row, (n,) int, -1 for the guard.

        Rows in the order of a keyed hash are dealt out like cards: sizes differ by one at most,
        which a hash of single rows would not give small tables.
        """
        if self.folds is None:
            raise ConfigError("there are no folds, but one held-out share")
        seen = np.flatnonzero(~self.guard)
        keyed = row_uniform(self.n, derive(self.seed, "tune-folds"))[seen]
        result = np.full(self.n, -1)
        result[seen[np.argsort(keyed, kind="stable")]] = np.arange(len(seen)) % self.folds
        return result


def write_table(study: RunDirectory, table: EventTable) -> dict[str, Any]:
    """Write a table into a study; return what describes it."""
    study.file("table").mkdir(parents=True, exist_ok=True)
    for name in ("x", "cond", "weight"):
        study.write_array(name, getattr(table, name))
    return {
        "names": table.names,
        "units": table.units,
        "dtypes": table.dtypes,
        "cond_names": table.cond_names,
        "categories": table.categories,
    }


def read_table(study: RunDirectory, setup: Mapping[str, Any]) -> EventTable:
    """Return the table of a study, all events. Raises FormatError if it is missing or damaged."""
    known = setup["table"]
    arrays = {name: study.array(name) for name in ("x", "cond", "weight")}
    if arrays["x"] is None:
        raise FormatError(f"{study.path / 'table/x.npy'} is missing: copy the whole study again")
    return EventTable(
        x=np.asarray(arrays["x"]),
        names=tuple(known["names"]),
        units=tuple(known["units"]),
        dtypes=tuple(known["dtypes"]),
        cond=None if arrays["cond"] is None else np.asarray(arrays["cond"]),
        cond_names=tuple(known["cond_names"]),
        weight=None if arrays["weight"] is None else np.asarray(arrays["weight"]),
        categories={k: tuple(v) for k, v in known["categories"].items()},
    )


def parts_of(setup: Mapping[str, Any], table: EventTable) -> Parts:
    """Return the parts of a study's table."""
    return Parts(table.n, setup["seed"], setup.get("folds"))
