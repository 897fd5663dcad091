"""One event after the other, without the cost of a call for many."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import seeding
from ..errors import InputError
from .attempt_warnings import MOST_ATTEMPTS, warn_kept, warn_not_finite, warn_undefined

if TYPE_CHECKING:
    from .fast_start import PackedFlow
    from .trained_flow import Flow


class _Rows:
    """Random numbers of one row after the other: those that `seeding.RowNoise` gives to it."""

    def __init__(self, seed: int, purpose: str, keys: tuple[int, ...], width: int) -> None:
        self._of, self._keys, self._width = (seed, purpose), keys, width
        self._block, self._next = -1, 0

    def _at(self, row: int) -> np.random.Generator:
        """Return the generator where the numbers of ``row`` are the next ones."""
        block, place = divmod(row, seeding.BLOCK)
        if block != self._block or place < self._next:
            self._rng = seeding.stream(*self._of, block, *self._keys)
            self._block, self._next = block, 0
        if place > self._next:
            self._skip((place - self._next) * self._width)
        self._next = place + 1
        return self._rng

    def _skip(self, count: int) -> None:
        self._rng.standard_normal(count)

    def normal(self, row: int, out: np.ndarray) -> None:
        """Fill ``out`` (width,) with standard normal numbers."""
        self._at(row).standard_normal(out=out)


class _Uniform(_Rows):
    def _skip(self, count: int) -> None:
        self._rng.random(count)

    def one(self, row: int) -> float:
        """Return a number in [0, 1)."""
        return float(self._at(row).random())


class EventSampler:
    """The events of a sample one by one, the same as `FlowBDT.sample` gives for the seed.

    Made for programs that ask for one particle at a time: with numba an event takes tens of
    microseconds. Not safe to share between threads; give each its own, with a seed of its own.

    Parameters
    ----------
    flow : a trained flow
    seed : int
    first : number of the first event

    Attributes
    ----------
    row : number of the next event

    Examples
    --------
    >>> from flowbdt import FlowBDT
    >>> x = np.random.default_rng(0).normal(size=(300, 2))
    >>> small = {"n_estimators": 2}
    >>> model = FlowBDT(preset="fast", n_steps=2, booster=small, random_state=1).fit(x)
    >>> sampler = model.sampler(random_state=3)
    >>> first, second = sampler.one().copy(), sampler.one().copy()
    >>> bool((np.vstack([first, second]) == model.sample(2, random_state=3)).all())
    True
    """

    def __init__(self, flow: Flow | PackedFlow, seed: int, first: int = 0) -> None:
        if flow.from_source:
            raise InputError("this model starts from given events: use sample(..., source=...)")
        self._flow, self.seed, self.row = flow, seed, first
        self._names = flow.condition_names
        self._z, self._x = np.zeros((1, flow.n_latent)), np.zeros((1, flow.n_columns))
        self._cond = np.zeros((1, len(self._names)))
        self._seen = np.zeros((1, flow.n_columns + len(self._names)), dtype=np.float32)
        self._noise: list[_Rows] = []
        self._accept: list[_Uniform] = []

    @property
    def memory(self) -> tuple[np.ndarray, ...]:
        """Where point (1, m), conditions (1, c), columns (1, d) and what trees see always are."""
        return self._z, self._cond, self._x, self._seen

    def one(self, cond: Any = None) -> np.ndarray:
        """Return the next event (d,), float64, in the units of the training table.

        Parameters
        ----------
        cond : (c,) numbers, the conditions in the order and coding of the training; NaN = unknown

        Returns
        -------
        ndarray (d,): always the same memory, which the next call overwrites. Copy what you keep

        Raises
        ------
        InputError
            If there are not as many conditions as the model was trained with.
        """
        count = 0 if cond is None else len(cond)
        if count != len(self._names):
            raise InputError(
                f"this model has {len(self._names)} conditions ({', '.join(self._names)}), got"
                f" {count}"
            )
        if count:
            self._cond[0] = cond
            if np.isinf(self._cond).any():
                raise InputError(f"conditions must be numbers, or NaN where unknown, got {cond}")
        row, self.row = self.row, self.row + 1
        flow = self._flow
        if flow.whole is None or flow.way is None:
            return self._slowly(row, count)
        for attempt in range(MOST_ATTEMPTS):
            self._event(row, attempt)
            if flow.ratio is None or self._kept(row, attempt + 1):
                break
        event: np.ndarray = self._x[0]
        return event

    def _event(self, row: int, attempt: int) -> None:
        """Fill the event with that of one attempt."""
        flow = self._flow
        if attempt == len(self._noise):
            keys = (attempt,) if attempt else ()
            self._noise.append(_Rows(self.seed, "sample", keys, self._z.shape[1]))
        self._noise[attempt].normal(row, self._z[0])
        assert flow.whole is not None
        assert flow.way is not None
        flow.whole.step_one(self._z, self._cond)
        if not math.isfinite(np.add.reduce(self._z[0])):
            warn_not_finite(f"event {row} is")
            raise InputError(f"event {row} was carried beyond all numbers; it has no columns")
        if flow.way.back(self._z, self._x):
            warn_undefined(f"event {row}")

    def _kept(self, row: int, attempt: int) -> bool:
        """Whether the event is not rejected; ``attempt`` is that which would come next."""
        if attempt == MOST_ATTEMPTS:
            warn_kept(1)
            return True
        while attempt > len(self._accept):
            keys = (len(self._accept) + 1,)
            self._accept.append(_Uniform(self.seed, "accept", keys, 1))
        uniform = self._accept[attempt - 1].one(row)
        d, seen, ratio = self._x.shape[1], self._seen, self._flow.ratio
        seen[0, :d] = self._x[0]
        seen[0, d:] = self._cond[0]
        assert ratio is not None
        return bool(ratio.keeps(seen, np.array([uniform]))[0])

    def _slowly(self, row: int, count: int) -> np.ndarray:
        """Return an event where not all is compiled."""
        rows = np.array([row])
        cond = self._cond.copy() if count else None
        self._x[:] = self._flow.rows(self.seed, rows, cond)
        event: np.ndarray = self._x[0]
        return event
