"""What is compared, and what others have published for the same twelve observables."""

from __future__ import annotations

from typing import Any

from experiments.ablation.variants import REFERENCE, SMOKE
from flowbdt.config import PRESETS
from flowbdt.datasets import HLV_RELATIONS

__all__ = ["SMOKE"]

Variant = dict[str, Any]

REFERENCE_NAME, NEURAL, DEFAULT = "reference", "neural", "balanced"
MIDPOINT = "reference, midpoint"

MODELS: dict[str, Variant] = {
    DEFAULT: {"preset": DEFAULT, "relations": list(HLV_RELATIONS)},
    REFERENCE_NAME: REFERENCE,
    MIDPOINT: {**REFERENCE, "solver": "midpoint", "n_steps": 15},
    **{name: {"preset": name, "relations": list(HLV_RELATIONS)} for name in PRESETS},
}
"""The presets, and the recipe of arXiv 2404.18219 with K = 5 repetitions: 20 steps of Euler, and
30 times for 15 steps of midpoint, nearer to the samplers of its authors' tables."""

ONCE = (NEURAL, MIDPOINT, "best")
"""Dear models whose scores the others do not depend on: trained with the first seed only, last."""

SOLVER_SEEDS = 1
"""Seeds for which the solvers are compared: they share the step models, and the noise."""

GRID_STEPS = 16
GRID: Variant = {**MODELS[DEFAULT], "rejection": False, "solver": "heun", "n_steps": GRID_STEPS}
"""Step models at 17 equal times, 0 and 1 among them, that all nested solvers share."""

SOLVERS: dict[str, dict[str, Any]] = {
    "Euler": {"solver": "euler", "n_steps": 16},
    "Heun": {"solver": "heun", "n_steps": 8},
    "midpoint": {"solver": "midpoint", "n_steps": 8},
    "Adams-Bashforth 2": {"solver": "adams_bashforth_2", "n_steps": 16},
    "Adams-Bashforth 3": {"solver": "adams_bashforth_3", "n_steps": 8},
    "Euler-Maruyama": {"solver": {"name": "euler_maruyama", "churn": 1.0}, "n_steps": 16},
    "Restart (Heun)": {"solver": {"name": "restart", "base": "heun"}, "n_steps": 8},
    "Restart (AB2)": {
        "solver": {"name": "restart", "base": "adams_bashforth_2"},
        "n_steps": 16,
    },
}
"""Ways through the shared step models, all without rejection: only the solver differs."""

OWN_GRID: dict[str, Variant] = {
    "Dormand-Prince": {**GRID, "solver": "dormand_prince", "n_steps": 3},
}
"""Solvers whose times lie on no grid of equal steps: step models of their own."""

ALL_SOLVERS = (*SOLVERS, *OWN_GRID)

TALK: dict[str, tuple[float, float]] = {
    "d12": (0.059, 0.0030),
    "d2": (0.14, 0.0037),
    "d23": (0.0057, 0.095),
    "tau1": (0.096, 0.042),
    "tau2": (0.15, 0.0070),
    "tau3": (0.065, 0.009),
    "mass": (0.086, 0.0030),
    "pt": (0.051, 0.0085),
    "tau21": (0.045, 0.020),
    "ecf2": (0.084, 0.0027),
    "ecf3": (0.0001, 0.15),
    "tau32": (0.0097, 0.031),
}
"""Separation power x100 and EMD x10 of the method's authors, ML4Jets 2024: 12 observables of the
public top jets, 20 to 30 steps of Dormand-Prince or midpoint; no uncertainties were given."""

RECOMPUTED: dict[str, tuple[float, float]] = {
    "pt": (0.207, 0.027),
    "mass": (0.335, 0.029),
    "tau1": (0.320, 0.028),
    "tau2": (0.726, 0.026),
    "tau3": (0.329, 0.026),
    "tau21": (0.298, 0.027),
    "tau32": (0.259, 0.027),
    "d12": (0.185, 0.028),
    "d23": (0.548, 0.026),
    "ecf2": (0.567, 0.027),
    "ecf3": (1.284, 0.025),
    "d2": (0.304, 0.028),
}
"""Separation power x100 and its truth floor in the authors' later recomputation: 177,945 jets,
depth 4, 100 trees, 30 times, K = 20, Dormand-Prince."""

PUBLISHED_AUC = 0.9994
"""Of a neural classifier (128, 64) on these twelve observables, same recomputation."""

PUBLISHED_CONSISTENCY = {"tau21": 0.016, "tau32": 0.030}
"""Wasserstein-1 between a generated ratio and the ratio of generated columns, same source."""

BARS = {"separation over floor": 1.5, "AUC": 0.55, "AUC of r04": 0.57}
"""What the default model has to reach."""
