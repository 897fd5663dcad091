"""What unfolding starts from: simulated pairs, data, background; checked before any training."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from ...errors import DataWarning, InputError, plural
from ...tables import checks
from ...tables.event_table import EventTable
from ...tables.formats import read_table
from ...trees.signed_weights import with_positive_weights
from .odds import CrossFittedOdds, Trees, folds

FEWEST = 100
"""Simulated events that pass both levels."""

LEAST_REACHED = 0.8
"""Share of another simulation that weights must make."""

PARTS = ("data", "simulation", "training")
PRIOR = "prior"
"""What errors are from, beside variations."""

FEW_EVENTS, FEW_OUTSIDE, MOST_OUTSIDE = 5, 0.001, 0.01
"""Events, and shares of the data, beyond the simulation's range: above them it is told, or refused.
A few are there in any two samples of one distribution."""
MOST_UNSEEN = 0.05
"""Share of the simulation beyond the data's range: above it, it is told."""


@dataclass(frozen=True, eq=False)
class UnfoldingInputs:
    """Simulated pairs, data and background of an unfolding; build it with `of` or `read`.

    Parameters
    ----------
    truth, reco : EventTable of n simulated events at both levels; rows of events that do not pass
        the level have no meaning
    weight : ndarray (n,), non-negative, of the simulation; its unit does not matter unless fakes
        keep their rate. Where some come negative, in any table, non-negative ones of the same
        density take their place, see `flowbdt.trees.signed_weights`
    pass_truth, pass_reco : ndarray (n,) of bool: the event is within the truth level's selection,
        and was reconstructed and selected. Events that pass the first only are misses, the second
        only fakes
    data, background : EventTable at detector level with the columns of ``reco``, and weights;
        those of the background add to the events expected in the data
    variations : arrays of alternative weights (n,) by name, each in place of ``weight``
    background_variations : the same of the background, for names where it changes too
    """

    truth: EventTable
    reco: EventTable
    weight: np.ndarray
    pass_truth: np.ndarray
    pass_reco: np.ndarray
    data: EventTable
    background: EventTable | None = None
    variations: dict[str, np.ndarray] = field(default_factory=dict)
    background_variations: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        truth: Any,
        reco: Any,
        data: Any,
        *,
        weight: Any = None,
        pass_truth: Any = None,
        pass_reco: Any = None,
        data_weight: Any = None,
        background: Any = None,
        background_weight: Any = None,
        variations: Mapping[str, Any] | None = None,
        background_variations: Mapping[str, Any] | None = None,
        outside: str | None = "refuse",
    ) -> Self:
        """Check and collect what is unfolded.

        Parameters
        ----------
        truth, reco, data, background : tables of any kind: EventTable, DataFrame, 2-d array or
            mapping; columns of data and background go by the names of ``reco``, in arrays by
            position
        weight, data_weight, background_weight : (n,), 1 by default
        pass_truth, pass_reco : (n,) of truth values; all pass by default
        outside : "refuse" or "keep" data of which more than 1% are beyond the simulation's range;
            None does not look, as of a simulation for `with_generator` alone

        Raises
        ------
        InputError
            If lengths, names or weights do not fit, a mask is missing or not of truth values, an
            event that passes a level has no value there, fewer than 100 events pass both levels,
            the background is not less than the data, or data are outside the simulation's range.
        """
        level, detector = _table(truth, "truth"), _table(reco, "reco")
        n = level.n
        if detector.n != n:
            raise InputError(
                f"truth and reco must be the two levels of the same events, got {n} and"
                f" {detector.n} rows"
            )
        seen = _like(_table(data, "data"), detector, has_names(data, reco), "data")
        other = None
        if background is not None:
            other = _table(background, "background")
            other = _like(other, detector, has_names(background, reco), "background")
            other = replace(other, weight=_weights(background_weight, other, "background weights"))
        inputs = cls(
            level,
            detector,
            _weights(weight, level, "weights of the simulation"),
            _mask(pass_truth, n, "pass_truth"),
            _mask(pass_reco, n, "pass_reco"),
            replace(seen, weight=_weights(data_weight, seen, "data weights")),
            other,
            {k: _weights(w, level, f"weights {k!r}") for k, w in (variations or {}).items()},
            {
                k: _weights(w, other or seen, f"background weights {k!r}")
                for k, w in (background_variations or {}).items()
            },
        )
        inputs._check(outside)
        return inputs._with_positive_weights()

    @classmethod
    def read(
        cls,
        simulation: str | Path,
        data: str | Path,
        truth: Sequence[str],
        reco: Sequence[str],
        *,
        weight: str | None = None,
        pass_truth: str | None = None,
        pass_reco: str | None = None,
        data_weight: str | None = None,
        background: str | Path | None = None,
        background_weight: str | None = None,
        variations: Mapping[str, str] | None = None,
        generators: Mapping[str, str | Path] | None = None,
        outside: str | None = "refuse",
    ) -> Self:
        """Read files of any format that `flowbdt.read_table` knows; names and patterns as there.

        ``variations`` are columns of alternative weights by name; a background file that has the
        column takes part in the variation. ``generators`` are files with the columns of the
        simulation, see `with_generator`. Errors are those of `of` and `read_table`.
        """
        levels: dict[str, Any] = {
            "weight": weight,
            "pass_truth": pass_truth,
            "pass_reco": pass_reco,
        }
        columns: dict[str, Any] = {
            name: read_table(simulation, names, missing=True)
            for name, names in (("truth", truth), ("reco", reco))
        }
        varied = dict(variations or {})
        single = [c for c in (weight, pass_truth, pass_reco, *varied.values()) if c]
        rest = read_table(simulation, list(dict.fromkeys(single))).by_name() if single else {}
        names = columns["reco"].names
        given: dict[str, Any] = {
            "weight": rest.get(weight or ""),
            "pass_truth": rest.get(pass_truth or ""),
            "pass_reco": rest.get(pass_reco or ""),
            "variations": {name: rest[column] for name, column in varied.items()},
            "data_weight": _column(data, data_weight),
        }
        if background is not None:
            given["background"] = _level(background, names)
            given["background_weight"] = _column(background, background_weight)
            known = set(read_table(background, missing=True).names)
            given["background_variations"] = {
                name: _column(background, c) for name, c in varied.items() if c in known
            }
        inputs = cls.of(**columns, data=_level(data, names), outside=outside, **given)
        for name, path in (generators or {}).items():
            other = cls.read(path, data, truth, reco, **levels, outside=None)
            inputs = inputs.with_generator(name, other)
        return inputs

    @property
    def n(self) -> int:
        """Number of simulated events."""
        return self.truth.n

    @property
    def both(self) -> np.ndarray:
        """Events that pass both levels, bool (n,)."""
        return self.pass_truth & self.pass_reco

    @property
    def fakes(self) -> np.ndarray:
        """Events that pass detector level only, bool (n,)."""
        return ~self.pass_truth & self.pass_reco

    @property
    def data_weight(self) -> np.ndarray:
        """Weights of the data (m,)."""
        assert self.data.weight is not None
        return self.data.weight

    @property
    def background_weight(self) -> np.ndarray:
        """Weights of the background (k,); (0,) without one."""
        return _no_weights if self.background is None else _weights(None, self.background, "")

    def reweighted(
        self,
        simulation: np.ndarray | None = None,
        data: np.ndarray | None = None,
        background: np.ndarray | None = None,
    ) -> Self:
        """Return the same events with their weights times factors (n,), (m,) and (k,)."""
        changed = self
        if simulation is not None:
            changed = replace(changed, weight=self.weight * simulation)
        if data is not None:
            changed = replace(changed, data=replace(self.data, weight=self.data_weight * data))
        if background is not None and self.background is not None:
            other = replace(self.background, weight=self.background_weight * background)
            changed = replace(changed, background=other)
        return changed

    def varied(self, name: str) -> Self:
        """Return the inputs with the alternative weights of a variation."""
        changed = replace(self, weight=self.variations[name])
        if name in self.background_variations and self.background is not None:
            weight = self.background_variations[name]
            changed = replace(changed, background=replace(self.background, weight=weight))
        return changed

    def with_generator(self, name: str, other: UnfoldingInputs, seed: int = 0) -> Self:
        """Return the inputs with a variation whose weights make the simulation look like another.

        Boosted classifiers see both levels of an event and what it passes, so that the spectrum,
        the response, the efficiency and the fakes of the other simulation are taken over where the
        two overlap.

        Raises InputError if columns differ, if the name is taken or is none, or if the two hardly
        overlap: weights make less than 80% of the other, or are worth fewer than 100 events.
        """
        for mine, its in ((self.truth, other.truth), (self.reco, other.reco)):
            checks.known_columns(mine.names, its.names, f"generator {name!r}")
        if name in self.variations:
            raise InputError(f"there are two variations {name!r}: give each a name of its own")
        fold, rows = [], []
        both: tuple[UnfoldingInputs, ...] = (self, other)
        for i, inputs in enumerate(both):
            fold.append(folds(inputs.n, Trees().n_folds, seed, f"{name} {i}"))
            rows.append(inputs.pairs.x)
            if len(self.truth.names) == len(self.reco.names):  # trees are slow to find differences
                truth, reco = np.hsplit(rows[-1], 2)
                rows[-1] = np.hstack([truth, reco, reco - truth])
        odds = CrossFittedOdds(np.concatenate(rows), np.concatenate(fold), Trees(), seed, 1)
        lower = np.append(self.weight, np.zeros(other.n))
        upper = np.append(np.zeros(self.n), other.weight)
        weight = self.weight * np.exp(odds.fit(upper, lower)[: self.n])
        reached = weight.sum() / self.weight.sum()  # 1 but for what the simulation never has
        worth = weight.sum() ** 2 / (weight**2).sum()
        if reached < LEAST_REACHED or worth < FEWEST:
            raise InputError(
                f"the simulation reaches {reached:.0%} of {name!r} by weights worth {worth:.0f}"
                f" events, {LEAST_REACHED:.0%} and {FEWEST} are needed: the two hardly overlap"
            )
        weight *= other.weight.sum() / weight.sum()
        found = replace(self, variations={**self.variations, name: weight})
        found._check_variations()
        return found

    @property
    def pairs(self) -> EventTable:
        """Both levels of the simulated events beside each other, NaN where one is not passed."""
        levels = ((self.truth, self.pass_truth), (self.reco, self.pass_reco))
        known = [np.where(passes[:, None], level.x, np.nan) for level, passes in levels]
        return replace(self.truth, x=np.hstack(known))

    def _with_positive_weights(self) -> Self:
        """Return the inputs with non-negative weights of the same densities, if some are not."""
        pairs = self.pairs

        def positive(weight: np.ndarray, table: EventTable) -> np.ndarray:
            return _weights(None, with_positive_weights(replace(table, weight=weight)), "")

        other = self.background
        background = None if other is None else with_positive_weights(other)
        varied = self.background_variations if other is not None else {}
        return replace(
            self,
            weight=positive(self.weight, pairs),
            data=with_positive_weights(self.data),
            background=background,
            variations={name: positive(w, pairs) for name, w in self.variations.items()},
            background_variations={name: positive(w, other or pairs) for name, w in varied.items()},
        )

    def _check(self, outside: str | None) -> None:
        if outside not in ("refuse", "keep", None):
            raise InputError(f"outside must be 'refuse' or 'keep', got {outside!r}")
        for level, passes, name in (
            (self.truth, self.pass_truth, "truth"),
            (self.reco, self.pass_reco, "reco"),
        ):
            bad = ~np.isfinite(level.x) & passes[:, None]
            if bad.any():
                column = level.names[int(bad.any(axis=0).argmax())]
                rows = bad.any(axis=1)
                raise InputError(
                    f"{plural(int(rows.sum()), 'simulated event')} (first: row {rows.argmax()})"
                    f" pass the {name} level but have no finite value there, e.g. in {column!r}:"
                    f" hand in pass_{name}, False where an event has no {name} level, or correct"
                    " these rows"
                )
        checks.min_rows(int(self.both.sum()), FEWEST, "simulation that passes both levels")
        if self.background_weight.sum() >= self.data_weight.sum():
            raise InputError(
                f"the background's weights add up to {self.background_weight.sum():g}, the data's"
                f" to {self.data_weight.sum():g}: scale the background to the events expected in"
                " the data"
            )
        self._check_variations()
        if outside is not None:
            self._check_range(outside)
            self._check_seen()

    def _check_variations(self) -> None:
        for name in self.variations:
            if name in (taken := (*PARTS, PRIOR, "total")):
                known = ", ".join(taken)
                raise InputError(f"a variation must have a name of its own, not {known}: {name!r}")
            if not re.fullmatch(r"[\w.-]+", name):
                raise InputError(f"a variation is called by letters, digits, . and -, got {name!r}")
        for name, weight in {"": self.weight, **self.variations}.items():
            if not weight[self.both].any():
                raise InputError(f"weights {name} of events that pass both levels are all zero")

    def _check_range(self, outside: str) -> None:
        """Refuse data that the simulation does not reach, or say that its edge answers."""
        known = [self.reco.x[self.pass_reco]]
        known += [] if self.background is None else [self.background.x]
        beyond, low, high = _beyond(self.data.x, known)
        share = (self.data_weight @ beyond) / self.data_weight.sum()
        worst = int(share.argmax())
        if share[worst] <= FEW_OUTSIDE or beyond[:, worst].sum() <= FEW_EVENTS:
            return
        found = (
            f"{share[worst]:.1%} of the data are outside the simulation's range of"
            f" {self.reco.names[worst]!r}, {low[worst]:g} to {high[worst]:g}"
        )
        if share[worst] > MOST_OUTSIDE and outside == "refuse":
            raise InputError(
                f"{found}; at most {MOST_OUTSIDE:.0%} may be. Unfolding cannot know what they come"
                " from: select data and simulation alike, or say outside='keep' to treat them as"
                " events at the edge"
            )
        warnings.warn(f"{found}: treated as events at the edge", DataWarning, stacklevel=4)

    def _check_seen(self) -> None:
        """Tell if much of the simulation is where no data are, as -999 for what was not seen."""
        beyond, low, high = _beyond(self.reco.x[self.pass_reco], [self.data.x])
        share = beyond.mean(axis=0)
        worst = int(share.argmax())
        if share[worst] > MOST_UNSEEN:
            warnings.warn(
                f"{share[worst]:.0%} of the simulation at detector level are outside the data's"
                f" range of {self.reco.names[worst]!r}, {low[worst]:g} to {high[worst]:g}: if these"
                " were not reconstructed or not selected, say so by pass_reco",
                DataWarning,
                stacklevel=4,
            )


