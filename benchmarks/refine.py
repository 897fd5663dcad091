"""When weights correct a simulation, and when its events must be carried: Gaussians apart.

    python benchmarks/refine.py

The better sample is standard normal in three correlated columns, the simulation shifted and scaled
along each. Learned from 10,000 events of each, judged by others.
"""

from __future__ import annotations

import time

import common
import numpy as np

from flowbdt import EventTable
from flowbdt.evaluation.metrics import classifier_auc, separation_power
from flowbdt.physics import Gaussian
from flowbdt.physics.refinement import refine
from flowbdt.trees.boosted_trees import make_classifier

N = 10_000
DISTANCES = ((0.2, 1.1), (1.0, 1.2), (3.0, 1.0))
"""Shift and scale of the simulation, in standard deviations."""


def drawn(seed: int, shift: float = 0.0, scale: float = 1.0) -> EventTable:
    """Return a sample that far from the better one."""
    normal = shift + scale * np.random.default_rng(seed).standard_normal((N, 3))
    return EventTable.of(Gaussian.mean + normal @ np.linalg.cholesky(Gaussian.cov).T, list("abc"))


def judged(made: EventTable) -> dict[str, str]:
    """Return the largest separation power, the area of a classifier, and what weights cost."""
    truth, w = drawn(2), np.ones(N) if made.weight is None else made.weight
    apart = max(
        separation_power(x, y, weight_generated=w, n_bootstrap=2).value
        for x, y in zip(truth.x.T, made.x.T, strict=True)
    )
    area = classifier_auc(truth.x, made.x, make_classifier, weight_generated=w, n_split_seeds=1)
    worth = f"{w.sum() ** 2 / (w**2).sum():.0f}"
    return {"separation": f"{apart:.2f}", "AUC": f"{area.value:.3f}", "worth": worth}


def main() -> None:
    """Print a row for each distance and method."""
    rows = []
    for shift, scale in DISTANCES:
        better, simulation, new = drawn(1), drawn(3, shift, scale), drawn(4, shift, scale)
        for method in ("none", "weights", "transport"):
            start, made = time.process_time(), new
            if method != "none":
                flow = {"preset": "fast"} if method == "transport" else None
                made = refine(simulation, better, method, new=new, random_state=1, flow=flow)
            seconds = f"{time.process_time() - start:.1f}"
            case = {"shift, scale": f"{shift}, {scale}", "method": method}
            rows.append({**case, **judged(made), "CPU s": seconds})
    print(common.table(rows))


if __name__ == "__main__":
    main()
