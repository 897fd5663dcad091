"""A diffusion network in the place of the trees: the same coordinates, conditions and draws."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments import common
from experiments.unfolding.samples import Coordinates
from flowbdt import EventTable, TableTransform
from flowbdt.seeding import stream

WIDTH, BATCHES, BATCH = 128, 4000, 1024
EVALUATIONS = 20
"""Of the network for each draw, by UniPC."""

SMOKE: dict[str, Any] = {"n_steps": 5, "batch_size": 64}


class UnfoldingNetwork:
    """A small network (EDM, three hidden layers) from noise, told the detector level."""

    def __init__(self, train: EventTable, seed: int, smoke: bool) -> None:
        import torch

        from flowbdt.networks import NetworkField, Trainer, TrainingConfig
        from flowbdt.networks.backbones import TableMLP

        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self.coordinates = Coordinates(train, seed)
        events, cond = self.coordinates.events(train), self.coordinates.conditions(train)
        self.transform = TableTransform("auto", seed=seed).fit(events)
        z = self.transform.forward(events)
        settings = SMOKE if smoke else {"n_steps": BATCHES, "batch_size": BATCH}
        config = TrainingConfig(**settings, device="cpu", seed=seed)
        backbone = TableMLP(z.shape[1], cond.shape[1], width=8 if smoke else WIDTH)
        self.field = NetworkField(Trainer(backbone, "edm", config).fit(z, cond).network())

    def draw(self, table: EventTable, n_draws: int, seed: int) -> np.ndarray:
        """Return particle-level jets (n_draws, n, 6) for the detector level of ``table``."""
        cond, rng = self.coordinates.conditions(table), stream(seed, "unfolding-network")
        draws = []
        for _ in range(n_draws):
            x0 = rng.normal(size=(table.n, self.transform.n_latent))
            z = common.by_unipc(self.field, x0, EVALUATIONS, cond)
            draws.append(self.coordinates.back(self.transform.inverse(z)))
        return np.stack(draws)
