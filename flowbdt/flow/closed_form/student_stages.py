"""A mixture of Gaussians for every stage of a student: where points of known start and end go.

A stage begins with a point and ends with another, both known for each row. Start, end and
conditions are jointly described by a mixture, and E[end | start, conditions] is the closed form:
a sum of straight maps, each where its component is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ...errors import ConfigError
from ...seeding import derive
from ..paths import Path
from .base import PRECONDITIONERS, Preconditioner
from .mixture import MixturePreconditioner
from .mixture_on_path import Motion, PreparedMixture


class Stages(Preconditioner):
    """One fitted mixture per stage; not to be asked for by name, see
    `flowbdt.tuning.train_student`.

    Parameters
    ----------
    spec : 'gaussian', 'mixture', or a mapping with the name and parameters
    boundaries : times at which stages begin and end (k + 1,), rising

    Raises
    ------
    ConfigError
        If ``spec`` is neither of the two.
    """

    name: ClassVar[str] = "stages"

    def __init__(self, spec: Any, boundaries: Sequence[float] | np.ndarray) -> None:
        self._boundaries = np.asarray(boundaries, dtype=np.float64)
        self._parts = [_mixture(spec) for _ in self._boundaries[1:]]

    def fit(
        self,
        z: np.ndarray,
        *,
        seed: int,
        cond: np.ndarray | None = None,
        weight: np.ndarray | None = None,
        source: np.ndarray | None = None,
    ) -> Self:
        """Fit all stages: ``z`` and ``source`` are their ends and starts, (k, n, m)."""
        starts = z if source is None else source
        for stage, part in enumerate(self._parts):
            given = {"cond": cond, "weight": weight, "source": starts[stage]}
            part.fit(z[stage], seed=derive(seed, "stage", stage), **given)
        # compiled loops want as many components everywhere; some may have been dropped
        most = max(part.mixture.n_components for part in self._parts)
        self._parts = [part.filled(most) for part in self._parts]
        return self

    def at(self, path: Path, t: float, t_next: float | None = None) -> PreparedMixture:
        """Return the mean velocity over the stage that begins at ``t``; the path plays no part."""
        stage = int(np.argmin(np.abs(self._boundaries[:-1] - t)))
        rate = 1.0 / (self._boundaries[stage + 1] - self._boundaries[stage])
        return self._parts[stage].moved(Motion((0.0, 1.0, 0.0), (rate, -rate, 0.0), 0.0))

    @property
    def extra_names(self) -> list[str]:
        """Those of the mixtures, which have as many components each."""
        return self._parts[0].extra_names

    def describe(self) -> str:
        """Return one line: the stages, and the mixture of the first."""
        return f"for each of {len(self._parts)} stages: {self._parts[0].describe()}"

    def state(self) -> dict[str, np.ndarray]:
        """Return the boundaries, and the state of each stage under its number."""
        parts = enumerate(self._parts)
        arrays = {f"{i}.{key}": array for i, part in parts for key, array in part.state().items()}
        return {"boundaries": self._boundaries, **arrays}

    @classmethod
    def restore(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Return the fitted stages again."""
        restored = cls("mixture", state["boundaries"])
        for i in range(len(restored._parts)):
            own = {k.removeprefix(f"{i}."): v for k, v in state.items() if k.startswith(f"{i}.")}
            restored._parts[i] = MixturePreconditioner.restore(own)
        return restored


def _mixture(spec: Any) -> MixturePreconditioner:
    built = PRECONDITIONERS.build(spec)
    if not isinstance(built, MixturePreconditioner):
        raise ConfigError(
            "a student's preconditioner is 'none' or a mixture that can be fitted to pairs:"
            f" 'gaussian' or 'mixture', got {spec!r}"
        )
    return built
