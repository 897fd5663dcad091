"""What is compared, and with which settings."""

from __future__ import annotations

from typing import Any

from experiments.ablation.variants import REFERENCE as RECIPE
from experiments.jetnet_particles.flat import Projected, Reference
from experiments.jetnet_particles.model import SplittingModel
from experiments.jetnet_particles.rejected import Rejected

REFERENCE: dict[str, Any] = {
    **RECIPE,
    "n_steps": 10,
    "n_repeats": 1,
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

SMALL: dict[str, Any] = {
    "n_steps": 2,
    "rejection": False,
    "candidates": 0,
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
)
ONCE = ("kt splittings", "projected")
"""Run with one seed: other ways that were tried."""


def build(name: str, seed: int, smoke: bool, known: dict[str, Any]) -> Any:
    """Return an unfitted generator; ``known`` are the trained ones of this seed."""
    small = SMALL if smoke else {}
    if name == "reference":
        trees = {**REFERENCE["booster"], "n_estimators": 2, "max_depth": 2} if smoke else None
        return Reference({**REFERENCE, **({"booster": trees, "n_steps": 2} if smoke else {})}, seed)
    if name == "projected":
        return Projected({**JET, **small}, {**FLAT, **small}, seed)
    base, _, rejects = name.partition(", ")
    if rejects:
        model = known.get(base) or build(base, seed, smoke, known)
        return Rejected(model, seed=seed, clustered=not smoke)
    kt = base.startswith("kt")
    return SplittingModel({**JET, **small}, {**SPLITTING, **small}, kt=kt, seed=seed)
