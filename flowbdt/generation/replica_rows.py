"""The events of an ensemble: each is made by one of its replicas, which a hash of its row says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..seeding import RowNoise
from .event_selection import at_rows
from .generate_rows import EventGenerator


def replica_of_rows(seed: int, rows: np.ndarray, n_replicas: int) -> np.ndarray:
    """Return which replica of an ensemble generates each of some rising row numbers (k,), int."""
    return (RowNoise(seed, "replica", rows, once=True).random() * n_replicas).astype(np.int64)


class ReplicaGenerator:
    """Generator of the events of an ensemble: a keyed hash of its row says which replica's."""

    def __init__(self, members: Sequence[EventGenerator]) -> None:
        self.members = members

    def events(
        self, seed: int, rows: np.ndarray, cond: np.ndarray | None, start: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the events (k, d) of rising row numbers (k,), as `EventGenerator.events`."""
        replica = replica_of_rows(seed, rows, len(self.members))
        x = np.empty((len(rows), len(self.members[0].transform.names)))
        for k, member in enumerate(self.members):
            mine = np.flatnonzero(replica == k)
            if len(mine):
                x[mine] = member.events(seed, rows[mine], at_rows(cond, mine), at_rows(start, mine))
        return x

    @property
    def is_rowwise(self) -> bool:
        """True if the bits of an event do not depend on the rows generated with it."""
        return all(member.is_rowwise for member in self.members)

    @property
    def redraws(self) -> bool:
        """True if some events are drawn anew."""
        return any(member.redraws for member in self.members)
