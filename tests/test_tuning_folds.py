"""Searches that judge every trial on several folds: who sees what, scores, giving up, resuming."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
from tuning_cases import BASE, table, tune

from flowbdt.errors import ConfigError
from flowbdt.evaluation.metrics import Result
from flowbdt.training.run_directory import RunDirectory
from flowbdt.training.train_step import run_task
from flowbdt.tuning import stop_early
from flowbdt.tuning import trial as trials
from flowbdt.tuning.study import EventShares

SETTINGS = {"base": replace(BASE, rejection=False), "objectives": ["separation"], "folds": 3}


@pytest.fixture(autouse=True)
def no_second_judge(monkeypatch):
    """The networks of the second judge take most of the time, and have nothing to do with folds."""
    from flowbdt.tuning import finish_study

    opinion = {"name": finish_study.SECOND, "value": 0.5, "error": 0.1}
    monkeypatch.setattr(finish_study, "_second_opinion", lambda *_: opinion)


def result(value: float, error: float = 0.1) -> Result:
    return Result("auc_gb", value, error, 100)


@pytest.mark.parametrize(("n", "k"), [(200, 4), (600, 5), (10_001, 7)])
def test_folds_are_disjoint_of_one_size_and_cover_what_trials_see(n, k):
    known = EventShares(n, 3, k)
    held = np.array([known.held(fold) for fold in range(k)])
    np.testing.assert_array_equal(held.sum(axis=0), ~known.guard)
    sizes = held.sum(axis=1)
    assert sizes.max() - sizes.min() <= 1
    for fold in range(k):
        np.testing.assert_array_equal(known.fit(fold), ~known.guard & ~held[fold])


def test_the_guard_is_the_same_with_and_without_folds():
    one, several = EventShares(5_000, 3), EventShares(5_000, 3, 5)
    np.testing.assert_array_equal(one.guard, several.guard)


def test_folds_depend_on_the_seed_and_not_on_the_order_of_rows():
    first, second = (EventShares(2_000, seed, 2).fold_of_row() for seed in (1, 2))
    assert (first != second).mean() > 0.3
    neighbours = np.corrcoef(first[:-1], first[1:])[0, 1]
    assert abs(neighbours) < 5 / math.sqrt(2_000)


@pytest.mark.parametrize(
    ("k", "told"),
    [
        (1, "of at least 2"),
        (0, "of at least 2"),
        (-3, "of at least 2"),
        (True, "a whole number"),
        (2.0, "a whole number"),
        ("5", "a whole number"),
        (50, "take 12 folds or fewer"),
    ],
)
def test_a_bad_number_of_folds_is_told_before_any_work(tmp_path, k, told):
    with pytest.raises(ConfigError, match=told):
        tune(table(), tmp_path / "s", base=BASE, n_trials=1, folds=k)
    assert not (tmp_path / "s").exists()


def test_the_mean_of_equal_scores_has_the_error_of_all_their_events():
    found = stop_early.over_folds([result(0.6, 0.2)] * 4)
    assert (found.value, found.error, found.n) == (pytest.approx(0.6), pytest.approx(0.1), 400)


def test_scores_that_differ_more_than_their_errors_have_the_error_of_their_scatter():
    found = stop_early.over_folds([result(0.5, 0.001), result(0.7, 0.001)])
    assert found.value == pytest.approx(0.6)
    assert found.error == pytest.approx(0.1)  # stdev 0.1414 / sqrt(2)


def test_a_single_score_is_its_own_mean():
    assert stop_early.over_folds([result(0.6)]) == result(0.6)


def test_clearly_worse_is_two_standard_errors_above_the_start_on_the_same_folds():
    start = [result(0.5), result(9.0)]  # the second fold is not compared yet
    error = math.hypot(0.1, 0.1)
    assert stop_early.clearly_worse([result(0.5 + 1.9 * error)], start) is None
    assert "1 of 2 folds" in stop_early.clearly_worse([result(0.5 + 2.1 * error)], start)
    assert stop_early.clearly_worse([result(99.0)], []) is None  # the start itself
    assert stop_early.clearly_worse([result(math.nan)], start) is not None


def test_no_fold_is_fitted_to_an_event_that_judges_it(tmp_path, monkeypatch):
    """Transform, closed form and trees come from the run that is planned: it has other events."""
    planned = []

    def plans(inputs, *arguments, **options):
        planned.append(inputs.table.x)
        return make_plan(inputs, *arguments, **options)

    make_plan = trials.make_plan
    monkeypatch.setattr(trials, "make_plan", plans)
    tune(table(), tmp_path / "s", n_trials=1, **SETTINGS)
    known = EventShares(600, 5, 3)
    assert len(planned) == 3
    for fold, x in enumerate(planned):
        np.testing.assert_array_equal(x, table().x[known.fit(fold)])


def test_events_of_the_first_fold_and_of_the_guard_leave_no_trace_in_its_model(tmp_path):
    plain, known = table(), EventShares(600, 5, 3)
    hidden = (known.held(0) | known.guard)[:, None]
    moved = replace(plain, x=np.where(hidden, 40.0 + plain.x, plain.x))
    models = []
    for name, events in (("a", plain), ("b", moved)):
        tune(events, tmp_path / name, n_trials=1, **SETTINGS)
        models.append(trials.trial_model(RunDirectory(tmp_path / name), 0))
    for name in ("transform.json", "preconditioner.npz", "steps/0000.ubj", "steps/0002.ubj"):
        assert models[0].read(name) == models[1].read(name), name


def test_the_score_is_the_mean_and_the_table_of_trials_lists_every_fold(tmp_path):
    done = tune(table(), tmp_path / "s", n_trials=2, **SETTINGS)
    (row, _) = csv.DictReader((tmp_path / "s/trials.csv").read_text().splitlines())
    single = [float(row[f"separation_fold{fold}"]) for fold in range(3)]
    assert len(set(single)) == 3
    assert float(row["separation"]) == pytest.approx(np.mean(single))
    assert float(row["separation_error"]) >= np.std(single, ddof=1) / math.sqrt(3) * (1 - 1e-9)
    found = done.trials[0]
    train_s = [fold["costs"]["train_s"] for fold in found["folds"]]
    assert found["costs"]["train_s"] == pytest.approx(np.mean(train_s))  # of one model
    assert found["cpu_seconds"] >= sum(train_s)  # a budget counts all of them
    plan = done.run.plan()
    assert plan["n_train"] + plan["n_valid"] == 600


def test_a_trial_that_is_clearly_worse_is_not_trained_on_the_other_folds(tmp_path, monkeypatch):
    monkeypatch.setattr(stop_early, "CLEARLY", -1e3)
    done = tune(table(), tmp_path / "s", n_trials=2, **SETTINGS)
    assert [row["state"] for row in done.trials] == ["complete", "pruned"]
    assert "after 1 of 3 folds separation" in done.trials[1]["reason"]
    assert [len(row["folds"]) for row in done.trials] == [3, 1]
    _, row = csv.DictReader((tmp_path / "s/trials.csv").read_text().splitlines())
    assert row["separation_fold0"] != ""
    assert (row["separation_fold1"], row["separation"]) == ("", "")


def test_steps_of_the_first_fold_end_a_trial(tmp_path, monkeypatch):
    from flowbdt.tuning import tune_settings

    monkeypatch.setattr(tune_settings, "MARGIN", -10.0)
    done = tune(table(), tmp_path / "s", n_trials=2, **SETTINGS)
    assert "after 2 steps the held-out loss" in done.trials[1]["reason"]
    assert (len(done.trials[1]["losses"]), done.trials[1]["folds"]) == (2, [])


def test_a_killed_study_with_folds_loses_nothing_that_finished(tmp_path, monkeypatch):
    """Killed in a step of the second fold of the first trial, and of the third of the second."""
    whole = tune(table(), tmp_path / "whole", n_trials=2, **SETTINGS)
    calls = []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) in (5, 18):
            raise KeyboardInterrupt
        return run_task(*arguments)

    monkeypatch.setattr(stop_early, "run_task", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune(table(), tmp_path / "cut", n_trials=2, resume=True, **SETTINGS)
    (found,) = (tmp_path / "cut/scratch/0001").glob("0.json")
    found.write_text(found.read_text()[:40])  # what is damaged is found once more
    cut = tune(None, tmp_path / "cut", n_trials=2)
    assert [row["state"] for row in cut.trials] == ["complete"] * 2
    for one, other in zip(whole.trials, cut.trials, strict=True):
        assert one["params"] == other["params"]
        assert one["scores"] == other["scores"]
        assert [f["scores"] for f in one["folds"]] == [f["scores"] for f in other["folds"]]
    steps = sum(3 * len(row["losses"]) for row in cut.trials)
    again = len(cut.trials[1]["losses"])  # of the damaged fold
    assert len(calls) == steps + 2 + again  # no other step twice but the two that were killed
    assert not list((tmp_path / "cut/scratch").glob("*"))


def test_another_executor_finds_the_same_on_every_fold(tmp_path):
    settings = {**SETTINGS, "n_trials": 3, "parallel": 2}
    serial = tune(table(), tmp_path / "a", **settings)
    executor = {"name": "joblib", "n_jobs": 2}
    other = tune(table(), tmp_path / "b", executor=executor, **settings)
    for one, two in zip(serial.trials, other.trials, strict=True):
        assert one["scores"] == two["scores"]
        assert [f["scores"] for f in one["folds"]] == [f["scores"] for f in two["folds"]]
    assert serial.winner == other.winner
