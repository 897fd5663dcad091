"""Complete rows of which some columns are given, by importance resampling.

A proposal draws unknown numeric columns from the mixture of the closed form given the known ones,
then unknown discrete ones from their classifiers. Its weight is what that leaves out: the
probability of the known discrete values and the odds of the rejection classifier. Components that
go with the known discrete values are drawn more often, and the weight makes up for it. One proposal
of each row is drawn by weight. The trees of the steps take no part.

Source: Rubin 1987, J. Am. Stat. Assoc. 82, 543 (sampling importance resampling).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, DataWarning, InputError, plural
from ..flow.closed_form.conditioning import softmax
from ..flow.closed_form.expectation_maximisation import GaussianMixture
from ..flow.closed_form.gaps import draw_unknown, log_tilt, mapped, of_columns
from ..flow.closed_form.mixture import MixturePreconditioner
from ..seeding import RowNoise, derive, drawn
from ..tables.event_table import EventTable, align_given
from ..tables.transforms.known_values import KnownValues
from ..training.threads import one_thread_of_blas
from .generate_rows import EventGenerator
from .input_rows import number_of_events

if TYPE_CHECKING:
    from .trained_flow import Flow

POOL = 4096
"""Events of the model that tell which components of the mixture go with which discrete values."""

PRIOR = 5.0
"""Events that each component is taken to have beside those of the pool, with all values."""

STEEPEST = 3.0
"""Logarithm of the largest ratio by which known discrete values favour components: where they
favour wrong ones, weights are not larger than that."""

FIRST, MORE = 32, 224
"""Proposals of a row, and how many are added where few of the first have all the weight."""

FEW = 4.0
"""Effective number of proposals of a row below which more are made."""

NEARLY_ALL = 0.9
"""Share of the weight of a row: where one proposal has more there was no choice."""

TOGETHER = 2**22
"""Values of the proposals that are made together, about: 32 MB."""


def without_steps(**settings: Any) -> None:
    """Raise ConfigError if a setting of the way from noise to events goes with given columns."""
    for name, value in settings.items():
        if value is not None:
            raise ConfigError(
                f"given columns and {name} exclude each other: what is unknown is drawn from the"
                f" closed form, not by the steps; leave {name} out"
            )


def copy_seed(seed: int, number: int) -> int:
    """Return the seed of one of several copies of completed rows; the first has ``seed``."""
    return derive(seed, "copy", number) if number else seed


class GivenRows:
    """Rows with gaps for a trained flow, checked; `blocks` completes them.

    Parameters
    ----------
    flow : that the rows are completed with
    given : table of any kind with some of the columns, by name; NaN where unknown
    n : number of rows, if ``given`` has one row for all
    cond : conditions as for `Flow.sample_blocks`; None if they stand in ``given``
    outside : see `Flow.condition_rows`; given values are never moved

    Raises InputError if a column, a category or a value is not one of the model, or values
    contradict each other; ConfigError if the model cannot draw given others.
    """

    def __init__(
        self,
        flow: Flow,
        given: Any,
        n: int | None = None,
        cond: Any = None,
        outside: str | None = "warn",
    ) -> None:
        flow.single("a sample given columns")
        if flow.from_source:
            raise ConfigError(
                "this model starts from source events, which determine its events: it cannot draw"
                " columns given others"
            )
        names, conditions = tuple(flow.columns["names"]), flow.condition_names
        table = align_given(given, names, conditions, flow.categories)
        self.n = number_of_events(n, table)
        if table.n not in (1, self.n):
            raise InputError(f"given must have 1 or {self.n} rows, one per event, got {table.n}")
        inside = [name for name in conditions if name in table.names]
        if inside and cond is not None:
            raise InputError(
                f"the conditions {', '.join(inside)} stand in the given table, and cond was handed"
                " in too: leave one out"
            )
        if inside and len(inside) == len(conditions):
            cond = table.select(inside)
        rows = flow.condition_rows(cond, self.n, outside)
        self.names = tuple(name for name in names if name in table.names)
        x = np.full((table.n, len(names)), np.nan)
        for i, name in enumerate(names):
            if name in self.names:
                x[:, i] = table.column(name)
        self._flow, self._cond = flow, None if rows is None else rows[0 : self.n]
        if flow.transform.needs_conditions:  # one row may fit some of them only
            x = np.tile(x, (self.n // len(x), 1))
        known = KnownValues(flow.transform)
        known.enter_sources(x, self._cond)
        given, x = x, self._without_turn(self._turned_to(x))
        known.check(x, flow.categories, self._cond)
        if outside is not None:
            ranges = known.ranges(flow.categories)
            turns = [name in flow.transform.turn.angles for name in names]
            far = ranges.count_far(np.where(turns, given, x)) * (self.n // len(x))
            ranges.report(far, self.n, "raise" if outside == "raise" else "warn")
        self._x, self._given = (np.broadcast_to(a, (self.n, len(names))) for a in (x, given))
        self._completer = _RowCompleter(flow.generator, mixture_of_columns(flow))
        self._completer.check(x)

    def _turned_to(self, x: np.ndarray) -> np.ndarray:
        """Return known values x (n, d) without angles that tell nothing but the turn of an event.

        Of a row that is the only one of what turns: any event can be turned to it.
        """
        transform = self._flow.transform
        turn, names = transform.turn, transform.names
        known = ~np.isnan(x[:, [name in turn.columns for name in names]])
        alone = known.sum(axis=1) == 1
        x = x.copy()
        for name in turn.angles:
            if name != turn.drawn and name not in transform.may_be_missing:
                x[alone, names.index(name)] = np.nan
        return x

    def _without_turn(self, x: np.ndarray) -> np.ndarray:
        """Return known values x (n, d) without the turn of the event, which must be known."""
        transform = self._flow.transform
        result = transform.without_turn(x)
        lost = np.isnan(result) & ~np.isnan(x)
        if lost.any():
            row, place = (int(i) for i in np.argwhere(lost)[0])
            pairs = (pair for pair in transform.turn.vectors if transform.names[place] in pair)
            needed = {*transform.turn.reference, *itertools.chain(*pairs)}
            unknown = (n for n in sorted(needed) if np.isnan(x[row, transform.names.index(n)]))
            reference = " and ".join(map(repr, unknown))
            raise InputError(
                f"column {transform.names[place]!r} is given without {reference} in"
                f" {plural(int(lost.any(axis=1).sum()), 'row')} (first: row {row}), but the model"
                f" learned events turned to that; give {reference}, too, leave"
                f" {transform.names[place]!r} out, or fit with coordinates='columns'"
            )
        return result

    def _turned(self, x: np.ndarray, seed: int, rows: np.ndarray) -> np.ndarray:
        """Return complete rows (n, d) turned as the known values are, else by any angle."""
        transform, given = self._flow.transform, self._given[rows]
        if not transform.turn:
            return x
        angle = transform.turn.angle(dict(zip(transform.names, given.T, strict=True)))
        for name in transform.turn.angles:  # see `_turned_to`
            place = transform.names.index(name)
            only = ~np.isnan(given[:, place]) & np.isnan(self._x[rows, place])
            angle = np.where(only, given[:, place] - x[:, place], angle)
        any_angle = 2 * np.pi * RowNoise(seed, "turn", rows, once=True).random()
        cond = None if self._cond is None else self._cond[rows]
        x = transform.turned(x, np.where(np.isnan(angle), any_angle, angle), cond)
        return np.where(np.isnan(given), x, given)

    def blocks(self, seed: int) -> Iterator[EventTable]:
        """Yield the rows completed, block by block; those of a row depend on it and the seed.

        Warns at the end if many rows had hardly a choice.
        """
        flow, n_poor = self._flow, 0
        width = self._x.shape[1] + flow.n_latent + len(flow.transform.skeleton) + 1
        size = max(16, TOGETHER // ((FIRST + MORE) * width))
        for low in range(0, self.n, size):
            rows = np.arange(low, min(low + size, self.n))
            cond = None if self._cond is None else self._cond[rows]
            with one_thread_of_blas():
                x, poor = self._completer.completed(seed, rows, self._x[rows], cond)
            n_poor += poor
            yield flow.as_table(self._turned(x, seed, rows), cond)
        if n_poor > 0.01 * self.n:
            warnings.warn(
                f"in {n_poor} of {self.n} rows one of {FIRST + MORE} proposals had over"
                f" {NEARLY_ALL:.0%} of the weight: what the model draws rarely agrees with the"
                " given values there, so those draws are approximate and too much alike. Give fewer"
                " columns, or check these values",
                DataWarning,
                stacklevel=2,
            )


def mixture_of_columns(flow: Flow) -> GaussianMixture | None:
    """Return the mixture of latent columns before the joint transform, and conditions, if any."""
    fitted, joint = flow.preconditioner, flow.transform.joint
    if not isinstance(fitted, MixturePreconditioner) or not flow.n_latent:
        return None
    mixture, (m, n_cond, has_source) = fitted.mixture, fitted.sizes()
    if has_source:  # a student, whose noise is known: without it
        mixture = mapped(mixture, np.eye(2 * m + n_cond)[m:], np.zeros(m + n_cond))
    return of_columns(mixture, joint.mean, joint.scale, joint.axes, joint.spread)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rising row numbers (n,), values (n, d), NaN where unknown, conditions (n, c), codes (n, q).

    Codes are -1 where unknown; conditions are in the units of the table.
    """

    numbers: np.ndarray
    x: np.ndarray
    cond: np.ndarray | None
    codes: np.ndarray

    def take(self, mask: np.ndarray) -> _Rows:
        cond = None if self.cond is None else self.cond[mask]
        return _Rows(self.numbers[mask], self.x[mask], cond, self.codes[mask])

    def repeated(self, count: int) -> _Rows:
        """Return each row ``count`` times, with numbers of their own."""
        numbers = self.numbers[:, None] * count + np.arange(count)
        cond = None if self.cond is None else np.repeat(self.cond, count, axis=0)
        x, codes = (np.repeat(array, count, axis=0) for array in (self.x, self.codes))
        return _Rows(numbers.ravel(), x, cond, codes)


