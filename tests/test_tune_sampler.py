"""Search of samplers for a trained run: budgets, order of levels, guard."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from conftest import run

from flowbdt import FlowBDT
from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError
from flowbdt.evaluation.score_samplers import Bench
from flowbdt.flow.parametrisations import FlowMatching
from flowbdt.generation.fit_run import fit_run
from flowbdt.seeding import stream
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import write_table
from flowbdt.training.plan import Inputs
from flowbdt.training.run_directory import RunDirectory
from flowbdt.tuning import sampler_space, search_space
from flowbdt.tuning.tune_sampler import TunedSampler

LINE = FlowMatching()


def table(n: int, seed: int) -> EventTable:
    """A skewed column, and one with two clumps that depends on it."""
    rng = stream(seed, "test-samplers")
    a = rng.lognormal(0.0, 0.5, n)
    return EventTable.of(np.column_stack([a, a + 3.0 * (rng.random(n) < 0.4)]), ["a", "b"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run trained at 24 times."""
    config = ModelConfig(
        preset="fast",
        n_steps=24,
        solver="adams_bashforth_2",
        preconditioner={"name": "mixture", "n_components": 3},
        booster={"n_estimators": 3, "max_depth": 2, "max_bin": 32},
    )
    folder = tmp_path_factory.mktemp("sampler") / "run"
    return fit_run(Inputs(table(600, 1), config, 1), folder)


@pytest.fixture
def tune_sampler():
    pytest.importorskip("optuna", reason="tuning needs the extra 'tune'")
    from flowbdt.tuning import tune_sampler

    return tune_sampler


# ---- samplers


def corners(n: int):
    known = sampler_space.sampler_space(LINE, "adams_bashforth_3")
    rng = stream(3, "test-ways")
    for _ in range(n):
        yield (
            known,
            {
                name: list(p.options)[int(rng.integers(len(p.options)))]
                if isinstance(p, search_space.Choice)
                else float(rng.choice([p.low, p.high]))
                for name, p in known.items()
            },
        )


@pytest.mark.parametrize("budget", [4, 8, 33])
def test_no_sampler_costs_more_than_its_budget(budget):
    for known, params in corners(25):
        try:
            sampler = sampler_space.sampler_of(params, known, budget, LINE)
        except ConfigError:  # a restart does not fit in
            assert budget < 8 or params["solver"] == sampler_space.RESTARTED
            continue
        assert sampler_space.cost(sampler, LINE) <= budget


def test_levels_are_in_order_whatever_the_parameters():
    for known, params in corners(25):
        try:
            sampler = sampler_space.sampler_of(params, known, 16, LINE)
        except ConfigError:
            continue
        assert (np.diff(sampler["spacing"]) > 0).all()
        if params["solver"] == sampler_space.RESTARTED:
            low, high, _ = sampler["solver"]["intervals"][0]
            assert low < high


def test_without_a_convention_only_solvers_of_velocities_are_tried():
    assert set(sampler_space.sampler_space(None, "heun")["solver"].options) == set(
        sampler_space.PLAIN
    )


def test_moved_boundaries_keep_ends_and_order():
    rng = stream(4, "test-moved")
    for _ in range(20):
        grid = sampler_space.stretched([0.0, 0.2, 0.7, 1.0], rng.normal(size=3))
        assert grid[0] == 0.0
        assert grid[-1] == 1.0
        assert (np.diff(grid) > 0).all()


def test_boundaries_settle_on_trained_times():
    sampler = {"solver": "adams_bashforth_2", "spacing": [0.0, 0.3, 0.72, 1.0]}
    known = (np.arange(8) / 8).tolist()
    found = sampler_space.settled(sampler, known, LINE)
    assert found["spacing"] == [0.0, 0.25, 0.75, 1.0]
    assert found["interpolate"] is False
    close = {**sampler, "spacing": [0.0, 0.3, 0.31, 1.0]}
    assert sampler_space.settled(close, known, LINE) is None  # they coincide
    assert (
        sampler_space.settled({**sampler, "solver": "midpoint"}, known[::2], LINE) is None
    )  # 1/8 is asked
    between = sampler_space.settled(close, None, LINE)
    assert between["interpolate"] is True


