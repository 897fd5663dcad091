"""The contract of a preconditioner: a velocity in closed form; trees learn the remainder.

A preconditioner is fitted once to the training rows in latent space. Before a step is trained or
used it is prepared for the time of that step (`Preconditioner.at`); all that depends on the time
alone is worked out there, so that events are cheap.

To add one: derive from `Preconditioner` and `Prepared`, register the first, and give it
``state`` and ``restore``. The contract tests find it by its name.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from ...errors import InputError
from ...registry import Registry
from ..paths import Path

PRECONDITIONERS: Registry[Preconditioner] = Registry("preconditioner")


FORMAT = 1
"""Version of the stored arrays."""


class Prepared(ABC):
    """A preconditioner at one time. Rows are independent of each other."""

    @abstractmethod
    def features(
        self, x: np.ndarray, cond: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the velocity (n, m) and extra inputs for trees (n, n_extra), float64.

        The extra inputs are the posterior mean, then the weights if there are two or more.

        Raises InputError if the shapes are not those of the fit.

        Parameters
        ----------
        x : ndarray (n, m), points at the prepared time, latent (no unit)
        cond : ndarray (n, c), NaN = unknown; None = all unknown, or no conditions
        """

    @abstractmethod
    def velocity(self, x: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
        """Return E[u_t | x_t = x, cond] (n, m), change of x per unit of t."""

    @abstractmethod
    def posterior_mean(self, x: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
        """Return E[x1 | x_t = x, cond] (n, m), the mean end point."""

    @abstractmethod
    def weights(self, x: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
        """Return the probability of each component at x and cond, (n, K); rows sum to 1."""


class Preconditioner(ABC):
    """A velocity in closed form. The constructor stores options only; `fit` learns."""

    name: ClassVar[str]

    @abstractmethod
    def fit(
        self,
        z: np.ndarray,
        *,
        seed: int,
        cond: np.ndarray | None = None,
        weight: np.ndarray | None = None,
        source: np.ndarray | None = None,
    ) -> Self:
        """Learn from training rows and return self.

        Raises InputError if an array has the wrong shape or is not finite.

        Parameters
        ----------
        z : ndarray (n, m), latent rows, finite; converted to float64
        seed : int, the same seed and rows give the same bytes
        cond : ndarray (n, c) or None; NaN = unknown
        weight : ndarray (n,) or None, event weights >= 0; only their ratios matter
        source : ndarray (n, m) or None, the start x0 of each row where it is not noise
        """

    @abstractmethod
    def at(self, path: Path, t: float, t_next: float | None = None) -> Prepared:
        """Return the preconditioner prepared for time ``t`` (0 noise, 1 data).

        Exact for every path of the form ``x_t = a x1 + b x0 + c noise`` and pairs (x0, x1) that
        are independent, or start from ``source``. With ``t_next`` the velocity is the expectation
        of `Path.mean_target`, the mean velocity over [t, t_next].
        """

    @property
    @abstractmethod
    def extra_names(self) -> list[str]:
        """Names of the extra inputs of `Prepared.features`, in their order."""

    @abstractmethod
    def describe(self) -> str:
        """Return one line about what was fitted."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Return what was fitted as plain arrays by name (no objects, so no pickle)."""

    @classmethod
    @abstractmethod
    def restore(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Return a fitted preconditioner from its `state`; options are not part of it."""

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the state, the name and the format; `from_arrays` reads it."""
        return {**self.state(), "name": np.array(self.name), "format": np.array(FORMAT)}

    def to_bytes(self) -> bytes:
        """Return what was fitted as the bytes of an ``.npz`` file; equal fits, equal bytes."""
        buffer, arrays = io.BytesIO(), dict[str, Any](self.to_arrays())
        np.savez(buffer, **{key: arrays[key] for key in sorted(arrays)})
        return buffer.getvalue()


def check_points(x: np.ndarray, m: int) -> np.ndarray:
    """Return points as float64 (n, m). Raises InputError for another shape."""
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != m:
        raise InputError(f"points must have shape (n, {m}), the latent columns, got {x.shape}")
    return x


def check_conditions(cond: np.ndarray | None, n: int, n_cond: int) -> np.ndarray:
    """Return conditions as float64 (n, n_cond), NaN if there are none. Raises InputError."""
    if cond is None:
        return np.full((n, n_cond), np.nan)
    cond = np.asarray(cond, dtype=np.float64)
    if cond.shape != (n, n_cond):
        raise InputError(
            f"conditions must have shape {(n, n_cond)}, one row per point and the columns of the"
            f" fit, got {cond.shape}"
        )
    return cond


class PreparedNone(Prepared):
    """No velocity and no extra inputs."""

    def __init__(self, m: int) -> None:
        self._m = m

    def features(
        self, x: np.ndarray, cond: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.velocity(x), self.weights(x)

    def velocity(self, x: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
        return np.zeros_like(check_points(x, self._m))

    def posterior_mean(self, x: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
        return self.weights(x)

    def weights(self, x: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
        return np.zeros((len(x), 0))


@PRECONDITIONERS.register("none")
class NoPreconditioner(Preconditioner):
    """Leave everything to the trees."""

    name: ClassVar[str] = "none"
    _m: int

    def fit(
        self,
        z: np.ndarray,
        *,
        seed: int,
        cond: np.ndarray | None = None,
        weight: np.ndarray | None = None,
        source: np.ndarray | None = None,
    ) -> Self:
        self._m = np.shape(z)[1]
        return self

    def at(self, path: Path, t: float, t_next: float | None = None) -> PreparedNone:
        return PreparedNone(self._m)

    @property
    def extra_names(self) -> list[str]:
        return []

    def describe(self) -> str:
        return "no closed-form velocity: the trees learn all of it"

    def state(self) -> dict[str, np.ndarray]:
        return {"sizes": np.array([self._m])}

    @classmethod
    def restore(cls, state: Mapping[str, np.ndarray]) -> Self:
        restored = cls()
        restored._m = int(state["sizes"][0])
        return restored
