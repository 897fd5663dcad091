"""Trees and a network on one way from noise to data: relays, pieces, Restart by trees.

A `Leg` is a stretch of the way with a field and a solver of its own; a `Relay` runs legs one after
the other. A leg that begins at a noisier time than the last one ended first adds noise to get
there. Every hybrid is then a list of legs:

- trees above a noise level and a network below, or the reverse: two legs (`handover`);
- Restart whose way down is done by trees: the network to the lower noise level of an interval, k
  climbs with trees, the network onwards (`restart_by_trees`);
- trees as a warm start: trees all the way, a climb, a few steps of the network (`warm_start`).

Trees exist at some times only. `train_trees` trains exactly those that a leg asks, as jobs of an
ordinary run. Fields must share the latent space: train the network on ``model.transform_.forward``
of the same events. Where legs meet is chosen by `choose_handover` and `choose_interval`, which
ask both fields on real events.
"""

from __future__ import annotations

from .recipes import (
    Comparison,
    Restarted,
    choose_handover,
    choose_interval,
    compare,
    handover,
    restart_by_trees,
    shared_steps,
    stretch,
    warm_start,
)
from .relay import Corrector, Leg, Pieces, Relay, RelayResult, train_trees, tree_field

__all__ = [
    "Comparison",
    "Corrector",
    "Leg",
    "Pieces",
    "Relay",
    "RelayResult",
    "Restarted",
    "choose_handover",
    "choose_interval",
    "compare",
    "handover",
    "restart_by_trees",
    "shared_steps",
    "stretch",
    "train_trees",
    "tree_field",
    "warm_start",
]
