"""Rank-to-normal: the empirical distribution of a column, mapped to a standard normal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ConfigError, InputError
from . import rank_knots
from .base import REACH, TRANSFORMS, ColumnTransform, check_number, check_tails

_INSIDE = 1e-5
"""Share of an atom's interval left free at each end, so that rounding cannot leave it."""
_NUDGE = 1e-11
"""Distance in z of the end of a smooth run from the gap beside it, in `Rank.forward`."""


@TRANSFORMS.register("rank")
class Rank(ColumnTransform):
    """Map a column to a standard normal through its empirical distribution, in straight pieces.

    Values repeated too often to be chance (spikes, hard limits; see `stairs.find_atoms`) own an
    interval of the latent axis: `forward` spreads them in it with random numbers, `inverse` gives
    the value back exactly. Values that were not in the training rows and fall between an atom
    and its neighbour come back as the atom.

    Parameters
    ----------
    tails : "auto", "limit", "extend", or {"low": ..., "high": ...}
        "limit": never beyond the training range; "extend": linear in the latent value, with the
        slope of the outermost unit, up to ``reach`` beyond. "auto" extends, except on a side
        where the extreme value is repeated: that is a limit.
    low, high : float, None or (low only) "auto"
        Declared bounds that no extension passes, in the unit of the column. "auto": zero if no
        training value is negative.
    reach : float, in latent units
    atoms : "auto", "none", or a list of values to keep exactly

    Notes
    -----
    State: at most about 2000 knots. The latent value is clipped to the first and last knot.
    """

    name = "rank"
    fitted = ("z", "x", "limited", "bound")
    z: np.ndarray
    x: np.ndarray
    limited: dict[str, str]
    bound: float | None

    def __init__(
        self,
        tails: str | Mapping[str, str] = "auto",
        low: float | str | None = "auto",
        high: float | None = None,
        reach: float = REACH,
        atoms: str | Sequence[float] = "auto",
    ) -> None:
        self.tails = tails
        self.low = low
        self.high = high
        self.reach = reach
        self.atoms = atoms

    def fit(self, values: np.ndarray, rng: np.random.Generator) -> Rank:
        """Learn the knots from the training values (n,)."""
        self.bound = self._choose_low(values)
        self._check_bounds(values)
        reach = check_number(self.reach, "reach of 'rank'", positive=True)
        distinct = rank_knots.Distinct.of(values)
        z, x = rank_knots.build_knots(distinct, self._choose_atoms(distinct))
        self.limited = self._choose_limits(distinct, check_tails(self.tails, "'rank'"))
        if self.limited["low"] == "extend":
            z, x = rank_knots.extend_low(z, x, reach, self.bound)
        if self.limited["high"] == "extend":
            z, x = rank_knots.extend_high(z, x, reach, self.high)
        self.z, self.x = z, x
        self._prepare()
        return self

    def _choose_low(self, values: np.ndarray) -> float | None:
        if self.low == "auto":
            return 0.0 if values.min() >= 0 else None
        return None if self.low is None else check_number(self.low, "low of 'rank'")

    def _check_bounds(self, values: np.ndarray) -> None:
        for bound, beyond, side in (
            (self.bound, lambda b: values.min() < b, "low"),
            (self.high, lambda b: values.max() > b, "high"),
        ):
            if bound is not None and beyond(check_number(bound, f"{side} of 'rank'")):
                raise InputError(
                    f"transform 'rank' was declared {side} = {bound:g}, but training values lie"
                    f" beyond it (range {values.min():g} to {values.max():g}); change the bound"
                )

    def _choose_atoms(self, distinct: rank_knots.Distinct) -> np.ndarray:
        if isinstance(self.atoms, str):
            if self.atoms not in ("auto", "none"):
                raise ConfigError(
                    "atoms of 'rank' must be 'auto', 'none' or a list of values, got"
                    f" {self.atoms!r}"
                )
            found = rank_knots.find_atoms(distinct)
            return found if self.atoms == "auto" else np.zeros_like(found)
        return np.isin(distinct.values, np.asarray(self.atoms, dtype=np.float64))

    @staticmethod
    def _choose_limits(distinct: rank_knots.Distinct, tails: dict[str, str]) -> dict[str, str]:
        for side, count in (("low", distinct.counts[0]), ("high", distinct.counts[-1])):
            if tails[side] == "auto":
                tails[side] = "limit" if count > 1 else "extend"
        return tails

    def _prepare(self) -> None:
        """Derive from the knots what forward and inverse look up."""
        dz, dx = np.diff(self.z), np.diff(self.x)
        with np.errstate(over="ignore"):
            self._slope = np.where(dz > 0, dx / np.where(dz > 0, dz, 1.0), 0.0)
        self.draws = bool((dx == 0).any())
        flat = np.flatnonzero(dx == 0)
        self._atom_x, self._atom_low, self._atom_high = self.x[flat], self.z[flat], self.z[flat + 1]
        # one latent value per distinct x: atoms are entered at the middle of their interval, the
        # ends of runs a little inside, so that rounding cannot carry them over a gap
        gap = np.flatnonzero((dz == 0) & (dx > 0))
        z = self.z.copy()
        z[gap] -= _NUDGE
        z[gap + 1] += _NUDGE
        z[flat] = (self._atom_low + self._atom_high) / 2
        single = np.ones(self.x.size, dtype=bool)
        single[flat + 1] = False
        self._single_x, self._single_z = self.x[single], z[single]

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        super().load(state)
        self._prepare()

    def forward(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return latent values (n, 1); repeated values are spread out with ``rng``."""
        z = np.asarray(np.interp(values, self._single_x, self._single_z))
        if self.draws:
            spread = rng.random(values.shape)
            index = np.searchsorted(self._atom_x, values)
            index = np.asarray(np.minimum(index, self._atom_x.size - 1))
            hit = np.asarray(self._atom_x[index] == values)
            z[hit] = self._spread(index[hit], spread[hit])
        return z[:, None]

    def _spread(self, atom: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        return spread_normal(self._atom_low[atom], self._atom_high[atom], uniform)

    def inverse(self, latent: np.ndarray) -> np.ndarray:
        """Return values (n,) within the range of the knots."""
        z = np.clip(latent[:, 0], self.z[0], self.z[-1])
        index = np.minimum(np.searchsorted(self.z, z, side="right") - 1, self.z.size - 2)
        with np.errstate(over="ignore"):
            x = self.x[index] + (z - self.z[index]) * self._slope[index]
        return np.clip(x, self.x[0], self.x[-1])

    def resolved(self) -> dict[str, Any]:
        """Return the specification with the tails that were chosen."""
        return {"name": self.name, **self.options(), "tails": dict(self.limited), "low": self.bound}

    def describe(self) -> str:
        """Return one line on what is done and on the tails."""
        tails = ", ".join(f"{side} {what}" for side, what in self.limited.items())
        atoms = rank_knots.describe_atoms(self.z, self.x)
        return (
            f"rank to normal, {atoms}; tails: {tails}, generated values in"
            f" [{self.x[0]:g}, {self.x[-1]:g}]"
        )


def spread_normal(low: np.ndarray, high: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return normal values restricted to (low, high), one per uniform number in [0, 1)."""
    from scipy.special import ndtr, ndtri

    # In the upper half work with 1 - p, where the floats are dense: mirror, draw, mirror back.
    flip = low > 0
    a, b = np.where(flip, -high, low), np.where(flip, -low, high)
    p_a, p_b = ndtr(a), ndtr(b)
    p = p_a + (_INSIDE + (1 - 2 * _INSIDE) * uniform) * (p_b - p_a)
    z = ndtri(p)
    return np.where(flip, -z, z)
