"""What is compared: the default model with one ingredient changed, and scans of its cost."""

from __future__ import annotations

from typing import Any

Variant = dict[str, Any]

NO_TREES: Variant = {
    "booster": {"n_estimators": 1, "learning_rate": 1e-9},
    "noise": {"n_repeats": 1},
}

INGREDIENTS: dict[str, Variant] = {
    "balanced": {},
    "no rejection": {"rejection": False},
    "no closed form": {"preconditioner": "none"},
    "no closed form nor rejection": {"preconditioner": "none", "rejection": False},
    "one Gaussian": {"preconditioner": "gaussian"},
    "40 Gaussians": {"preconditioner": {"name": "mixture", "n_components": 40}},
    "no trees": NO_TREES,
    "no trees nor rejection": {**NO_TREES, "rejection": False},
    "single-event targets": {"noise": {"candidates": 0}},
    "single-event targets with fresh noise": {
        "noise": {"name": "fresh", "n_repeats": 2, "candidates": 0}
    },
    "trees see the latent point only": {"inputs": ["latent"]},
    "optimal-transport pairs": {"coupling": "minibatch_ot"},
    "last steps finer": {"spacing": {"name": "power", "exponent": 1.5}},
}
"""Each ingredient of the default model switched off, or another choice in its place."""

WITHOUT_REJECTION: dict[str, Variant] = {
    f"{name} without rejection": {**INGREDIENTS[name], "rejection": False}
    for name in (
        "one Gaussian",
        "40 Gaussians",
        "single-event targets",
        "single-event targets with fresh noise",
        "trees see the latent point only",
        "optimal-transport pairs",
        "last steps finer",
    )
}
"""The same ingredients where nothing thrown out hides what they do."""

ONE_DRAW: dict[str, Variant] = {
    "one noise draw without rejection": {"noise": {"n_repeats": 1}, "rejection": False},
    "one noise draw and single-event targets without rejection": {
        "noise": {"n_repeats": 1, "candidates": 0},
        "rejection": False,
    },
}
"""Where each event is seen with one noise only, averaged targets should matter most."""

NO_FORM: Variant = INGREDIENTS["no closed form nor rejection"]

PAIRS: dict[str, Variant] = {
    "optimal-transport pairs without closed form": {**NO_FORM, "coupling": "minibatch_ot"},
    "Schrodinger bridge without closed form": {
        **NO_FORM,
        "path": {"name": "schrodinger_bridge", "sigma": 0.1},
        "coupling": "minibatch_ot",
    },
}
"""Other pairs of noise and event where no closed form, which knows independent ones, helps."""

OUTPUTS: dict[str, Variant] = {
    "one output per tree without rejection": {
        "booster": {"multi_strategy": "one_output_per_tree"},
        "rejection": False,
    },
}

EVALUATIONS: dict[str, Variant] = {
    f"{n} evaluations": {"n_steps": n, "rejection": False} for n in (2, 4, 8, 16, 32)
}
"""Quality against function evaluations: Adams-Bashforth takes one per step."""

COST: dict[str, Variant] = {
    "fast": {"preset": "fast"},
    "fast with rejection": {"preset": "fast", "rejection": True},
    "balanced with 15 trees": {"booster": {"n_estimators": 15, "max_depth": 5}},
}
"""Quality against training time."""

EVENTS: dict[str, Variant] = {
    f"a share {share:g} of the events": {"share": share} for share in (0.25, 0.5)
}
"""The default model with fewer training events: is it the events that limit it?"""

REFERENCE: Variant = {
    "n_steps": 20,
    "solver": "euler",
    "noise": {"name": "repeats", "n_repeats": 5, "candidates": 0},
    "preconditioner": "none",
    "rejection": False,
    "inputs": ["latent"],
    "relations": [],
    "transforms": {"*": {"name": "minmax", "clip": True}, "joint": "none"},
    "booster": {
        "max_depth": 4,
        "n_estimators": 100,
        "reg_lambda": 0.1,
        "reg_alpha": 0.2,
        "max_bin": 256,
        "early_stopping_rounds": 0,
    },
}
"""The recipe of arXiv 2404.18219, section 3, with K = 5 repetitions."""

VARIANTS: dict[str, Variant] = {
    **INGREDIENTS,
    **WITHOUT_REJECTION,
    **ONE_DRAW,
    **PAIRS,
    **OUTPUTS,
    **EVALUATIONS,
    **COST,
    **EVENTS,
    "reference with K = 5": REFERENCE,
}

SMOKE: Variant = {
    "booster": {"n_estimators": 3, "max_depth": 2},
    "noise": {"n_repeats": 1, "candidates": 20},
    "preconditioner": "gaussian",
}
"""What makes any variant take a moment."""
