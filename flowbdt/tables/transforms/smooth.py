"""Smooth column transforms: identity, min-max, standard, log and logit, constants and chains.

All but the first two bend the column by a monotone function g and scale it,
``z = (g(x) - centre) / scale``. With the option ``clip`` generated values stay within the training
range; without it the latent value may lie at most ``reach`` beyond its training range, in units of
``scale``. That declares the limit of extrapolation, and no exponential can overflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...errors import ConfigError, InputError, plural
from .base import LARGEST, LOG_REACH, REACH, TRANSFORMS, ColumnTransform, build_column, check_number
from .charts import Chained, Chart, Smooth

SMALLEST = 5e-324
"""The least positive float: columns of 1e-308 are columns as well."""
LARGEST_LATENT = 1e30
"""Bound on every latent value; reached only by columns that span nearly all floats."""


@TRANSFORMS.register("identity")
class Identity(ColumnTransform):
    """Leave the column as it is. Generated values may go anywhere."""

    name = "identity"

    def fit(self, values: np.ndarray, rng: np.random.Generator) -> Identity:
        return self

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return values[:, None].astype(np.float64)

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        return latent[:, 0].astype(np.float64)

    def chart(self) -> Chart:
        return Smooth(np.copy, np.zeros_like, np.copy)

    def describe(self) -> str:
        return "unchanged; generated values without limit"


@TRANSFORMS.register("constant")
class Constant(ColumnTransform):
    """Keep a column of one value exactly; the flow does not see it (no latent column).

    Other values met later (not in the training rows) come back as the constant.
    """

    name = "constant"
    n_latent = 0
    fitted = ("value",)

    def fit(self, values: np.ndarray, rng: np.random.Generator) -> Constant:
        if values.min() != values.max():
            raise InputError(
                "transform 'constant' needs a column of one value, got values from"
                f" {values.min():g} to {values.max():g}; choose another transform or 'auto'"
            )
        self.value = float(values[0])
        return self

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.empty((values.shape[0], 0))

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        return np.full(latent.shape[0], self.value)

    def holds(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(values == self.value)

    def describe(self) -> str:
        return f"constant {self.value:g}, kept exactly; no latent column"


@dataclass(eq=False, kw_only=True)
class _Scaled(ColumnTransform):
    """A bend, a shift and a scale. Subclasses have the bend (default: none) and the centre."""

    clip: bool = False
    reach: float = REACH
    fitted: ClassVar[tuple[str, ...]] = ("centre", "scale", "z_low", "z_high", "x_low", "x_high")

    def fit(self, values: np.ndarray, rng: np.random.Generator) -> _Scaled:
        margin = 0.0 if self.clip else check_number(self.reach, "reach", positive=True)
        self.x_low, self.x_high = float(values.min()), float(values.max())
        self._learn_bounds(values)
        bent = self._bend(values)
        self.centre, self.scale = self._place(bent)
        z = self._standardised(bent)
        self.z_low = max(float(z.min() - margin), -LARGEST_LATENT)
        self.z_high = min(float(z.max() + margin), LARGEST_LATENT)
        return self

    def _standardised(self, bent: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return (bent - self.centre) / self.scale

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.clip(self._standardised(self._bend(values)), self.z_low, self.z_high)[:, None]

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        z = np.clip(latent[:, 0], self.z_low, self.z_high)
        with np.errstate(over="ignore"):
            values = self._unbend(self.centre + self.scale * z)
        if not self.clip:
            return np.clip(values, -LARGEST, LARGEST)
        # the limits exactly, unrounded
        ends = [z >= self.z_high, z <= self.z_low]
        values = np.select(ends, [self.x_high, self.x_low], values)
        return np.clip(values, self.x_low, self.x_high)

    def chart(self) -> Chart:
        if getattr(self, "at_low", False) or getattr(self, "at_high", False):
            return super().chart()
        return Smooth(
            lambda values: self._standardised(self._unlimited(values)),
            lambda values: self._log_slope(values) - np.log(self.scale),
            lambda z: np.clip(self._unbend(self.centre + self.scale * z), -LARGEST, LARGEST),
        )

    def _learn_bounds(self, values: np.ndarray) -> None:
        """Check the domain; a bend with bounds learns here how near to them it may go."""

    def _bend(self, values: np.ndarray) -> np.ndarray:
        return values

    def _unlimited(self, values: np.ndarray) -> np.ndarray:
        """Return the same as near to bounds as floats go."""
        return self._bend(values)

    def _log_slope(self, values: np.ndarray) -> np.ndarray:
        """Return the log of the slope of the bend (n,), -inf outside its domain."""
        return np.zeros(len(values))

    def _unbend(self, bent: np.ndarray) -> np.ndarray:
        return bent

    def _place(self, bent: np.ndarray) -> tuple[float, float]:
        return location_and_scale(bent)

    def _tail_text(self) -> str:
        if self.clip:
            return f"generated values within the training range [{self.x_low:g}, {self.x_high:g}]"
        edges = self.inverse(np.array([[self.z_low], [self.z_high]]))
        return (
            f"training range [{self.x_low:g}, {self.x_high:g}], generated values at most"
            f" [{edges[0]:g}, {edges[1]:g}]"
        )


def location_and_scale(values: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation, safe for values near the largest float.

    The scale is 1 where the spread is no more than rounding.
    """
    size = float(np.abs(values).max()) or 1.0
    relative = values / size
    mean, spread = float(relative.mean()), float(relative.std())
    if spread <= 4 * np.finfo(np.float64).eps:
        return mean * size, 1.0
    return mean * size, max(spread * size, SMALLEST)


