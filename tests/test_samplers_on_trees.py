"""Every sampler on trees: training grids, generation, other samplers on the same step models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import PLAIN, QUICK
from exact_gaussian import ExactGaussian

from flowbdt import FlowBDT, evaluate
from flowbdt.config import ModelConfig, RunConfig
from flowbdt.errors import ConfigError, GridError
from flowbdt.flow.fields import FunctionField, PredictionField, Stepwise
from flowbdt.flow.parametrisations import EDM, FlowMatching
from flowbdt.flow.paths import Linear
from flowbdt.flow.solvers import SOLVERS, evaluation_times, integrate
from flowbdt.flow.time_grid import TimeGrid
from flowbdt.generation.trained_flow import Flow
from flowbdt.physics import bundled
from flowbdt.tables.formats import read_attributes, write_table
from flowbdt.training import run_directory
from flowbdt.training.plan import check_config
from flowbdt.trees.base import Batch
from flowbdt.trees.boosted_trees import BoostedTrees

SETTINGS = {**PLAIN, "booster": QUICK, "random_state": 1, "rejection": False}
SETTINGS["noise"] = {**PLAIN["noise"], "n_repeats": 1}
ROWS = np.random.default_rng(0).normal(size=(300, 2)) * [1.0, 3.0] + [0.0, 5.0]

SAMPLERS: list[Any] = [
    "ddpm",
    "euler_maruyama",
    "unipc",
    "lms",
    "deis",
    "dpm_solver_pp_2s",
    "dpm_solver_pp_2m_sde",
    "seeds_2",
    {"name": "edm", "s_churn": 4.0},
    {"name": "restart", "base": "adams_bashforth_2", "k": 2},
    {"name": "restart", "base": "euler", "intervals": [[0.2, 2.0, 1, 3]]},
]


@pytest.fixture(scope="module")
def fine() -> FlowBDT:
    """A model of the 9 times 0, 1/8, ..., 1."""
    return FlowBDT(n_steps=8, solver="heun", **SETTINGS).fit(ROWS)


@pytest.mark.parametrize("solver", SAMPLERS, ids=str)
def test_a_sampler_trains_its_times_and_generates(solver: Any) -> None:
    model = FlowBDT(n_steps=4, solver=solver, **SETTINGS).fit(ROWS)
    grid = check_config(ModelConfig(n_steps=4, solver=solver))
    np.testing.assert_array_equal([step["time"] for step in model.steps_], grid.times)
    x = model.sample(500, random_state=3)
    assert np.isfinite(x).all()
    assert abs(x[:, 1].mean() - 5.0) < 2.0
    np.testing.assert_array_equal(model.sample(200, random_state=3), x[:200])
    assert (model.sample(500, random_state=4) != x).any(axis=1).all()


def test_trees_for_churn_stand_at_the_churned_times() -> None:
    """EDM asks before each step at a noisier point: models belong there, not at the boundary."""
    plain = check_config(ModelConfig(n_steps=4, solver="edm")).times
    solver = {"name": "edm", "s_churn": 4.0, "s_tmin": 0.5, "s_tmax": 2.0}
    churned = check_config(ModelConfig(n_steps=4, solver=solver)).times
    np.testing.assert_allclose(plain, [0.0, 0.25, 0.5, 0.75])
    assert len(churned) == 5
    assert churned[2] == pytest.approx(1.0 / (1.0 + np.sqrt(2.0)))


@pytest.mark.parametrize("spacing", ["edm", "lu", "cosine", {"name": "edm", "rho": 3.0}], ids=str)
def test_schedules_in_noise_levels_are_settings_like_any(spacing: Any) -> None:
    grid = check_config(RunConfig(n_steps=5, spacing=spacing))
    assert (grid.boundaries[0], grid.boundaries[-1]) == (0.0, 1.0)
    assert len(grid.times) == 5
    other = check_config(RunConfig(n_steps=5, spacing=spacing, path="trigonometric"))
    ratios = [np.tan(0.5 * np.pi * (1 - t)) for t in other.times[1:]]
    np.testing.assert_allclose(ratios, (1 - grid.times[1:]) / grid.times[1:], rtol=1e-9)


def test_solver_parameters_can_be_set_one_by_one() -> None:
    config = RunConfig().with_overrides(["solver=edm", "solver.s_churn=10", "n_steps=4"])
    assert config.solver == {"name": "edm", "s_churn": 10}
    assert len(check_config(config).times) > 4
    with pytest.raises(ConfigError, match="s_churm"):
        check_config(RunConfig().with_overrides(["solver=edm", "solver.s_churm=10"]))


@pytest.mark.parametrize("solver", ["ddpm", "edm", "restart", "dpm_solver_pp_2m", "lms"])
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"coupling": "minibatch_ot"}, "noise and data are not independent"),
        ({"coupling": "given"}, "starts from events"),
        ({"path": "schrodinger_bridge"}, "pairs noise with data"),
    ],
)
def test_impossible_combinations_are_refused_before_any_work(
    solver: str, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_config(ModelConfig(n_steps=4, solver=solver, **settings))
    check_config(ModelConfig(n_steps=4, solver="adams_bashforth_4", **settings))


@pytest.mark.parametrize("solver", ["ddim", "ddpm", "euler_maruyama", "heun"])
def test_mean_velocities_are_for_euler_only(solver: str) -> None:
    with pytest.raises(ConfigError, match="euler"):
        check_config(ModelConfig(n_steps=4, solver=solver, noise={"target": "mean"}))
    check_config(ModelConfig(n_steps=4, solver="euler", noise={"target": "mean"}))


def test_adaptive_steps_are_refused_for_trees() -> None:
    with pytest.raises(ConfigError, match="fixed steps"):
        check_config(ModelConfig(n_steps=4, solver="dormand_prince_adaptive"))


def test_another_sampler_goes_through_the_same_step_models(fine: FlowBDT) -> None:
    euler = fine.sample(300, sampler={"solver": "euler", "n_steps": 4}, random_state=2)
    again = fine.sample(300, sampler={"solver": "euler", "spacing": [0, 0.25, 0.5, 0.75, 1]},
                        random_state=2)  # fmt: skip
    np.testing.assert_array_equal(euler, again)
    assert (euler != fine.sample(300, random_state=2)).any()
    same = fine.sample(300, sampler={}, random_state=2)
    np.testing.assert_array_equal(same, fine.sample(300, random_state=2))
    for solver in ("ddpm", "restart", "unipc", "dpm_solver_pp_3m", {"name": "edm"}):
        assert np.isfinite(fine.sample(100, sampler={"solver": solver}, random_state=2)).all()


def test_times_without_a_model_are_refused_unless_interpolated(fine: FlowBDT) -> None:
    off = {"solver": "midpoint"}
    with pytest.raises(GridError, match=r"t = 0\.0625"):
        fine.sample(10, sampler=off)
    with pytest.raises(GridError, match=r"t = 0\.2;"):
        fine.sample(10, sampler={"solver": "euler", "n_steps": 5})
    assert np.isfinite(fine.sample(10, sampler={**off, "interpolate": True})).all()
    with pytest.raises(ConfigError, match="fixed steps"):
        fine.sample(10, sampler={"solver": "dormand_prince_adaptive", "interpolate": True})
    with pytest.raises(ConfigError, match="interpolat"):
        fine.sample(10, sampler={"interpolated": True})
    with pytest.raises(ConfigError, match="true or false"):
        fine.sample(10, sampler={"interpolate": 1})


def test_interpolation_outside_the_trained_times_is_refused() -> None:
    model = FlowBDT(n_steps=4, solver="euler", **SETTINGS).fit(ROWS)  # last time 0.75
    with pytest.raises(GridError, match=r"from 0 to 0\.75"):
        model.sample(10, sampler={"solver": "heun", "interpolate": True})


def test_samplers_that_need_a_score_are_refused_on_transport_pairs() -> None:
    model = FlowBDT(n_steps=4, coupling="minibatch_ot", **SETTINGS).fit(ROWS)
    with pytest.raises(ConfigError, match="noise and data are not independent"):
        model.sample(10, sampler={"solver": "ddpm"})
    assert model.sample(10, sampler={"solver": "euler"}).shape == (10, 2)


def test_mean_velocities_have_one_sampler() -> None:
    settings = {**SETTINGS, "noise": {**SETTINGS["noise"], "target": "mean"}}
    model = FlowBDT(n_steps=4, solver="euler", **settings).fit(ROWS)
    with pytest.raises(ConfigError, match="mean velocities"):
        model.sample(10, sampler={"solver": "heun"})


def test_sample_files_record_how_they_were_made(fine: FlowBDT, tmp_path: Any) -> None:
    spec = {"solver": {"name": "restart", "base": "ddpm", "k": 2}, "n_steps": 4}
    flow = Flow(run_directory.Archive("model", fine.archive_), sampler=spec)
    (events,) = flow.sample_blocks(50, seed=9)
    write_table(tmp_path / "new.h5", events, attributes=flow.record(9))
    record = read_attributes(tmp_path / "new.h5")
    assert record["solver"] == "restart"
    assert record["solver_parameters"]["base"] == {"name": "ddpm", "eta": 1.0}
    assert record["solver_parameters"]["k"] == 2
    assert record["boundaries"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert record["spacing"] == "uniform"
    assert record["n_steps"] == 4
    # up to t = 0.75 and down again from t = 0.5, twice
    assert record["n_evaluations"] == flow.n_evaluations == 4 + 2 * 1
    assert record["seed"] == 9
    assert record["interpolate"] is False


def test_error_of_interpolation_falls_with_the_square_of_the_distance() -> None:
    exact = ExactGaussian([1.0, -1.0], [[1.5, 0.4], [0.4, 0.5]], Linear())
    x = np.random.default_rng(1).normal(size=(200, 2))

    def error(n: int) -> float:
        grid = TimeGrid.build("heun", n)
        field = Stepwise(
            grid,
            lambda i: lambda x, cond: np.asarray(exact(float(grid.times[i]), x)),
            interpolate=True,
        )
        middles = 0.5 * (grid.times[1:] + grid.times[:-1])
        return max(float(np.abs(field(float(t), x) - exact(float(t), x)).max()) for t in middles)

    errors = np.array([error(n) for n in (16, 32, 64)])
    np.testing.assert_allclose(np.log2(errors[:-1] / errors[1:]), 2.0, atol=0.3)
    grid = TimeGrid.build("heun", 4)
    field = Stepwise(grid, lambda i: lambda x, cond: float(i) * np.ones_like(x), interpolate=True)
    assert field(0.3, x)[0, 0] == pytest.approx(1.2)
    assert field(0.5, x)[0, 0] == 2.0
    assert field.n_loaded == 2


def _tree_field(times: np.ndarray) -> Stepwise:
    """Step models of standard normal noise to N(2, 1/4), from exact velocities."""
    exact = ExactGaussian([2.0], [[0.25]], Linear())

    def trained(i: int) -> Any:
        t, rng = float(times[i]), np.random.default_rng(i)
        x = t * (2.0 + 0.5 * rng.normal(size=(4000, 1))) + (1.0 - t) * rng.normal(size=(4000, 1))
        batch = Batch(x.astype(np.float32), exact(t, x).astype(np.float32), None)
        trees = BoostedTrees({"n_estimators": 30, "max_depth": 5, "learning_rate": 0.3})
        trees.fit(_Rows(batch), None, seed=1, n_threads=1)
        return lambda x, cond: trees.predict(x.astype(np.float32))

    grid = TimeGrid(np.append(times, 1.0), times)
    return Stepwise(grid, trained, convention=FlowMatching())


class _Rows:
    """One batch as a source."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.n_rows, self.n_inputs = batch.inputs.shape
        self.n_outputs = batch.target.shape[1]

    def __iter__(self) -> Any:
        yield self.batch


