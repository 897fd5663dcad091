"""Rejection: a classifier of real against generated events decides what is kept."""

from __future__ import annotations

import numpy as np
import pytest

from flowbdt import EventTable, FlowBDT, seeding
from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError, FormatError
from flowbdt.generation import generate_rows, trained_flow
from flowbdt.generation.trained_flow import Flow
from flowbdt.model import fit_run
from flowbdt.training import run_directory
from flowbdt.training.collect import collect_steps
from flowbdt.training.plan import Inputs
from flowbdt.training.run_directory import RunDirectory
from flowbdt.trees.density_ratio import DensityRatio

COARSE = {
    "n_steps": 2,
    "noise": {"n_repeats": 1, "candidates": 0},
    "preconditioner": "gaussian",
    "transforms": "standard",
    "booster": {"n_estimators": 2, "max_depth": 2, "early_stopping_rounds": 0},
    "random_state": 1,
}
"""A flow that cannot know the shape of what it learns."""


def two_islands(n, seed=0):
    """Events at |x| between 1 and 2, nothing between; the second column says how far out."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(1.0, 2.0, n) * rng.choice([-1.0, 1.0], n)
    return np.column_stack([x, np.abs(x) + rng.normal(size=n)])


def in_the_gap(x):
    return np.mean(np.abs(x[:, 0]) < 0.9)


@pytest.fixture(scope="module")
def plain():
    return FlowBDT(**COARSE, rejection=False).fit(two_islands(2000))


@pytest.fixture(scope="module")
def rejecting():
    return FlowBDT(**COARSE, rejection=True).fit(two_islands(2000))


def test_the_ratio_of_two_normal_distributions_is_found():
    """log N(0.5, 1) - log N(0, 1) is linear: x / 2 - 1 / 8."""
    rng = np.random.default_rng(0)
    real, generated = rng.normal(0.5, 1.0, (20_000, 1)), rng.normal(0.0, 1.0, (40_000, 1))
    ratio = DensityRatio.fit(real, generated, None, seed=1, n_threads=1)
    x = np.linspace(-1.5, 2.0, 200)[:, None]
    kept = np.mean([ratio.keeps(x, np.full(200, u)) for u in np.linspace(0.0025, 0.9975, 200)], 0)
    expected = np.minimum(np.exp(x[:, 0] / 2 - 1 / 8) / ratio.ceiling, 1.0)
    assert np.abs(kept - expected).mean() < 0.04


def test_thread_count_does_not_change_the_classifier():
    rng = np.random.default_rng(0)
    real, generated = rng.normal(0.5, 1.0, (3000, 3)), rng.normal(0.0, 1.0, (9000, 3))
    fits = [DensityRatio.fit(real, generated, None, seed=1, n_threads=n) for n in (1, 2)]
    x, u = rng.normal(size=(500, 3)), rng.random(500)
    assert fits[0].n_trees == fits[1].n_trees
    assert np.array_equal(fits[0].keeps(x, u), fits[1].keeps(x, u))


def test_weights_say_what_is_real():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8000, 1))
    weight = np.where(x[:, 0] > 0, 3.0, 1.0)
    ratio = DensityRatio.fit(x, rng.normal(size=(16_000, 1)), weight, seed=1, n_threads=1)
    right, left = (ratio.keeps(np.full((4000, 1), v), rng.random(4000)).mean() for v in (1.0, -1.0))
    assert right / left == pytest.approx(3.0, rel=0.2)


def test_equal_distributions_are_nearly_all_accepted():
    rng = np.random.default_rng(0)
    ratio = DensityRatio.fit(
        rng.normal(size=(4000, 2)), rng.normal(size=(16_000, 2)), None, seed=1, n_threads=1
    )
    assert ratio.acceptance > 0.8


def test_rejection_removes_what_the_flow_leaves_in_a_gap(plain, rejecting):
    before, after = (in_the_gap(model.sample(8000, random_state=3)) for model in (plain, rejecting))
    assert before > 0.2
    assert after < before / 4


def test_the_stated_acceptance_is_the_real_one(rejecting):
    flow = Flow(run_directory.Archive("model", rejecting.archive_), rejects=False)
    x = np.vstack([block.x for block in flow.sample_blocks(20_000, seed=9)])
    kept = rejecting.flow().ratio.keeps(x, np.random.default_rng(0).random(len(x)))
    error = np.sqrt(rejecting.acceptance_ / len(x) + 1e-4)  # the ceiling is a quantile: 1% more
    assert kept.mean() == pytest.approx(rejecting.acceptance_, abs=5 * error)


def test_events_do_not_depend_on_how_many_are_asked_for_or_worked_on_together(
    rejecting, monkeypatch
):
    n = 2 * seeding.BLOCK + 100
    all_of_them = rejecting.sample(n, random_state=5)
    for few in (1, 77, seeding.BLOCK + 3):
        assert np.array_equal(rejecting.sample(few, random_state=5), all_of_them[:few])
    monkeypatch.setattr(trained_flow, "TOGETHER", 1)
    assert np.array_equal(rejecting.sample(n, random_state=5), all_of_them)


def test_conditions_stay_with_their_events():
    rng = np.random.default_rng(0)
    cond = rng.choice([0.0, 5.0], 3000)
    x = two_islands(3000) + cond[:, None]
    model = FlowBDT(**COARSE, rejection=True).fit(EventTable.of(x, cond=cond))
    given = np.repeat([0.0, 5.0], 2000)[:, None]
    new = model.sample(cond=given, random_state=2)
    assert np.array_equal(new.cond, given)
    for value in (0.0, 5.0):
        x = new.x[given[:, 0] == value]
        error = np.sqrt(2.4 / len(x)) + 0.05  # 5 standard errors, and what trees leave
        assert x[:, 0].mean() == pytest.approx(value, abs=5 * error)


def test_given_pairs_have_nothing_to_draw_anew():
    x = two_islands(300)
    settings = {**COARSE, "coupling": "given"}
    model = FlowBDT(**settings, preset="balanced").fit(x, source=x + 0.1)
    assert model.acceptance_ == 1.0
    with pytest.raises(ConfigError, match="leave one of them out"):
        FlowBDT(**settings, rejection=True).fit(x, source=x + 0.1)


def planned(folder):
    inputs = Inputs(EventTable.of(two_islands(400)), ModelConfig(**COARSE, rejection=True), 1)
    return inputs, RunDirectory(folder)


def test_a_run_killed_before_its_rejection_is_learned_goes_on(tmp_path):
    inputs, run = planned(tmp_path / "a")
    fit_run(inputs, run.path)
    whole = run.read("manifest.json")
    run.file(run_directory.REJECTION).unlink()
    collect_steps(run)  # what stands when the process dies after the last step
    with pytest.raises(FormatError, match="resume"):
        Flow(run)
    fit_run(inputs, run.path, resume=True)
    assert run.read("manifest.json") == whole


def test_a_rejection_of_these_models_is_not_learned_twice(tmp_path, monkeypatch):
    inputs, run = planned(tmp_path / "a")
    fit_run(inputs, run.path)
    whole = run.read("manifest.json")
    monkeypatch.setattr(DensityRatio, "fit", None)
    fit_run(inputs, run.path, resume=True)
    assert run.read("manifest.json") == whole


def test_a_changed_classifier_is_noticed(tmp_path):
    inputs, run = planned(tmp_path / "a")
    fit_run(inputs, run.path)
    content = bytearray(run.read(run_directory.REJECTION))
    content[len(content) // 2] ^= 1
    run.file(run_directory.REJECTION).write_bytes(bytes(content))
    with pytest.raises(FormatError, match="hash"):
        Flow(run)


def test_hopeless_events_are_kept_with_a_warning(rejecting, monkeypatch):
    flow = rejecting.flow()
    monkeypatch.setattr(
        flow.generator.ratio, "keeps", lambda x, uniform: np.zeros(len(x), dtype=bool)
    )
    monkeypatch.setattr(generate_rows, "MOST_ATTEMPTS", 3)
    with pytest.warns(UserWarning, match="10 event"):
        table = next(flow.sample_blocks(10, seed=1))
    assert table.n == 10
