"""The discrete columns of a table as flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from ...tables.conditions import LARGEST_SINGLE, ColumnScaling
from ...tables.transforms import TableTransform
from ...trees.tree_arrays import Forest
from .array_file import Arrays, named
from .arrays import DiscreteArrays, DrawnArrays, read_only
from .pack_columns import expression_arrays, storage
from .pack_steps import pack_trees


def discrete_arrays(
    transform: TableTransform,
    scaling: ColumnScaling,
    log_frequencies: Sequence[np.ndarray],
    forests: Sequence[Sequence[Forest]],
    n_known: int,
    part: str = "trees",
) -> Arrays:
    """Return how the discrete columns are drawn, with the trees, for a file; see `pack_discrete`.

    ``n_known`` is what classifiers see beside columns, ``part`` the name of the trees in the file.
    """
    packed = pack_discrete(transform, scaling, log_frequencies, forests)
    trees = pack_trees([forest for each in forests for forest in each])
    n_inputs = max(len(packed.places) + n_known, 1) + len(forests)
    return {
        **named("discrete", packed, len(transform.names), n_known),
        **named(part, trees, n_inputs, max(map(len, log_frequencies))),
    }


def drawn_arrays(transform: TableTransform) -> Arrays:
    """Return what completes single events with their discrete columns, for a file."""
    skeleton, names = transform.skeleton, transform.names
    columns, missing, gaps = [], [], list[list[int]]()
    for name in skeleton.names:
        pattern = transform.patterns.get(name)
        columns.append(names.index(name) if pattern is None else -1)
        missing.append(-1 if pattern is None else pattern.missing)
        gaps.append([] if pattern is None else pattern.places)
    learned = expression_arrays(transform.coordinates.learned, [*names, *transform.conditions])
    packed = DrawnArrays(
        read_only(columns, np.int64),
        read_only(np.concatenate(skeleton.values), np.float64),
        read_only(missing, np.int64),
        _edges(gaps),
        read_only([place for places in gaps for place in places], np.int64),
    )
    n_computed = len(transform.coordinates.relations)
    return {**named("drawn", learned), **named("drawn", packed, n_computed)}


def pack_discrete(
    transform: TableTransform,
    scaling: ColumnScaling,
    log_frequencies: Sequence[np.ndarray],
    forests: Sequence[Sequence[Forest]],
) -> DiscreteArrays:
    """Return how the discrete columns of a transform are drawn.

    ``scaling`` is that of all columns; of each classifier there are the log frequencies (K,) and
    the trees. Raises ConfigError for a type of column that is not compiled.
    """
    skeleton, places = transform.skeleton, transform.numeric_places
    enters, limits, atoms, sources = [], [], [], []
    for name, values in zip(skeleton.names, skeleton.values, strict=True):
        pattern = transform.patterns.get(name)
        atom, source = np.full(len(values), np.nan), np.full(len(values), -1)
        row, ends = (-1, -1, 0), (0.0, 0.0)
        if pattern is not None and pattern.mixed is not None:
            atom, equal = pattern.sources
            for code, other in equal:
                source[code] = other
            place = pattern.places[0]
            kind, low, high = storage(pattern.dtype)
            ends = low, high
            row = place, places.index(place) if place in places else -1, kind
        enters.append(row)
        limits.append(ends)
        atoms.append(atom[: len(values)])
        sources.append(source)
    rules = sorted((j, i) for i, j in skeleton.allowed)
    meet = [skeleton.allowed[i, j].ravel() for j, i in rules]
    begins = accumulate((len(each) for each in meet), initial=0)
    return DiscreteArrays(
        read_only(places, np.int64),
        read_only(scaling.centre[places], np.float64),
        read_only(scaling.scale[places], np.float64),
        LARGEST_SINGLE,
        _edges(forests),
        _edges(log_frequencies),
        read_only(np.concatenate(log_frequencies), np.float32),
        read_only(np.concatenate(atoms), np.float64),
        read_only(np.concatenate(sources), np.int64),
        read_only(enters, np.int64),
        read_only(limits, np.float64),
        read_only(np.searchsorted([j for j, _ in rules], range(len(skeleton) + 1)), np.int64),
        read_only(
            [(i, at) for (_, i), at in zip(rules, begins, strict=False)] or [(0, 0)], np.int64
        ),
        read_only(np.concatenate([np.zeros(0), *meet]), np.uint8),
    )


def _edges(parts: Sequence[Sequence[object] | np.ndarray]) -> np.ndarray:
    """Return where each of some parts, joined, begins, and their end."""
    return read_only(np.cumsum([0, *map(len, parts)]), np.int64)
