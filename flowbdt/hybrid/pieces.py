"""A field made of pieces in time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..fields import VelocityField
from ..solvers.base import TOLERANCE


class Pieces(VelocityField):
    """One field made of several, each for a stretch of time, for any solver in one go.

    Parameters
    ----------
    fields : in the order of time
    handovers : times (len(fields) - 1,), rising; a handover itself belongs to the later field

    Attributes
    ----------
    asked : how often each field was asked

    Raises
    ------
    ConfigError
        If the numbers do not fit.
    """

    def __init__(self, fields: Sequence[VelocityField], handovers: Sequence[float]) -> None:
        times = np.asarray(handovers, dtype=np.float64)
        rising = times.ndim == 1 and (np.diff(times) > 0).all()
        if len(fields) != len(times) + 1 or not rising or not ((times > 0) & (times < 1)).all():
            raise ConfigError(
                f"{len(fields)} fields need {len(fields) - 1} rising handovers in (0, 1), got"
                f" {handovers!r}"
            )
        self.fields, self.handovers = list(fields), times
        self.asked = [0] * len(self.fields)
        silent = next((f for f in self.fields if f.convention is None), None)
        self.convention = None if silent is not None else self.fields[0].convention
        self.why_not = "" if silent is None else silent.why_not

    def _at(self, t: float) -> int:
        return int(np.searchsorted(self.handovers - TOLERANCE, t, side="right"))

    def __call__(self, t: float, x: Any, cond: Any = None) -> Any:
        """Return the velocity of the field that t belongs to."""
        piece = self._at(t)
        self.asked[piece] += 1
        return self.fields[piece](t, x, cond)

    def parts(self, t: float, x: Any, cond: Any = None) -> tuple[Any, Any]:
        """Return denoised point and noise by the field that t belongs to."""
        piece = self._at(t)
        self.asked[piece] += 1
        return self.fields[piece].parts(t, x, cond)

    @property
    def limited(self) -> bool:
        """True if any of the fields is."""
        return any(field.limited for field in self.fields)

    def require(self, times: Sequence[float] | np.ndarray) -> None:
        """Raise GridError unless each time is known to the field it belongs to."""
        for t in times:
            self.fields[self._at(float(t))].require([float(t)])

    def require_all(self, t0: float, t1: float) -> None:
        """Raise GridError unless every field knows all times of its stretch."""
        edges = [t0, *(float(h) for h in self.handovers if t0 < h < t1), t1]
        for low, high in itertools.pairwise(edges):
            self.fields[self._at(0.5 * (low + high))].require_all(low, high)