_no_weights = np.zeros(0)


def _beyond(
    x: np.ndarray, known: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where rows (n, d) are beyond the range of others, bool (n, d), and that range (d,)."""
    low = np.min([other.min(axis=0) for other in known], axis=0)
    high = np.max([other.max(axis=0) for other in known], axis=0)
    return (x < low) | (x > high), low, high


def has_names(*tables: Any) -> bool:
    """Test if all tables have names of columns, and do not go by position."""
    return all(checks.has_names(table) for table in tables)


def _table(data: Any, what: str) -> EventTable:
    try:
        table = EventTable.of(data, missing=True)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
    if table.categories:
        raise InputError(
            f"{what}: column {next(iter(table.categories))!r} holds texts; unfolding needs numbers:"
            " make one column of 0 and 1 of each category"
        )
    return table


def _like(table: EventTable, reco: EventTable, named: bool, what: str) -> EventTable:
    """Return a table with the columns of the detector level, finite everywhere."""
    if named:
        checks.known_columns(reco.names, table.names, what)
        table = table.select(reco.names)
    elif len(table.names) != len(reco.names):
        raise InputError(
            f"{what} must have the {len(reco.names)} columns of reco, got {len(table.names)}"
        )
    checks.finite(table.x, reco.names, what)
    return replace(table, names=reco.names)


def _weights(weight: Any, table: EventTable, what: str) -> np.ndarray:
    if weight is None:
        return np.ones(table.n) if table.weight is None else table.weight
    try:
        return checks.weights(weight, table.n, signed=True)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def _mask(mask: Any, n: int, name: str) -> np.ndarray:
    """Return a mask (n,); all True where there is none."""
    if mask is None:
        return np.ones(n, dtype=bool)
    values = np.asarray(mask)
    if values.shape != (n,) or not np.isin(values, (0, 1)).all():
        shown = values.shape if values.shape != (n,) else np.unique(values)[:5].tolist()
        raise InputError(f"{name} must be {n} truth values (or 0 and 1), got {shown}")
    return values.astype(bool)


def _column(path: str | Path, name: str | None) -> np.ndarray | None:
    return None if name is None else read_table(path, [name]).column(name)


def _level(path: str | Path, names: Sequence[str]) -> EventTable:
    return read_table(path, list(names))
