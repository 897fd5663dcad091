"""New noise while trees are grown: what is redrawn, what stays, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xgboost as xgb

from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError
from flowbdt.flow.closed_form import PRECONDITIONERS
from flowbdt.flow.couplings import COUPLINGS
from flowbdt.flow.paths import PATHS
from flowbdt.flow.step_inputs import StepInputs
from flowbdt.generation.fit_run import fit_run
from flowbdt.model import FlowBDT
from flowbdt.tables.transforms import JointTransform
from flowbdt.training import noise_draws, run_directory
from flowbdt.training.noise_draws import VALID_REPEATS
from flowbdt.training.noisy_pairs import LatentEvents, NoisyPairs, TimeStep
from flowbdt.training.plan import Inputs, check_config, make_plan
from flowbdt.training.run_directory import RunDirectory
from flowbdt.training.train_step import run_task, training_pairs
from flowbdt.trees.boosted_trees import BoostedTrees

BOOSTER = {"max_depth": 4, "learning_rate": 0.2, "max_bin": 32}
BOOSTER |= {"multi_strategy": "multi_output_tree"}


def pairs(repeats=1, n=600, purpose="train", columns=2, turns=1):
    rng = np.random.default_rng(0 if purpose == "train" else 1)
    z = rng.normal(size=(n, columns))
    z[:, 1] = z[:, 0] ** 2 - 1 + 0.1 * z[:, 1]
    nothing = PRECONDITIONERS.build("none").fit(z, seed=0)
    joint = JointTransform("none").fit(z)
    return NoisyPairs(
        LatentEvents(z.astype("f4"), np.arange(n)),
        PATHS.build("linear"),
        COUPLINGS.build("independent"),
        TimeStep(2, 0.5, 0.6),
        inputs=StepInputs(nothing.at(PATHS.build("linear"), 0.5), joint, ["latent"]),
        n_repeats=repeats,
        seed=1,
        purpose=purpose,
        turns=turns,
    )


def arrays(source):
    batches = list(source)
    return np.concatenate([b.inputs for b in batches]), np.concatenate([b.target for b in batches])


def fit(source, refresh, n_estimators=30, **changes):
    model = BoostedTrees({**BOOSTER, "n_estimators": n_estimators, **changes})
    return model.fit(source, None, seed=3, n_threads=1, refresh=refresh)


def planned(folder, table, booster, **settings):
    noise = {"name": "fresh", "n_repeats": 1, "refresh": 2, **settings.pop("noise", {})}
    settings = {"n_steps": 2, "noise": noise, **settings}
    run = RunDirectory(folder)
    inputs = Inputs(table, ModelConfig(booster=booster, **settings), 5)
    make_plan(inputs, run)
    return run, inputs


def test_two_passes_over_one_draw_are_equal():
    source = pairs(n=5000).redrawn(3)
    for first, second in zip(arrays(source), arrays(source), strict=True):
        assert np.array_equal(first, second)


def test_another_draw_has_other_noise_for_every_event():
    source = pairs(n=5000)
    targets = [arrays(source.redrawn(draw))[1] for draw in range(3)]
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        assert not np.isclose(targets[i], targets[j]).all(axis=1).any()


def test_the_first_draw_is_the_source_itself():
    assert np.array_equal(arrays(pairs())[0], arrays(pairs().redrawn(0))[0])


def test_draws_go_on_with_the_repetitions():
    """Two draws of two copies are the noise of four copies: no noise is used twice."""
    whole = arrays(pairs(repeats=4))[1]
    parts = [arrays(pairs(repeats=2).redrawn(draw))[1] for draw in (0, 1)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_trees_go_on_from_a_full_prediction_at_the_new_points():
    """The same trees as when the whole model is copied and predicted anew at every draw."""
    source, refresh = pairs(), 4
    booster, first = None, None
    settings = {**BOOSTER, "tree_method": "hist", "objective": "reg:squarederror"}
    for draw in range(3):
        x, y = arrays(source.redrawn(draw))
        matrix = xgb.QuantileDMatrix(x, y, max_bin=BOOSTER["max_bin"], ref=first)
        first = first or matrix
        booster = xgb.train({**settings, "seed": 3}, matrix, refresh, xgb_model=booster)
    points = arrays(source.redrawn(9))[0]
    model = fit(source, refresh, n_estimators=12)
    assert model.summary["draws"] == 3
    assert np.array_equal(model.predict(points), booster.inplace_predict(points))


def test_the_carried_prediction_is_that_of_the_numbers():
    source = pairs(n=5000)
    model = fit(source, refresh=5, n_estimators=20)
    x, y = arrays(source.redrawn(3))  # trees 15 to 19 were grown on this draw
    rmse = np.sqrt(np.mean((model.predict(x) - y) ** 2))
    assert model.summary["draws"] == 4
    assert model.summary["train_rmse"] == pytest.approx(rmse, rel=1e-6)


def test_fresh_noise_beats_one_repetition_on_held_out_events():
    x, y = arrays(pairs(repeats=20, purpose="valid"))
    source = pairs()
    loss = {
        refresh: np.mean((fit(source, refresh, n_estimators=60).predict(x) - y) ** 2)
        for refresh in (0, 5)
    }
    assert loss[5] < 0.97 * loss[0]


def test_draws_become_rarer_so_that_prediction_stays_cheap():
    few, many = (fit(pairs(n=60), 1, n_estimators=n, max_depth=1) for n in (200, 400))
    assert many.summary["draws"] - few.summary["draws"] < 0.25 * few.summary["draws"]


def test_validation_noise_is_fixed_and_does_not_follow_the_copies(tmp_path, jets, quick_booster):
    run, _ = planned(tmp_path / "run", jets, quick_booster, validation_fraction=0.3)
    train, valid = training_pairs(run, run.read_json(run_directory.task_name(0)))
    assert train.n_rows == len(train.events.rows)
    assert valid.n_rows == VALID_REPEATS * len(valid.events.rows)
    other, _ = planned(
        tmp_path / "other",
        jets,
        quick_booster,
        validation_fraction=0.3,
        noise={"n_repeats": 2, "refresh": 1},
    )
    again = training_pairs(other, other.read_json(run_directory.task_name(0)))[1]
    assert np.array_equal(arrays(valid)[1], arrays(again)[1])


def test_thread_count_and_executor_do_not_change_the_models(tmp_path, jets, quick_booster):
    run, _ = planned(tmp_path / "one", jets, quick_booster)
    settings = {"executor": {"name": "joblib", "n_jobs": 2}}
    other, parallel = planned(tmp_path / "two", jets, quick_booster, **settings)
    fit_run(parallel, other.path, resume=True)
    for step in range(2):
        report = run_task(run.path, step, n_threads=2)
        assert report["draws"] == 3
        assert run.read(run_directory.model_name(step)) == other.read(
            run_directory.model_name(step)
        )


def test_resume_ends_in_the_same_bytes(tmp_path, jets, quick_booster):
    run, inputs = planned(tmp_path / "run", jets, quick_booster)
    fit_run(inputs, run.path, resume=True)
    before = run.read(run_directory.model_name(1))
    run.file(run_directory.model_name(1)).write_bytes(before[:40])
    fit_run(inputs, run.path, resume=True)
    assert run.read(run_directory.model_name(1)) == before


def test_events_of_large_tables_take_turns_whatever_is_drawn_before():
    source = pairs(n=900, turns=3)
    draws = [source.redrawn(number) for number in range(4)]
    rows = [draw.events.rows for draw in draws]
    assert np.array_equal(np.sort(np.concatenate(rows[:3])), np.arange(900))
    assert np.array_equal(rows[0], rows[3])
    assert [draw.n_rows for draw in draws] == [len(one) for one in rows]
    assert max(map(len, rows)) < 400
    (first, _), (again, _), (later, _) = map(arrays, (source, draws[2].redrawn(3), draws[0]))
    assert not np.array_equal(first, again)  # the same events with other noise
    assert np.array_equal(first, later)


def test_all_turns_come_before_the_last_tree():
    fresh = {"name": "fresh", "refresh": 20}
    assert noise_draws.n_turns(fresh, 25_000) == 1
    assert noise_draws.n_turns({"name": "repeats"}, 10**7) == 1
    for n_events in (900_000, 10**7):
        turns = noise_draws.n_turns(fresh, n_events)
        every = noise_draws.trees_per_draw(fresh, 60, turns)
        assert 60 // every >= turns > 1


def test_noise_is_a_setting_of_the_estimator(jets, quick_booster):
    booster = {**quick_booster, "early_stopping_rounds": 0}
    settings = {"n_steps": 2, "booster": booster, "random_state": 1}

    def losses(**noise):
        model = FlowBDT(**settings, noise={"n_repeats": 1, **noise})
        return [s["train_rmse"] for s in model.fit(jets).steps_]

    plain = losses(name="repeats")
    assert losses(name="fresh", refresh=5) == plain  # not before the last of the five trees
    assert losses(name="fresh", refresh=4) != plain


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise": "frsh"}, "fresh, repeats"),
        ({"noise": {"name": "fresh", "refresh": 0}}, "refresh"),
        ({"noise": {"refrsh": 5}}, "Did you mean 'refresh'"),
        ({"noise": 5}, "mapping"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        check_config(ModelConfig(**settings))


PEAKS = """
import resource
from tests.test_fresh_noise import fit, pairs
source = pairs(n=100_000, columns=8)
peaks = []
for refresh in (0, 1):
    fit(source, refresh, n_estimators=8, max_depth=2)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(*peaks)
"""


def test_memory_is_that_of_one_draw(request):
    command = [sys.executable, "-c", PEAKS]
    root = request.config.rootpath
    result = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
    one, eight = map(int, result.stdout.split())
    one_draw = 26 * 8 * 100_000 / 1024  # KiB, from the notes on `BoostedTrees`
    assert eight - one < 0.5 * one_draw
