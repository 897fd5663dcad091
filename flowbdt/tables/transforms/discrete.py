"""Columns that are not real numbers: integers, categories, angles."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ConfigError, DataWarning, plural
from .base import LARGEST, TRANSFORMS, ColumnTransform, build_column, check_number, check_tails
from .choose import choose_continuous, choose_integer_tails
from .rank import spread_normal

_INSIDE = 1e-3
"""Share of an integer's unit interval left free at each end, so that rounding cannot leave it."""


@TRANSFORMS.register("integer")
@dataclass(eq=False)
class Integer(ColumnTransform):
    """Add uniform noise in [0, 1) and treat the column as continuous; the inverse rounds down.

    Parameters
    ----------
    inner : specification of a continuous transform of x + u, or "auto"
    tails : "auto", "limit", "extend", or {"low": ..., "high": ...}
        "limit": generated values are clipped to the training range on this side; "extend": as
        far as the inner transform goes. "auto": limit below if no value is negative, and
        wherever the extreme value holds at least 0.5% of the rows.

    References
    ----------
    Uniform dequantisation: L. Theis, A. van den Oord, M. Bethge, arXiv:1511.01844, section 3.1.
    """

    name = "integer"
    draws = True
    fitted = ("minimum", "maximum", "limited")
    inner: str | Mapping[str, Any] | Sequence[Any] = "auto"
    tails: str | Mapping[str, str] = "auto"

    def fit(self, values: np.ndarray, rng: np.random.Generator) -> Integer:
        if (values != np.rint(values)).any():
            row = int(np.argmax(values != np.rint(values)))
            raise ConfigError(
                f"transform 'integer' needs integral values, got {values[row]!r} in training row"
                f" {row}; use 'rank' for a column that mixes both"
            )
        self.minimum, self.maximum = float(values.min()), float(values.max())
        self.limited = choose_integer_tails(values, check_tails(self.tails, "'integer'"))
        spread = self._dequantise(values, rng)
        spec = choose_continuous(spread)[0] if self.inner == "auto" else self.inner
        self._inner = build_column(spec).fit(spread, rng)
        if self._inner.n_latent != 1:
            raise ConfigError(f"the inner transform of 'integer' must be continuous, got {spec!r}")
        return self

    @staticmethod
    def _dequantise(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return values + _INSIDE + (1 - 2 * _INSIDE) * rng.random(values.shape[0])

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self._inner.forward(self._dequantise(values, rng), rng)

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        return np.clip(np.floor(self._inner.inverse(latent)), *whole_range(vars(self)))

    def resolved(self) -> dict[str, Any]:
        return {"name": self.name, "inner": self._inner.resolved(), "tails": dict(self.limited)}

    def state(self) -> dict[str, Any]:
        return {**super().state(), "inner": self._inner.to_json()}

    def load(self, state: Mapping[str, Any]) -> None:
        super().load(state)
        self._inner = ColumnTransform.from_json(state["inner"])

    def describe(self) -> str:
        tails = ", ".join(f"{side} {what}" for side, what in self.limited.items())
        return (
            f"integer from {self.minimum:g} to {self.maximum:g}, dequantised; tails: {tails};"
            f" x + u: {self._inner.describe()}"
        )


def whole_range(learned: Mapping[str, Any]) -> tuple[float, float]:
    """Return the least and the largest value that an `Integer` gives, from its state."""
    limited = learned["limited"]
    low = learned["minimum"] if limited["low"] == "limit" else -LARGEST
    return low, learned["maximum"] if limited["high"] == "limit" else LARGEST


@TRANSFORMS.register("categorical")
class Categorical(ColumnTransform):
    """Give each distinct value an interval of the normal latent axis, as wide as it is frequent.

    `forward` draws a normal number restricted to the interval, so that the latent column is
    exactly standard normal; `inverse` returns the value of the interval. Only training values are
    ever generated. Other values go to the nearest training value, with a DataWarning.
    """

    name = "categorical"
    draws = True
    fitted = ("values", "edges")

    def fit(self, values: np.ndarray, rng: np.random.Generator) -> Categorical:
        from scipy.special import ndtri

        self.values, counts = np.unique(values, return_counts=True)
        self.edges = ndtri(np.cumsum(counts)[:-1] / values.shape[0])
        return self

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        code = np.minimum(np.searchsorted(self.values, values), self.values.size - 1)
        unknown = self.values[code] != values
        if unknown.any():
            nearest = np.searchsorted(self.values[:-1] / 2 + self.values[1:] / 2, values)
            code = np.where(unknown, nearest, code)
            warnings.warn(
                f"{plural(int(unknown.sum()), 'row')} of a categorical column hold values that are"
                " not in the training rows; they are treated as the nearest one that is",
                DataWarning,
                stacklevel=2,
            )
        edges = np.concatenate([[-np.inf], self.edges, [np.inf]])
        return spread_normal(edges[code], edges[code + 1], rng.random(values.shape))[:, None]

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        return self.values[np.searchsorted(self.edges, latent[:, 0], side="right")]

    def describe(self) -> str:
        n_values = self.values.size
        return f"{plural(int(n_values), 'distinct value')}, each an interval of a normal; no others"


@TRANSFORMS.register("circular")
@dataclass(eq=False)
class Circular(ColumnTransform):
    """Map an angle to a point in the plane: two latent columns r cos, r sin, no seam.

    The radius r is drawn from a Rayleigh distribution, so that a uniform angle gives an exact
    two-dimensional standard normal. Derived here. Angles outside [low, low + period) are wrapped
    into it, both in the unit of the column; ``low`` None means -period / 2.
    """

    name = "circular"
    n_latent = 2
    draws = True
    period: float = 2 * np.pi
    low: float | None = None

    def fit(self, values: np.ndarray, rng: np.random.Generator) -> Circular:
        if check_number(self.period, "period of 'circular'") <= 0:
            raise ConfigError(f"period of 'circular' must be positive, got {self.period!r}")
        if self.low is not None:
            check_number(self.low, "low of 'circular'")
        return self

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        low, period = angle_range(vars(self))
        angle = (2 * np.pi / period) * np.remainder(values - low, period)
        # never 0: there the direction would be lost
        radius = np.sqrt(-2 * np.log1p(-(1e-12 + (1 - 2e-12) * rng.random(values.shape[0]))))
        return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        low, period = angle_range(vars(self))
        turn = np.remainder(np.arctan2(latent[:, 1], latent[:, 0]) / (2 * np.pi), 1.0)
        values = low + period * turn
        return np.where(values < low + period, values, low)

    def describe(self) -> str:
        low, period = angle_range(vars(self))
        return f"angle, period {period:g}; generated values in [{low:g}, {low + period:g})"


def angle_range(options: Mapping[str, Any]) -> tuple[float, float]:
    """Return the lower end and the period of the angles of a `Circular`, from its options."""
    low, period = options["low"], float(options["period"])
    return -period / 2 if low is None else float(low), period
