"""How often noise is drawn for the events of a step, and how many trees see one draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VALID_REPEATS, VALID_PAIRS = 5, 100_000
"""At most this many noise draws per validation event, and where there are many events no more than
make so many pairs: their loss is an average, not a model. They stay the same while a step is
trained, also when the training noise is redrawn."""


def valid_repeats(noise: Mapping[str, Any], n_valid: int) -> int:
    """Return the noise draws of each of so many validation events."""
    most = max(min(VALID_REPEATS, VALID_PAIRS // max(n_valid, 1)), 1)
    return most if noise["name"] == "fresh" else min(int(noise["n_repeats"]), most)


EVENTS_PER_DRAW = 400_000
"""About so many events are in a draw of fresh noise; those of a larger table take turns. Trees for
1,000,000 jets explain 13% less with a third of them in each draw than with all, in 0.4 of the time,
and as much as all did with splits sought on every output."""


def n_turns(noise: Mapping[str, Any], n_events: int) -> int:
    """Return the number of draws in which all training events have their turn."""
    return max(round(n_events / EVENTS_PER_DRAW), 1) if noise["name"] == "fresh" else 1


def trees_per_draw(noise: Mapping[str, Any], n_trees: int, turns: int) -> int:
    """Return after how many of the trees noise is redrawn; all events have their turn; 0: never."""
    return min(int(noise["refresh"]), max(n_trees // turns, 1)) if noise["name"] == "fresh" else 0
