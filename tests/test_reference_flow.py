"""`FlowBDT` without its refinements against the method in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import reference_flow

from flowbdt import FlowBDT

BOOSTER = {"max_depth": 4, "learning_rate": 0.2, "max_bin": 256}
REPEATS, TREES, STEPS, NEW = 3, 12, 4, 500
PLAIN = {
    "preconditioner": "none",
    "inputs": ["latent"],
    "noise": {"name": "repeats", "n_repeats": REPEATS, "candidates": 0},
    "rejection": False,
    "transforms": {"*": "identity", "joint": "none"},
    "validation_fraction": 0.0,
    "n_steps": STEPS,
}
"""Trees, noise and a solver, nothing else."""


def rings(n: int = 600) -> np.ndarray:
    """Two rings in two dimensions, in float32, so that both codes read the same numbers."""
    rng = np.random.default_rng(5)
    angle, radius = rng.uniform(0, 2 * np.pi, n), rng.choice([0.7, 1.6], n)
    x = radius * np.array([np.cos(angle), np.sin(angle)]) + 0.05 * rng.normal(size=(2, n))
    return x.T.astype(np.float32)


def test_it_fits_on_a_page() -> None:
    text = Path(reference_flow.__file__).read_text()
    assert len(text.splitlines()) <= 120
    assert set(reference_flow.SOLVERS) == {"euler", "midpoint"}


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_events_of_the_package_are_those_of_the_reference(
    solver: str, seed: int, conditional: bool
) -> None:
    x = rings()
    cond = np.hypot(*x.T)[:, None].round(1).astype(np.float32) if conditional else None
    wanted = None if cond is None else cond[:NEW]
    boosters = reference_flow.fit(
        x,
        cond,
        solver=solver,
        n_steps=STEPS,
        n_repeats=REPEATS,
        n_trees=TREES,
        seed=seed,
        **BOOSTER,
    )
    expected = reference_flow.sample(boosters, NEW, 2, wanted, solver=solver, seed=seed + 10)

    booster = {**BOOSTER, "n_estimators": TREES, "early_stopping_rounds": 0}
    model = FlowBDT(solver=solver, booster=booster, random_state=seed, **PLAIN)
    model.fit(x.astype(np.float64), cond=cond)
    events = model.sample(NEW, cond=wanted, random_state=seed + 10)
    np.testing.assert_allclose(events, expected, rtol=0, atol=1e-6)
    assert np.abs(expected[:, 0] - expected[:, 0].mean()).max() > 1.0  # noise has become rings
