"""Velocity fields: the exact Gaussian, and the field made of step models."""

from __future__ import annotations

import numpy as np
import pytest
from exact_gaussian import ExactGaussian

from flowbdt.errors import GridError, InputError
from flowbdt.flow.curved_paths import Trigonometric
from flowbdt.flow.fields import FunctionField, Stepwise
from flowbdt.flow.paths import PATHS, Linear, Path
from flowbdt.flow.time_grid import TimeGrid

MEAN = np.array([1.0, -2.0, 0.5])
COV = np.array([[2.0, 0.5, 0.1], [0.5, 1.0, -0.3], [0.1, -0.3, 0.4]])


def _x(n: int = 5, m: int = 3) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, m))


@pytest.mark.parametrize("t", [0.0, 0.3, 0.7, 1.0])
def test_exact_gaussian_on_the_linear_path_is_the_closed_form(t: float) -> None:
    c_t = (1 - t) ** 2 * np.eye(3) + t**2 * COV
    b_t = t * COV - (1 - t) * np.eye(3)
    expected = MEAN + (b_t @ np.linalg.solve(c_t, (_x() - t * MEAN).T)).T
    field = ExactGaussian(MEAN, COV, Linear())
    np.testing.assert_allclose(field(t, _x()), expected, rtol=1e-11, atol=1e-12)


def test_exact_gaussian_in_one_dimension_at_a_hand_computed_point() -> None:
    # m = 2, s^2 = 4, t = 1/2: 2 + (2 - 1/2) / (1 + 1/4) (x - 1) = 2 + 1.2 (x - 1)
    field = ExactGaussian([2.0], [[4.0]], Linear())
    assert field(0.5, np.array([[3.0]]))[0, 0] == pytest.approx(4.4, rel=1e-14)


@pytest.mark.parametrize("name", ["linear", "target", "trigonometric"])
@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_velocity_is_the_rate_of_the_closed_form_flow(name: str, sigma: float) -> None:
    path: Path = PATHS.build({"name": name, "sigma": sigma})
    field, step = ExactGaussian(MEAN, COV, path), 1e-5
    for t in (0.1, 0.5, 0.9):
        rate = (field.flow(_x(), t + step) - field.flow(_x(), t - step)) / (2 * step)
        np.testing.assert_allclose(field(t, field.flow(_x(), t)), rate, rtol=1e-7, atol=1e-7)


def test_flow_starts_at_x0_and_ends_with_the_covariance_of_the_data() -> None:
    field = ExactGaussian(MEAN, COV, Trigonometric())
    np.testing.assert_allclose(field.flow(_x(), 0.0), _x(), atol=1e-14)
    root = field.flow(np.eye(3), 1.0) - MEAN
    np.testing.assert_allclose(root.T @ root, COV, atol=1e-12)
    np.testing.assert_allclose(field.flow(np.zeros((1, 3)), 1.0)[0], MEAN, atol=1e-12)


def test_degenerate_covariance_gives_finite_velocities() -> None:
    field = ExactGaussian([1.0, 1.0], [[1.0, 1.0], [1.0, 1.0]], Linear())
    for t in (0.0, 0.5, 1.0):
        assert np.isfinite(field(t, _x(4, 2))).all()


@pytest.mark.parametrize(
    ("mean", "cov"),
    [
        ([0.0, 0.0], [[1.0]]),
        ([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]),
        ([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]),
        ([0.0], [[np.nan]]),
    ],
)
def test_what_is_no_covariance_is_refused(mean: list[float], cov: list[list[float]]) -> None:
    with pytest.raises(InputError, match="cov"):
        ExactGaussian(mean, cov, Linear())


class Loader:
    """Counts which models were loaded; model i returns x + i."""

    def __init__(self) -> None:
        self.loaded: list[int] = []
        self.asked: list[tuple] = []

    def __call__(self, index: int):  # type: ignore[no-untyped-def]
        self.loaded.append(index)

        def velocity(x, cond):  # type: ignore[no-untyped-def]
            self.asked.append((x, cond))
            return x + np.float32(index)

        return velocity


GRID = TimeGrid.build("euler", 4)


def test_stepwise_loads_a_model_only_when_its_time_is_asked() -> None:
    loader = Loader()
    field = Stepwise(GRID, loader)
    assert loader.loaded == []
    v = field(0.5, _x())
    assert loader.loaded == [2]
    assert v.dtype == np.float64
    np.testing.assert_allclose(v, _x() + 2, rtol=1e-6)


def test_stepwise_loads_every_model_once() -> None:
    loader = Loader()
    field = Stepwise(GRID, loader)
    for t in (0.0, 0.25, 0.5, 0.75, 0.0, 0.25):
        field(t, _x())
    assert loader.loaded == [0, 1, 2, 3]
    assert field.n_loaded == 4


def test_stepwise_hands_points_and_conditions_to_the_model() -> None:
    loader, cond = Loader(), np.arange(10.0).reshape(5, 2)
    Stepwise(GRID, loader)(0.0, _x(), cond)
    ((x, given),) = loader.asked
    np.testing.assert_array_equal(x, _x())
    assert given is cond


def test_stepwise_off_the_grid_is_an_error() -> None:
    field = Stepwise(GRID, Loader())
    with pytest.raises(GridError, match=r"t = 0\.3; .* 0\.25, 0\.5"):
        field(0.3, _x())
    np.testing.assert_array_equal(field.times, GRID.times)


def test_stepwise_refuses_a_model_of_another_shape() -> None:
    field = Stepwise(GRID, lambda index: lambda x, cond: x[:, 0])
    with pytest.raises(InputError, match=r"\(5, 3\), but returned \(5,\)"):
        field(0.0, _x())


def test_require_accepts_known_times_and_refuses_others() -> None:
    field = FunctionField(lambda t, x, cond: x, times=(0.0, 0.5))
    field.require([0.0, 0.5 + 1e-12])
    with pytest.raises(GridError, match=r"t = 0\.25"):
        field.require([0.0, 0.25])
    FunctionField(lambda t, x, cond: x).require([0.123])
