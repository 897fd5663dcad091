"""Weights by which rare kinds of parents count more in training.

What is learned is given conditions, so weights that depend on conditions alone leave it as it is:
they say where trees, ranks and early stopping look. Another process may have many of a kind that
the training events have few of, such as jets around one muon.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import ConfigError
from .events import Events, Objects
from .quantities import Quantity

FEW_VALUES = 10
"""Values of a quantity, at most, each of which is a kind."""
REPEATED = 0.5
"""Share of parents with one value of a branch from which on it is a kind to have another."""
POWER, MOST = 0.5, 5.0
"""A kind of a share s weighs (most / s)**POWER, up to MOST over all quantities."""


def found_kinds(parents: Objects) -> tuple[str, ...]:
    """Return the branches of parents that have few values, and of others if they have the usual."""
    texts = []
    for name, column in parents.columns.items():
        values, counts = np.unique(column, return_counts=True)
        if 1 < len(values) <= FEW_VALUES:
            texts.append(name)
        elif len(values) > 1 and counts.max() > REPEATED * len(column):
            texts.append(f"kind = {name} == {values[np.argmax(counts)]!s}")
    return tuple(texts)


def balanced_weights(
    kinds: Sequence[str], events: Events, event: np.ndarray, own: dict[str, np.ndarray]
) -> np.ndarray:
    """Return weights (r,), of mean one, of rows of events (r,) with columns (r,).

    Raises ConfigError for a quantity of too many values.
    """
    weight = np.ones(len(event))
    if not len(event):
        return weight
    for text in kinds:
        values = Quantity.parse(text).values(events, event, own)
        _, kind, counts = np.unique(values, return_inverse=True, return_counts=True)
        if len(counts) > FEW_VALUES:
            raise ConfigError(
                f"balance: {text!r} has {len(counts)} values; a kind is a branch or expression of"
                f" at most {FEW_VALUES}, such as 'light = GenJet_pt < 20'"
            )
        weight *= (counts.max() / counts)[kind] ** POWER
    weight = np.minimum(weight, MOST)
    return weight / weight.mean()
