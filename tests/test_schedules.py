"""Schedules: published numbers, ends, paths, refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from flowbdt.errors import ConfigError
from flowbdt.flow.curved_paths import Trigonometric
from flowbdt.flow.parametrisations import PathConvention, VariancePreserving
from flowbdt.flow.schedules import AYS_SIGMAS, SCHEDULES, NoiseSchedule, boundaries_of
from flowbdt.flow.time_grid import TimeGrid

NAMED = [name for name in SCHEDULES.names() if name != "sigmas"]
TRIGONOMETRIC = PathConvention(Trigonometric())


def ratios(boundaries: np.ndarray) -> np.ndarray:
    """Noise ratios of all boundaries but the ends, on the straight line."""
    return (1.0 - boundaries[1:-1]) / boundaries[1:-1]


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("n_steps", [1, 2, 3, 10, 64])
def test_every_schedule_goes_from_noise_to_data_in_its_steps(name: str, n_steps: int) -> None:
    boundaries = SCHEDULES.build(name)(n_steps)
    assert boundaries.shape == (n_steps + 1,)
    assert (boundaries[0], boundaries[-1]) == (0.0, 1.0)
    assert (np.diff(boundaries) > 1e-6).all()
    assert TimeGrid.build("euler", n_steps, name).boundaries.tolist() == boundaries.tolist()


@pytest.mark.parametrize("name", [n for n in NAMED if issubclass(SCHEDULES.get(n), NoiseSchedule)])
def test_noise_levels_are_the_same_on_every_path(name: str) -> None:
    schedule = SCHEDULES.build(name)
    straight, curved = schedule(12), boundaries_of(schedule, 12, TRIGONOMETRIC)
    np.testing.assert_allclose(
        [TRIGONOMETRIC.ratio(float(t)) for t in curved[1:-1]], ratios(straight), rtol=1e-9
    )
    assert (curved[0], curved[-1]) == (0.0, 1.0)


def test_schedules_in_time_do_not_change_with_the_path() -> None:
    schedule = SCHEDULES.build("warped")
    np.testing.assert_array_equal(boundaries_of(schedule, 8, TRIGONOMETRIC), schedule(8))


def test_karras_levels_are_those_of_the_paper() -> None:
    """Equation 5 with N = 18, the first and the last level in full."""
    sigmas = SCHEDULES.build("edm").sigmas(18)
    assert (sigmas[0], sigmas[-1]) == pytest.approx((80.0, 0.002))
    np.testing.assert_allclose(np.diff(sigmas ** (1 / 7)), (0.002 ** (1 / 7) - 80 ** (1 / 7)) / 17)
    # pure noise stands in place of sigma_max, and the step to 0 follows
    boundaries = SCHEDULES.build("edm")(18)
    np.testing.assert_allclose(ratios(boundaries), sigmas[1:])


def test_vp_levels_are_equal_steps_of_its_clock() -> None:
    sigmas = SCHEDULES.build("vp").sigmas(11)
    clock = [VariancePreserving().clock(float(s)) for s in sigmas]
    np.testing.assert_allclose(clock, np.linspace(1.0, 1e-3, 11))


def test_ve_variances_and_exponential_levels_are_geometric() -> None:
    ve = SCHEDULES.build("ve").sigmas(9)
    assert (ve[0], ve[-1]) == pytest.approx((100.0, 0.02))
    np.testing.assert_allclose(np.diff(np.log(ve)), math.log(0.02 / 100.0) / 8)
    plain = SCHEDULES.build({"name": "exponential", "sigma_min": 0.1, "sigma_max": 10}).sigmas(5)
    np.testing.assert_allclose(plain, [10, 10**0.5, 1, 10**-0.5, 0.1])
    late = SCHEDULES.build({"name": "exponential", "rho": 2.0}).sigmas(9)
    assert (np.diff(np.diff(np.log(late))) > 0).all()


def test_lu_is_uniform_in_log_snr() -> None:
    steps = np.diff(np.log(SCHEDULES.build("lu").sigmas(20)))
    np.testing.assert_allclose(steps, steps[0])


def test_cosine_and_sigmoid_follow_their_formulas() -> None:
    cosine = SCHEDULES.build("cosine").sigmas(10)
    u = 0.4  # boundary 6 of 10
    assert cosine[6] == pytest.approx(math.tan(0.5 * math.pi * (u + 0.008) / 1.008))
    power = 1.0 / (1.0 + SCHEDULES.build("sigmoid").sigmas(10)[6] ** 2)

    def sigmoid(v: float) -> float:
        return 1.0 / (1.0 + math.exp(-v))

    exact = (sigmoid(3.0) - sigmoid(-3.0 + 6.0 * u)) / (sigmoid(3.0) - sigmoid(-3.0))
    assert power == pytest.approx(exact)


def test_warped_refines_the_ends_and_one_is_uniform() -> None:
    steps = np.diff(SCHEDULES.build("warped")(16))
    assert steps[0] < steps[8] > steps[-1]
    plain = SCHEDULES.build({"name": "warped", "start": 1, "end": 1})(16)
    np.testing.assert_allclose(plain, SCHEDULES.build("uniform")(16), atol=1e-15)


def test_align_your_steps_keeps_its_list_and_interpolates_its_log() -> None:
    schedule = SCHEDULES.build("align_your_steps")
    np.testing.assert_allclose(schedule.sigmas(10), AYS_SIGMAS)
    doubled = schedule.sigmas(19)
    np.testing.assert_allclose(doubled[::2], AYS_SIGMAS)
    np.testing.assert_allclose(doubled[1], math.sqrt(AYS_SIGMAS[0] * AYS_SIGMAS[1]))
    own = SCHEDULES.build({"name": "align_your_steps", "levels": [4.0, 1.0]})
    np.testing.assert_allclose(own.sigmas(3), [4.0, 2.0, 1.0])


def test_ones_own_levels() -> None:
    spec = {"name": "sigmas", "values": [10.0, 3.0, 1.0]}
    np.testing.assert_allclose(SCHEDULES.build(spec)(3), [0.0, 0.25, 0.5, 1.0])
    with pytest.raises(ConfigError, match="as many steps"):
        SCHEDULES.build(spec)(4)


def test_skip_takes_boundaries_of_the_fine_schedule() -> None:
    fine = SCHEDULES.build("edm")(64)
    for n in (1, 5, 8, 33, 64):
        for exponent in (1.0, 2.0):
            spec = {"name": "skip", "of": 64, "base": "edm", "exponent": exponent}
            kept = SCHEDULES.build(spec)(n)
            assert set(kept) <= set(fine)
            assert len(set(kept)) == n + 1
    np.testing.assert_array_equal(
        SCHEDULES.build({"name": "skip", "of": 64, "base": "edm"})(8), fine[::8]
    )
    with pytest.raises(ConfigError, match="64 steps to choose from"):
        SCHEDULES.build("skip")(65)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "edm", "rho": 0}, "spacing setting 'rho' must be a number above 0"),
        ({"name": "edm", "sigma_min": 100.0}, "below sigma_max"),
        ({"name": "ve", "sigma_max": -1}, "'sigma_max' must be a number"),
        ({"name": "vp", "beta_d": True}, "beta_d"),
        ({"name": "cosine", "offset": 1.0}, "offset"),
        ({"name": "sigmoid", "start": 3.0}, "below end"),
        ({"name": "warped", "end": -1}, "'end' must be"),
        ({"name": "sigmas", "values": [1.0, 2.0]}, "falling"),
        ({"name": "sigmas", "values": [1.0, 0.0]}, "above 0"),
        ({"name": "skip", "of": 2.5}, "whole number"),
        ({"name": "edm", "sigma": 1}, "sigma_max"),
        ("edn", "Did you mean 'edm'"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SCHEDULES.build(spec)
