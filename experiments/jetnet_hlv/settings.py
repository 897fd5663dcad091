"""What is compared, and what others have published for the same twelve observables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.ablation.variants import REFERENCE
from flowbdt.config import PRESETS
from flowbdt.evaluation.report.published import Published, read_published
from flowbdt.physics import HLV_RELATIONS

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

ONCE = (NEURAL, MIDPOINT)
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

PUBLISHED = read_published(Path(__file__).with_name("published.yaml"))
"""Figures of the method's authors, as a page of `flowbdt report` shows them, too."""


def _published(score: str, where: str) -> dict[str, Published]:
    """Return column -> figure of a score, of those whose source has a word."""
    found = [one for one in PUBLISHED if one.key[0] == score and where in one.source]
    return {one.key[1]: one for one in found if one.key[1] is not None}


_EMD = _published("emd_x10", "talk")
TALK = {c: (one.value, _EMD[c].value) for c, one in _published("separation", "talk").items()}
"""Separation power x100 and EMD x10 of the method's authors, ML4Jets 2024: 12 observables of the
public top jets, 20 to 30 steps of Dormand-Prince or midpoint; no uncertainties were given."""

RECOMPUTED = {c: (one.value, one.floor) for c, one in _published("separation", "notes").items()}
"""Separation power x100 and its truth floor in the authors' later recomputation: 177,945 jets,
depth 4, 100 trees, 30 times, K = 20, Dormand-Prince."""

PUBLISHED_CONSISTENCY = {c: one.value for c, one in _published("ratio_w1", "notes").items()}
"""Wasserstein-1 between a generated ratio and the ratio of generated columns, same source."""

BARS = {"separation over floor": 1.5, "AUC": 0.55, "AUC of r04": 0.57}
"""What the default model has to reach."""
