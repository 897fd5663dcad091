"""What is compared, and with which settings."""

from __future__ import annotations

from typing import Any

from experiments.ablation.variants import REFERENCE as RECIPE
from experiments.jetnet_particles.flat import Projected, Reference
from experiments.jetnet_particles.model import SplittingModel
from experiments.jetnet_particles.network import AttentionNetwork, WithEvaluations
from experiments.jetnet_particles.rejected import Rejected

REFERENCE: dict[str, Any] = {
    **RECIPE,
    "n_steps": 10,
    "noise": {**RECIPE["noise"], "n_repeats": 1},
    "booster": {
        **RECIPE["booster"],
        "max_depth": 6,
        "n_estimators": 60,
        "max_bin": 32,
        "outputs_per_group": 0,
        "split_outputs": 0,
    },
}
"""The recipe of arXiv 2404.18219 at a size that can be repeated: 60 trees of depth 6, 10 times,
K = 1, 32 bins, one booster for all 90 outputs."""

JET: dict[str, Any] = {"preset": "balanced"}
SPLITTING: dict[str, Any] = {
    "preset": "fast",
    "preconditioner": "gaussian",
    "booster": {"n_estimators": 50, "max_depth": 6, "early_stopping_rounds": 5},
}
"""Hundreds of thousands of rows of at most five columns: one Gaussian is enough to start from."""

FLAT: dict[str, Any] = {"preset": "fast", "preconditioner": {"name": "mixture", "n_components": 10}}

ATTENTION: dict[str, Any] = {
    "backbone": {"width": 48, "n_heads": 4, "n_layers": 3},
    "training": {"n_steps": 3000, "batch_size": 256},
}
"""60,579 parameters, 31 epochs of 25,000 jets: what five minutes on one thread allow."""

SMALL_ATTENTION: dict[str, Any] = {
    "backbone": {"width": 8, "n_heads": 2, "n_layers": 1},
    "training": {"n_steps": 5, "batch_size": 50},
}

SMALL: dict[str, Any] = {
    "n_steps": 2,
    "rejection": False,
    "noise": {"candidates": 0},
    "preconditioner": "gaussian",
    "booster": {"n_estimators": 2, "max_depth": 2, "early_stopping_rounds": 0},
}
"""What makes any of them take a moment."""

VARIANTS = (
    "angular splittings",
    "angular splittings, rejection",
    "reference",
    "kt splittings",
    "projected",
    *(f"attention network, {n} evaluations" for n in (5, 10, 20, 40)),
)
ONCE = tuple(n for n in VARIANTS if n in ("kt splittings", "projected") or "network" in n)
"""Run with one seed: other ways that were tried, and networks beside the trees."""


def build(name: str, seed: int, smoke: bool, known: dict[str, Any]) -> Any:
    """Return an unfitted generator; ``known`` are the trained ones of this seed."""
    small = SMALL if smoke else {}
    if name == "reference":
        trees = {**REFERENCE["booster"], "n_estimators": 2, "max_depth": 2} if smoke else None
        return Reference({**REFERENCE, **({"booster": trees, "n_steps": 2} if smoke else {})}, seed)
    if name == "projected":
        return Projected({**JET, **small}, {**FLAT, **small}, seed)
    base, _, more = name.partition(", ")
    if base == "attention network":
        same = (m.network for m in known.values() if isinstance(m, WithEvaluations))
        settings = SMALL_ATTENTION if smoke else ATTENTION
        network = next(same, None) or AttentionNetwork(**settings, seed=seed)
        return WithEvaluations(network, int(more.split()[0]))
    if more:
        model = known.get(base) or build(base, seed, smoke, known)
        return Rejected(model, seed=seed, clustered=not smoke)
    kt = base.startswith("kt")
    return SplittingModel({**JET, **small}, {**SPLITTING, **small}, kt=kt, seed=seed)