@pytest.fixture(scope="module")
def network() -> PredictionField:
    """A tiny network trained for a moment to denoise the same data, in EDM's convention."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")
    generator = torch.Generator().manual_seed(1)
    width = 32
    layers = torch.nn.Sequential(
        torch.nn.Linear(2, width), torch.nn.SiLU(), torch.nn.Linear(width, 1)
    ).double()
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))

    def inputs(x: Any, sigma: Any) -> Any:
        return torch.cat([x / (1.0 + sigma**2) ** 0.5, 0.25 * torch.log(sigma)], dim=1)

    optimiser = torch.optim.Adam(layers.parameters(), lr=0.02)
    for _ in range(300):
        data = 2.0 + 0.5 * torch.randn(256, 1, generator=generator, dtype=torch.float64)
        sigma = torch.exp(1.5 * torch.randn(256, 1, generator=generator, dtype=torch.float64))
        noise = torch.randn(256, 1, generator=generator, dtype=torch.float64)
        skip, out = 0.25 / (0.25 + sigma**2), 0.5 * sigma / (0.25 + sigma**2) ** 0.5
        point = data + sigma * noise
        target = (data - skip * point) / out  # what the raw network is for: arXiv 2206.00364
        loss = ((layers(inputs(point, sigma)) - target) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def predict(x: Any, sigma: float, cond: Any) -> Any:
        with torch.no_grad():
            return layers(inputs(x, torch.full_like(x[:, :1], sigma)))

    return PredictionField(predict, "edm", EDM(), sigma_min=0.02, sigma_max=20.0, sigma_data=0.5)


@pytest.mark.parametrize(
    "spec",
    ["heun", "dpm_solver_pp_2m", "unipc", "ddpm", {"name": "edm", "s_churn": 3.0, "s_tmax": 9.0}],
    ids=str,
)
def test_the_same_sampler_drives_a_network_and_trees(spec: Any, network: PredictionField) -> None:
    import torch

    solver = SOLVERS.build(spec)
    boundaries = np.linspace(*network.span, 13)
    start = np.hypot(boundaries[0], 1.0 - boundaries[0])
    x0 = start * np.random.default_rng(2).normal(size=(2000, 1))
    trees = integrate(
        solver,
        _tree_field(evaluation_times(solver, boundaries)),
        x0,
        boundaries,
        rng=np.random.default_rng(3),
    )
    tensor = torch.tensor(x0)
    net = integrate(solver, network, tensor, boundaries, rng=torch.Generator().manual_seed(3))
    assert isinstance(net.x, torch.Tensor)
    np.testing.assert_array_equal(net.times, trees.times)
    for x in (trees.x, net.x.numpy()):
        assert x.mean() == pytest.approx(2.0, abs=0.2)
        assert x.std() == pytest.approx(0.5, abs=0.2)


def test_a_field_that_is_not_asked_for_noise_needs_no_path() -> None:
    field = FunctionField(lambda t, x, cond: x)
    integrate(SOLVERS.build("adams_bashforth_4"), field, np.ones((2, 1)), [0.0, 0.5, 1.0])
    with pytest.raises(ConfigError, match="path of this field is unknown: set path="):
        integrate(SOLVERS.build("ddim"), field, np.ones((2, 1)), [0.0, 0.5, 1.0])


@pytest.mark.slow
def test_two_steps_of_memory_at_8_evaluations_are_as_good_as_euler_at_16() -> None:
    jets = bundled()
    train, test = (jets.load(part).take(slice(0, 12_000)) for part in ("train", "test"))
    model = FlowBDT(
        preset="fast",
        n_steps=16,
        solver="heun",
        rejection=False,
        relations=list(jets.relations),
        random_state=1,
    ).fit(train)
    multistep, euler = (
        evaluate(
            test,
            model.sample(test.n, sampler=sampler, random_state=2),
            training=train,
            quick=True,
            metrics=["separation"],
        ).get("separation")
        for sampler in (
            {"solver": "adams_bashforth_2", "n_steps": 8},
            {"solver": "euler", "n_steps": 16},
        )
    )
    assert multistep.value < euler.value + 2.0 * np.hypot(multistep.error, euler.error)
