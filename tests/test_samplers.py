"""Stochastic samplers, Restart, adaptive steps, and what fields must know for them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from exact_gaussian import ExactGaussian

from flowbdt.errors import ConfigError, GridError
from flowbdt.flow.curved_paths import SchrodingerBridge, Trigonometric
from flowbdt.flow.fields import FunctionField, PredictionField
from flowbdt.flow.parametrisations import EDM, FlowMatching
from flowbdt.flow.paths import Linear
from flowbdt.flow.solvers import SOLVERS, evaluation_times, evaluations, integrate
from flowbdt.flow.solvers.multistep import decaying_moments, growing_moments, numeric_moments
from flowbdt.flow.solvers.restart import Restart
from flowbdt.flow.time_grid import TimeGrid

MEAN, COV = np.array([1.0, -1.0]), np.array([[1.5, 0.4], [0.4, 0.5]])
GAUSSIAN = ExactGaussian(MEAN, COV, Linear())
UNIFORM = np.linspace(0.0, 1.0, 121)
STOCHASTIC: list[Any] = [
    "ddpm",
    {"name": "ddpm", "eta": 0.5},
    "euler_maruyama",
    {"name": "euler_maruyama", "churn": 0.3},
    {"name": "edm", "s_churn": 40.0},
    {"name": "edm", "s_churn": 20.0, "s_tmin": 0.05, "s_tmax": 2.0},
    "dpm_solver_pp_2m_sde",
    {"name": "dpm_solver_pp_2m_sde", "eta": 0.5, "quadrature": "exact"},
    "dpm_solver_pp_3m_sde",
    "seeds_2",
    "restart",
    {"name": "restart", "base": "euler", "intervals": [[0.2, 3.0, 2], [0.05, 0.5, 3, 12]]},
    {"name": "restart", "base": "ddpm", "intervals": [[0.1, 1.0, 1]]},
]


def _noise(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 2))


def _assert_moments(x: np.ndarray) -> None:
    """Mean and covariance within 5 standard errors of the exact ones."""
    n = len(x)
    assert (np.abs(x.mean(axis=0) - MEAN) < 5 * np.sqrt(np.diag(COV) / n)).all()
    error = np.sqrt((np.outer(np.diag(COV), np.diag(COV)) + COV**2) / n)
    assert (np.abs(np.cov(x.T) - COV) < 5 * error).all()


@pytest.mark.parametrize("spec", STOCHASTIC, ids=str)
def test_stochastic_samplers_give_the_exact_gaussian(spec: Any) -> None:
    solver = SOLVERS.build(spec)
    assert solver.stochastic
    rng = np.random.default_rng(2)
    _assert_moments(integrate(solver, GAUSSIAN, _noise(10_000), UNIFORM, rng=rng).x)


@pytest.mark.parametrize("spec", STOCHASTIC, ids=str)
def test_stochastic_samplers_work_on_a_curved_path(spec: Any) -> None:
    field = ExactGaussian(MEAN, COV, Trigonometric())
    rng = np.random.default_rng(3)
    _assert_moments(integrate(SOLVERS.build(spec), field, _noise(4000), UNIFORM, rng=rng).x)


@pytest.mark.parametrize("spec", STOCHASTIC, ids=str)
def test_stochastic_samplers_really_draw(spec: Any) -> None:
    """Equal starts, other noise: other events; equal noise: equal events."""
    first, again, other = (
        integrate(SOLVERS.build(spec), GAUSSIAN, _noise(5), np.linspace(0, 1, 9), rng=rng).x
        for rng in map(np.random.default_rng, (1, 1, 2))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=1).all()


@pytest.mark.parametrize(
    ("without", "base"),
    [
        ({"name": "ddpm", "eta": 0.0}, "ddim"),
        ({"name": "euler_maruyama", "churn": 0.0}, "euler"),
        ({"name": "dpm_solver_pp_2m_sde", "eta": 0.0}, "dpm_solver_pp_2m"),
        (
            {"name": "dpm_solver_pp_3m_sde", "eta": 0.0, "quadrature": "exact"},
            {"name": "dpm_solver_pp_3m", "warm_start": False},
        ),
    ],
    ids=str,
)
def test_without_noise_a_stochastic_sampler_is_the_deterministic_one(
    without: Any, base: Any
) -> None:
    x0, grid = _noise(20), np.linspace(0.0, 1.0, 9)
    found = integrate(SOLVERS.build(without), GAUSSIAN, x0, grid, rng=np.random.default_rng(1))
    np.testing.assert_allclose(
        found.x, integrate(SOLVERS.build(base), GAUSSIAN, x0, grid).x, rtol=1e-12, atol=1e-12
    )


def test_churn_is_limited_to_its_range_of_noise() -> None:
    grid = np.linspace(0.0, 1.0, 11)
    plain = evaluations(SOLVERS.build("edm"), grid)
    churned = evaluations(
        SOLVERS.build({"name": "edm", "s_churn": 2.0, "s_tmin": 0.5, "s_tmax": 2.0}), grid
    )
    assert len(plain) == len(churned) == 19
    moved = [a for a, b in zip(plain[::2], churned[::2], strict=True) if a != b]
    np.testing.assert_allclose(moved, [0.4, 0.5, 0.6])  # noise ratios 1.5, 1, 2/3
    ratio = FlowMatching().ratio(churned[10])
    assert ratio == pytest.approx(1.2)  # sigma (1 + s_churn / n_steps)


def test_restart_without_restarts_is_its_base() -> None:
    for base in ("heun", "adams_bashforth_3", "unipc", {"name": "lms", "degree": 3}):
        none = Restart(base, intervals=[[0.1, 1.0, 0]])
        x0, grid = _noise(20), np.linspace(0.0, 1.0, 9)
        found = integrate(none, GAUSSIAN, x0, grid)
        expected = integrate(SOLVERS.build(base), GAUSSIAN, x0, grid)
        np.testing.assert_array_equal(found.x, expected.x)
        np.testing.assert_array_equal(found.times, expected.times)
        assert found.n_restarts == 0
        assert not none.stochastic


def test_restart_restarts_as_often_as_its_table_says() -> None:
    grid = np.linspace(0.0, 1.0, 11)  # noise ratios 9, 4, 2.3, 1.5, 1, 0.67, 0.43, 0.25, 0.11
    solver = Restart("euler", [[0.26, 1.4, 3], [2.4, 9.1, 2]])
    solution = integrate(solver, GAUSSIAN, _noise(3), grid, rng=np.random.default_rng(1))
    assert solution.n_restarts == 5
    assert solution.n_evaluations == 10 + 3 * 4 + 2 * 2
    seen = np.round(solution.times, 9).tolist()
    assert [seen.count(t) for t in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)] == [
        1, 3, 3, 1, 4, 4, 4, 4, 1,
    ]  # fmt: skip
    np.testing.assert_array_equal(np.unique(seen), np.round(evaluation_times(solver, grid), 9))


def test_restart_with_steps_of_its_own_asks_at_new_times() -> None:
    grid = np.linspace(0.0, 1.0, 6)
    times = evaluation_times(Restart("euler", [[0.25, 1.5, 1, 3]]), grid)
    assert len(times) == 5 + 2
    ratios = [FlowMatching().ratio(t) for t in times]
    np.testing.assert_allclose(
        [ratios[i] for i in (2, 3, 5)], 1.5 * (0.25 / 1.5) ** (np.arange(3) / 3)
    )


def test_automatic_interval_asks_at_no_new_times() -> None:
    for n_steps in (2, 4, 8, 32):
        grid = np.linspace(0.0, 1.0, n_steps + 1)
        base, restarted = SOLVERS.build("euler"), Restart("euler")
        np.testing.assert_array_equal(
            evaluation_times(restarted, grid), evaluation_times(base, grid)
        )
        extra = len(evaluations(restarted, grid)) - n_steps
        assert 1 <= extra < n_steps


def test_climbing_keeps_the_distribution() -> None:
    """Points of time 0.8 with noise added are points of time 0.5."""
    from flowbdt.flow.solvers.sde import climbed

    late = GAUSSIAN.flow(_noise(40_000), 0.8)
    early = climbed(FlowMatching(), late, 0.8, 0.5, 1.0, np.random.default_rng(4))
    expected = 0.25 * COV + 0.25 * np.eye(2)
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / 40_000)
    assert (np.abs(np.cov(early.T) - expected) < 5 * error).all()
    assert (np.abs(early.mean(axis=0) - 0.5 * MEAN) < 5 * np.sqrt(0.5 / 40_000)).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "restart", "intervals": [[0.5, 0.1, 1]]}, "0 < sigma_min < sigma_max"),
        ({"name": "restart", "intervals": [[0.1, 0.5, "many"]]}, "'many'"),
        ({"name": "restart", "intervals": {"0.1": 3}}, "'auto' or a table of .* must be a list"),
        ({"name": "restart", "base": "restart"}, "base of restart"),
        ({"name": "restart", "base": "dormand_prince_adaptive"}, "base of restart"),
        ({"name": "ddpm", "eta": 1.5}, "at most 1"),
        ({"name": "euler_maruyama", "churn": -1.0}, "at least 0"),
        ({"name": "edm", "s_churn": -1.0}, "s_churn"),
        ({"name": "edm", "s_noise": "much"}, "solver setting 's_noise' must be a number"),
        ({"name": "edm", "s_tmin": 1.0, "s_tmax": 0.5}, "s_tmax"),
        ({"name": "lms", "degree": 7}, "'degree' must be a whole number of at most 4"),
        ({"name": "unipc", "degree": 0}, "of at least 1"),
        ({"name": "unipc", "variant": "bh3"}, "bh1"),
        ({"name": "deis", "variable": "rho"}, "log_snr"),
        ({"name": "dpm_solver_pp_2m", "quadrature": "guess"}, "published"),
        ({"name": "dormand_prince_adaptive", "rtol": 0.0}, "rtol"),
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SOLVERS.build(spec)


def test_restart_between_two_boundaries_is_refused() -> None:
    with pytest.raises(ConfigError, match="falls between"):
        evaluations(Restart("euler", [[1.5, 1.6, 1]]), np.linspace(0.0, 1.0, 4))
    with pytest.raises(ConfigError, match="at least two steps"):
        evaluations(Restart("euler"), [0.0, 1.0])


def test_every_parameter_is_reported_with_its_value() -> None:
    assert SOLVERS.build("edm").parameters() == {
        "s_churn": 0.0, "s_tmin": 0.0, "s_tmax": None, "s_noise": 1.0,
    }  # fmt: skip
    assert SOLVERS.build("heun").parameters() == {}
    found = Restart({"name": "lms", "degree": 2}, k=3).parameters()
    assert found["base"] == {"name": "lms", "degree": 2, "warm_start": True}
    assert found["k"] == 3
    for name in SOLVERS.names():
        solver = SOLVERS.build(name)
        again = SOLVERS.build({"name": name, **solver.parameters()})
        assert again.parameters() == solver.parameters()


@pytest.mark.parametrize("rtol", [1e-3, 1e-5, 1e-7])
def test_error_of_the_adaptive_solver_follows_its_tolerance(rtol: float) -> None:
    solver = SOLVERS.build({"name": "dormand_prince_adaptive", "rtol": rtol, "atol": rtol})
    solution = integrate(solver, GAUSSIAN, _noise(50), [0.0, 1.0])
    error = np.abs(solution.x - GAUSSIAN.flow(_noise(50), 1.0)).max()
    assert 1e-4 * rtol < error < 10.0 * rtol
    assert (solution.times >= 0.0).all()
    assert (solution.times <= 1.0).all()


def test_smaller_tolerance_costs_more() -> None:
    costs = [
        integrate(
            SOLVERS.build({"name": "dormand_prince_adaptive", "rtol": r, "atol": r}),
            GAUSSIAN,
            _noise(20),
            [0.0, 1.0],
        ).n_evaluations
        for r in (1e-3, 1e-6, 1e-9)
    ]
    assert costs[0] < costs[1] < costs[2]


def test_adaptive_solver_goes_backwards_and_past_lost_points() -> None:
    there = GAUSSIAN.flow(_noise(20), 1.0)
    solver = SOLVERS.build({"name": "dormand_prince_adaptive", "rtol": 1e-8, "atol": 1e-8})
    back = integrate(solver, GAUSSIAN, there, [1.0, 0.0]).x
    np.testing.assert_allclose(back, _noise(20), atol=1e-6)
    lost = there.copy()
    lost[0] = np.nan
    assert integrate(solver, GAUSSIAN, lost, [1.0, 0.0]).nonfinite_fraction == 1 / 20
    assert integrate(solver, GAUSSIAN, lost[:0], [0.0, 1.0]).x.shape == (0, 2)


def test_adaptive_solver_cannot_be_planned_nor_asked_of_step_models() -> None:
    solver = SOLVERS.build("dormand_prince_adaptive")
    with pytest.raises(ConfigError, match="fixed steps"):
        TimeGrid.build(solver, 4)
    few = FunctionField(GAUSSIAN, times=(0.0, 0.5, 1.0))
    with pytest.raises(GridError, match="knows 3 times only"):
        integrate(solver, few, _noise(2), [0.0, 1.0])


NEEDY = [name for name in SOLVERS.names() if SOLVERS.get(name).needs_denoised]


@pytest.mark.parametrize("name", NEEDY)
def test_fields_without_independent_noise_are_refused_with_the_reason(name: str) -> None:
    solver = SOLVERS.build({"name": name})
    field = ExactGaussian(MEAN, COV, SchrodingerBridge())
    with pytest.raises(ConfigError, match="normal noise is drawn independently"):
        integrate(solver, field, _noise(2), [0.0, 0.5, 1.0], rng=np.random.default_rng(1))


def test_the_package_has_the_samplers_it_promises() -> None:
    assert len(NEEDY) >= 15
    assert {"euler", "heun", "midpoint", "rk4", "dormand_prince"} <= set(SOLVERS.names())
    assert not {"euler", "adams_bashforth_4", "dormand_prince_adaptive"} & set(NEEDY)


def test_score_denoised_point_and_noise_of_a_field_are_those_of_the_gaussian() -> None:
    sigma, x = 0.7, _noise(10) * 1.2
    inverse = np.linalg.inv(COV + sigma**2 * np.eye(2))
    score = (MEAN - x) @ inverse
    t = 1.0 / (1.0 + sigma)
    np.testing.assert_allclose(GAUSSIAN.score(t, x * t), score / t, rtol=1e-12)
    np.testing.assert_allclose(GAUSSIAN.denoised(t, x * t), x + sigma**2 * score, rtol=1e-12)
    np.testing.assert_allclose(GAUSSIAN.noise(t, x * t), -sigma * score, rtol=1e-12)
    expected = -(x * t - t * GAUSSIAN(t, x * t)) / (1.0 - t)
    np.testing.assert_allclose(GAUSSIAN.score(t, x * t), expected, rtol=1e-12)
    with pytest.raises(ConfigError, match="left at clock 1"):
        GAUSSIAN.score(1.0, x)


def test_a_denoiser_of_another_convention_is_a_velocity_field() -> None:
    """A model that knows noise levels 0.002 to 80, driven from noise to data."""

    def predict(x: np.ndarray, sigma: float, cond: Any) -> np.ndarray:
        inverse = np.linalg.inv(COV + sigma**2 * np.eye(2))
        return np.asarray(x + sigma**2 * (MEAN - x) @ inverse)

    field = PredictionField(predict, "denoised", EDM())
    np.testing.assert_allclose(field(0.4, _noise(5)), GAUSSIAN(0.4, _noise(5)), rtol=1e-10)
    begin, end = field.span
    assert (begin, end) == pytest.approx((1 / 81, 1 / 1.002))
    times = np.linspace(begin, end, 60)
    x0 = _noise(4000) * math.hypot(begin, 1.0 - begin)
    _assert_moments(integrate(SOLVERS.build("dpm_solver_pp_2m"), field, x0, times).x)
    with pytest.raises(GridError, match=r"from 0\.0123457 to 0\.998004"):
        integrate(SOLVERS.build("heun"), field, x0, [0.0, 1.0])


@pytest.mark.parametrize("h", [1e-3, 0.3, 1.0, 1.5, 8.0])
def test_closed_form_moments_are_the_integrals(h: float) -> None:
    decaying = numeric_moments(lambda u: h * math.exp(-h * (1.0 - u)), 4)
    growing = numeric_moments(lambda u: h * math.exp(h * (1.0 - u)), 4)
    np.testing.assert_allclose(decaying_moments(h, 4), decaying, rtol=1e-12)
    np.testing.assert_allclose(growing_moments(h, 4), growing, rtol=1e-12)


def test_noise_of_another_library_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")
    field = FunctionField(lambda t, x, cond: -x, path=Linear())
    with pytest.raises(ConfigError, match="same library"):
        integrate(
            SOLVERS.build("ddpm"), field, torch.ones(3, 2), [0.0, 1 / 2, 1.0],
            rng=np.random.default_rng(1),
        )  # fmt: skip
    with pytest.raises(ConfigError, match="same library"):
        integrate(
            SOLVERS.build("ddpm"), field, np.ones((3, 2)), [0.0, 1 / 2, 1.0], rng=torch.Generator()
        )


@pytest.mark.parametrize("spec", STOCHASTIC, ids=str)
def test_tensors_stay_tensors_of_their_type(spec: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")
    field = FunctionField(lambda t, x, cond: 0.5 - x, path=Linear())
    x0 = torch.ones(3, 2, dtype=torch.float32)
    rng = torch.Generator().manual_seed(1)
    solution = integrate(SOLVERS.build(spec), field, x0, np.linspace(0, 1, 9), rng=rng)
    assert isinstance(solution.x, torch.Tensor)
    assert solution.x.dtype == torch.float32
    assert solution.nonfinite_fraction == 0.0


@pytest.mark.filterwarnings("ignore:Converting a tensor")  # step control reads one number
@pytest.mark.parametrize("name", SOLVERS.names())
def test_no_sampler_leaves_the_library_of_its_points(name: str) -> None:
    """A tensor that needs gradients cannot become a numpy array: any attempt would raise."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")
    field = FunctionField(lambda t, x, cond: 0.5 - x, path=Linear())
    x0 = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    rng = torch.Generator().manual_seed(1)
    x = integrate(SOLVERS.build(name), field, x0, np.linspace(0.0, 1.0, 5), rng=rng).x
    x.sum().backward()
    assert torch.isfinite(x0.grad).all()


DETERMINISTIC = [name for name in SOLVERS.names() if not SOLVERS.build(name).stochastic]


@pytest.mark.parametrize("name", [*DETERMINISTIC, {"name": "deis", "variable": "log_snr"}], ids=str)
def test_deterministic_samplers_go_back_from_data_to_noise(name: Any) -> None:
    x1 = GAUSSIAN.flow(_noise(50), 1.0)
    found = integrate(SOLVERS.build(name), GAUSSIAN, x1, np.linspace(1.0, 0.0, 81))
    np.testing.assert_allclose(found.x, _noise(50), atol=0.1)


@pytest.mark.parametrize("spec", STOCHASTIC, ids=str)
def test_stochastic_samplers_do_not_go_back(spec: Any) -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(ConfigError, match="from noise to data only"):
        integrate(SOLVERS.build(spec), GAUSSIAN, _noise(3), [1.0, 0.5, 0.0], rng=rng)
