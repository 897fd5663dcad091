"""Grids that are found: against the reference, by a metric, restart intervals."""

from __future__ import annotations

import numpy as np
import pytest
from exact_gaussian import ExactGaussian

from flowbdt.errors import ConfigError
from flowbdt.flow.closed_form import PRECONDITIONERS
from flowbdt.flow.fields import ClosedFormField, FunctionField
from flowbdt.flow.paths import Linear
from flowbdt.flow.schedule_search import (
    end_error,
    follow,
    local_errors,
    optimise_grid,
    search_restart_interval,
    steps_within,
)
from flowbdt.flow.schedules import SCHEDULES
from flowbdt.flow.solvers import SOLVERS

NARROW = ExactGaussian([1.0, 0.0], [[1.0, 0.0], [0.0, 1e-3]], Linear())
X0 = np.random.default_rng(1).normal(size=(200, 2))
UNIFORM = SCHEDULES.build("uniform")


def test_reference_is_the_exact_flow() -> None:
    reference = follow(NARROW, X0)
    for t in (0.0, 0.123, 0.5, 0.97, 1.0):
        np.testing.assert_allclose(reference(t), NARROW.flow(X0, t), atol=1e-6)


def test_local_error_of_one_step_is_its_whole_error() -> None:
    reference = follow(NARROW, X0)
    for name in ("euler", "heun", "unipc"):
        solver = SOLVERS.build(name)
        (alone,) = local_errors(solver, NARROW, reference, [0.0, 1.0])
        assert alone == pytest.approx(end_error(solver, NARROW, reference, [0.0, 1.0]), rel=1e-6)


def test_local_error_falls_with_one_power_more_than_the_order() -> None:
    reference = follow(NARROW, X0)
    for name in ("euler", "heun", "adams_bashforth_2"):
        solver = SOLVERS.build(name)
        largest = [
            local_errors(solver, NARROW, reference, np.linspace(0.2, 0.7, n + 1))[1:].max()
            for n in (16, 32)
        ]
        assert np.log2(largest[0] / largest[1]) == pytest.approx(solver.order + 1, abs=0.35)


@pytest.mark.parametrize("name", ["euler", "heun", "adams_bashforth_2", "dpm_solver_pp_2m"])
def test_grids_of_a_search_are_better_than_uniform_ones_on_new_points(name: str) -> None:
    solver = SOLVERS.build(name)
    found = optimise_grid(NARROW, solver, 6, X0[:60], sweeps=6)
    assert found.error < (1.0 if name == "euler" else 0.9) * found.start_error
    assert found.boundaries.shape == (7,)
    assert (found.boundaries[0], found.boundaries[-1]) == (0.0, 1.0)
    reference = follow(NARROW, np.random.default_rng(2).normal(size=(300, 2)))
    errors = [end_error(solver, NARROW, reference, g) for g in (found.boundaries, UNIFORM(6))]
    assert errors[0] < errors[1]


def test_a_field_without_curvature_keeps_its_uniform_grid() -> None:
    """Equal errors everywhere: nothing to gain."""
    field = FunctionField(lambda t, x, cond: t + 0.0 * x)
    found = optimise_grid(field, SOLVERS.build("euler"), 5, X0[:5], sweeps=3)
    np.testing.assert_allclose(found.boundaries, UNIFORM(5), atol=0.02)


def test_closed_form_of_a_fit_can_stand_in_for_trees() -> None:
    z = np.random.default_rng(3).normal(size=(500, 2)) @ np.diag([1.0, 0.05])
    fitted = PRECONDITIONERS.build("gaussian").fit(z.astype(np.float32), seed=1)
    field = ClosedFormField(fitted, Linear())
    found = optimise_grid(field, SOLVERS.build("adams_bashforth_2"), 6, X0[:50], sweeps=3)
    assert found.error < found.start_error


@pytest.mark.parametrize(
    ("name", "budget", "steps"),
    [("euler", 8, 8), ("heun", 8, 4), ("dpm_solver_2", 8, 5), ("adams_bashforth_3", 8, 7)],
)
def test_steps_within_a_budget(name: str, budget: int, steps: int) -> None:
    assert steps_within(SOLVERS.build(name), budget) == steps


def test_what_has_no_error_along_a_path_is_refused() -> None:
    for name in ("ddpm", "restart", "dormand_prince_adaptive"):
        with pytest.raises(ConfigError, match="deterministic"):
            optimise_grid(NARROW, SOLVERS.build(name), 4, X0)
    with pytest.raises(ConfigError, match="cannot do with 1 evaluation"):
        steps_within(SOLVERS.build("heun"), 1)


def test_restart_intervals_are_chosen_where_they_help() -> None:
    """A coarse solver errs; restarting somewhere must bring points closer, or None is returned."""
    x0 = np.random.default_rng(4).normal(size=(4000, 2))
    grid = UNIFORM(6)
    interval, tried = search_restart_interval(NARROW, SOLVERS.build("euler"), grid, x0, seed=2)
    assert len(tried) == 1 + 10
    assert interval is not None
    low, high, k = interval
    assert k == 1
    best = min(line[2] for line in tried)
    assert best < tried[0][2]
    assert (low, high, best) in tried
