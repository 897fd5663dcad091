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

from ...atomic_files import stored_array
from ...errors import InputError
from ...registry import Registry
from ...typed_settings import check_fields
from ..paths import Path

PRECONDITIONERS: Registry[Preconditioner] = Registry("preconditioner")


FORMAT = 1
"""Version of the stored arrays."""

Array = np.ndarray | None


class Prepared(ABC):
    """A preconditioner at one time. Rows are independent of each other."""

    @abstractmethod
    def features(self, x: np.ndarray, cond: Array = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the velocity (n, m) and extra inputs for trees (n, n_extra), float64.

        ``x`` (n, m) are latent points at the prepared time, ``cond`` (n, c) has NaN where unknown;
        None: all unknown, or no conditions. The extra inputs are the posterior mean E[x1 | x,
        cond], then, if there are two or more, the probabilities of the components, whose sum is 1.
        Raises InputError if the shapes are not those of the fit.
        """

    @abstractmethod
    def velocity(self, x: np.ndarray, cond: Array = None) -> np.ndarray:
        """Return E[u_t | x_t = x, cond] (n, m), change of x per unit of t."""


class Preconditioner(ABC):
    """A velocity in closed form: a dataclass of its settings; `fit` learns."""

    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_fields(self, "preconditioner setting")

    @abstractmethod
    def fit(
        self,
        z: np.ndarray,
        *,
        seed: int,
        cond: Array = None,
        weight: Array = None,
        source: Array = None,
    ) -> Self:
        """Learn from latent rows z (n, m) and return self; equal seed and rows give equal bytes.

        ``cond`` (n, c) has NaN where unknown; of event weights (n,) only the ratios matter;
        ``source`` (n, m) is the start x0 of each row where it is not noise. Raises InputError if an
        array has the wrong shape or is not finite.
        """

    @abstractmethod
    def at(self, path: Path, t: float, t_next: float | None = None) -> Prepared:
        """Return the preconditioner prepared for time ``t`` (0 noise, 1 data).

        Exact for every path of the form ``x_t = a x1 + b x0 + c noise`` and pairs (x0, x1) that
        are independent, or start from ``source``. With ``t_next`` the velocity is the expectation
        of `Path.mean_target`, the mean velocity over [t, t_next].
        """

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

    def sizes(self) -> tuple[int, int, bool] | None:
        """Return latent columns, conditions, whether the start is known; None: they are free."""
        return None

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

    def features(self, x: np.ndarray, cond: Array = None) -> tuple[np.ndarray, np.ndarray]:
        return self.velocity(x), np.zeros((len(x), 0))

    def velocity(self, x: np.ndarray, cond: Array = None) -> np.ndarray:
        return np.zeros_like(check_points(x, self._m))


@PRECONDITIONERS.register("none")
class NoPreconditioner(Preconditioner):
    """Leave everything to the trees."""

    name: ClassVar[str] = "none"
    _m: int

    def fit(self, z: np.ndarray, **rows: Any) -> Self:
        self._m = np.shape(z)[1]
        return self

    def at(self, path: Path, t: float, t_next: float | None = None) -> PreparedNone:
        return PreparedNone(self._m)

    def describe(self) -> str:
        return "no closed-form velocity: the trees learn all of it"

    def state(self) -> dict[str, np.ndarray]:
        return {"sizes": np.array([self._m])}

    @classmethod
    def restore(cls, state: Mapping[str, np.ndarray]) -> Self:
        restored = cls()
        restored._m = int(stored_array(state, "sizes", (1,), "i", 0)[0])
        return restored