# ---- judged on a run


def test_equal_samplers_differ_by_nothing(trained):
    bench = Bench(trained, table(300, 2), "separation", seed=1, n_threads=1)
    sampler = {"solver": "adams_bashforth_2", "n_steps": 6}
    plain, difference = bench.separations([sampler, sampler])
    assert plain[0] == plain[1] == pytest.approx(bench.score(sampler))
    assert (difference.value, difference.error) == (0.0, 0.0)


def test_events_are_those_that_generation_makes(trained):
    bench = Bench(trained, table(300, 2), "separation", seed=7, n_threads=1)
    sampler = {"solver": "adams_bashforth_3", "n_steps": 8}
    made = FlowBDT.load(trained.path).sample(300, sampler=sampler, random_state=7)
    np.testing.assert_allclose(bench.events(sampler).x, made.x, rtol=1e-9)


def test_a_bad_sampler_is_worse_by_many_standard_errors(trained):
    bench = Bench(trained, table(2000, 2), "separation", seed=1, n_threads=1)
    good = {"solver": "adams_bashforth_2", "n_steps": 24}
    _, difference = bench.separations([good, {"solver": "euler", "n_steps": 2}])
    assert difference.sigmas > 5


def test_events_at_weighted_conditions_have_their_weights(tmp_path):
    rng, weight = stream(8, "test-weighted"), np.linspace(0.5, 1.5, 400)
    given = EventTable.of(rng.normal(size=(400, 1)), cond=rng.normal(size=(400, 1)), weight=weight)
    booster = {"n_estimators": 2, "max_depth": 2, "max_bin": 32}
    config = ModelConfig(preset="fast", n_steps=2, preconditioner="gaussian", booster=booster)
    source = fit_run(Inputs(given, config, 1), tmp_path / "run")
    bench = Bench(source, given, "separation", seed=1, n_threads=1)
    sampler = {"solver": "euler", "n_steps": 2}
    np.testing.assert_array_equal(bench.events(sampler).weight, weight)
    plain, _ = bench.separations([sampler, sampler])
    assert plain[0] == pytest.approx(bench.score(sampler))


def test_a_sampler_that_cannot_be_used_has_an_infinite_score(trained):
    bench = Bench(trained, table(300, 2), "separation", seed=1, n_threads=1)
    assert bench.score({"solver": "heun", "n_steps": 4, "interpolate": False}) == np.inf


def test_infinite_scores_are_json_that_others_read():
    scores = {"search": {"start": np.inf, "tuned": 1.0}}
    log = [{"note": "start", "sampler": {"n_steps": 2}, "score": np.inf}]
    found = TunedSampler(5, {}, {}, scores, None, True, [], 1, 0.1, log)
    (budget,) = [json.loads(json.dumps(found.to_json(), allow_nan=False))]
    assert budget["scores"]["search"] == {"start": None, "tuned": 1.0}
    assert budget["log"] == [{"note": "start", "sampler": {"n_steps": 2}, "score": None}]


def test_what_is_found_is_no_worse_and_can_be_used(trained, tune_sampler):
    (found,) = tune_sampler(trained.path, table(900, 3), evaluations=[5], n_trials=12)
    assert found.scores["guard"]["tuned"] < found.scores["guard"]["start"] or not found.tuned
    # there are enough trained times to stay at; the start may lie between them
    assert found.sampler["interpolate"] is False or not found.tuned
    assert sampler_space.cost(found.sampler, LINE) <= 5
    model = FlowBDT.load(trained.path)
    assert model.sample(10, sampler=found.sampler, random_state=1).n == 10
    again = tune_sampler(trained.path, table(900, 3), evaluations=[5], n_trials=12)[0]
    assert again.sampler == found.sampler


