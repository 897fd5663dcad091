"""Which object of the input each object of the output belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import InputError, plural
from ...tables.formulas.particles import wrapped
from .events import Objects

NOT_MATCHED = -1


@dataclass(frozen=True, eq=False)
class Matches:
    """Parents of objects, ``parent`` (m,): place among all parents, or -1; and their order.

    ``rank`` (m,): 0 for the only object of its parent, 1, 2, ... for the first, second of several.
    ``number`` (p,): objects of each parent.
    """

    parent: np.ndarray
    rank: np.ndarray
    number: np.ndarray

    @classmethod
    def of(cls, parent: np.ndarray, n_parents: int) -> Matches:
        """Count the objects of parents; the first of several is the first in the collection."""
        matched = np.flatnonzero(parent >= 0)
        number = np.bincount(parent[matched], minlength=n_parents)
        rank = np.zeros(len(parent), dtype=np.int64)
        rank[matched] = ranks(parent[matched], number)
        return cls(parent, rank, number)


def ranks(parent: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return 0 for the only object of its parent, else 1, 2, ... in order, (k,)."""
    order = np.argsort(parent, kind="stable")
    before = np.cumsum(number) - number
    rank = np.empty(len(parent), dtype=np.int64)
    rank[order] = np.arange(len(parent)) - before[parent[order]]
    return np.where(number[parent] > 1, rank + 1, 0)


def matched_by_index(objects: Objects, branch: str, parents: Objects, name: str) -> Matches:
    """Return the matches that a branch says: the place of a parent in its event, negative: none.

    Raises InputError, with branch and entry, for a place that the event has not.
    """
    index = objects.columns[branch]
    if index.dtype.kind not in "iu" and not np.array_equal(index, np.round(index)):
        raise InputError(f"branch {branch!r} must hold whole numbers: places in {name}, -1: none")
    place = np.maximum(index.astype(np.int64), NOT_MATCHED)
    beyond = place >= parents.counts[objects.event]
    if beyond.any():
        row = int(np.argmax(beyond))
        entry = int(objects.event[row])
        raise InputError(
            f"branch {branch!r} is {index[row]} in entry {entry}, object {objects.place[row]}, but"
            f" this event has {plural(int(parents.counts[entry]), 'object')} in {name} ("
            f"{plural(int(beyond.sum()), 'object')} of all point beyond)"
        )
    parent = np.where(place < 0, NOT_MATCHED, parents.first[objects.event] + place)
    return Matches.of(parent, len(parents))


def matched_by_distance(
    objects: Objects, name: str, parents: Objects, parent_name: str, most: float
) -> Matches:
    """Return for each object the nearest parent in (eta, phi), if nearer than ``most``."""
    eta, phi = (objects.columns[f"{name}_{one}"].astype(np.float64) for one in ("eta", "phi"))
    others = [parents.columns[f"{parent_name}_{one}"].astype(np.float64) for one in ("eta", "phi")]
    n_pairs = parents.counts[objects.event]
    pairs = Objects(n_pairs)
    row = pairs.event
    candidate = parents.first[objects.event[row]] + pairs.place
    distance = np.hypot(eta[row] - others[0][candidate], wrapped(phi[row] - others[1][candidate]))
    order = np.lexsort((distance, row))
    row, candidate, distance = row[order], candidate[order], distance[order]
    nearest = np.flatnonzero(np.diff(row, prepend=-1) > 0)
    nearest = nearest[distance[nearest] < most]
    parent = np.full(len(objects), NOT_MATCHED)
    parent[row[nearest]] = candidate[nearest]
    return Matches.of(parent, len(parents))