@dataclass(frozen=True, eq=False)
class _RowCompleter:
    """Draws what is unknown in rows."""

    generator: EventGenerator
    mixture: GaussianMixture | None  # of latent columns before the joint transform, and conditions

    def check(self, x: np.ndarray) -> None:
        """Raise ConfigError if there is nothing to draw the unknown numbers of x (n, d) from."""
        smooth = self.generator.transform.smooth(x)[:, self._numeric]
        if self.mixture is None and np.isnan(smooth).any():
            raise ConfigError(
                "unknown numbers are drawn from the closed form of the preconditioner 'mixture' (or"
                " 'gaussian'), and this model has another: fit it with preconditioner='mixture'"
            )

    @cached_property
    def _known(self) -> KnownValues:
        return KnownValues(self.generator.transform)

    @cached_property
    def _numeric(self) -> list[int]:
        return self.generator.transform.numeric_places

    @cached_property
    def _affinities(self) -> list[np.ndarray]:
        """How much likelier each component makes each value, (K, V), logs, by discrete column."""
        generator, mixture = self.generator, self.mixture
        if mixture is None or generator.discrete is None or mixture.n_components == 1:
            return []
        numbers, m = np.arange(POOL), mixture.means.shape[1]
        noise = RowNoise(0, "pool", numbers)
        drawn_rows = draw_unknown(mixture, np.full((POOL, m), np.nan), noise)
        n_cond = len(generator.scaling.centre) - len(generator.transform.names)
        cond = None
        if n_cond:
            cond = generator.scaling[-n_cond:].inverse(drawn_rows[:, -n_cond:])
        _, codes = generator.discrete.columns(drawn_rows[:, : m - n_cond], cond, 0, numbers, 0)
        share = softmax(mixture.log_joint(drawn_rows, np.ones(m, dtype=bool)))
        result = []
        for code, known in zip(codes.T, generator.transform.skeleton.values, strict=True):
            counts = share.T @ np.eye(len(known))[code]
            overall = (counts.sum(axis=0) + 0.5) / (POOL + 0.5 * len(known))
            given = (counts + PRIOR * overall) / (counts.sum(axis=1, keepdims=True) + PRIOR)
            result.append(np.log(given / overall))
        return result

    def _tilt(self, codes: np.ndarray) -> np.ndarray | None:
        """Return what known codes (n, q) add to the log weights of the components, (n, K)."""
        if self.mixture is None or not self._affinities or not (codes >= 0).any():
            return None
        tilt = np.zeros((len(codes), self.mixture.n_components))
        for code, affinity in zip(codes.T, self._affinities, strict=True):
            tilt += np.where(code[:, None] >= 0, affinity.T[code], 0.0)
        return np.maximum(tilt - tilt.max(axis=1, keepdims=True), -STEEPEST)

    def completed(
        self, seed: int, rows: np.ndarray, x: np.ndarray, cond: np.ndarray | None
    ) -> tuple[np.ndarray, int]:
        """Return complete rows (n, d), and in how many one proposal had nearly all the weight.

        ``rows`` (n,) are rising row numbers, ``x`` (n, d) is NaN where unknown; known values come
        back as they are. ``cond`` (n, c) is in the units of the table.
        """
        transform, result, n_poor = self.generator.transform, x.copy(), 0
        codes = self._known.codes(x)
        gaps = np.isnan(transform.smooth(x)[:, self._numeric]).any(axis=1)[:, None]
        # what is drawn before a known value may not agree with it
        drawn_before = np.logical_or.accumulate(np.hstack([gaps, codes < 0]), axis=1)
        weighted = np.asarray(((codes >= 0) & drawn_before[:, :-1]).any(axis=1))
        weighted |= (codes != self._known.codes(x, settled=True)).any(axis=1)
        if self.generator.redraws:
            weighted = drawn_before[:, -1]
        given = _Rows(rows, x, cond, codes)
        for mine, count in ((~weighted, 1), (weighted, FIRST)):
            if mine.any():
                result[mine], poor = self._drawn(seed, given.take(mine), count)
                n_poor += poor
        transform.recompute(result, cond)  # once more: it warns of undefined ones
        result = np.where(np.isnan(x), result, x)
        self._check_cuts(rows, result, cond)
        return result, n_poor

    def _check_cuts(self, rows: np.ndarray, x: np.ndarray, cond: np.ndarray | None) -> None:
        generator = self.generator
        if not len(generator.cuts):
            return
        wrong = ~generator.within_cuts(x, cond)
        if wrong.any():
            raise InputError(
                f"no proposal for {plural(int(wrong.sum()), 'row')} (first: row"
                f" {rows[np.argmax(wrong)]}) meets require {generator.cuts.text}: the given values"
                " contradict it, or leave hardly a way to meet it; correct them, or give fewer"
            )

    def _drawn(self, seed: int, rows: _Rows, count: int) -> tuple[np.ndarray, int]:
        """Return one of ``count`` proposals of each row (n, d), of more where these are few.

        And in how many rows one had nearly all the weight.
        """
        values, log_weight = self._proposals(seed, rows, count)
        if count == 1:
            return values[:, 0], 0
        uniform = RowNoise(seed, "resample", rows.numbers, once=True).random()
        chosen, shares = _resampled(values, log_weight, uniform)
        largest, few = shares.max(axis=1), np.flatnonzero((shares**2).sum(axis=1) > 1.0 / FEW)
        if len(few):
            others, log_others = self._proposals(seed, rows.take(few), MORE)
            values = np.concatenate([values[few], others], axis=1)
            log_weight = np.concatenate([log_weight[few], log_others], axis=1)
            chosen[few], shares = _resampled(values, log_weight, uniform[few])
            largest[few] = shares.max(axis=1)
        return chosen, int((largest > NEARLY_ALL).sum())

    def _proposals(self, seed: int, rows: _Rows, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return proposals (n, count, d) and their log weights (n, count)."""
        generator, transform = self.generator, self.generator.transform
        seed, shape, rows = derive(seed, "given", count), (len(rows.x), count), rows.repeated(count)
        x, log_share = self._known.guess_equal(
            rows.x, lambda i: RowNoise(seed, "equal", rows.numbers, (i,), once=True).random()
        )
        if transform.patterns:
            rows = replace(rows, x=x, codes=self._known.codes(x, settled=True))
        log_weight = -log_share
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # told by the check of all rows
            latent = transform.latent_columns(
                rows.x,
                lambda column, known: _SomeRows(
                    RowNoise(seed, "dequantise-given", rows.numbers, (column,)), known
                ),
                rows.cond,
            )
        if np.isnan(latent).any():
            assert self.mixture is not None
            joined = latent
            if rows.cond is not None:
                scaled = generator.scaling[-rows.cond.shape[1] :].forward(rows.cond)
                joined = np.hstack([latent, scaled])
            noise, tilt = RowNoise(seed, "gaps", rows.numbers), self._tilt(rows.codes)
            whole = draw_unknown(self.mixture, joined, noise, tilt)
            latent = whole[:, : latent.shape[1]]
            if tilt is not None:
                log_weight += log_tilt(self.mixture, joined, tilt)
                log_weight -= log_tilt(self.mixture, whole, tilt)
        gaps, codes = np.isnan(rows.x), rows.codes
        smooth = transform.smooth(rows.x)
        if generator.discrete is None:
            values = np.where(np.isnan(smooth), transform.columns_of(latent, rows.cond), smooth)
        else:
            values, codes, log_probability = generator.discrete.columns_given(
                smooth, latent, rows.cond, seed, rows.numbers, 0, codes
            )
            log_weight += log_probability
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # told of those that are chosen
            events = values.copy()
            transform.complete(events, codes, rows.cond)
            if generator.ratio is not None:
                seen = np.where(gaps, events, rows.x)
                log_weight += generator.ratio.log_weight(
                    generator.classifier_inputs(seen, rows.cond)
                )
            if transform.gaps and generator.discrete is not None:  # complete rows are wanted
                events = generator.discrete.completed(
                    values, codes, seed, rows.numbers, rows.cond, fills=True
                )
        values = np.where(gaps, events, rows.x)
        if len(generator.cuts):
            meets = generator.within_cuts(values, rows.cond)
            log_weight = np.where(meets, log_weight, -np.inf)
        if generator.reach is not None:
            near = generator.is_near(transform.without_turn(values))
            log_weight = np.where(near, log_weight, -np.inf)
        return values.reshape(*shape, -1), log_weight.reshape(shape)


def _resampled(
    values: np.ndarray, log_weight: np.ndarray, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return one of the values (n, k, d) of each row, drawn by weight, and the shares (n, k)."""
    possible = np.isfinite(log_weight).any(axis=1, keepdims=True)
    log_weight = np.where(possible, log_weight, 0.0)
    shares = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    chosen = values[np.arange(len(values)), drawn(shares, uniform)]
    return chosen, np.where(possible, shares, 1.0)


class _SomeRows:
    """Random numbers of some rows, as a column transform asks a generator for them."""

    def __init__(self, noise: RowNoise, mask: np.ndarray) -> None:
        self._noise, self._mask = noise, mask

    def random(self, _: Any = None) -> np.ndarray:
        """Return uniform numbers, one per row."""
        return self._noise.random()[self._mask]
