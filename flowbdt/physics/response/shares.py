"""Columns that add up to one, such as energy fractions, learned as shares of what is left.

Of the columns a, b, c those learned are a and b / (1 - a): any numbers from 0 to 1 give columns
that add up to one, and what is exactly 0 or 1 stays so. Stages that follow each other may have some
of a group each; the last two columns are of one stage.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ...errors import InputError
from ...tables.formulas.expressions import share_of
from ...tables.transforms.discrete import ATOM_SHARE
from ...tables.transforms.rounded_floats import SINGLE, floats_of, rounded
from .events import Objects

TOLERANCE = 1e-3
"""Largest deviation of a sum from one in training (rounded data)."""
NOTHING = 1e-6
"""Least that is left, below which a share of it is 0."""
FEWEST_EXACT = 20
"""Rows in which a share is exactly 0, or 1, for a classifier to draw whether it is."""


def learned_names(columns: Sequence[str]) -> dict[str, str]:
    """Return the learned name of all columns but the last, which follows from them."""
    return {name: name if not i else f"{name}_of_rest" for i, name in enumerate(columns[:-1])}


def as_learned(
    columns: Mapping[str, np.ndarray],
    groups: Sequence[Sequence[str]],
    others: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Return the columns (r,) that are learned in place of these; of other stages ``others``."""
    result, shared = {}, {name for group in groups for name in group}
    known = {**(others or {}), **columns}
    for name, values in columns.items():
        if name not in shared:
            result[name] = values
            continue
        group = next(group for group in groups if name in group)
        if name == group[-1]:
            continue
        rest = sum(known[other].astype(np.float64) for other in group[group.index(name) :])
        share = columns[name] / np.where(rest > NOTHING, rest, 1.0)
        share = np.where(rest > NOTHING, share, 0.0)
        result[learned_names(group)[name]] = share.astype(values.dtype)
    return result


def exact_shares(
    columns: Mapping[str, np.ndarray], groups: Sequence[Sequence[str]], of: Collection[str]
) -> dict[str, list[float]]:
    """Return what is learned of the columns ``of``, with the values that it has again and again.

    0 and 1 count in however few rows: a jet of one muon has all energy in it. Nothing of what is
    never between.
    """
    own = {name: columns[name] for group in groups for name in group if name in of}
    found = {}
    for name, shares in as_learned(own, groups, columns).items():
        values, counts = np.unique(shares, return_counts=True)
        at_end = np.isin(values, (0, 1)) & (counts >= FEWEST_EXACT)
        exact = values[at_end | (counts > ATOM_SHARE * len(shares))].tolist()
        if exact and ((values > 0) & (values < 1)).any():
            found[name] = exact
    return found


def as_given(
    learned: Mapping[str, np.ndarray],
    groups: Sequence[Sequence[str]],
    before: Mapping[str, np.ndarray] | None = None,
    types: Mapping[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Return the columns (r,) of learned ones, in their type; ``before`` are of earlier stages.

    ``types`` are those of columns of `rounded_floats`.
    """
    result, before, made = dict(learned), before or {}, dict[str, np.ndarray]()
    for group in groups:
        names, taken = learned_names(group), [name for name in group if name in before]
        left = 1.0 - sum(before[name].astype(np.float64) for name in taken)
        left, own = np.where(left > NOTHING, left, 0.0), [n for n in names if names[n] in result]
        for column in own:
            value = result.pop(names[column])
            share = np.clip(value.astype(np.float64), 0.0, 1.0)
            made[column] = (left * share).astype(value.dtype)
            left = np.where(share < 1, left * (1 - share), 0.0)
        if own and own[-1] == group[-2]:  # of no objects nothing was drawn
            made[group[-1]] = left.astype(value.dtype)
    for name, values in made.items():
        kind = (types or {}).get(name)
        result[name] = values if kind is None else rounded(values, kind).astype(values.dtype)
    return result


def rounded_types(
    columns: Mapping[str, np.ndarray], groups: Sequence[Sequence[str]]
) -> dict[str, str]:
    """Return the types of the columns of groups whose floats have fewer digits than theirs."""
    found = {}
    for name in (name for group in groups for name in group):
        kind = floats_of(columns[name].astype(np.float64), columns[name].dtype.name)
        if kind.startswith(f"{SINGLE} "):
            found[name] = kind
    return found


def check_shares(
    columns: Mapping[str, np.ndarray], groups: Sequence[Sequence[str]], objects: Objects
) -> None:
    """Raise InputError, with entry and object, where shares of objects do not add up to one."""
    for group in groups:
        values = np.array([columns[name] for name in group], dtype=np.float64)
        wrong = (np.abs(values.sum(axis=0) - 1.0) > TOLERANCE) | (values < 0).any(axis=0)
        if wrong.any():
            row = int(np.argmax(wrong))
            listed = " + ".join(f"{name} ({columns[name][row]:g})" for name in group)
            raise InputError(
                f"shares must not be negative and add up to 1, which {listed} do not in entry"
                f" {objects.event[row]}, object {objects.place[row]} ({share_of(wrong)} in all)"
            )
