"""Single trials: their events, scores, giving up early, and which one wins."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from tuning_cases import BASE, table

from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError
from flowbdt.evaluation import score_events
from flowbdt.evaluation.metrics.base import effective_size
from flowbdt.seeding import stream
from flowbdt.tables.event_table import EventTable
from flowbdt.training.plan import Inputs, make_plan
from flowbdt.training.run_directory import RunDirectory
from flowbdt.training.train_step import run_task
from flowbdt.tuning import finish_study
from flowbdt.tuning.stop_early import HeldOutLoss, Limits, order, race
from flowbdt.tuning.study import SHARES, EventShares

# ---- shares and scores


def test_shares_are_disjoint_and_whole():
    known = EventShares(10_000, 3)
    masks = [known.fit(), known.held(), known.guard]
    assert (np.sum(masks, axis=0) == 1).all()
    for mask, share in zip(masks, SHARES.values(), strict=True):
        assert abs(mask.mean() - share) < 5 * np.sqrt(share * (1 - share) / 10_000)


def test_an_objective_must_say_how_good_events_are():
    assert score_events.check_objectives(["train_s", "separation"]) == ["separation", "train_s"]
    with pytest.raises(ConfigError, match="how good"):
        score_events.check_objectives(["train_s"])
    with pytest.raises(ConfigError, match="auc_gb"):
        score_events.check_objectives(["auc"])


def test_scores_see_a_shift():
    rng = stream(2, "test-scores")
    real, same, other = (EventTable.of(rng.normal(size=(1500, 2)) + s) for s in (0, 0, 1))
    names = ["auc_gb", "separation", "fpd"]
    near, far = (score_events.score_objectives(real, made, names, 1, 1) for made in (same, other))
    assert abs(near["auc_gb"].value - 0.5) < 5 * near["auc_gb"].error
    for name in names:
        assert far[name].value > near[name].value + 5 * far[name].error


def test_a_perfect_conditional_generator_is_not_told_from_weighted_events():
    """Two classes, one with weight 9: x is drawn from the truth at the conditions handed out."""
    rng = stream(3, "test-weighted-conditions")
    cond = (np.arange(1500) % 2)[:, None].astype(float)
    weight = np.where(cond[:, 0] > 0, 9.0, 1.0)
    real = EventTable.of(rng.normal(size=(1500, 1)) + 2.0 * cond, cond=cond, weight=weight)

    class Truth:
        def sample_blocks(self, n, *, seed, cond):
            x = rng.normal(size=(n, 1)) + 2.0 * cond.x
            yield EventTable.of(x, cond=cond.x)

    made = score_events.generate_like(Truth(), real, 1).table
    np.testing.assert_array_equal(made.weight, np.tile(weight, score_events.PER_REAL))
    found = score_events.score_objectives(real, made, ["auc_gb", "separation"], 1, 1)
    assert abs(found["auc_gb"].value - 0.5) < 5 * found["auc_gb"].error
    sizes = [effective_size(part.weight) for part in (real, made)]
    floor = 25.0 * 49 * sum(1.0 / size for size in sizes)  # of noise alone, in 50 bins
    assert abs(found["separation"].value - floor) < 5 * found["separation"].error
    plain = score_events.generate_like(Truth(), EventTable.of(real.x, cond=cond), 1).table
    assert plain.weight is None


def test_what_is_loaded_once_is_no_cost_of_an_event():
    class Loads:
        loaded = False

        def sample_blocks(self, n, *, seed, cond):
            start = time.process_time()
            while not self.loaded and time.process_time() < start + 0.2:
                pass
            self.loaded = True
            yield EventTable.of(np.zeros((n, 1)))

    made = score_events.generate_like(Loads(), EventTable.of(np.zeros((50, 1))), 1)
    assert made.table.n == score_events.PER_REAL * 50
    assert made.us_per_event < 1e6 * 0.2 / (score_events.PER_REAL * 50) / 4


# ---- giving up


@pytest.fixture
def make(tmp_path):
    def make(name="run", **settings) -> RunDirectory:
        fields = {
            f: getattr(BASE, f)
            for f in ModelConfig.__dataclass_fields__
            if f not in ("executor", "random_state")
        }
        config = ModelConfig(**{**fields, "random_state": 1, **settings})
        directory = RunDirectory(tmp_path / name)
        make_plan(Inputs(table(), config, 1), directory)
        return directory

    return make


def test_loss_without_trees_is_that_of_the_closed_form(make):
    """A tree that learns nothing adds the mean of what is left, which is next to nothing."""
    directory = make(booster={"n_estimators": 1, "learning_rate": 1e-9, "early_stopping_rounds": 0})
    loss = HeldOutLoss(directory, table(500), None, 1)
    run_task(directory.path, 1)
    assert loss(1) == pytest.approx(1.0, abs=2e-3)


def test_a_closed_form_that_misses_the_clumps_has_the_larger_loss(make):
    good, plain = make("good", preconditioner="mixture"), make("plain", preconditioner="none")
    closed_form = good.read("preconditioner.npz")
    losses = []
    for directory in (good, plain):
        run_task(directory.path, 2)
        losses.append(HeldOutLoss(directory, table(500), closed_form, 1)(2))
    assert losses[1] > losses[0] + 0.02


def test_steps_that_tell_most_come_first():
    assert sorted(order(8)) == list(range(8))
    assert order(8)[:3] == [4, 6, 7]
    assert order(1) == [0]


def test_a_trial_that_is_plainly_worse_dies_after_a_few_steps(make):
    directory = make(n_steps=8)
    limits = Limits(((0.0, 0.9), (1.0, 0.9)), 0.02, None)
    raced = race(directory, table(300), None, limits, seed=1, n_threads=1)
    assert "held-out loss" in raced.stopped
    assert len(raced.losses) == 2
    kind = Limits(((0.0, 0.9), (1.0, 0.9)), 0.5, None)
    raced = race(directory, table(300), None, kind, seed=1, n_threads=1)
    assert raced.stopped is None
    assert len(raced.losses) == 8


def test_a_trial_that_costs_too_much_dies(make):
    raced = race(make(), table(300), None, Limits((), 0.02, 1e-6), seed=1, n_threads=1)
    assert re.search(r"more than 1e-06", raced.stopped)


# ---- the choice


def report(value, cost, error=0.01):
    score = {"auc_gb": {"value": value, "error": error}}
    return {"scores": score, "costs": {"train_s": cost}, "values": [value, cost]}


def test_the_front_is_what_no_other_beats():
    assert finish_study.front({0: [1, 5], 1: [2, 2], 2: [3, 3], 3: [5, 1], 4: [1, 6]}) == [0, 1, 3]


def test_the_cheapest_of_those_as_good_as_the_best_wins():
    reports = {0: report(0.53, 50), 1: report(0.532, 20), 2: report(0.60, 1), 3: report(0.528, 70)}
    names = ["auc_gb", "train_s"]
    assert finish_study.finalists(reports, names) == [0, 1, 3]  # 2 is far worse
    finals = {i: reports[i] for i in (0, 1, 3)}
    assert finish_study.winner(finals, reports, names) == 1
    finals[1] = report(0.58, 20)  # the events nobody looked at say otherwise
    assert finish_study.winner(finals, reports, names) == 0


def test_nobody_wins_who_pleases_one_judge_only():
    reports = {0: report(0.53, 50), 1: report(0.53, 20)}
    names = ["auc_gb", "train_s"]
    finals = {0: {**reports[0], "second": {"value": 0.52, "error": 0.01}}}
    finals[1] = {**reports[1], "second": {"value": 0.57, "error": 0.01}}
    assert finish_study.winner(finals, reports, names) == 0
    finals[1]["second"]["value"] = 0.525
    assert finish_study.winner(finals, reports, names) == 1


def test_cheap_trials_that_please_one_judge_only_do_not_crowd_out_the_others():
    costs = {0: 50, 1: 5, 2: 6, 3: 7, 4: 8, 5: 20, 6: 30, 7: 90}
    reports = {i: report(0.53, cost) for i, cost in costs.items()}
    names, asked = ["auc_gb", "train_s"], []

    def second(number):
        asked.extend([number] if number not in asked else [])
        return {"value": 0.57 if number in (1, 2, 3, 4) else 0.52, "error": 0.01}

    assert finish_study.finalists(reports, names, second) == [0, 5, 6, 7]
    assert asked == [0, 1, 2, 3, 4, 5, 6, 7]  # the start, then the cheapest first
    reports |= {i: report(0.53, i) for i in range(8, 40)}
    asked.clear()
    finish_study.finalists(reports, names, second)
    assert len(asked) <= finish_study.MOST_LOOKS + 1  # and the start


def test_two_scores_of_equal_errors_average():
    value, error = finish_study.mean_score(
        {"value": 1.0, "error": 0.2}, {"value": 2.0, "error": 0.2}
    )
    assert value == pytest.approx(1.5)
    assert error == pytest.approx(0.2 / np.sqrt(2))
