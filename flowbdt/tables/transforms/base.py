"""The interface of column transforms, and how one is built or read back from JSON.

A column transform maps one physical column (n,) to latent columns (n, k) without units and back.
The latent values are what the flow learns; k is usually 1 (0 for a constant, 2 for an angle).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from ...atomic_files import to_plain
from ...errors import ConfigError, FormatError, reading
from ...registry import Registry
from ...typed_settings import Positive, Stored, check_settings, check_stored, check_value
from .charts import Chart

REACH = 3.0
"""How far (in latent units, about standard deviations) a generated value may lie beyond the
training range where nothing else was declared. Finite, so that no latent value can overflow."""

LOG_REACH = 0.3
"""The same for logarithms. A Gaussian in the logarithm has a long tail upwards that few physical
quantities have: with 3, a handful of events in 25,000 lay at several times the largest training
value and alone moved correlations by 0.1."""

LARGEST = float(np.finfo(np.float64).max)


class ColumnTransform(ABC):
    """An invertible map between one column and its latent columns, fitted on training rows only.

    A subclass is a dataclass whose fields are its options, never changed, and stores what it
    learns in the attributes named in ``fitted``: single numbers, or a mapping of names to types,
    such as ``{"knots": list[float], "scale": float}``. It never keeps the training values.
    ``draws`` is true if `forward` draws random numbers, to spread repeated values out.
    """

    name: ClassVar[str] = ""
    n_latent: int = 1
    draws: bool = False
    fitted: ClassVar[tuple[str, ...] | Mapping[str, Any]] = ()

    @abstractmethod
    def fit(self, values: np.ndarray, rng: np.random.Generator) -> ColumnTransform:
        """Learn from the training values (n,), float64, in the unit of the column."""

    @abstractmethod
    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return latent values (n, n_latent), float64, finite for every finite input."""

    @abstractmethod
    def inverse(self, latent: np.ndarray) -> np.ndarray:
        """Return values (n,), float64, finite for every finite latent (n, n_latent)."""

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Return which values (n,) a generated column could have, as far as it is discrete."""
        return np.ones(values.shape, dtype=bool)

    def chart(self) -> Chart:
        """Return the chart of the column, for densities. Raises ConfigError if there is none."""
        raise ConfigError(
            f"transform {self.name!r} tells no volume, so there is no density; fit with another"
            " transform of this column"
        )

    @abstractmethod
    def describe(self) -> str:
        """Return one line: what is done, and how far generated values may leave the range."""

    def options(self) -> dict[str, Any]:
        """Return the options by name, as plain values."""
        names = inspect.signature(type(self)).parameters
        return {name: to_plain(getattr(self, name)) for name in names}

    def resolved(self) -> dict[str, Any]:
        """Return a specification with every automatic choice of `fit` written out."""
        return {"name": self.name, **self.options()}

    def state(self) -> dict[str, Any]:
        """Return what was learned, as plain numbers and lists."""
        return {name: to_plain(getattr(self, name)) for name in self.fitted}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        for name in self.fitted:
            value = state[name]
            is_list = isinstance(value, list)
            setattr(self, name, np.array(value, dtype=np.float64) if is_list else value)

    def to_json(self) -> dict[str, Any]:
        """Return name, options and learned state as a JSON-like dict."""
        return {"name": self.name, "options": self.options(), "state": self.state()}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ColumnTransform:
        """Rebuild a fitted transform, bit-equal in what it computes. Raises FormatError."""
        what = f"a stored column transform {data.get('name')!r}"[:100]
        check_stored(data, StoredTransform, what)
        with reading(what), np.errstate(all="ignore"):
            kind = TRANSFORMS.get(data["name"])
            check_settings(data["options"], kind)
            transform: ColumnTransform = kind(**data["options"])
            transform.load(data["state"])
            check_state(data["state"], transform)
        return transform


class StoredTransform(Stored):
    """A fitted column transform."""

    name: str
    options: dict[str, Any]
    state: dict[str, Any]


Numbers = list[float]
Limits = dict[Literal["low", "high"], Literal["limit", "extend"]]

STATE: dict[str, Any] = {
    **dict.fromkeys(("z", "x", "values", "counts", "edges", "spikes", "shares"), Numbers),
    "limited": Annotated[Limits, msgspec.Meta(min_length=2)],
    "scale": Positive,
    "at_low": bool,
    "at_high": bool,
    "bound": float | None,
    "inner": dict[str, Any],
    "parts": list[dict[str, Any]],
}
"""Types of learned numbers; those of other names are single ones, unless ``fitted`` has types."""

BOUNDS = (("x_low", "x_high"), ("z_low", "z_high"), ("minimum", "maximum"))
"""Learned numbers of which the first is not above the second."""

PROBES = np.array([-9.0, -2.0, -1e-3, 0.0, 1e-3, 2.0, 9.0])
"""Latent values at which a restored transform must work."""


def check_state(state: Mapping[str, Any], transform: ColumnTransform) -> None:
    """Raise an error unless a restored transform has a whole state, and works."""
    if unknown := state.keys() - transform.state().keys():
        raise FormatError(f"its state has unknown entries {sorted(unknown)}")
    declared = transform.fitted if isinstance(transform.fitted, Mapping) else None
    types = STATE if declared is None else declared
    for name, value in state.items():
        check_value(value, types.get(name, float), f"{name} of its state")
        rising = declared is None and name in ("z", "x", "values", "edges")
        if rising and (len(value) < (name != "edges") or (np.diff(value) < 0).any()):
            raise FormatError(f"{name} of its state must be rising numbers")
    pairs = (("z", "x", 0), ("edges", "values", 1), ("counts", "values", 0))
    for few, many, more in () if declared else pairs:
        if {few, many} <= state.keys() and len(state[few]) + more != len(state[many]):
            raise FormatError(f"{few} and {many} of its state differ in length")
    for low, high in () if declared else BOUNDS:
        if low in state and not state[low] <= state[high]:
            raise FormatError(f"{low} of its state is above {high}")
    if not transform.n_latent:
        return
    x = transform.inverse(np.tile(PROBES[:, None], transform.n_latent))
    z = transform.forward(x, np.random.default_rng(0))
    if x.shape != PROBES.shape or z.shape != (len(x), transform.n_latent):
        raise FormatError("its values have another shape")
    if not (np.isfinite(x).all() and np.isfinite(z).all()):
        raise FormatError("its values are not finite")


TRANSFORMS: Registry[ColumnTransform] = Registry("transform")


def build_column(spec: str | Mapping[str, Any] | Sequence[Any]) -> ColumnTransform:
    """Build an unfitted transform from a name, a mapping with ``name``, or a list (a chain).

    Examples
    --------
    >>> build_column({"name": "minmax", "clip": True}).options()["clip"]
    True
    """
    if isinstance(spec, (list, tuple)):
        spec = {"name": "chain", "steps": list(spec)}
    return TRANSFORMS.build(spec)  # type: ignore[arg-type]


def check_number(value: Any, what: str, *, positive: bool = False) -> float:
    """Return ``value`` as a finite float; raise ConfigError that names the option."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not np.isfinite(value) or (positive and value < 0):
        kind = "a finite number, zero or larger" if positive else "a finite number"
        raise ConfigError(f"{what} must be {kind}, got {value!r}")
    return float(value)


def check_tails(tails: Any, what: str) -> dict[str, str]:
    """Return ``tails`` as {"low": ..., "high": ...}, each "limit" or "extend" (or "auto")."""
    sides = {"low": tails, "high": tails} if isinstance(tails, str) else tails
    allowed = ("auto", "limit", "extend")
    known = isinstance(sides, Mapping) and all(side in allowed for side in sides.values())
    if not known or set(sides) != {"low", "high"}:
        raise ConfigError(
            f"tails of {what} must be one of {', '.join(allowed)}, or"
            f" {{'low': ..., 'high': ...}} of these, got {tails!r}"
        )
    return dict(sides)
