"""The interface of column transforms, and how one is built or read back from JSON.

A column transform maps one physical column (n,) to latent columns (n, k) without units and back.
The latent values are what the flow learns; k is usually 1 (0 for a constant, 2 for an angle).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ...atomic_files import to_plain
from ...errors import ConfigError, FormatError
from ...registry import Registry

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
    learns in the attributes listed in ``fitted``. It never keeps the training values. ``draws`` is
    true if `forward` draws random numbers, to spread repeated values out.
    """

    name: ClassVar[str] = ""
    n_latent: int = 1
    draws: bool = False
    fitted: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def fit(self, values: np.ndarray, rng: np.random.Generator) -> ColumnTransform:
        """Learn from the training values (n,), float64, in the unit of the column."""

    @abstractmethod
    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return latent values (n, n_latent), float64, finite for every finite input."""

    @abstractmethod
    def inverse(self, latent: np.ndarray) -> np.ndarray:
        """Return values (n,), float64, finite for every finite latent (n, n_latent)."""

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
        try:
            transform: ColumnTransform = TRANSFORMS.get(data["name"])(**data["options"])
            transform.load(data["state"])
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"a stored column transform cannot be read ({error}); it needs a known 'name',"
                " 'options' and 'state', as written by to_json"
            ) from error
        return transform


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
