"""Preconditioners from one Gaussian and from a mixture of Gaussians."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from ... import seeding
from ...errors import ConfigError, InputError, plural
from ...seeding import row_uniform
from ...tables import checks
from ..paths import Path
from .base import PRECONDITIONERS, Preconditioner
from .conditioning import KINDS, Covariances, Layout, covariances_from_arrays
from .expectation_maximisation import (
    GaussianMixture,
    MixtureSettings,
    StandardisedRows,
    fit_mixture,
    search_components,
)
from .mixture_on_path import Motion, PreparedMixture


@PRECONDITIONERS.register("mixture")
class MixturePreconditioner(Preconditioner):
    """The exact velocity of a mixture of Gaussians that is fitted to the training rows.

    Conditions (and source events) join the table: the mixture describes them together and
    is conditioned exactly on what is known.

    Raises ConfigError if an option is out of range.

    A component of fewer than one event is dropped, and there is at most one component for twice as
    many rows as there are variables, so a fit may end with fewer than requested.

    Source: Fit: Dempster, Laird, Rubin 1977, J. R. Stat. Soc. B 39, 1, section 4.3. Velocity:
    derived here, by conditioning jointly normal variables.

    Parameters
    ----------
    n_components : int >= 1 or "auto": the number with the highest likelihood of held-out rows
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

    def __init__(
        self,
        n_components: int | str = "auto",
        covariance: str = "auto",
        rank: int = 20,
        shrinkage: float = 2.0,
        max_iter: int = 100,
        max_rows: int = 50_000,
    ) -> None:
        if n_components != "auto":
            _whole("n_components", n_components, " or 'auto'")
        if covariance not in ("auto", *KINDS):
            raise ConfigError(
                f"covariance must be one of auto, {', '.join(sorted(KINDS))}, got {covariance!r}"
            )
        if not (isinstance(shrinkage, (int, float)) and 0 <= shrinkage < np.inf):
            raise ConfigError(f"shrinkage must be a number >= 0, got {shrinkage!r}")
        self.n_components, self.covariance, self.shrinkage = n_components, covariance, shrinkage
        self.rank = _whole("rank", rank)
        self.max_iter, self.max_rows = _whole("max_iter", max_iter), _whole("max_rows", max_rows)

    def fit(
        self,
        z: np.ndarray,
        *,
        seed: int,
        cond: np.ndarray | None = None,
        weight: np.ndarray | None = None,
        source: np.ndarray | None = None,
    ) -> Self:
        """Fit the mixture. See `Preconditioner.fit`.

        On one thread of BLAS, because sums over threads depend on their number in the last digit.
        """
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):
            return self._fit(z, seed, cond, weight, source)

    def _fit(
        self,
        z: np.ndarray,
        seed: int,
        cond: np.ndarray | None,
        weight: np.ndarray | None,
        source: np.ndarray | None,
    ) -> Self:
        y, weight, self._layout = _joined(z, cond, weight, source)
        used = weight > 0
        if used.sum() > self.max_rows:
            order = np.argsort(row_uniform(len(y), seeding.derive(seed, "mixture-rows"))[used])
            used[np.flatnonzero(used)[order[self.max_rows :]]] = False
        y, weight = y[used], weight[used]
        self._n_rows = len(y)
        shift, scale = _standard(y, weight)
        # as many events as the weights are worth, so that their unit does not matter
        weight = weight * (weight.sum() / (weight**2).sum())
        rows = StandardisedRows.of((y - shift) / scale, weight)
        fitted, self._search = self._best(rows, seed)
        self._mixture = fitted.moved(shift, scale)
        return self

    def _best(self, rows: StandardisedRows, seed: int) -> tuple[GaussianMixture, dict[int, float]]:
        settings = MixtureSettings(self._kind(), self.rank, float(self.shrinkage))
        if self.n_components == "auto":
            conditional = np.arange(self._layout.p) >= self._layout.n_points
            return search_components(rows, settings, seed, self.max_iter, conditional)
        # fewer events per component than it has numbers would be learned by heart
        most = max(self._n_rows // (2 * (self._layout.p + 2)), 1)
        k = min(int(self.n_components), most)
        return fit_mixture(rows, k, settings, seed, self.max_iter), {}

    def _kind(self) -> type[Covariances]:
        if self.covariance != "auto":
            return KINDS[self.covariance]
        return KINDS["full" if self._layout.m <= self.most_full else "low_rank"]

    def at(self, path: Path, t: float, t_next: float | None = None) -> PreparedMixture:
        return self.moved(Motion.of(path, t, t_next))

    def moved(self, motion: Motion) -> PreparedMixture:
        """Return the mixture at the scales and rates of any motion."""
        return PreparedMixture(self._mixture, self._layout, motion)

    @property
    def mixture(self) -> GaussianMixture:
        """The fitted components, of the variables (source, z, cond)."""
        return self._mixture

    @property
    def extra_names(self) -> list[str]:
        k = self._mixture.n_components
        ends = [f"end_{column}" for column in range(self._layout.m)]
        return ends + ([f"weight_{number}" for number in range(k)] if k > 1 else [])

    def describe(self) -> str:
        k, layout = self._mixture.n_components, self._layout
        line = (
            f"{plural(k, 'Gaussian')} ({self._mixture.covariances.kind} covariance) for"
            f" {plural(layout.p, 'variable')}, fitted to {plural(self._n_rows, 'row')}"
        )
        if not self._search:
            return line
        tried = ", ".join(f"{n}: {value:.3f}" for n, value in self._search.items())
        return f"{line}; log-likelihood per held-out row by number of Gaussians: {tried}"

    def state(self) -> dict[str, np.ndarray]:
        layout = self._layout
        sizes = [layout.m, layout.n_cond, int(layout.has_source), self._n_rows]
        return {
            "sizes": np.array(sizes),
            "log_weights": self._mixture.log_weights,
            "means": self._mixture.means,
            "search": np.array(list(self._search.items()), dtype=np.float64).reshape(-1, 2),
            **self._mixture.covariances.to_arrays(),
        }

    @classmethod
    def restore(cls, state: Mapping[str, np.ndarray]) -> Self:
        restored = cls()
        m, n_cond, has_source, restored._n_rows = (int(size) for size in state["sizes"])
        restored._layout = Layout(m, n_cond, bool(has_source))
        restored._search = {int(n): float(value) for n, value in state["search"]}
        restored._mixture = GaussianMixture(
            np.asarray(state["log_weights"]),
            np.asarray(state["means"]),
            covariances_from_arrays(dict(state)),
        )
        return restored


@PRECONDITIONERS.register("gaussian")
class GaussianPreconditioner(MixturePreconditioner):
    """The exact velocity of one Gaussian with the mean and covariance of the training rows.

    Parameters
    ----------
    covariance, rank, shrinkage : see `MixturePreconditioner`; "auto" is full up to 512 latent
        columns, and shrinkage is towards the diagonal
    """

    name: ClassVar[str] = "gaussian"
    most_full: ClassVar[int] = 512

    def __init__(self, covariance: str = "auto", rank: int = 20, shrinkage: float = 2.0) -> None:
        super().__init__(1, covariance, rank, shrinkage)


def _whole(name: str, value: Any, otherwise: str = "") -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ConfigError(f"{name} must be a whole number >= 1{otherwise}, got {value!r}")
    return int(value)


def _joined(
    z: np.ndarray,
    cond: np.ndarray | None,
    weight: np.ndarray | None,
    source: np.ndarray | None,
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


def _standard(y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
