"""All randomness of flowBDT, keyed by (seed, purpose, keys).

A generator is never shared between blocks of events, steps or purposes. That is why chunking,
thread count, executor and resume cannot change a result: whoever needs the noise of block 7 of
step 3 makes the same generator, wherever it runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from .errors import ConfigError, InputError

BLOCK = 4096
"""Events per keyed block of noise, in training and in generation. Part of the file format: another
value gives other (equally good) numbers for the same seed."""


def _sequence(seed: int, purpose: str, keys: tuple[int, ...]) -> np.random.SeedSequence:
    tag = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], "little")
    return np.random.SeedSequence(entropy=seed, spawn_key=(tag, *keys))


def stream(seed: int, purpose: str, *keys: int) -> np.random.Generator:
    """Return the generator that belongs to (seed, purpose, keys).

    ``purpose`` tells the use of the numbers, as ``"train-noise"``; keys are step and block, say.

    Examples
    --------
    >>> stream(1, "noise", 3).normal() == stream(1, "noise", 3).normal()
    True
    >>> stream(1, "noise", 3).normal() == stream(1, "noise", 4).normal()
    False
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed, purpose, keys)))


class RowNoise:
    """Random numbers for some rows of a table; those of a row do not depend on the other rows.

    Numbers are drawn for whole blocks, keyed by (seed, purpose, block, keys), and those of ``rows``
    (n,), rising row numbers, returned in their order. With ``once`` numbers can be drawn only once;
    each block then ends with its last row here, which saves time and changes no number.
    """

    def __init__(
        self,
        seed: int,
        purpose: str,
        rows: np.ndarray,
        keys: tuple[int, ...] = (),
        once: bool = False,
    ) -> None:
        self._blocks = [(stream(seed, purpose, b, *keys), places) for b, places in _in_blocks(rows)]
        self._once = once

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return standard normal numbers; ``shape`` is (n, ...) for the n rows."""
        return self._drawn(lambda rng, n: rng.standard_normal((n, *shape[1:])))

    def random(self) -> np.ndarray:
        """Return uniform numbers in [0, 1), (n,)."""
        return self._drawn(lambda rng, n: rng.random(n))

    def _drawn(self, draw: Callable[[np.random.Generator, int], np.ndarray]) -> np.ndarray:
        lengths = [int(rows[-1]) + 1 if self._once else BLOCK for _, rows in self._blocks]
        drawn = zip(self._blocks, lengths, strict=True)
        return np.concatenate([draw(rng, n)[rows] for (rng, rows), n in drawn])


def _in_blocks(rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return the blocks of rising row numbers (n,), and the places of the rows in each."""
    starts = np.flatnonzero(np.diff(rows // BLOCK)) + 1  # np.unique would load masked arrays
    return [(int(part[0]) // BLOCK, part % BLOCK) for part in np.split(rows, starts) if len(part)]


def row_numbers(
    seed: int, purpose: str, rows: np.ndarray, keys: Sequence[tuple[int, ...]]
) -> np.ndarray:
    """Return what `RowNoise.random` would for each of some keys, (q, n), in less time."""
    drawn = [
        [stream(seed, purpose, b, *key).random(int(places[-1]) + 1)[places] for key in keys]
        for b, places in _in_blocks(rows)
    ]
    return np.concatenate(drawn, axis=1)


def derive(seed: int, purpose: str, *keys: int) -> int:
    """Return a 31-bit integer seed for a library that wants one (xgboost, scikit-learn)."""
    return int(_sequence(seed, purpose, keys).generate_state(1)[0] & 0x7FFFFFFF)


def resolve(random_state: int | np.random.RandomState | np.random.Generator | None) -> int:
    """Turn scikit-learn's ``random_state`` into the integer seed that a run records."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(0, 2**31 - 1))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(0, 2**31 - 1))
    if isinstance(random_state, bool) or not isinstance(random_state, (int, np.integer)):
        raise ConfigError(f"random_state must be a whole number or None, got {random_state!r}")
    if random_state < 0:
        raise ConfigError(f"random_state must not be negative, got {random_state}")
    return int(random_state)


def block_ranges(n_rows: int, block: int = BLOCK) -> list[tuple[int, int, int]]:
    """Return (block number, first row, one past last row) for every block of ``n_rows`` rows."""
    return [(b, lo, min(lo + block, n_rows)) for b, lo in enumerate(range(0, n_rows, block))]


def split_mask(n: int, fraction: float, seed: int = 0, first_row: int = 0) -> np.ndarray:
    """Return a mask of about ``fraction`` of ``n`` rows.

    A keyed hash of its number alone decides about a row, so a mask (n,) does not depend on the
    number of rows, on chunking, on the machine or on the order of any set. Another seed gives an
    independent split; ``first_row`` is the number of the first row in a block of a larger table.

    Raises InputError if ``fraction`` is not between 0 and 1.
    """
    if not 0.0 <= fraction <= 1.0:
        raise InputError(f"the fraction of a split must be between 0 and 1, got {fraction}")
    return row_uniform(n, seed, first_row) < fraction


def row_uniform(n: int, seed: int = 0, first_row: int = 0) -> np.ndarray:
    """Return one keyed number in [0, 1) per row number, (n,) float64: the hash of `split_mask`.

    It is the finaliser of SplitMix64 (variant 13 of Stafford), applied to key + row: Steele, Lea,
    Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    key = int.from_bytes(hashlib.sha256(f"flowbdt split {seed}".encode()).digest()[:8], "little")
    state = np.arange(first_row, first_row + n, dtype=np.uint64) + np.uint64(1)
    state = state * np.uint64(0x9E3779B97F4A7C15) + np.full(n, key, dtype=np.uint64)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def drawn(shares: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return codes (n,) with probabilities (n, K), from uniform numbers (n,)."""
    edges = np.cumsum(shares, axis=1)[:, :-1]
    last = shares.shape[1] - 1 - np.argmax(shares[:, ::-1] > 0, axis=1)  # not one of probability 0
    return np.minimum((edges <= uniform[:, None]).sum(axis=1), last)