@TRANSFORMS.register("minmax")
class MinMax(_Scaled):
    """Map the training range to [-1, 1] linearly; options ``clip`` and ``reach``."""

    name = "minmax"

    def _place(self, bent: np.ndarray) -> tuple[float, float]:
        low, high = float(bent.min()), float(bent.max())
        return low / 2 + high / 2, (high / 2 - low / 2) or 1.0

    def describe(self) -> str:
        return f"min-max to [-1, 1]; {self._tail_text()}"


@TRANSFORMS.register("standard")
class Standard(_Scaled):
    """Subtract the mean and divide by the standard deviation; options ``clip`` and ``reach``."""

    name = "standard"

    def describe(self) -> str:
        return f"standardised; {self._tail_text()}"


@TRANSFORMS.register("log")
@dataclass(eq=False, kw_only=True)
class Log(_Scaled):
    """Standardise log(x - low): for positive columns over a wide range.

    Generated values stay above the option ``low`` (in the unit of the column), and at most
    ``reach`` standard deviations of the logarithm above the training maximum. Training values equal
    to ``low`` are kept exactly: what comes nearer to ``low`` than half of the smallest training
    distance becomes ``low``.
    """

    name = "log"
    fitted = (*_Scaled.fitted, "edge", "at_low")
    low: float = 0.0
    reach: float = LOG_REACH

    def _learn_bounds(self, values: np.ndarray) -> None:
        low = check_number(self.low, "low of 'log'")
        self.edge, self.at_low = nearest_approach(values - low, "log", f"x >= low = {low:g}")

    def _bend(self, values: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(values - self.low, self.edge))

    def _unlimited(self, values: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(values - self.low, SMALLEST))

    def _log_slope(self, values: np.ndarray) -> np.ndarray:
        return np.where(values > self.low, -self._unlimited(values), -np.inf)

    def _unbend(self, bent: np.ndarray) -> np.ndarray:
        distance = np.exp(bent)
        if self.at_low:
            distance = np.where(distance <= self.edge * (1 + 1e-9), 0.0, distance)
        return self.low + distance

    def describe(self) -> str:
        return f"log(x - {self.low:g}), standardised; {self._tail_text()}"


def nearest_approach(distance: np.ndarray, name: str, domain: str) -> tuple[float, bool]:
    """Return half of the smallest positive distance to a bound, and whether the bound is met."""
    if (distance < 0).any():
        row, n_outside = int(np.argmin(distance)), int((distance < 0).sum())
        raise InputError(
            f"transform {name!r} needs {domain}, but found {plural(n_outside, 'training value')}"
            f" outside (worst: row {row}, by {-distance[row]:g}); change the bound or choose"
            " another transform"
        )
    positive = distance[distance > 0]
    edge = float(positive.min()) / 2 if positive.size else 1.0
    return max(edge, SMALLEST), bool(positive.size < distance.size)


