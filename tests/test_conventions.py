"""Conversions between conventions and predictions, against each other and the exact Gaussian."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowbdt.errors import ConfigError
from flowbdt.flow.parametrisations import (
    EDM,
    PREDICTIONS,
    Convention,
    FlowMatching,
    PathConvention,
    VarianceExploding,
    VariancePreserving,
)
from flowbdt.flow.paths import PATHS

SIGMAS = np.geomspace(0.002, 80.0, 9)
CONVENTIONS: list[Convention] = [
    FlowMatching(),
    PathConvention(PATHS.build("trigonometric")),
    PathConvention(PATHS.build({"name": "target", "sigma": 1e-4})),
    VariancePreserving(),
    VarianceExploding(),
    EDM(),
]
IDS = ["flow matching", "trigonometric", "target", "vp", "ve", "edm"]
MEAN, COV = np.array([1.0, -2.0]), np.array([[1.5, 0.4], [0.4, 0.5]])


def gaussian(x: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Denoised point and score of x = x1 + sigma noise for normal data, in closed form."""
    inverse = np.linalg.inv(COV + sigma**2 * np.eye(2))
    score = (MEAN - x) @ inverse
    return MEAN - score @ COV, score


def points(sigma: float) -> np.ndarray:
    """Points of EDM scale at one noise level."""
    rng = np.random.default_rng(7)
    x1 = rng.multivariate_normal(MEAN, COV, 20)
    return x1 + sigma * rng.normal(size=x1.shape)


def error(found: np.ndarray, exact: np.ndarray) -> float:
    """Return the largest deviation, relative to the size of the exact values."""
    return float(np.abs(found - exact).max() / np.abs(exact).max())


@pytest.mark.parametrize("convention", CONVENTIONS, ids=IDS)
def test_clock_and_ratio_undo_each_other(convention):
    for sigma in SIGMAS:
        assert convention.ratio(convention.clock(sigma)) == pytest.approx(sigma, rel=1e-12)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=IDS)
def test_rates_are_the_derivatives_of_the_scales(convention):
    for sigma in (0.01, 0.3, 5.0):
        clock = convention.clock(sigma)
        step = 1e-5 * clock
        above, below = (np.array(convention.scales(clock + d)) for d in (step, -step))
        np.testing.assert_allclose(
            convention.rates(clock), (above - below) / (2 * step), rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize("there", CONVENTIONS, ids=IDS)
@pytest.mark.parametrize("here", CONVENTIONS, ids=IDS)
def test_points_move_between_conventions_and_back(here, there):
    for sigma in SIGMAS:
        x, clock = EDM().move(points(sigma), sigma, here)
        moved, other = here.move(x, clock, there)
        assert there.ratio(other) == pytest.approx(sigma, rel=1e-12)
        assert error(moved, points(sigma) * there.scales(other)[0]) < 1e-12
        again, clock_again = there.move(moved, other, here)
        assert clock_again == pytest.approx(clock, rel=1e-11)
        assert error(again, x) < 1e-12


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("convention", CONVENTIONS, ids=IDS)
def test_every_prediction_of_the_exact_gaussian_is_understood(convention, kind):
    """Whatever a model predicts, both parts come out as the closed form has them."""
    for sigma in SIGMAS:
        x, clock = EDM().move(points(sigma), sigma, convention)
        denoised, score = gaussian(points(sigma), sigma)
        noise = -sigma * score
        value = convention.express(kind, (denoised, noise), clock, sigma_data=0.7)
        found = convention.denoised_and_noise(kind, value, x, clock, sigma_data=0.7)
        assert error(found[0], denoised) < 1e-12
        # D and F hold the noise only as a difference to x: compare it as the part of x it is
        size = points(sigma) / sigma if kind in ("denoised", "edm") else noise
        assert np.abs(found[1] - noise).max() < 1e-12 * np.abs(size).max()


@pytest.mark.parametrize("convention", CONVENTIONS, ids=IDS)
def test_velocity_of_the_exact_gaussian_gives_the_score(convention):
    """From the derivative of the closed-form flow, not from its parts."""
    values, axes = np.linalg.eigh(COV)
    for sigma in SIGMAS:
        clock = convention.clock(sigma)
        (alpha, width), (d_alpha, d_width) = convention.scales(clock), convention.rates(clock)
        x = points(sigma) * alpha
        variance = alpha**2 * values + width**2
        growth = (alpha * d_alpha * values + width * d_width) / variance
        velocity = d_alpha * MEAN + ((x - alpha * MEAN) @ axes * growth) @ axes.T
        denoised, noise = convention.split(velocity, x, clock)
        exact, score = gaussian(points(sigma), sigma)
        assert error(denoised, exact) < 1e-12
        assert error(noise, -sigma * score) < 1e-12
        assert error(convention.score_of(noise, clock), score / alpha) < 1e-12


def test_flow_matching_is_a_denoiser_at_one_minus_t_over_t():
    convention = FlowMatching()
    assert convention.clock(3.0) == 0.25
    assert convention.ratio(0.25) == 3.0
    assert convention.log_snr(0.25) == pytest.approx(-math.log(3.0))
    v, x = np.array([[2.0]]), np.array([[1.0]])
    denoised, noise = convention.split(v, x, 0.25)
    assert denoised[0, 0] == 1.0 + 0.75 * 2.0
    assert noise[0, 0] == 1.0 - 0.25 * 2.0


def test_both_ends_of_flow_matching_have_both_parts():
    """At pure noise the denoised point is the mean, at data the noise is unknown but finite."""
    convention = FlowMatching()
    x, v = np.array([[0.5]]), np.array([[1.5]])
    assert [part[0, 0] for part in convention.split(v, x, 0.0)] == [2.0, 0.5]
    assert [part[0, 0] for part in convention.split(v, x, 1.0)] == [0.5, -1.0]
    assert convention.ratio(0.0) == math.inf
    assert convention.log_snr(0.0) == -math.inf
    assert convention.log_snr(1.0) == math.inf


def test_added_noise_counts_as_noise():
    convention = PathConvention(PATHS.build({"name": "linear", "sigma": 0.3}))
    assert convention.scales(0.5)[1] == pytest.approx(math.hypot(0.5, 0.3))
    assert convention.ratio(convention.clock(0.5)) == pytest.approx(0.5, rel=1e-12)
    with pytest.raises(ConfigError, match=r"keeps 0\.3 at t = 1"):
        convention.clock(0.1)


def test_what_does_not_exist_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match="nothing of the noise is left"):
        FlowMatching().score_of(np.zeros((1, 1)), 1.0)
    with pytest.raises(ConfigError, match="nothing of the data is left"):
        FlowMatching().move(np.zeros((1, 1)), 0.0, EDM())
    with pytest.raises(ConfigError, match="pairs noise with data"):
        PathConvention(PATHS.build("schrodinger_bridge"))
    with pytest.raises(ConfigError, match="Known: denoised, edm"):
        EDM().denoised_and_noise("epsilon", np.zeros((1, 1)), np.zeros((1, 1)), 1.0)


def test_torch_tensors_stay_tensors():
    torch = pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")
    x = torch.tensor(points(1.0))
    for kind in PREDICTIONS:
        parts = FlowMatching().denoised_and_noise(kind, 0.3 * x, x, 0.5)
        exact = FlowMatching().denoised_and_noise(kind, 0.3 * x.numpy(), x.numpy(), 0.5)
        for part, expected in zip(parts, exact, strict=True):
            assert isinstance(part, torch.Tensor)
            np.testing.assert_allclose(part.numpy(), expected, rtol=1e-14)