def test_the_guard_keeps_the_start_when_nothing_is_better(trained, tune_sampler, monkeypatch):
    def worse(self, pair):
        return [1.0, 2.0], None

    monkeypatch.setattr(Bench, "separations", worse)
    (found,) = tune_sampler(trained.path, table(600, 3), evaluations=[4], n_trials=3)
    assert not found.tuned
    assert found.sampler == found.start


def test_commands_say_how_to_generate_and_how_to_fit(
    trained, tune_sampler, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_table("held.h5", table(600, 4))
    words = ["--evaluations", 5, "--trials", 6, "--interpolate", "yes"]
    assert run("tune-sampler", trained.path, "held.h5", "-o", "out", *words) == 0
    assert "5 evaluations: separation" in capsys.readouterr().out
    assert run("tune-sampler", trained.path, "held.h5", "-o", "b", "--method", "grid") == 1
    assert "--method is gone" in capsys.readouterr().err
    text = (tmp_path / "out/sampler_5.yaml").read_text()
    assert run("generate", trained.path, "-n", 10, "-o", "new.h5", "--sampler", text) == 0
    budget = json.loads((tmp_path / "out/samplers.json").read_text())["budgets"][0]
    assert budget["sampler"] == yaml.safe_load(text)
    sets = [word for setting in budget["fit"] for word in ("--set", setting)]
    assert run("fit", "held.h5", "-o", "fresh", "--set", "preset=fast", *sets) == 0
    grid = RunDirectory("fresh").plan()["grid"]
    assert grid["boundaries"] == budget["sampler"]["spacing"]


def test_wrong_names_and_too_few_events_are_refused(trained, tune_sampler):
    with pytest.raises(ConfigError, match="separation"):
        tune_sampler(trained.path, table(600, 3), metric="beauty")
    with pytest.raises(ConfigError, match="200 events"):
        tune_sampler(trained.path, table(50, 3))


def test_samplers_of_a_network_begin_with_published_ones(tune_sampler, tmp_path, capsys):
    pytest.importorskip("torch", reason="networks need the extra 'cfm'")
    from flowbdt.networks.shower_bench import ShowerBench
    from flowbdt.networks.shower_network import (
        ShowerNetwork,
        shower_trainer,
        train_shower_network,
    )
    from flowbdt.networks.trainer import TrainingConfig
    from flowbdt.physics import toy_showers, write_showers
    from flowbdt.tuning.tune_sampler import search_samplers

    showers = toy_showers("photons", 240, seed=1)
    config = TrainingConfig(n_steps=3, batch_size=64, device="cpu")
    trainer = shower_trainer(showers, {"name": "table_mlp", "width": 8}, "edm", config)
    flow = {"preset": "fast", "n_steps": 1, "preconditioner": "gaussian"}
    train_shower_network(showers, trainer, flow=flow).save(tmp_path / "network.npz")
    network = ShowerNetwork.load(tmp_path / "network.npz")
    benches = [ShowerBench(network, showers.take(slice(a, a + 120)), "fpd") for a in (0, 120)]
    (found,) = search_samplers(benches, [4], 2)
    notes = [line["note"] for line in found.log]
    assert notes.count("published") == len(sampler_space.PUBLISHED)
    assert set(notes) >= {"start", "published", "search"}
    assert sampler_space.cost(found.sampler, LINE) <= 4
    assert found.fit == []
    write_showers(tmp_path / "held.hdf5", showers)
    words = ["tune-sampler", tmp_path, tmp_path / "held.hdf5", "-o", tmp_path / "out"]
    assert run(*words, "--evaluations", 3, "--trials", 1) == 0
    told = capsys.readouterr().out
    assert "showers generate" in told
    assert "fit: " not in told
    assert run(*words, "--interpolate", "yes") == 1
    assert "knows all times" in capsys.readouterr().err
