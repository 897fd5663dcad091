"""Preconditioners from one Gaussian and from a mixture of Gaussians."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np

from ... import seeding
from ...atomic_files import stored_array
from ...errors import FormatError, InputError, plural
from ...seeding import row_uniform
from ...tables import checks
from ...typed_settings import AtLeastOne, NotNegative
from ..paths import Path
from .base import PRECONDITIONERS, Array, Preconditioner
from .conditioning import KINDS, Covariances, Full, Layout, LowRank
from .expectation_maximisation import (
    GaussianMixture,
    MixtureSettings,
    StandardisedRows,
    fit_mixture,
    iterate,
    search_components,
)
from .mixture_on_path import Motion, PreparedMixture
from .mixture_per_value import N_DRAWS, Complexity, JoinedMixture, Margins

LARGEST_STORED = 1e30
"""Largest number of a stored mixture; its squares are within float64."""


REFITS = 10
"""Iterations of `MixturePreconditioner.refit`."""

KNOTS = ("drawn", "real")


@PRECONDITIONERS.register("mixture")
@dataclass(eq=False)
class MixturePreconditioner(Preconditioner):
    """The exact velocity of a mixture of Gaussians that is fitted to the training rows.

    Conditions (and source events) join the table: the mixture describes them together and
    is conditioned exactly on what is known.

    A component of fewer than one event is dropped, and there is at most one component for twice as
    many rows as there are variables, so a fit may end with fewer than requested.

    Source: Fit: Dempster, Laird, Rubin 1977, J. R. Stat. Soc. B 39, 1, section 4.3. Velocity:
    derived here, by conditioning jointly normal variables.

    Parameters
    ----------
    n_components : int >= 1 or "auto": the number with the highest likelihood of held-out rows, but
        at least 40 or a hundredth of the rows, whichever is less, unless that number is 1
    covariance : "full", "low_rank", or "auto": full up to 64 latent columns
    rank : int >= 1, factors per component of low-rank covariances
    shrinkage : float >= 0, number of events by which a component's covariance is drawn to the
        pooled one
    max_iter : int >= 1, iterations of the fit
    max_rows : int >= 1, rows used at most, drawn by a keyed hash
    """

    name: ClassVar[str] = "mixture"
    most_full: ClassVar[int] = 64
    """With more latent columns "auto" means low-rank matrices."""

    n_components: AtLeastOne | Literal["auto"] = "auto"
    covariance: Literal["auto", "full", "low_rank"] = "auto"
    rank: AtLeastOne = 20
    shrinkage: NotNegative = 2.0
    max_iter: AtLeastOne = 100
    max_rows: AtLeastOne = 50_000
    n_threads = 1
    """Threads of the fit, which do not change it."""
    tags = None  # type: np.ndarray | None
    margins = None  # type: Margins | None
    """Of `fit_values`: to which value of the column drawn first each component belongs, (K,), and
    what its columns are bent to."""

    def fit(self, z: np.ndarray, *, seed: int, **rows: Any) -> Self:
        from threadpoolctl import threadpool_limits

        # each on one thread: sums over threads of BLAS depend on their number in the last digit
        with threadpool_limits(1, user_api="blas"):
            return self._fit(seed, *_joined(z, **rows))

    def _standardised(
        self, seed: int, y: np.ndarray, weight: np.ndarray
    ) -> tuple[StandardisedRows, np.ndarray, np.ndarray]:
        """Return the rows used, their mean, and their standard deviation."""
        used = weight > 0
        if used.sum() > self.max_rows:
            order = np.argsort(row_uniform(len(y), seeding.derive(seed, "mixture-rows"))[used])
            used[np.flatnonzero(used)[order[self.max_rows :]]] = False
        y, weight = y[used], weight[used]
        self._n_rows = len(y)
        shift, scale = standard(y, weight)
        # as many events as the weights are worth, so that their unit does not matter
        weight = weight * (weight.sum() / (weight**2).sum())
        return StandardisedRows((y - shift) / scale, weight, self.n_threads), shift, scale

    def _fit(self, seed: int, y: np.ndarray, weight: np.ndarray, layout: Layout) -> Self:
        self._layout = layout
        rows, shift, scale = self._standardised(seed, y, weight)
        kind = self.covariance
        if kind == "auto":
            kind = "full" if layout.m <= self.most_full else "low_rank"
        settings = MixtureSettings(KINDS[kind], self.rank, self.shrinkage)
        if self.n_components == "auto":
            conditional = np.arange(layout.p) >= layout.n_points
            fitted, self._search = search_components(
                rows, settings, seed, self.max_iter, conditional
            )
        else:
            # fewer events per component than it has numbers would be learned by heart
            k = min(self.n_components, max(self._n_rows // (2 * (layout.p + 2)), 1))
            fitted, self._search = fit_mixture(rows, k, settings, seed, self.max_iter), {}
        self._mixture = fitted.moved(shift, scale)
        return self

    def refit(self, z: np.ndarray, *, seed: int, **rows: Any) -> None:
        """Fit to rows of other weights, from the present components on, in a few iterations."""
        y, weight, self._layout = _joined(z, **rows)
        few, shift, scale = self._standardised(seed, y, weight)
        covariances = self._mixture.covariances
        rank = covariances.factors.shape[-1] if isinstance(covariances, LowRank) else 0
        settings = MixtureSettings(type(covariances), rank, self.shrinkage)
        mixture = self._mixture.moved(-shift / scale, 1 / scale)
        self._mixture = iterate(mixture, few, settings, REFITS)[0].moved(shift, scale)

    def fit_values(
        self, z: np.ndarray, codes: np.ndarray, n_values: int, chosen: Complexity, seed: int
    ) -> Self:
        """Fit a mixture to the rows z (n, m) of each value of a column, and join them."""
        from threadpoolctl import threadpool_limits

        y, weight, self._layout = _joined(z)
        self._n_rows, self._search = len(y), {}
        shift, scale = standard(y, weight)
        with threadpool_limits(1, user_api="blas"):
            joined = JoinedMixture.fit((y - shift) / scale, codes, n_values, chosen, seed)
        self._mixture, self.tags = joined.mixture.moved(shift, scale), joined.tags
        return self

    def fit_margins(
        self,
        real: np.ndarray,
        codes: np.ndarray,
        latent_of: Callable[[np.ndarray], np.ndarray],
        seed: int,
    ) -> None:
        """Fit `margins` to rows (n, m) with codes (n,); ``latent_of`` maps points z to such."""
        assert self.tags is not None

        joined = JoinedMixture(self._mixture, self.tags)

        def drawn(value: int) -> np.ndarray:
            rng = seeding.stream(seed, "margins", value)
            return latent_of(joined.drawn(N_DRAWS, rng, value)[0])

        self.margins = Margins.fit(drawn, real, codes, int(self.tags.max()) + 1)

    @property
    def shares_of_values(self) -> np.ndarray:
        """The shares (V,) of the values of `fit_values`."""
        assert self.tags is not None
        return np.bincount(self.tags, np.exp(self._mixture.log_weights))

    def log_probabilities(self, z: np.ndarray) -> np.ndarray:
        """Return log probabilities (n, V) of the values of `fit_values` at points z (n, m)."""
        assert self.tags is not None
        return JoinedMixture(self._mixture, self.tags).log_probabilities(z)

    def at(self, path: Path, t: float, t_next: float | None = None) -> PreparedMixture:
        return self.moved(Motion.of(path, t, t_next))

    def moved(self, motion: Motion) -> PreparedMixture:
        """Return the mixture at the scales and rates of any motion."""
        return PreparedMixture(self._mixture, self._layout, motion)

    @property
    def mixture(self) -> GaussianMixture:
        """The fitted components, of the variables (source, z, cond)."""
        return self._mixture

    def describe(self) -> str:
        k, layout = self._mixture.n_components, self._layout
        line = (
            f"{plural(k, 'Gaussian')} ({self._mixture.covariances.kind} covariance) for"
            f" {plural(layout.p, 'variable')}, fitted to {plural(self._n_rows, 'row')}"
        )
        if self.tags is not None:
            line += f", {plural(int(self.tags.max()) + 1, 'value')} of the column drawn first"
        if not self._search:
            return line
        tried = ", ".join(f"{n}: {value:.3f}" for n, value in self._search.items())
        return f"{line}; log-likelihood per held-out row by number of Gaussians: {tried}"

    def state(self) -> dict[str, np.ndarray]:
        layout, margins = self._layout, {} if self.margins is None else vars(self.margins)
        sizes = [layout.m, layout.n_cond, int(layout.has_source), self._n_rows]
        return {
            "sizes": np.array(sizes),
            "log_weights": self._mixture.log_weights,
            "means": self._mixture.means,
            "search": np.array(list(self._search.items()), dtype=np.float64).reshape(-1, 2),
            **({} if self.tags is None else {"tags": self.tags}),
            **{f"margins_{name}": array for name, array in margins.items()},
            **vars(self._mixture.covariances),
        }

    @classmethod
    def restore(cls, state: Mapping[str, np.ndarray]) -> Self:
        restored = cls()
        sizes = stored_array(state, "sizes", (4,), "i", 0)
        m, n_cond, has_source, restored._n_rows = (int(size) for size in sizes)
        layout = restored._layout = Layout(m, n_cond, bool(has_source))
        search = stored_array(state, "search", (None, 2))
        restored._search = {int(n): float(value) for n, value in search}
        log_weights = stored_array(state, "log_weights", (None,), high=1e-6)
        k = len(log_weights)
        means = stored_array(
            state, "means", (k, layout.p), low=-LARGEST_STORED, high=LARGEST_STORED
        )
        if not k or has_source > 1 or abs(np.exp(log_weights).sum() - 1) > 1e-6:
            raise FormatError("the weights of a stored mixture do not add up to 1")
        covariances: Covariances
        if "factors" in state:
            factors = stored_array(
                state, "factors", (k, layout.p, None), low=-LARGEST_STORED, high=LARGEST_STORED
            )
            diagonals = stored_array(
                state, "diagonals", (k, layout.p), low=1e-300, high=LARGEST_STORED
            )
            covariances = LowRank(factors, diagonals)
        else:
            shape = (k, layout.p, layout.p)
            covariances = Full(
                stored_array(state, "covariances", shape, low=-LARGEST_STORED, high=LARGEST_STORED)
            )
            np.linalg.cholesky(covariances.covariances)  # an error unless positive definite
            if not np.allclose(covariances.covariances, covariances.covariances.transpose(0, 2, 1)):
                raise FormatError("the covariances of a stored mixture are not symmetric")
        known = {"sizes", "search", "log_weights", "means", "name", "format", *vars(covariances)}
        if "tags" in state:
            known |= restored._restore_values(state, k)
        if unknown := sorted(state.keys() - known):
            raise FormatError(f"a stored mixture has unknown arrays {unknown}")
        restored._mixture = GaussianMixture(log_weights, means, covariances)
        return restored

    def _restore_values(self, state: Mapping[str, np.ndarray], k: int) -> set[str]:
        """Restore what `fit_values` and `fit_margins` learned; return the names of the arrays."""
        tags = self.tags = stored_array(state, "tags", (k,), "i", 0, k - 1)
        values, m = np.arange(tags.max() + 1), self._layout.m
        if self._layout.p != m or not np.array_equal(np.unique(tags), values):
            raise FormatError("the components of a stored mixture belong to no known values")
        end = LARGEST_STORED
        of_knots = stored_array(state, "margins_values", (None,), "i", 0, len(values) - 1)
        shape = len(of_knots), None
        self.margins = Margins(
            of_knots, *(stored_array(state, f"margins_{k}", shape, "f", -end, end) for k in KNOTS)
        )
        same = of_knots[1:] == of_knots[:-1]
        drawn, real = self.margins.drawn, self.margins.real
        if drawn.shape != real.shape or real.shape[1] < m or (np.diff(of_knots) < 0).any():
            raise FormatError("quantiles of a stored mixture are not those of its columns")
        if any((np.diff(knots, axis=0)[same] < 0).any() for knots in (drawn, real)):
            raise FormatError("quantiles of a stored mixture do not rise")
        return {"tags", "margins_values", *(f"margins_{name}" for name in KNOTS)}

    def sizes(self) -> tuple[int, int, bool]:
        return self._layout.m, self._layout.n_cond, self._layout.has_source


@PRECONDITIONERS.register("gaussian")
@dataclass(eq=False)
class GaussianPreconditioner(MixturePreconditioner):
    """The exact velocity of one Gaussian with the mean and covariance of the training rows.

    Parameters
    ----------
    covariance, rank, shrinkage : see `MixturePreconditioner`; "auto" is full up to 512 latent
        columns, and shrinkage is towards the diagonal
    """

    name: ClassVar[str] = "gaussian"
    most_full: ClassVar[int] = 512

    n_components: int = field(default=1, init=False)
    max_iter: int = field(default=100, init=False)
    max_rows: int = field(default=50_000, init=False)


def _joined(
    z: np.ndarray, cond: Array = None, weight: Array = None, source: Array = None
) -> tuple[np.ndarray, np.ndarray, Layout]:
    """Return all variables side by side (n, p), weights (n,), and their layout."""
    z = _table(z, "z")
    n, m = z.shape
    checks.min_rows(n, 1, "a preconditioner")
    blocks = [z]
    if source is not None:
        source = _table(source, "source")
        if source.shape != z.shape:
            raise InputError(f"source must have the shape of z, {z.shape}, got {source.shape}")
        blocks.insert(0, source)
    if cond is not None:
        cond = np.asarray(cond, dtype=np.float64)
        if cond.ndim != 2 or len(cond) != n or np.isinf(cond).any():
            raise InputError(
                f"cond must be ({n}, c) without infinities (NaN = unknown), got shape {cond.shape}"
            )
        blocks.append(cond)
    layout = Layout(m, 0 if cond is None else cond.shape[1], source is not None)
    return np.hstack(blocks), checks.weights(np.ones(n) if weight is None else weight, n), layout


def _table(values: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2:
        raise InputError(f"{what} must be (n, m), got shape {values.shape}")
    checks.finite(values, [str(column) for column in range(values.shape[1])], what)
    return values


def standard(y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weighted mean and standard deviation (p,) of what is known; 1 for constants."""
    known = ~np.isnan(y)
    total = np.maximum(weight @ known, 1e-300)
    filled = np.where(known, y, 0.0)
    shift = weight @ filled / total
    away = np.where(known, filled - shift, 0.0)
    deviation = np.sqrt(weight @ away**2 / total)
    # the rounding of a large constant is no width
    wide = deviation > 1e-12 * np.maximum(np.abs(shift), 1e-300)
    return shift, np.where(wide, deviation, 1.0)
