"""A linear transform of all latent columns together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from ... import seeding
from ...atomic_files import to_plain
from ...errors import ConfigError, FormatError, reading
from ...typed_settings import Positive, Stored, check_settings, check_stored
from .. import checks


class StoredState(Stored):
    """State of a joint transform; axes and spread if it is 'whiten'."""

    mean: list[float]
    scale: list[Positive]
    axes: list[list[float]] | None = None
    spread: list[Positive] | None = None


class StoredJoint(Stored):
    """A stored joint transform."""

    name: Literal["none", "standardise", "whiten"]
    tolerance: float
    state: StoredState


@dataclass(eq=False)
class JointTransform:
    """A linear transform of all latent columns together: shift, scale and rotation.

    "none" leaves them; "standardise" gives each mean 0 and variance 1; "whiten" also rotates to
    the principal axes of the correlation matrix and scales these to variance 1. Axes with an
    eigenvalue below ``tolerance`` times the largest are dropped (collinear columns, fewer rows
    than columns); the inverse is exact in the space that remains.

    Products are made in blocks of `seeding.BLOCK` rows, so that the result of a row does not
    depend, to the last bit, on the number of rows.
    """

    name: Literal["none", "standardise", "whiten"] = "whiten"
    tolerance: float = 1e-10

    @classmethod
    def build(cls, spec: str | Mapping[str, Any]) -> Self:
        """Build from a name or a mapping with ``name``. Raises ConfigError if it is unknown."""
        if not isinstance(spec, (str, Mapping)):
            raise ConfigError(f"'joint' must be a name or a mapping with 'name', got {spec!r}")
        options = {"name": spec} if isinstance(spec, str) else spec
        return cls(**check_settings(options, cls, "joint transform:"))

    def fit(self, z: np.ndarray, weight: np.ndarray | None = None) -> Self:
        """Learn from latent training rows (n, m), with event weights (n,) or None."""
        n_columns = z.shape[1]
        self.mean, self.scale = np.zeros(n_columns), np.ones(n_columns)
        self.axes, self.spread = np.eye(n_columns), np.ones(n_columns)
        if self.name == "none" or n_columns == 0:
            return self
        share = np.ones(z.shape[0]) if weight is None else checks.rescaled(weight)
        share = share / share.sum()
        self.mean = share @ z
        centred = z - self.mean
        deviation = np.sqrt(share @ centred**2)
        self.scale = np.where(deviation > 0, deviation, 1.0)
        if self.name == "whiten":
            centred /= self.scale
            self._find_axes((centred * share[:, None]).T @ centred)
        return self

    def _find_axes(self, correlation: np.ndarray) -> None:
        values, axes = np.linalg.eigh(correlation)
        order = np.argsort(-values, kind="stable")
        order = order[values[order] > self.tolerance * max(values[order[0]], 0.0)]
        values, axes = values[order], axes[:, order]
        largest = np.argmax(np.abs(axes), axis=0)
        sign = np.sign(axes[largest, np.arange(axes.shape[1])])
        self.axes, self.spread = axes * sign, np.sqrt(values)

    @property
    def n_latent(self) -> int:
        """Number of latent columns that are kept."""
        return int(self.spread.size)

    def names(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the latent columns: as before, or axis0, axis1, ..."""
        if self.name != "whiten":
            return tuple(columns)
        return tuple(f"axis{i}" for i in range(self.n_latent))

    def forward(self, z: np.ndarray) -> np.ndarray:
        """Return (n, n_latent) from the latent columns (n, m)."""
        if self.name == "none":
            return z
        centred = (z - self.mean) / self.scale
        if self.name == "standardise":
            return centred
        return blockwise_product(centred, self.axes / self.spread)

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """Return the latent columns (n, m) from (n, n_latent)."""
        if self.name == "none":
            return z
        if self.name == "whiten":
            z = blockwise_product(z, (self.axes * self.spread).T)
        return z * self.scale + self.mean

    def resolved(self) -> dict[str, Any]:
        """Return the specification with all options."""
        return {"name": self.name, "tolerance": self.tolerance}

    def to_json(self) -> dict[str, Any]:
        """Return options and learned numbers as a JSON-like dict."""
        learned = {key: to_plain(getattr(self, key)) for key in ("mean", "scale")}
        if self.name == "whiten":
            learned |= {"axes": to_plain(self.axes), "spread": to_plain(self.spread)}
        return {**self.resolved(), "state": learned}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a fitted transform. Raises FormatError."""
        check_stored(data, StoredJoint, "a stored joint transform")
        with reading("a stored joint transform"):
            joint = cls(data["name"], data["tolerance"])
            state = {key: np.array(value, dtype=np.float64) for key, value in data["state"].items()}
            joint.mean, joint.scale = state["mean"], state["scale"]
            size = joint.mean.size
            whitens = joint.name == "whiten"
            if joint.scale.size != size or (len(state) == 4) != whitens:
                raise FormatError("its numbers do not fit together")
            joint.spread = state.get("spread", np.ones(size))
            joint.axes = state.get("axes", np.eye(size)).reshape(size, joint.spread.size)
        return joint


def blockwise_product(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return rows @ matrix, bit-equal however the rows are cut at multiples of `seeding.BLOCK`."""
    result = np.empty((rows.shape[0], matrix.shape[1]))
    for start in range(0, rows.shape[0], seeding.BLOCK):
        block = rows[start : start + seeding.BLOCK]
        size = block.shape[0]
        if size < seeding.BLOCK:  # the same product shape, hence the same order of additions
            block = np.concatenate([block, np.zeros((seeding.BLOCK - size, rows.shape[1]))])
        result[start : start + size] = (block @ matrix)[:size]
    return result
