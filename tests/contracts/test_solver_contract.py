"""What every registered solver must do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from exact_gaussian import ExactGaussian
from scipy.linalg import expm

from flowbdt.flow.fields import FunctionField
from flowbdt.flow.paths import Linear
from flowbdt.flow.solvers import SOLVERS, Solver, evaluation_times, evaluations, integrate
from flowbdt.flow.solvers.restart import Restart

MATRIX = np.array([[-0.5, 2.0, 0.0], [-2.0, 0.3, 1.0], [0.5, -1.0, 0.2]])
MEANS, WIDTHS = np.array([[1.0, -1.0, 0.3], [-1.5, 0.5, 0.0]]), np.array([0.3, 0.5])
X0 = np.array([[0.6, 0.3, -0.2], [0.1, -0.6, 0.5]])


def mixture_velocity(t: float, x: np.ndarray, cond: Any) -> np.ndarray:
    """Velocity for two round Gaussians of equal weight on the straight path, in closed form."""
    variance = t**2 * WIDTHS + (1.0 - t) ** 2
    away = x[:, None, :] - t * MEANS
    log = -0.5 * (away**2).sum(axis=-1) / variance - 0.5 * x.shape[1] * np.log(variance)
    share = np.exp(log - log.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    single = MEANS + ((t * WIDTHS - (1.0 - t)) / variance)[:, None] * away
    return np.asarray((share[..., None] * single).sum(axis=1))


LINEAR = FunctionField(lambda t, x, cond: x @ MATRIX.T, path=Linear())
# dx/dt = 2 (1 - x^2) cos 4t has the solution tanh(artanh x(t0) + (sin 4t - sin 4t0) / 2)
NONLINEAR = FunctionField(
    lambda t, x, cond: (1.0 - x**2) * float(2.0 * np.cos(4.0 * t)), path=Linear()
)
MIXTURE = FunctionField(mixture_velocity, path=Linear())


@cache
def _fine(begin: float, end: float) -> np.ndarray:
    fine = np.linspace(begin, end, 500)
    return np.asarray(integrate(SOLVERS.build("dormand_prince"), MIXTURE, X0, fine).x)


EXACT: dict[str, tuple[Any, Callable[[float, float], np.ndarray]]] = {
    "linear": (LINEAR, lambda begin, end: X0 @ expm(MATRIX * (end - begin)).T),
    "nonlinear": (
        NONLINEAR,
        lambda begin, end: np.tanh(
            np.arctanh(X0) + 0.5 * (np.sin(4.0 * end) - np.sin(4.0 * begin))
        ),
    ),
    "mixture": (MIXTURE, _fine),
}


@pytest.fixture(params=SOLVERS.names())
def solver(request: pytest.FixtureRequest) -> Solver:
    return SOLVERS.build(request.param)


def _uniform(n: int, begin: float = 0.0, end: float = 1.0) -> np.ndarray:
    return begin + (end - begin) * np.arange(n + 1) / n


def _unequal(n: int, begin: float = 0.0, end: float = 1.0) -> np.ndarray:
    """Steps h, 2h, h, 2h, ...: weights meant for equal steps lose an order here."""
    widths = np.where(np.arange(n) % 2 == 0, 1.0, 2.0)
    return begin + (end - begin) * np.concatenate([[0.0], np.cumsum(widths) / widths.sum()])


def _range(solver: Solver) -> tuple[float, float]:
    """Return where the order is meant: the log-SNR is infinite at both ends of time."""
    return (0.0, 1.0) if solver.clock == "time" else (0.3, 0.8)


def _measured_order(
    solver: Solver, case: str, limits: tuple[float, float], spacing: Callable[..., np.ndarray]
) -> float:
    # high orders reach rounding errors, low ones that change at the start need small steps
    counts = {5: (64, 256), 4: (160, 320)}.get(solver.order, (128, 256))
    field, exact = EXACT[case]
    errors = [
        np.abs(integrate(solver, field, X0, spacing(n, *limits)).x - exact(*limits)).max()
        for n in counts
    ]
    return float(np.log(errors[0] / errors[1]) / np.log(counts[1] / counts[0]))


FAMILIES = [
    *SOLVERS.names(),
    *({"name": "lms", "degree": n} for n in (1, 2, 3)),
    *({"name": "deis", "degree": n} for n in (1, 2, 4)),
    *({"name": "deis", "degree": n, "variable": "log_snr"} for n in (1, 2, 3, 4)),
    *({"name": "unipc", "degree": n, "variant": v} for n in (1, 2, 3) for v in ("bh1", "bh2")),
    {"name": "dpm_solver_pp_2m", "quadrature": "exact"},
    {"name": "restart", "base": "adams_bashforth_3", "intervals": [[0.1, 0.6, 0]]},
]


@pytest.mark.parametrize("spec", FAMILIES, ids=str)
@pytest.mark.parametrize("case", EXACT)
@pytest.mark.parametrize("spacing", [_uniform, _unequal])
def test_measured_order_is_the_declared_one(
    spec: Any, case: str, spacing: Callable[..., np.ndarray]
) -> None:
    solver = SOLVERS.build(spec)
    if solver.stochastic or solver.adaptive:
        pytest.skip("no order along a path: draws noise, or follows a tolerance")
    order = _measured_order(solver, case, _range(solver), spacing)
    assert order > solver.order - 0.2
    # the leading error of Dormand-Prince is so small here that the next one is seen as well
    assert order < solver.order + (0.2 if solver.order < 5 else 0.6)


@pytest.mark.parametrize("case", EXACT)
def test_over_all_times_the_order_is_the_declared_one_up_to_two(solver: Solver, case: str) -> None:
    """Near pure noise and pure data steps in log-SNR are long: second order, up to a logarithm."""
    if solver.stochastic or solver.adaptive:
        pytest.skip("no order along a path: draws noise, or follows a tolerance")
    order = _measured_order(solver, case, (0.0, 1.0), _uniform)
    assert order > min(solver.order, 2) - 0.6


@pytest.mark.parametrize("n_steps", [1, 2, 3, 8])
def test_calls_are_what_the_offsets_declare(solver: Solver, n_steps: int) -> None:
    if solver.adaptive or isinstance(solver, Restart):
        pytest.skip("the cost depends on the points, or on the intervals")
    boundaries = _unequal(n_steps, 0.1, 0.9)
    solution = integrate(solver, LINEAR, X0, boundaries, rng=np.random.default_rng(1))
    expected: list[float] = []
    for i, (begin, end) in enumerate(itertools.pairwise(boundaries)):
        offsets = solver.lead_offsets[i] if i < len(solver.lead_offsets) else solver.offsets
        expected += [_at(solver, begin, end, offset) for offset in offsets]
    np.testing.assert_allclose(solution.times, expected, atol=1e-14)
    assert solution.n_evaluations == len(expected) == len(evaluations(solver, boundaries))


def _at(solver: Solver, begin: float, end: float, offset: float) -> float:
    if solver.clock == "time":
        return begin + offset * (end - begin)
    low, high = (np.log(t / (1.0 - t)) for t in (begin, end))
    return float(1.0 / (1.0 + np.exp(-(low + offset * (high - low)))))


@pytest.mark.parametrize("spacing", [_uniform, _unequal])
def test_asked_times_are_those_really_asked(
    solver: Solver, spacing: Callable[[int], np.ndarray]
) -> None:
    if solver.adaptive:
        pytest.skip("its times depend on the points")
    rng = np.random.default_rng(1)
    solution = integrate(solver, NONLINEAR, X0, spacing(7), rng=rng)
    np.testing.assert_array_equal(evaluation_times(solver, spacing(7)), np.unique(solution.times))


def test_a_field_that_knows_the_asked_times_is_accepted(solver: Solver) -> None:
    if solver.adaptive:
        pytest.skip("it needs a field that knows all times")
    times = evaluation_times(solver, _uniform(9))
    field = FunctionField(LINEAR.velocity, times=times, path=Linear())
    solution = integrate(solver, field, X0, _uniform(9), rng=np.random.default_rng(1))
    assert solution.nonfinite_fraction == 0.0
    assert solution.seconds > 0.0


def test_noise_is_carried_to_gaussian_data(solver: Solver) -> None:
    """x0 is whitened exactly, so the only error is that of the steps."""
    if solver.stochastic:
        pytest.skip("compared with its statistical error in test_stochastic.py")
    mean, cov = np.array([1.0, -1.0]), np.array([[1.5, 0.4], [0.4, 0.5]])
    x0 = np.random.default_rng(2).normal(size=(300, 2))
    x0 = (x0 - x0.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x0.T))).T
    n_steps = 50
    field = ExactGaussian(mean, cov, Linear())
    x = integrate(solver, field, x0, _uniform(n_steps)).x
    # steps in log-SNR are long near both ends
    tolerance = (5.0 if solver.clock == "time" else 20.0) * n_steps ** -min(solver.order, 2)
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=1e-10)
    np.testing.assert_allclose(np.cov(x.T), cov, atol=tolerance)
    np.testing.assert_allclose(x, field.flow(x0, 1.0), atol=tolerance)


def test_rows_do_not_influence_each_other(solver: Solver) -> None:
    if solver.stochastic or solver.adaptive:
        pytest.skip("noise is drawn, or the step is chosen, for all rows together")
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
