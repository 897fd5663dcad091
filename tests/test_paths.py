"""Paths: time direction, closed forms, scores. The contract of all paths is in contracts/."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from exact_gaussian import ExactGaussian

from flowbdt.errors import ConfigError, InputError
from flowbdt.flow.curved_paths import SchrodingerBridge, Target, Trigonometric
from flowbdt.flow.parametrisations import PathConvention
from flowbdt.flow.paths import PATHS, Linear, Path
from flowbdt.flow.solvers import integrate
from flowbdt.flow.solvers.runge_kutta import RK4

TIMES = (0.0, 0.1, 0.5, 0.9, 1.0)


def _rows(n: int = 6, m: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, m)), 3.0 + 2.0 * rng.normal(size=(n, m)), rng.normal(size=(n, m))


def test_exact_gaussian_flow_starts_at_noise_and_ends_at_data() -> None:
    mean, cov = np.array([5.0, -2.0]), np.array([[4.0, 1.0], [1.0, 0.5]])
    x0 = np.random.default_rng(2).normal(size=(400, 2))
    x0 = (x0 - x0.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x0.T))).T
    solution = integrate(RK4(), ExactGaussian(mean, cov, Linear()), x0, np.linspace(0, 1, 41))
    np.testing.assert_allclose(solution.x.mean(axis=0), mean, atol=1e-5)
    np.testing.assert_allclose(np.cov(solution.x.T), cov, atol=1e-4)


def test_docstring_of_the_module_states_the_time_direction() -> None:
    import flowbdt.flow.paths

    assert "t = 0 is noise, t = 1 is data" in (flowbdt.flow.paths.__doc__ or "")


@pytest.mark.parametrize("t", TIMES)
def test_linear_path_at_hand_computed_points(t: float) -> None:
    path = Linear()
    x0, x1 = np.array([[2.0]]), np.array([[10.0]])
    assert path.location(x0, x1, t)[0, 0] == pytest.approx(2.0 + 8.0 * t, abs=1e-14)
    assert path.target(x0, x1, t, None)[0, 0] == 8.0


def test_trigonometric_path_at_half_time() -> None:
    path = Trigonometric()
    x_t = path.location(np.array([[2.0]]), np.array([[10.0]]), 0.5)
    assert x_t[0, 0] == pytest.approx(12.0 / np.sqrt(2.0), rel=1e-14)


@pytest.mark.parametrize("t", TIMES)
def test_target_with_zero_sigma_is_linear(t: float) -> None:
    x0, x1, _ = _rows()
    x_t = Target().location(x0, x1, t)
    np.testing.assert_array_equal(x_t, Linear().location(x0, x1, t))
    velocity = Linear().target(x0, x1, t, x_t)
    np.testing.assert_array_equal(Target().target(x0, x1, t, x_t), velocity)


def test_target_with_sigma_ends_at_data_plus_sigma_times_noise() -> None:
    x0, x1, _ = _rows()
    np.testing.assert_allclose(Target(0.1).location(x0, x1, 1.0), x1 + 0.1 * x0, rtol=1e-14)


def test_bridge_target_at_the_ends_is_its_expectation() -> None:
    x0, x1, noise = _rows()
    path = SchrodingerBridge(0.7)
    for t in (0.0, 1.0):
        x_t = path.location(x0, x1, t, noise)
        np.testing.assert_array_equal(path.target(x0, x1, t, x_t), x1 - x0)
    inside = path.target(x0, x1, 0.01, path.location(x0, x1, 0.01, noise))
    assert np.abs(inside - (x1 - x0)).max() > 1.0


def test_bridge_has_variance_sigma_squared_t_times_one_minus_t() -> None:
    n = 200_000
    noise = np.random.default_rng(3).normal(size=(n, 1))
    x_t = SchrodingerBridge(2.0).location(np.zeros((n, 1)), np.zeros((n, 1)), 0.2, noise)
    expected = 4.0 * 0.2 * 0.8
    assert abs(x_t.var() - expected) < 5 * expected * np.sqrt(2 / n)


def test_mean_target_carries_x_exactly_to_the_next_time() -> None:
    x0, x1, noise = _rows()
    path = Trigonometric(0.3)
    x_t = path.location(x0, x1, 0.2, noise)
    moved = x_t + 0.5 * path.mean_target(x0, x1, 0.2, 0.7, noise)
    np.testing.assert_allclose(moved, path.location(x0, x1, 0.7, noise), rtol=1e-13)


def test_mean_target_over_no_time_is_the_target() -> None:
    x0, x1, _ = _rows()
    path = Trigonometric()
    x_t = path.location(x0, x1, 0.4)
    np.testing.assert_array_equal(path.mean_target(x0, x1, 0.4, 0.4), path.target(x0, x1, 0.4, x_t))


@pytest.mark.parametrize("name", PATHS.names())
def test_one_time_per_event_equals_scalar_times(name: str) -> None:
    x0, x1, noise = _rows()
    path = PATHS.get(name)()
    t = np.linspace(0.0, 1.0, len(x0))[:, None]
    together = path.location(x0, x1, t, noise)
    velocity = path.target(x0, x1, t, together)
    for i, value in enumerate(t[:, 0]):
        row = slice(i, i + 1)
        x_t = path.location(x0[row], x1[row], float(value), noise[row])
        np.testing.assert_allclose(together[row], x_t, rtol=1e-13, atol=1e-14)
        single = path.target(x0[row], x1[row], float(value), x_t)
        np.testing.assert_allclose(velocity[row], single, rtol=1e-12, atol=1e-13)


def score(path: Path, v: np.ndarray, x: np.ndarray, t: float) -> np.ndarray:
    convention = PathConvention(path)
    return convention.score_of(convention.noise_from(v, x, t), t)


def test_linear_score_is_the_published_formula() -> None:
    _, x, v = _rows()
    expected = -(x - 0.3 * v) / 0.7
    np.testing.assert_allclose(score(Linear(), v, x, 0.3), expected, rtol=1e-13)


@pytest.mark.parametrize("path", [Linear(), Target(), Trigonometric()])
def test_score_at_the_data_end_is_refused(path: Linear | Target | Trigonometric) -> None:
    _, x, v = _rows()
    with pytest.raises(ConfigError, match="nothing of the noise is left at clock 1"):
        score(path, v, x, 1.0)


def test_score_of_the_bridge_is_refused() -> None:
    _, x, v = _rows()
    with pytest.raises(ConfigError, match="schrodinger_bridge"):
        score(SchrodingerBridge(), v, x, 0.5)


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), "a"])
def test_bad_sigma_is_refused(sigma: object) -> None:
    with pytest.raises(ConfigError, match="sigma"):
        PATHS.build({"name": "linear", "sigma": sigma})


def test_bridge_without_sigma_is_refused_and_names_the_linear_path() -> None:
    with pytest.raises(ConfigError, match="linear"):
        SchrodingerBridge(0.0)


def test_missing_noise_is_refused() -> None:
    x0, x1, _ = _rows()
    with pytest.raises(InputError, match="noise"):
        SchrodingerBridge().location(x0, x1, 0.5)


def test_paths_and_solvers_need_no_torch() -> None:
    modules = "flowbdt.flow.fields, flowbdt.flow.torchcfm_reference"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr
