"""The time grid: boundaries, trained times, look-up, JSON."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from flowbdt.errors import ConfigError, DataWarning, FormatError, GridError
from flowbdt.flow.solvers import SOLVERS, evaluation_times
from flowbdt.flow.solvers.runge_kutta import Heun
from flowbdt.flow.time_grid import TimeGrid


@pytest.mark.parametrize(
    ("solver", "times"),
    [
        ("euler", [0.0, 0.5]),
        ("adams_bashforth_2", [0.0, 0.5]),
        ("adams_bashforth_3", [0.0, 0.5]),
        ("heun", [0.0, 0.5, 1.0]),
        ("midpoint", [0.0, 0.25, 0.5, 0.75]),
        ("rk4", [0.0, 0.25, 0.5, 0.75, 1.0]),
    ],
)
def test_trained_times_of_two_steps(solver: str, times: list[float]) -> None:
    np.testing.assert_allclose(TimeGrid.build(solver, 2).times, times, atol=1e-15)


def test_dormand_prince_has_five_times_per_step() -> None:
    assert len(TimeGrid.build("dormand_prince", 7)) == 5 * 7 + 1


FIXED = [name for name in SOLVERS.names() if not SOLVERS.get(name).adaptive]


@pytest.mark.parametrize("solver", FIXED)
def test_times_are_those_of_a_dry_run(solver: str) -> None:
    grid = TimeGrid.build(solver, 5, {"name": "power", "exponent": 1.7})
    np.testing.assert_array_equal(
        grid.times, evaluation_times(SOLVERS.build(solver), grid.boundaries)
    )


def test_uniform_boundaries_end_exactly_at_zero_and_one() -> None:
    grid = TimeGrid.build("euler", 7)
    assert grid.n_steps == 7
    assert grid.boundaries[0] == 0.0
    assert grid.boundaries[-1] == 1.0
    np.testing.assert_allclose(np.diff(grid.boundaries), 1 / 7, rtol=1e-13)


def test_power_spacing_is_finer_near_the_data() -> None:
    boundaries = TimeGrid.build("euler", 4, {"name": "power", "exponent": 2}).boundaries
    np.testing.assert_allclose(boundaries, [0, 7 / 16, 12 / 16, 15 / 16, 1], atol=1e-15)


def test_power_one_is_uniform() -> None:
    power = TimeGrid.build("heun", 6, {"name": "power", "exponent": 1})
    np.testing.assert_allclose(power.boundaries, TimeGrid.build("heun", 6).boundaries, atol=1e-15)


def test_a_list_gives_the_boundaries() -> None:
    grid = TimeGrid.build(Heun(), spacing=[0.0, 0.1, 1.0])
    assert grid.boundaries.tolist() == [0.0, 0.1, 1.0]
    assert TimeGrid.build("heun", 2, [0.0, 0.1, 1.0]) == grid


def test_a_list_that_leaves_out_an_end_is_warned_about() -> None:
    with pytest.warns(DataWarning, match=r"\[0\.001, 1\] only"):
        TimeGrid.build("euler", spacing=[0.001, 0.5, 1.0])


@pytest.mark.parametrize(
    ("n_steps", "spacing", "message"),
    [
        (0, "uniform", "n_steps"),
        (2.5, "uniform", "n_steps"),
        (True, "uniform", "n_steps"),
        (None, "uniform", "n_steps"),
        (4, "unifrom", "Did you mean 'uniform'"),
        (4, {"name": "power", "exponant": 2}, "exponent"),
        (4, {"name": "power", "exponent": 0}, "above 0"),
        (4, {"name": "power", "exponent": float("inf")}, "finite"),
        (3, [0.0, 0.5, 1.0], "2 steps, but n_steps is 3"),
        (None, [0.0, 0.5, 0.5, 1.0], "rise"),
        (None, [0.0, 1.5], "within"),
        (None, [-0.1, 1.0], "within"),
        (None, [0.0], "at least 2"),
        (None, [0.0, float("nan"), 1.0], "finite"),
        (None, ["a", "b"], "numbers"),
        (100, {"name": "power", "exponent": 5}, "milder"),
    ],
)
def test_bad_settings_are_refused(n_steps: object, spacing: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TimeGrid.build("euler", n_steps, spacing)  # type: ignore[arg-type]


def test_locate_finds_every_trained_time_within_rounding() -> None:
    grid = TimeGrid.build("dormand_prince", 10)
    for i, t in enumerate(grid.times):
        assert grid.locate(t + 5e-10) == grid.locate(t - 5e-10) == i


@pytest.mark.parametrize("t", [0.3, 0.25 + 2e-9, -0.1, 1.0, float("nan")])
def test_locate_off_the_grid_is_an_error(t: float) -> None:
    with pytest.raises(GridError, match="nearest of the 4 trained times"):
        TimeGrid.build("euler", 4).locate(t)


def test_locate_error_names_both_neighbours() -> None:
    with pytest.raises(GridError, match=r"0\.25, 0\.5\."):
        TimeGrid.build("euler", 4).locate(0.4)


def test_step_to_next_is_the_time_to_the_next_boundary() -> None:
    grid = TimeGrid.build("rk4", spacing=[0.0, 0.2, 1.0])
    steps = [grid.step_to_next(i) for i in range(len(grid))]
    np.testing.assert_allclose(steps, [0.2, 0.1, 0.8, 0.4, 0.0], atol=1e-15)


def test_json_round_trip_is_exact() -> None:
    grid = TimeGrid.build("dormand_prince", 7, {"name": "power", "exponent": 1.3})
    again = TimeGrid.from_json(json.loads(json.dumps(grid.to_json())))
    assert again == grid
    assert hash(again) == hash(grid)
    assert again != TimeGrid.build("dormand_prince", 7)


@pytest.mark.parametrize(
    "content",
    [{}, [], {"boundaries": [0, 1]}, {"boundaries": [0, 1], "times": []}, {"boundaries": "a"}],
)
def test_foreign_json_is_refused(content: object) -> None:
    with pytest.raises(FormatError, match="not a time grid"):
        TimeGrid.from_json(content)  # type: ignore[arg-type]


def test_a_grid_cannot_be_changed() -> None:
    grid = TimeGrid.build("euler", 4)
    with pytest.raises(ValueError, match="read-only"):
        grid.times[0] = 0.5


def test_complete_grid_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grid = TimeGrid.build("euler", spacing=np.linspace(0, 1, 4))
    assert grid.n_steps == 3
