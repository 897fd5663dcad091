"""The density of rows by a model: that of a reference in closed form, times a boosted ratio.

A flow whose velocity has steps, as that of trees, carries points over each other and has no density
of its own. The reference is what it starts from: the mixture of Gaussians at t = 1, with the charts
of the columns, and the classifiers of discrete columns. Its density is exactly normalised and its
draws are exact; what real rows have more or less than these is learned as a ratio, which is
normalised by further draws.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..errors import ConfigError, FormatError
from ..flow.closed_form.conditioning import log_sum_exp
from ..flow.closed_form.expectation_maximisation import GaussianMixture, gap_patterns
from ..flow.closed_form.gaps import draw_unknown, with_wide
from ..flow.closed_form.mixture import MixturePreconditioner
from ..seeding import RowNoise, derive, drawn, stream
from ..tables.formulas.relations import TOLERANCE, Relation, relative_deviation
from ..tables.transforms.patterns import as_stored
from ..training.threads import one_thread_of_blas
from ..trees.density_ratio import DensityRatio
from ..trees.signed_weights import positive_weights
from .event_selection import at_rows
from .given_rows import mixture_of_columns
from .learn_rejection import n_generated
from .trained_flow import Flow

N_POINTS = 32
"""Points of a row where some are drawn: in the interval of a value, or in place of one that the
flow does not draw."""

N_DRAWN = 100_000
FEWEST_GIVEN = 256
"""Draws that the ratio is normalised by, and the fewest of them at one set of conditions."""

BLOCK_ROWS = 65_536
"""Rows that are worked on together, points of the same row counted one by one."""

MOST_ATTEMPTS = 200
"""Draws for a row within the cuts; at a share of .05 one row in 30,000 needs more."""

WIDE = 0.02
"""Share of one Gaussian for all rows beside the closed form: where narrow ones learned rows by
heart, others are not impossible."""

STEP = 1e-6
"""Of a derivative, in units of the spread of a column."""


class Reference:
    """Draws of the closed form of a flow, with its classifiers, and their density.

    Raises ConfigError if the flow has none.
    """

    def __init__(self, flow: Flow) -> None:
        transform = flow.transform
        mixture = mixture_of_columns(flow)
        needed = "score_samples needs"
        if flow.from_source:
            raise ConfigError(f"{needed} a model of its own noise, this one starts from events")
        learned = {*transform.coordinates.names}
        self._replaced, self._following = list[str](), list[Relation]()
        for relation in transform.coordinates.relations:
            if learned.isdisjoint(relation.sources):  # an energy by the mass of all
                self._following.append(relation)
            else:
                self._replaced.append(relation.target)
        if len(learned) != len(self._replaced):
            raise ConfigError(
                f"{needed} coordinates with a volume, and particles were learned in other numbers"
                " of columns; fit with particles={}"
            )
        if mixture is None and flow.n_latent:
            raise ConfigError(f"{needed} the closed form: fit with preconditioner='mixture'")
        if transform.joint.n_latent < transform.joint.mean.size:
            raise ConfigError(
                f"{needed} columns of which none is a linear function of others, but of"
                f" {transform.joint.mean.size} only {transform.joint.n_latent} are independent:"
                " leave such columns out, or declare them as relations"
            )
        self._charts = [
            (i, one.chart() if one.n_latent else None, one)
            for i, one in enumerate(column.transform for column in transform.all_columns)
            if one is not None
        ]
        fitted = flow.preconditioner
        self._tags = fitted.tags if isinstance(fitted, MixturePreconditioner) else None
        self._shares = None
        if isinstance(fitted, MixturePreconditioner) and self._tags is not None:
            self._shares = fitted.shares_of_values
        elif mixture is not None:
            mixture = with_wide(mixture, WIDE)
        self.flow, self._mixture = flow, mixture

    # ---- draws

    def draw(self, cond: np.ndarray | None, n: int, seed: int) -> np.ndarray:
        """Return n rows (n, d) that meet the cuts, given conditions (n, c) in their units."""
        cuts, rows = self.flow.generator.cuts, np.arange(n)
        x = self._drawn(cond, rows, seed)
        if not len(cuts):
            return x
        left = np.flatnonzero(~self.flow.generator.within_cuts(x, cond))
        for attempt in range(MOST_ATTEMPTS):
            if not len(left):
                return x
            some = at_rows(cond, left)
            x[left] = self._drawn(some, left, derive(seed, "again", attempt))
            left = left[~self.flow.generator.within_cuts(x[left], some)]
        raise ConfigError(
            f"require {cuts.text} is met by hardly any draw of the closed form: there is no"
            " density; fit with fewer cuts"
        )

    def _drawn(self, cond: np.ndarray | None, rows: np.ndarray, seed: int) -> np.ndarray:
        transform, discrete = self.flow.transform, self.flow.discrete
        codes = np.full((len(rows), len(transform.skeleton)), -1)
        if self._shares is not None:
            uniform = RowNoise(seed, "first", rows, once=True).random()
            codes[:, 0] = drawn(np.tile(self._shares, (len(rows), 1)), uniform)
        joined = self._joined(np.full((len(rows), transform.joint.mean.size), np.nan), cond)
        if self._mixture is not None:
            noise = RowNoise(seed, "reference", rows)
            joined = draw_unknown(self._mixture, joined, noise, self._tilt(codes))
        latent = joined[:, : transform.joint.mean.size]
        x = self._columns(latent, cond)
        if discrete is not None:
            _, codes, _ = discrete.columns_given(x, latent, cond, seed, rows, 0, codes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of undefined relations
            transform.complete(x, codes, cond)
            uniform = RowNoise(seed, "turn", rows, once=True).random()
            return transform.turned(x, 2 * np.pi * uniform, cond)

    def _joined(self, latent: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        if cond is None:
            return latent
        return np.hstack([latent, self.flow.condition_scaling.forward(cond)])

    def _tilt(self, codes: np.ndarray) -> np.ndarray | None:
        """Return 0 for components of the value drawn first, -inf for others, (n, K)."""
        if self._tags is None:
            return None
        return np.where(self._tags == codes[:, :1], 0.0, -np.inf)

    def _columns(self, latent: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Return the columns (n, d) of latent columns (n, m); discrete ones have any value."""
        columns, start = self.flow.transform.all_columns, 0
        wide = np.full((len(latent), len(columns)), np.nan)
        for i, chart, one in self._charts:
            stop = start + one.n_latent
            part = np.ascontiguousarray(latent[:, start:stop])
            values = one.inverse(part) if chart is None else chart.values(part)
            wide[:, i] = as_stored(values, columns[i].dtype)
            start = stop
        return self.flow.transform.without_learned(wide, cond)

    # ---- density

    def log_density(self, x: np.ndarray, cond: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the log density (n,) of rows (n, d) given conditions (n, c), and its error (n,).

        Values with a probability of their own count by that. The log is -inf where no row can be.
        """
        turned, x = x, self.flow.transform.without_turn(x)
        wide = self.flow.transform.with_learned(x, cond)
        places = [i for i, chart, _ in self._charts if chart is not None]
        draws = any(chart.draws for _, chart, _ in self._charts if chart is not None)
        n_points = N_POINTS if draws or np.isnan(wide[:, places]).any() else 1
        size, parts = max(BLOCK_ROWS // n_points, 1), []
        for low in range(0, len(x), size):
            rows = slice(low, low + size)
            with warnings.catch_warnings(), one_thread_of_blas():
                warnings.simplefilter("ignore")  # of unknown values: their log is -inf
                parts.append(self._log_terms(x[rows], wide[rows], at_rows(cond, rows), n_points))
        terms = np.concatenate(parts)
        possible = np.isfinite(terms).any(axis=1)
        result = np.full(len(x), -np.inf)
        result[possible] = log_sum_exp(terms[possible]) - np.log(n_points)
        shares = np.exp(terms - np.where(possible, result, 0.0)[:, None])
        error = shares.std(axis=1) / np.sqrt(n_points)
        if len(self.flow.cuts):
            possible &= self.flow.generator.within_cuts(turned, cond)
            result[~possible] = -np.inf
        result[possible] += self._log_jacobian(x[possible], at_rows(cond, possible))
        return result + self._log_turn(x), error

    def _log_turn(self, x: np.ndarray) -> np.ndarray | float:
        """Return the log of the density (n,) of an angle of rows without turn, (n, d).

        Per unit of it, or of the x and y components of the vector that points to it.
        """
        turn, names = self.flow.transform.turn, self.flow.transform.names
        if not turn:
            return 0.0
        radius = x[:, names.index(turn.reference[0])] if len(turn.reference) == 2 else 1.0
        return np.asarray(-np.log(2 * np.pi * radius))

    def _log_terms(
        self, x: np.ndarray, wide: np.ndarray, cond: np.ndarray | None, n_points: int
    ) -> np.ndarray:
        """Return the logs (n, n_points) of which the density is the mean."""
        transform, discrete, n = self.flow.transform, self.flow.discrete, len(x)
        codes = transform.codes(self.flow.as_table(x, cond))
        again = np.repeat(np.arange(n), n_points)
        noise = _SameForAll(n, n_points)
        latent, result = [np.empty((len(again), 0))], np.zeros(len(again))
        for i, chart, one in self._charts:
            if chart is None:
                continue
            block = np.full((len(again), one.n_latent), np.nan)
            known, uniform = ~np.isnan(wide[again, i]), noise.stratified(i)
            block[known], log_volume = chart.points(wide[again[known], i], uniform[known])
            result[known] += log_volume
            latent.append(block)
        some, all_codes = at_rows(cond, again), codes[again]
        joined = self._joined(np.hstack(latent), some)
        if self._mixture is not None:
            result += self._log_mixture(self._mixture, joined, all_codes)
        values = x[again]
        if self._mixture is not None and np.isnan(joined).any() and discrete is not None:
            whole = draw_unknown(self._mixture, joined, noise, self._tilt(all_codes))
            filled = self._columns(whole[:, : transform.joint.mean.size], some)
            values = np.where(np.isnan(transform.smooth(values)), filled, values)
        if discrete is not None:
            result += discrete.log_probability(values, some, all_codes)
        result[
            ~np.repeat(self._is_possible(x, values[::n_points], codes, cond), n_points)
        ] = -np.inf
        return result.reshape(n, n_points)

    def _log_mixture(
        self, mixture: GaussianMixture, joined: np.ndarray, codes: np.ndarray
    ) -> np.ndarray:
        """Return the log density (n,) of known latent columns given conditions, (n, m + c)."""
        m, result = self.flow.transform.joint.mean.size, np.zeros(len(joined))
        for rows, observed in gap_patterns(np.isnan(joined)):
            given = observed & (np.arange(len(observed)) >= m)
            above = np.tile(mixture.log_weights, (len(joined[rows]), 1))
            if observed.any():
                above = mixture.log_joint(joined[rows], observed)
            tilt = self._tilt(codes[rows])
            result[rows] = log_sum_exp(above if tilt is None else above + tilt)
            if given.any():
                result[rows] -= log_sum_exp(mixture.log_joint(joined[rows], given))
        return result

    def _is_possible(
        self, x: np.ndarray, values: np.ndarray, codes: np.ndarray, cond: np.ndarray | None
    ) -> np.ndarray:
        """Return which rows (n, d) are what follows from their numbers (n, d) and codes (n, q)."""
        made = values.copy()
        for i, chart, one in self._charts:
            if chart is None and i < made.shape[1]:
                made[:, i] = one.inverse(np.empty((len(x), 0)))
        columns = self.flow.transform.by_name(made, cond)
        for relation in self._following:
            columns[relation.target][:] = relation.evaluate(columns)
        self.flow.transform.complete(made, codes, cond)
        same = np.isnan(made) & np.isnan(x)
        for j, both in enumerate(zip(x.T, made.T, strict=True)):
            stored, expected = (np.nan_to_num(column, nan=np.inf) for column in both)
            known = np.isfinite(stored) & np.isfinite(expected)
            if known.any():
                near = relative_deviation(stored[known], expected[known]) <= TOLERANCE
                same[known, j] = near
        return np.asarray(same.all(axis=1))

    def _log_jacobian(self, x: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Return the log of the volume (n,) of learned columns per volume of those they replace."""
        transform = self.flow.transform
        coordinates, n = transform.coordinates, len(x)
        if not len(coordinates) or not n:
            return np.zeros(n)
        columns = transform.by_name(x, cond)
        here = coordinates.forward(columns, n)
        slopes = np.empty((n, len(coordinates), len(coordinates)))
        for j, name in enumerate(self._replaced):
            step = STEP * max(float(np.nanstd(columns[name])), float(np.nanmax(abs(columns[name]))))
            away = [
                (coordinates.forward({**columns, name: columns[name] + h}, n) - here) / h
                for h in (step, -step)
            ]
            # not over the seam of an angle
            slopes[:, :, j] = np.where(abs(away[0]) < abs(away[1]), away[0], away[1])
        slopes = np.where(np.isnan(slopes), np.eye(len(coordinates)), slopes)  # of what is missing
        return np.asarray(np.linalg.slogdet(slopes)[1])


class _SameForAll(RowNoise):
    """Random numbers for the points of n rows, the same ones for each: no row depends on others."""

    def __init__(self, n: int, n_points: int) -> None:
        self._n, self._n_points = n, n_points
        self._rng = stream(0, "density-points")

    def stratified(self, column: int) -> np.ndarray:
        """Return uniform numbers (n n_points,) of a column, evenly spread over those of a row."""
        rng = stream(0, "density-strata", column)
        uniform = (rng.permutation(self._n_points) + rng.random(self._n_points)) / self._n_points
        return np.tile(uniform if self._n_points > 1 else np.full(1, 0.5), self._n)

    def random(self) -> np.ndarray:
        return np.tile(self._rng.random(self._n_points), self._n)

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.tile(self._rng.standard_normal((self._n_points, *shape[1:])), (self._n, 1))


@dataclass(frozen=True, eq=False)
class Density:
    """The density of rows: reference, ratio of real rows to it, and the normalisation of that.

    The latter is one number where there are no conditions, else found for each set of these.
    """

    reference: Reference
    ratio: DensityRatio
    seed: int

    @classmethod
    def fit(
        cls,
        flow: Flow,
        x: np.ndarray,
        cond: np.ndarray | None,
        weight: np.ndarray | None,
        seed: int,
        n_threads: int = 1,
    ) -> Self:
        """Learn from real rows (n, d), conditions (n, c) in their units and weights (n,)."""
        reference, seed = Reference(flow), derive(seed, "density")
        if weight is not None:
            seen = x if cond is None else np.hstack([x, cond])
            weight = positive_weights(seen, weight, seed=seed, n_threads=n_threads).weight
            used = weight > 0
            x, cond, weight = x[used], at_rows(cond, used), weight[used]
        n = n_generated(len(x), x.shape[1])
        repeated = None if cond is None else cond[np.arange(n) % len(cond)]
        inputs = flow.generator.classifier_inputs
        drawn_rows = np.vstack([each for each, _ in _blocks(reference, repeated, n, seed)])
        ratio = DensityRatio.fit(
            inputs(x, cond),
            inputs(drawn_rows, repeated),
            weight,
            conditional=cond is not None,
            seed=seed,
            n_threads=n_threads,
        )
        fitted = cls(reference, ratio, seed)
        if cond is None:
            log_norm, error = fitted._normalised(None, N_DRAWN)
            ratio.note(log_norm=float(log_norm[0]), log_norm_error=float(error[0]))
        ratio.note(seed=seed)
        return fitted

    @classmethod
    def restore(cls, flow: Flow, content: bytes) -> Self:
        """Restore from `to_bytes` of a model whose flow is given. Raises FormatError."""
        ratio = DensityRatio.from_bytes(content)
        counts = flow.n_columns, len(flow.condition_names), len(flow.observables)
        if ratio.n_inputs != sum(counts):
            raise FormatError("the stored density is of other columns: learn it again")
        return cls(Reference(flow), ratio, int(ratio.noted("seed")))

    def to_bytes(self) -> bytes:
        """Return ratio and normalisation; the reference is that of the flow."""
        return self.ratio.to_bytes()

    def log_density(self, x: np.ndarray, cond: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the log density (n,) of rows (n, d) at conditions (n, c), and its error (n,).

        The error is that of the draws of normalisation and points, not of what was learned.
        """
        result, error = self.reference.log_density(x, cond)
        result = result + self._log_ratio(x, cond)
        if cond is None:
            log_norm, more = (
                np.array([self.ratio.noted(k)]) for k in ("log_norm", "log_norm_error")
            )
            return result - log_norm, np.hypot(error, more)
        sets, which = np.unique(cond, axis=0, return_inverse=True)
        log_norm, more = self._normalised(sets, max(N_DRAWN // len(sets), FEWEST_GIVEN))
        which = which.reshape(-1)
        return result - log_norm[which], np.hypot(error, more[which])

    def _log_ratio(self, x: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        inputs = self.reference.flow.generator.classifier_inputs(x, cond)
        return np.asarray(self.ratio.log_ratio(inputs), dtype=np.float64).reshape(len(x))

    def _normalised(self, sets: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the log of the mean ratio of n draws at each of some conditions, and its error."""
        count = 1 if sets is None else len(sets)
        repeated = None if sets is None else np.repeat(sets, n, axis=0)
        drawn_rows = _blocks(self.reference, repeated, count * n, derive(self.seed, "norm"))
        logs = np.concatenate([self._log_ratio(*each) for each in drawn_rows]).reshape(count, n)
        ratios = np.exp(logs)
        mean = ratios.mean(axis=1)
        return np.log(mean), ratios.std(axis=1, ddof=1) / np.sqrt(n) / mean


def _blocks(
    reference: Reference, cond: np.ndarray | None, n: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield draws of a reference and their conditions, block by block."""
    edges = [*range(0, n, BLOCK_ROWS), n]
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        some = at_rows(cond, slice(low, high))
        with one_thread_of_blas():
            yield reference.draw(some, high - low, derive(seed, "reference", number)), some