@TRANSFORMS.register("logit")
@dataclass(eq=False, kw_only=True)
class Logit(_Scaled):
    """Standardise log((x - low) / (high - x)): for columns between two bounds.

    Generated values stay within the options [low, high], in the unit of the column. Training values
    equal to a bound are kept exactly, as in `Log`.
    """

    name = "logit"
    fitted = (*_Scaled.fitted, "edge", "at_low", "edge_high", "at_high")
    low: float
    high: float
    reach: float = LOG_REACH

    def _learn_bounds(self, values: np.ndarray) -> None:
        low, high = check_number(self.low, "low of 'logit'"), check_number(self.high, "high")
        if not high > low:
            raise ConfigError(f"transform 'logit' needs low < high, got {low:g} and {high:g}")
        domain = f"{low:g} <= x <= {high:g}"
        self.edge, self.at_low = nearest_approach(values - low, "logit", domain)
        self.edge_high, self.at_high = nearest_approach(high - values, "logit", domain)

    def _bend(self, values: np.ndarray) -> np.ndarray:
        below = np.maximum(values - self.low, self.edge)
        above = np.maximum(self.high - values, self.edge_high)
        return np.log(below) - np.log(above)

    def _unlimited(self, values: np.ndarray) -> np.ndarray:
        below, above = np.maximum([values - self.low, self.high - values], SMALLEST)
        return np.asarray(np.log(below) - np.log(above))

    def _log_slope(self, values: np.ndarray) -> np.ndarray:
        below, above = np.maximum([values - self.low, self.high - values], SMALLEST)
        slope = np.log(self.high - self.low) - np.log(below) - np.log(above)
        return np.where((values > self.low) & (values < self.high), slope, -np.inf)

    def _unbend(self, bent: np.ndarray) -> np.ndarray:
        # from the nearer bound, so that small distances to either are not lost in rounding
        width = self.high - self.low
        values = np.where(
            bent < 0, self.low + width * _logistic(bent), self.high - width * _logistic(-bent)
        )
        if self.at_low:
            values = np.where(values - self.low <= self.edge * (1 + 1e-9), self.low, values)
        if self.at_high:
            near = self.high - values <= self.edge_high * (1 + 1e-9)
            values = np.where(near, self.high, values)
        return np.clip(values, self.low, self.high)

    def describe(self) -> str:
        return f"logit on [{self.low:g}, {self.high:g}], standardised; {self._tail_text()}"


def _logistic(y: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(y))
    return np.where(y < 0, small, 1.0) / (1.0 + small)


@TRANSFORMS.register("chain")
@dataclass(eq=False)
class Chain(ColumnTransform):
    """Apply several transforms one after the other, e.g. ``["log", "minmax"]``.

    Parameters
    ----------
    steps : list of transform specifications; all but the last must have one latent column
    """

    name = "chain"
    steps: Sequence[Any]

    def fit(self, values: np.ndarray, rng: np.random.Generator) -> Chain:
        if not self.steps:
            raise ConfigError("a chain of transforms needs at least one step, got none")
        chain: list[ColumnTransform] = []
        for spec in self.steps:
            if chain:
                values = chain[-1].forward(values, rng)[:, 0]
            chain.append(build_column(spec).fit(values, rng))
            if len(chain) > 1 and chain[-2].n_latent != 1:
                raise ConfigError(
                    f"transform {chain[-2].name!r} has {chain[-2].n_latent} latent columns; in a"
                    " chain it can only come last"
                )
        self._set_steps(chain)
        return self

    def _set_steps(self, chain: list[ColumnTransform]) -> None:
        self._chain = chain
        self.n_latent = chain[-1].n_latent
        self.draws = any(step.draws for step in chain)

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        latent = values[:, None]
        for step in self._chain:
            latent = step.forward(latent[:, 0], rng)
        return latent

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        for step in reversed(self._chain):
            latent = step.inverse(latent)[:, None]
        return latent[:, 0]

    def chart(self) -> Chart:
        charts = [step.chart() for step in self._chain]
        return super().chart() if any(c.draws for c in charts[:-1]) else Chained(tuple(charts))

    def holds(self, values: np.ndarray) -> np.ndarray:
        return self._chain[0].holds(values)

    def resolved(self) -> dict[str, Any]:
        return {"name": self.name, "steps": [step.resolved() for step in self._chain]}

    def state(self) -> dict[str, Any]:
        return {"parts": [step.to_json() for step in self._chain]}

    def load(self, state: Mapping[str, Any]) -> None:
        self._set_steps([ColumnTransform.from_json(step) for step in state["parts"]])

    def describe(self) -> str:
        return " | then ".join(step.describe() for step in self._chain)
