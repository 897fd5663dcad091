"""Rejection of whole jets by a classifier of their observables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from experiments.jetnet_particles.scores import observables
from flowbdt.seeding import derive, stream
from flowbdt.trees.density_ratio import DensityRatio

HARDEST = 3


def seen(jets: np.ndarray, clustered: bool) -> np.ndarray:
    """Return what the classifier sees of jets: observables, momenta and places of particles."""
    x = observables(jets, clustered).x
    pt = np.sort(jets[..., 2], axis=1)[:, ::-1]
    hardest = jets[:, :HARDEST, :3].reshape(len(jets), -1)
    return np.hstack([x, hardest, pt[:, HARDEST::6], pt[:, -1:]]).astype(np.float32)


class Rejected:
    """A trained generator whose jets are kept with the odds of a classifier, real to generated.

    What rejection does for a table of columns, here for jets: the classifier is learned from
    training jets and as many generated ones, or more; see `flowbdt.trees.density_ratio`.

    Parameters
    ----------
    model : with ``fit`` and ``sample``; trained anew only if it was not
    per_jet : generated jets for each real one to learn from
    """

    def __init__(self, model: Any, per_jet: int = 2, seed: int = 0, clustered: bool = True) -> None:
        self.model, self.per_jet, self.seed, self.clustered = model, per_jet, seed, clustered

    def fit(self, jets: np.ndarray, log: Callable[[str], None]) -> Self:
        """Learn from jets (n, P, 4)."""
        if not hasattr(self.model, "jets_"):
            self.model.fit(jets, log)
        seed = derive(self.seed, "rejection")
        made, _ = self.model.sample(self.per_jet * len(jets), seed)
        log("jets to learn the classifier from")
        real, generated = (seen(x, self.clustered) for x in (jets, made))
        self.ratio_ = DensityRatio.fit(real, generated, None, seed=seed, n_threads=1)
        log(f"classifier: {self.ratio_.n_trees} trees, acceptance {self.ratio_.acceptance:.3f}")
        return self

    def sample(self, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return jets (n, P, 4) and their momenta (n, 4) of the first stage."""
        jets: list[np.ndarray] = []
        totals: list[np.ndarray] = []
        while (missing := n - sum(map(len, jets))) > 0:
            key = derive(seed, "round", len(jets))
            made, total = self.model.sample(int(1.05 * missing / self.ratio_.acceptance) + 10, key)
            uniform = stream(key, "keep").random(len(made))
            kept = self.ratio_.keeps(seen(made, self.clustered), uniform)
            jets.append(made[kept][:missing])
            totals.append(total[kept][:missing])
        return np.concatenate(jets), np.concatenate(totals)
