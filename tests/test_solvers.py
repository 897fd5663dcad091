"""Solvers: unequal steps, first steps, refusals, tensors. Orders are measured in contracts/."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flowbdt.errors import ConfigError, GridError
from flowbdt.flow.fields import FunctionField
from flowbdt.flow.paths import Linear
from flowbdt.flow.solvers import SOLVERS, Solver, integrate
from flowbdt.flow.solvers.multistep import AdamsBashforth2, adams_bashforth_weights
from flowbdt.flow.solvers.runge_kutta import Euler, Heun, RungeKutta

RUNGE_KUTTA = [name for name in SOLVERS.names() if issubclass(SOLVERS.get(name), RungeKutta)]


@pytest.mark.parametrize("name", RUNGE_KUTTA)
def test_runge_kutta_tables_are_consistent(name: str) -> None:
    solver = SOLVERS.get(name)
    assert sum(solver.weights) == pytest.approx(1.0, abs=1e-14)
    for offset, row in zip(solver.offsets[1:], solver.rows, strict=True):
        assert sum(row) == pytest.approx(offset, abs=1e-14)


def test_adams_bashforth_weights_for_equal_steps_are_the_textbook_ones() -> None:
    np.testing.assert_allclose(adams_bashforth_weights([1.0, 0.5], 1.5), [1.5, -0.5], atol=1e-13)
    np.testing.assert_allclose(
        adams_bashforth_weights([2.0, 1.0, 0.0], 3.0), [23 / 12, -16 / 12, 5 / 12], atol=1e-12
    )


def test_adams_bashforth_weights_integrate_parabolas_on_unequal_steps() -> None:
    times, t1 = [0.5, 0.4, 0.1], 0.8
    weights = adams_bashforth_weights(times, t1)
    for power in range(3):
        mean = (t1 ** (power + 1) - 0.5 ** (power + 1)) / (power + 1) / (t1 - 0.5)
        assert weights @ np.array(times) ** power == pytest.approx(mean, rel=1e-12)


def test_heun_step_at_a_hand_computed_point() -> None:
    # dx/dt = x from 1, h = 0.5: 1 + 0.25 (1 + 1.5) = 1.625
    x, _ = Heun().step(lambda t, x: x, 0.0, 0.5, np.array([[1.0]]), None, None)
    assert x[0, 0] == 1.625


def test_first_step_of_adams_bashforth_2_is_eulers() -> None:
    field = FunctionField(lambda t, x, cond: np.cos(t) * x)
    x0 = np.ones((1, 1))
    ab2, euler = (integrate(s(), field, x0, [0.0, 0.3]).x for s in (AdamsBashforth2, Euler))
    np.testing.assert_array_equal(ab2, euler)


def test_off_grid_request_is_refused_before_any_step() -> None:
    calls: list[float] = []

    def velocity(t: float, x: Any, cond: Any) -> Any:
        calls.append(t)
        return x

    field = FunctionField(velocity, times=np.linspace(0, 1, 5))
    integrate(Heun(), field, np.ones((2, 1)), np.linspace(0, 1, 5))
    assert len(calls) == 8
    calls.clear()
    with pytest.raises(GridError, match=r"t = 0\.125"):
        integrate(SOLVERS.build("midpoint"), field, np.ones((2, 1)), np.linspace(0, 1, 5))
    assert calls == []


def test_conditions_reach_the_field_unchanged() -> None:
    cond = np.array([[1.0], [3.0]])
    field = FunctionField(lambda t, x, cond: cond)
    solution = integrate(Euler(), field, np.zeros((2, 1)), [0.0, 0.5, 1.0], cond)
    np.testing.assert_array_equal(solution.x, cond)


def test_falling_boundaries_integrate_back_to_the_start() -> None:
    field = FunctionField(lambda t, x, cond: (1.0 + t) * x)
    x0, forward = np.array([[1.0], [2.0]]), np.linspace(0, 1, 21)
    there = integrate(SOLVERS.build("rk4"), field, x0, forward).x
    back = integrate(SOLVERS.build("rk4"), field, there, forward[::-1]).x
    np.testing.assert_allclose(back, x0, rtol=1e-6)


def test_diverging_rows_are_counted_without_a_warning() -> None:
    field = FunctionField(lambda t, x, cond: x**3)
    x0 = np.array([[0.0, 0.0], [1e200, 0.0], [0.1, 0.1], [0.0, np.nan]])
    assert integrate(Euler(), field, x0, np.linspace(0, 1, 5)).nonfinite_fraction == 0.5


def test_no_rows_are_fine() -> None:
    field = FunctionField(lambda t, x, cond: x)
    solution = integrate(Heun(), field, np.zeros((0, 3)), [0.0, 1.0])
    assert solution.x.shape == (0, 3)
    assert solution.nonfinite_fraction == 0.0


@pytest.mark.parametrize(
    "boundaries", [[0.0], [0.0, 0.0, 1.0], [0.0, 0.7, 0.5], [0.0, np.nan], [[0.0, 1.0]]]
)
def test_bad_boundaries_are_refused(boundaries: list[Any]) -> None:
    field = FunctionField(lambda t, x, cond: x)
    with pytest.raises(ConfigError, match="boundaries"):
        integrate(Euler(), field, np.ones((1, 1)), boundaries)


class Noisy(Solver):
    """A stochastic solver, to test the contract that later ones will use."""

    order, offsets, stochastic = 1, (0.0,), True

    def step(self, field: Any, t0: float, t1: float, x: Any, state: Any, rng: Any) -> Any:
        return x + (t1 - t0) * field(t0, x) + rng.normal(size=x.shape), state


def test_stochastic_solver_draws_only_from_the_generator_it_gets() -> None:
    field = FunctionField(lambda t, x, cond: x, times=(0.0, 0.5))
    x0 = np.ones((3, 2))
    first, second = (
        integrate(Noisy(), field, x0, [0.0, 0.5, 1.0], rng=np.random.default_rng(1)).x
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    with pytest.raises(ConfigError, match="rng"):
        integrate(Noisy(), field, x0, [0.0, 0.5, 1.0])


def _order(spec: Any) -> float:
    """Return the order measured on a linear field between t = 0.3 and 0.8."""
    field = FunctionField(
        lambda t, x, cond: x @ np.array([[-0.5, 2.0], [-2.0, 0.3]]), path=Linear()
    )
    x0, errors = np.array([[0.6, -0.3]]), []
    exact = integrate(SOLVERS.build("dormand_prince"), field, x0, np.linspace(0.3, 0.8, 200)).x
    for n in (100, 200):
        x = integrate(SOLVERS.build(spec), field, x0, np.linspace(0.3, 0.8, n + 1)).x
        errors.append(np.abs(x - exact).max())
    return float(np.log2(errors[0] / errors[1]))


@pytest.mark.parametrize(
    ("spec", "order"),
    [
        ({"name": "dpm_solver_pp_3m"}, 3),
        ({"name": "dpm_solver_pp_3m", "quadrature": "published"}, 2),
        ({"name": "dpm_solver_pp_3m", "warm_start": False}, 2),
        ({"name": "lms", "degree": 3, "warm_start": False}, 2),
        ({"name": "deis", "degree": 4, "warm_start": False}, 2),
        ({"name": "unipc", "degree": 3, "warm_start": False}, 3),
    ],
    ids=str,
)
def test_what_published_starts_and_formulas_cost_in_order(spec: Any, order: int) -> None:
    assert SOLVERS.build(spec).order == order
    assert _order(spec) == pytest.approx(order, abs=0.25)
