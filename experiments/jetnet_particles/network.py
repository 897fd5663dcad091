"""Jets as sets: a network of attention among particles, which has no order of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from experiments import common
from flowbdt.physics.jets import Constituents
from flowbdt.seeding import derive, stream

BLOCK = 1000
"""Jets that are generated at once."""


class AttentionNetwork:
    """A diffusion network on sets of particles (log pt, eta, phi), given their number.

    Its objective is that of EDM. A permutation of the particles permutes the answer; empty slots
    are neither seen nor moved.

    Parameters
    ----------
    backbone : settings of `flowbdt.networks.backbones.SetAttention`
    training : settings of `flowbdt.networks.TrainingConfig`
    """

    def __init__(self, backbone: dict[str, Any], training: dict[str, Any], seed: int = 0) -> None:
        self.backbone, self.training, self.seed = backbone, training, seed

    def fit(self, jets: np.ndarray, log: Callable[[str], None]) -> Self:
        """Learn from jets (n, P, 4) in JetNet's layout."""
        import torch

        from flowbdt.networks import NetworkField, Trainer, TrainingConfig
        from flowbdt.networks.backbones import SetAttention

        torch.set_num_threads(1)
        torch.manual_seed(derive(self.seed, "attention") % 2**31)
        x, mask = features(jets)
        self.centre_, self.width_ = x[mask].mean(axis=0), x[mask].std(axis=0)
        x = np.where(mask[..., None], (x - self.centre_) / self.width_, 0.0)
        self.counts_, self.slots_ = mask.sum(axis=1), jets.shape[1]
        network = SetAttention(3, 1, count_column=0, **self.backbone)
        log(f"attention network of {network.n_parameters():,} parameters")
        config = TrainingConfig(**self.training, device="cpu", seed=self.seed)
        trainer = Trainer(network, "edm", config).fit(x, self.counts_[:, None])
        self.field_ = NetworkField(trainer.network())
        log("trained")
        return self

    def sample(self, n: int, seed: int = 0, evaluations: int = 20) -> np.ndarray:
        """Return jets (n, P, 4), made by UniPC with so many evaluations of the network."""
        rng, parts = stream(seed, "attention"), []
        counts = rng.choice(self.counts_, n)
        for first in range(0, n, BLOCK):
            known = counts[first : first + BLOCK]
            x0 = rng.normal(size=(len(known), self.slots_, 3))
            x1 = common.by_unipc(self.field_, x0, evaluations, known[:, None].astype(float))
            parts.append(self._as_jets(x1, known))
        return np.concatenate(parts)

    def _as_jets(self, x: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return jets (n, P, 4) with their particles by falling transverse momentum."""
        mask = np.arange(self.slots_) < counts[:, None]
        x = x * self.width_ + self.centre_
        log_pt = np.where(mask, x[..., 0], -np.inf)
        order = np.argsort(-log_pt, axis=1, kind="stable")[..., None]
        jets = np.stack([x[..., 1], x[..., 2], np.exp(log_pt)], axis=-1)
        jets = np.take_along_axis(jets, order, axis=1) * mask[..., None]
        return np.concatenate([jets, mask[..., None]], axis=-1)


def features(jets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log pt, eta, phi (n, P, 3), particles first, and which slots have one (n, P)."""
    parts = Constituents.of(jets)
    order = np.argsort(~parts.mask, axis=1, kind="stable")
    columns = (np.log(np.maximum(parts.pt, 1e-12)), parts.eta, parts.phi)
    x = np.stack([np.take_along_axis(column, order, axis=1) for column in columns], axis=-1)
    return x, np.take_along_axis(parts.mask, order, axis=1)


class WithEvaluations:
    """A network that is trained once, asked so often for each jet."""

    def __init__(self, network: AttentionNetwork, evaluations: int) -> None:
        self.network, self.evaluations, self.seed = network, evaluations, network.seed

    def fit(self, jets: np.ndarray, log: Callable[[str], None]) -> Self:
        """Train the network if it is not trained yet."""
        if not hasattr(self.network, "field_"):
            self.network.fit(jets, log)
        return self

    def sample(self, n: int, seed: int = 0) -> tuple[np.ndarray, None]:
        """Return jets (n, P, 4)."""
        return self.network.sample(n, seed, self.evaluations), None
