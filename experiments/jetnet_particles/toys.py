"""Toy jets for the smoke form: three prongs and particles around them."""

from __future__ import annotations

import numpy as np

from flowbdt.seeding import stream


def toy_jets(n: int, slots: int = 8, seed: int = 0) -> np.ndarray:
    """Return jets (n, slots, 4) in JetNet's layout, of slots - 2 to slots particles."""
    rng = stream(seed, "toy-jets")
    prongs = rng.normal(0.0, 0.2, (n, 3, 2))
    which = rng.integers(0, 3, (n, slots))
    angles = prongs[np.arange(n)[:, None], which] + rng.normal(0.0, 0.05, (n, slots, 2))
    pt = -np.sort(-rng.dirichlet(np.full(slots, 0.7), n), axis=1)
    count = rng.integers(slots - 2, slots + 1, n)
    mask = (np.arange(slots) < count[:, None]).astype(float)
    jets = np.concatenate([angles, pt[..., None] + 1e-3, mask[..., None]], axis=-1)
    jets[..., :3] *= mask[..., None]
    return jets
