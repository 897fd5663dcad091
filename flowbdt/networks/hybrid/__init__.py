"""Trees and a network on one trajectory from noise to data: relays, piecewise fields, Restart.

A `Leg` is a stretch of the trajectory with its field and solver; a `Relay` runs legs one after the
other. A leg that begins at a noisier time than the last one ended first adds noise to get there.
Every hybrid is then a list of legs:

- trees above a noise level and a network below, or the reverse: two legs (`handover`);
- Restart with descents by trees: the network to the lower noise level of an interval, k climbs and
  descents by trees, the network onwards (`restart_by_trees`);
- trees as a warm start: trees to the end, a climb, a few steps of the network (`warm_start`).

Trees exist at some times only. `train_trees` trains exactly those of a leg, as jobs of an ordinary
run. Fields must share the latent space: train the network on ``model.transform_.forward`` of the
same events. `choose_handover` and `choose_restart_interval` choose the times at which legs meet by
comparing both fields on real events.
"""

from __future__ import annotations

from .recipes import (
    FieldComparison,
    Restarted,
    choose_handover,
    choose_restart_interval,
    compare_fields,
    handover,
    restart_by_trees,
    shared_steps,
    stretch,
    warm_start,
)
from .relay import Corrector, Leg, PiecewiseField, Relay, RelayResult, train_trees, tree_field

__all__ = [
    "Corrector",
    "FieldComparison",
    "Leg",
    "PiecewiseField",
    "Relay",
    "RelayResult",
    "Restarted",
    "choose_handover",
    "choose_restart_interval",
    "compare_fields",
    "handover",
    "restart_by_trees",
    "shared_steps",
    "stretch",
    "train_trees",
    "tree_field",
    "warm_start",
]
