"""What every registered solver must do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.linalg import expm

from flowbdt.fields import ExactGaussian, FunctionField
from flowbdt.paths import Linear
from flowbdt.solvers import SOLVERS, Solver, asked_times, integrate

MATRIX = np.array([[-0.5, 2.0, 0.0], [-2.0, 0.3, 1.0], [0.5, -1.0, 0.2]])
X0 = np.array([[0.6, 0.3, -0.2], [0.1, -0.6, 0.5]])
LINEAR = FunctionField(lambda t, x, cond: x @ MATRIX.T)
# dx/dt = 2 (1 - x^2) cos 4t has the solution tanh(artanh x(0) + sin(4t) / 2)
NONLINEAR = FunctionField(lambda t, x, cond: (1.0 - x**2) * float(2.0 * np.cos(4.0 * t)))
SOLUTIONS = [
    (LINEAR, X0 @ expm(MATRIX).T),
    (NONLINEAR, np.tanh(np.arctanh(X0) + 0.5 * np.sin(4.0))),
]


@pytest.fixture(params=SOLVERS.names())
def solver(request: pytest.FixtureRequest) -> Solver:
    return SOLVERS.build(request.param)


def _uniform(n: int) -> np.ndarray:
    return np.linspace(0.0, 1.0, n + 1)


def _unequal(n: int) -> np.ndarray:
    """Steps h, 2h, h, 2h, ...: weights meant for equal steps lose an order here."""
    widths = np.where(np.arange(n) % 2 == 0, 1.0, 2.0)
    return np.concatenate([[0.0], np.cumsum(widths) / widths.sum()])


def _measured_order(
    solver: Solver, field: Any, exact: np.ndarray, spacing: Callable[[int], np.ndarray]
) -> float:
    counts = np.array([64, 128, 256])  # finer, order 5 would reach rounding errors
    errors = [np.abs(integrate(solver, field, X0, spacing(int(n))).x - exact).max() for n in counts]
    return float(-np.polyfit(np.log(counts), np.log(errors), 1)[0])


@pytest.mark.parametrize(("field", "exact"), SOLUTIONS, ids=["linear", "nonlinear"])
@pytest.mark.parametrize("spacing", [_uniform, _unequal])
def test_measured_order_is_the_declared_one(
    solver: Solver, field: Any, exact: np.ndarray, spacing: Callable[[int], np.ndarray]
) -> None:
    if solver.stochastic:
        pytest.skip("a stochastic solver has no pathwise order without its noise")
    assert _measured_order(solver, field, exact, spacing) == pytest.approx(solver.order, abs=0.2)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 8])
def test_calls_are_what_the_offsets_declare(solver: Solver, n_steps: int) -> None:
    solution = integrate(solver, LINEAR, X0, _unequal(n_steps), rng=np.random.default_rng(1))
    boundaries, expected = _unequal(n_steps), []
    for i in range(n_steps):
        first = i == 0 and solver.first_offsets is not None
        for offset in solver.first_offsets or () if first else solver.offsets:
            expected.append(boundaries[i] + offset * (boundaries[i + 1] - boundaries[i]))
    np.testing.assert_allclose(solution.times, expected, atol=1e-14)
    assert solution.n_evaluations == len(expected) == solver.n_evaluations(n_steps)


@pytest.mark.parametrize("spacing", [_uniform, _unequal])
def test_asked_times_are_those_really_asked(
    solver: Solver, spacing: Callable[[int], np.ndarray]
) -> None:
    rng = np.random.default_rng(1)
    solution = integrate(solver, NONLINEAR, X0, spacing(7), rng=rng)
    np.testing.assert_array_equal(asked_times(solver, spacing(7)), np.unique(solution.times))


def test_a_field_that_knows_the_asked_times_is_accepted(solver: Solver) -> None:
    field = FunctionField(LINEAR.velocity, times=asked_times(solver, _uniform(9)))
    solution = integrate(solver, field, X0, _uniform(9), rng=np.random.default_rng(1))
    assert solution.nonfinite_fraction == 0.0
    assert solution.seconds > 0.0


def test_noise_is_carried_to_gaussian_data(solver: Solver) -> None:
    """x0 is whitened exactly, so the only error is that of the steps."""
    mean, cov = np.array([1.0, -1.0]), np.array([[1.5, 0.4], [0.4, 0.5]])
    x0 = np.random.default_rng(2).normal(size=(300, 2))
    x0 = (x0 - x0.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x0.T))).T
    n_steps = 50
    rng = np.random.default_rng(3)
    field = ExactGaussian(mean, cov, Linear())
    x = integrate(solver, field, x0, _uniform(n_steps), rng=rng).x
    tolerance = 5.0 * n_steps ** -min(solver.order, 2)
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=1e-10)
    np.testing.assert_allclose(np.cov(x.T), cov, atol=tolerance)
    np.testing.assert_allclose(x, field.flow(x0, 1.0), atol=tolerance)


def test_rows_do_not_influence_each_other(solver: Solver) -> None:
    if solver.stochastic:
        pytest.skip("noise is drawn for all rows together")
    together = integrate(solver, NONLINEAR, X0, _uniform(5)).x
    alone = integrate(solver, NONLINEAR, X0[1:], _uniform(5)).x
    np.testing.assert_array_equal(together[1:], alone)


def test_a_solver_can_be_used_twice(solver: Solver) -> None:
    """State lives in `start()`, not in the solver."""
    first, second = (
        integrate(solver, NONLINEAR, X0, _uniform(5), rng=np.random.default_rng(1)).x
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_start_and_global_generator_are_not_touched(solver: Solver) -> None:
    x0, state = X0.copy(), str(np.random.get_state(legacy=False))  # noqa: NPY002
    integrate(solver, NONLINEAR, x0, _uniform(4), rng=np.random.default_rng(1))
    np.testing.assert_array_equal(x0, X0)
    assert state == str(np.random.get_state(legacy=False))  # noqa: NPY002


def test_float32_points_are_computed_in_float64(solver: Solver) -> None:
    rng = np.random.default_rng(1)
    x0 = X0.astype(np.float32)
    assert integrate(solver, NONLINEAR, x0, _uniform(3), rng=rng).x.dtype == np.float64


def test_torch_tensors_give_the_numbers_of_numpy(solver: Solver) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")
    if solver.stochastic:
        pytest.skip("numpy's noise and torch's differ")
    tensor = torch.tensor(X0)
    solution = integrate(solver, NONLINEAR, tensor, _unequal(6))
    assert isinstance(solution.x, torch.Tensor)
    assert solution.nonfinite_fraction == 0.0
    expected = integrate(solver, NONLINEAR, X0, _unequal(6)).x
    np.testing.assert_allclose(solution.x.numpy(), expected, rtol=1e-13)
