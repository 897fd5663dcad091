"""The yardstick: a small neural flow on the CPU, for comparison only (needs torch).

Whitened standardised logs of the independent columns; input (x, t, sin and cos of k pi t for
k = 1..8); three hidden layers of 192 with SiLU; AdamW with a one-cycle learning rate to 2e-3;
6,000 batches of 1,024; weight average 0.998; Heun with 50 steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from flowbdt import EventTable, TableTransform

N_BATCHES, BATCH, HIDDEN, AVERAGE, N_STEPS = 6000, 1024, 192, 0.998, 50


def embed(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return (x, t, sin k pi t, cos k pi t), k = 1..8."""
    angle = t * torch.pi * torch.arange(1, 9)
    return torch.cat([x, t, torch.sin(angle), torch.cos(angle)], dim=1)


def network(m: int) -> nn.Sequential:
    """Return the velocity network for m columns."""
    layers: list[nn.Module] = []
    for width in (m + 17, HIDDEN, HIDDEN):
        layers += [nn.Linear(width, HIDDEN), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(HIDDEN, m))


class NeuralFlow:
    """The yardstick with the interface of an estimator."""

    def __init__(self, relations: Sequence[str], seed: int = 1, n_batches: int = N_BATCHES) -> None:
        self.relations, self.seed, self.n_batches = relations, seed, n_batches

    def fit(self, table: EventTable) -> NeuralFlow:
        """Train on a table of positive columns."""
        torch.set_num_threads(1)
        generator = torch.Generator().manual_seed(self.seed)
        torch.manual_seed(self.seed)
        spec = {"*": "log", "joint": "whiten"}
        self.table_ = table.take(slice(0, 0))
        self.transform_ = TableTransform(spec, list(self.relations)).fit(table)
        z = torch.tensor(self.transform_.forward(table), dtype=torch.float32)
        net = network(z.shape[1])
        average = torch.optim.swa_utils.AveragedModel(
            net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE)
        )
        optimiser = torch.optim.AdamW(net.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, self.n_batches)
        for _ in range(self.n_batches):
            x1 = z[torch.randint(len(z), (BATCH,), generator=generator)]
            x0 = torch.randn(x1.shape, generator=generator)
            t = torch.rand((BATCH, 1), generator=generator)
            loss = ((net(embed((1 - t) * x0 + t * x1, t)) - (x1 - x0)) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            average.update_parameters(net)
        self.network_ = average.module.eval()
        return self

    @torch.no_grad()
    def sample(self, n: int, random_state: int, n_steps: int = N_STEPS) -> np.ndarray:
        """Return n events (n, d) in physical units, by Heun."""
        torch.set_num_threads(1)
        generator = torch.Generator().manual_seed(random_state)
        x = torch.randn((n, self.transform_.n_latent), generator=generator)
        h = 1.0 / n_steps

        def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
            return self.network_(embed(x, torch.full((len(x), 1), t)))

        for step in range(n_steps):
            k0 = velocity(x, step * h)
            k1 = velocity(x + h * k0, (step + 1) * h)
            x = x + 0.5 * h * (k0 + k1)
        return self.transform_.inverse(x.numpy().astype(np.float64))
