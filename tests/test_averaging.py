"""Targets averaged over candidates: the exact posterior mean, with less variance."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import PLAIN

from flowbdt.config import ModelConfig
from flowbdt.tables.event_table import EventTable
from flowbdt.training import run_directory
from flowbdt.training.pair_variants import mean_end_point
from flowbdt.training.plan import Inputs, make_plan
from flowbdt.training.run_directory import RunDirectory
from flowbdt.training.train_step import training_pairs


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def brute_force(x_t, x1, others, weights, a, b):
    """The same by the formula, row by row, in float64."""
    result = []
    for i in range(len(x_t)):
        points = np.vstack([x1[i : i + 1], others])
        share = np.exp(-((x_t[i] - a * points) ** 2).sum(1) / (2 * b * b))
        if weights is not None:
            share *= np.r_[weights[0][i], weights[1]]
        result.append(share @ points / share.sum())
    return np.array(result)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scales", [(0.0, 1.0), (0.5, 0.5), (0.9, 0.1)])
def test_mean_end_point_is_the_posterior_mean(scales, weighted):
    x1, others = normal((700, 3)), normal((50, 3), 1)
    x_t = scales[0] * x1 + scales[1] * normal((700, 3), 2)
    weights = None
    if weighted:
        weights = (np.abs(normal(700, 3)) + 0.1, np.abs(normal(50, 4)) + 0.1)
    found = mean_end_point(x_t, x1, others, weights, scales)
    assert np.allclose(found, brute_force(x_t, x1, others, weights, *scales), atol=2e-4)


def test_far_points_and_small_spread_stay_finite():
    x1 = normal((20, 2))
    found = mean_end_point(100 + x1, x1, normal((30, 2), 1), None, (1.0, 1e-4))
    assert np.isfinite(found).all()


def planned(folder, table, **settings):
    noise = {**PLAIN["noise"], "n_repeats": 4, "candidates": 500, **settings.pop("noise", {})}
    config = {**PLAIN, "n_steps": 4, **settings, "noise": noise}
    run = RunDirectory(folder)
    make_plan(Inputs(table, ModelConfig(**config), 1), run)
    return run


def targets(run, step=2):
    train, valid = training_pairs(run, run.read_json(run_directory.task_name(step)))
    return [np.concatenate([b.target for b in source]) for source in (train, valid)]


def test_averaged_targets_have_less_variance_and_the_same_mean(tmp_path):
    table = EventTable.of(normal((4000, 2)))
    single, _ = targets(planned(tmp_path / "single", table, noise={"candidates": 0}))
    averaged, _ = targets(planned(tmp_path / "averaged", table))
    assert averaged.var() < 0.3 * single.var()
    error = np.sqrt(single.var() / len(single))
    assert np.abs(averaged.mean(0) - single.mean(0)).max() < 5 * error


def test_validation_keeps_single_events(tmp_path):
    table = EventTable.of(normal((1000, 2)))
    _, single = targets(planned(tmp_path / "single", table, noise={"candidates": 0}))
    _, averaged = targets(planned(tmp_path / "averaged", table))
    assert np.array_equal(single, averaged)


@pytest.mark.parametrize(
    "settings", [{"coupling": "minibatch_ot"}, {"path": {"name": "linear", "sigma": 0.1}}]
)
def test_averaging_is_left_out_where_it_would_be_wrong(tmp_path, settings):
    run = planned(tmp_path / "run", EventTable.of(normal((300, 2))), **settings)
    assert run.read_json(run_directory.task_name(0))["noise"]["candidates"] == 0


def test_averaging_is_left_out_with_conditions(tmp_path):
    table = EventTable.of(normal((300, 2)), cond=normal(300))
    run = planned(tmp_path / "run", table)
    assert run.read_json(run_directory.task_name(0))["noise"]["candidates"] == 0


def test_the_last_moment_has_one_candidate_only(tmp_path):
    """At t = 1 the point is the event itself."""
    table = EventTable.of(normal((300, 2)))
    run = planned(tmp_path / "run", table, solver="heun")
    task = run.read_json(run_directory.task_name(4))
    assert task["time"] == 1.0
    train, _ = training_pairs(run, task)
    for batch in train:
        assert np.allclose(batch.inputs, batch.target, atol=1e-5)
