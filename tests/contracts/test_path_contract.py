"""What every registered path must do."""

from __future__ import annotations

import numpy as np
import pytest
from exact_gaussian import ExactGaussian

from flowbdt.flow.paths import PATHS, Path

SPECS = [*PATHS.names(), *({"name": name, "sigma": 0.3} for name in PATHS.names())]
INSIDE = (0.15, 0.5, 0.85)


@pytest.fixture(params=SPECS, ids=str)
def path(request: pytest.FixtureRequest) -> Path:
    return PATHS.build(request.param)


def _rows(n: int = 5, m: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.normal(size=(n, m)), 2.0 + rng.normal(size=(n, m)), rng.normal(size=(n, m))


def test_location_is_noise_at_zero_and_data_at_one(path: Path) -> None:
    x0, x1, noise = _rows()
    start, end = (path.location(x0, x1, t, noise) for t in (0.0, 1.0))
    np.testing.assert_allclose(start, x0 + path.noise_scale(0.0) * noise, atol=1e-14)
    # sigma is all that may remain beside the data
    assert np.abs(end - x1).max() <= path.sigma * np.abs(np.hstack([x0, noise])).max() + 1e-14


def test_target_is_the_rate_of_the_location(path: Path) -> None:
    x0, x1, noise = _rows()
    step = 1e-5
    for t in INSIDE:
        after, before = (path.location(x0, x1, t + d, noise) for d in (step, -step))
        u_t = path.target(x0, x1, t, path.location(x0, x1, t, noise))
        np.testing.assert_allclose(u_t, (after - before) / (2 * step), rtol=1e-7, atol=1e-7)


def test_target_is_finite_everywhere(path: Path) -> None:
    x0, x1, noise = _rows()
    for t in (0.0, *INSIDE, 1.0):
        u_t = path.target(x0, x1, t, path.location(x0, x1, t, noise))
        assert u_t.shape == x1.shape
        assert u_t.dtype == np.float64
        assert np.isfinite(u_t).all()


def test_mean_target_tends_to_the_target(path: Path) -> None:
    x0, x1, noise = _rows()
    u_t = path.target(x0, x1, 0.4, path.location(x0, x1, 0.4, noise))
    mean = path.mean_target(x0, x1, 0.4, 0.4 + 1e-6, noise)
    np.testing.assert_allclose(mean, u_t, rtol=1e-4, atol=1e-4)


def test_inputs_are_not_changed(path: Path) -> None:
    x0, x1, noise = _rows()
    copies = [array.copy() for array in (x0, x1, noise)]
    path.target(x0, x1, 0.5, path.location(x0, x1, 0.5, noise))
    path.mean_target(x0, x1, 0.5, 0.6, noise)
    for array, copy in zip((x0, x1, noise), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_regression_of_target_on_location_gives_the_exact_gaussian_velocity(path: Path) -> None:
    """In one dimension the least-squares line through (x_t, u_t) is the exact velocity."""
    n, mean, sd = 100_000, 1.5, 0.6
    rng = np.random.default_rng(5)
    x0, noise, x1 = rng.normal(size=(n, 1)), rng.normal(size=(n, 1)), rng.normal(size=(n, 1))
    x1 = mean + sd * x1
    field = ExactGaussian([mean], [[sd**2]], path)
    for t in INSIDE:
        x_t = path.location(x0, x1, t, noise)
        u_t = path.target(x0, x1, t, x_t)
        residual = u_t - field(t, x_t)
        spread = residual.std()
        assert abs(residual.mean()) < 5 * spread / np.sqrt(n)
        slope = (residual * (x_t - x_t.mean())).mean() / x_t.var()
        assert abs(slope) < 5 * spread / (x_t.std() * np.sqrt(n))


def test_score_of_gaussian_data_is_the_gaussian_score(path: Path) -> None:
    if not path.independent_noise:
        pytest.skip("this path declares that it has no score from its velocity")
    mean, cov = np.array([1.0, -1.0]), np.array([[2.0, 0.6], [0.6, 0.5]])
    field = ExactGaussian(mean, cov, path)
    x = np.random.default_rng(6).normal(size=(7, 2))
    for t in (0.0, *INSIDE):
        a, b = path.scales(t)
        c_t = a**2 * cov + (b**2 + path.noise_scale(t) ** 2) * np.eye(2)
        expected = -np.linalg.solve(c_t, (x - a * mean).T).T
        score = field.score(t, x)
        np.testing.assert_allclose(score, expected, rtol=1e-10, atol=1e-10)
