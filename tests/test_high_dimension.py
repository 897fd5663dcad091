"""Cheap trees in high dimension: splits sought on a few outputs, and output groups."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import xgboost as xgb

from flowbdt.config import MANY_COLUMNS, ModelConfig
from flowbdt.errors import ConfigError, FormatError
from flowbdt.generation.fit_run import fit_run
from flowbdt.tables.event_table import EventTable
from flowbdt.training.plan import Inputs, make_plan
from flowbdt.training.run_directory import RunDirectory
from flowbdt.training.train_step import run_task
from flowbdt.trees.base import Batch
from flowbdt.trees.boosted_trees import BoostedTrees, check_parameters
from flowbdt.trees.grow_trees import ranges

PARAMETERS = {
    "n_estimators": 12,
    "max_depth": 3,
    "learning_rate": 0.3,
    "max_bin": 32,
    "multi_strategy": "multi_output_tree",
}


class Rows:
    """Rows in batches of 200; another draw has other targets."""

    def __init__(self, x, y, weight=None):
        self.x, self.y, self.weight = x.astype("f4"), y.astype("f4"), weight
        self.n_rows, self.n_outputs = y.shape

    def __iter__(self):
        for low in range(0, self.n_rows, 200):
            rows = slice(low, low + 200)
            weight = None if self.weight is None else self.weight[rows].astype("f4")
            yield Batch(self.x[rows], self.y[rows], weight)

    def redrawn(self, draw):
        noise = np.random.default_rng([5, draw]).normal(size=self.y.shape)
        return Rows(self.x, self.y + 0.1 * noise, self.weight)


def data(n=600, outputs=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, outputs))
    y = np.sin(2 * x) + 0.5 * np.roll(x, 1, axis=1) + 0.2 * rng.normal(size=x.shape)
    return x, y, rng.uniform(0.5, 2, n)


def fitted(x, y, weight=None, valid=None, refresh=0, threads=1, **changes):
    model = BoostedTrees({**PARAMETERS, **changes})
    return model.fit(Rows(x, y, weight), valid, seed=4, n_threads=threads, refresh=refresh)


def trees_of(content):
    """Return the trees of a single booster as XGBoost stores them."""
    booster = xgb.Booster(model_file=bytearray(content))
    return json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]


def test_equal_outputs_have_the_splits_of_full_gradients():
    """Any one of equal outputs says the same about a split as all of them."""
    x, y, weight = data()
    y = np.repeat(y[:, :1], 6, axis=1)
    full, one = (fitted(x, y, weight, split_outputs=k) for k in (0, 1))
    for a, b in zip(trees_of(full.to_bytes()), trees_of(one.to_bytes()), strict=True):
        assert a["split_indices"] == b["split_indices"]
        assert a["split_conditions"] == pytest.approx(b["split_conditions"], abs=1e-5)
    points = x.astype("f4")
    assert np.allclose(full.predict(points), one.predict(points), atol=2e-6)


@pytest.mark.parametrize("k", [6, 7])
def test_splitting_on_all_outputs_is_the_full_gradient(k):
    x, y, _ = data()
    assert fitted(x, y, split_outputs=k).to_bytes() == fitted(x, y).to_bytes()


def test_leaf_values_come_from_the_gradient_of_all_outputs():
    """One tree of rate 1: mean + sum of weighted residuals / (weight + lambda), in every leaf."""
    x, y, weight = data()
    model = fitted(x, y, weight, split_outputs=1, n_estimators=1, learning_rate=1.0)
    points = x.astype("f4")
    booster = xgb.Booster(model_file=bytearray(model.to_bytes()))
    leaf = booster.predict(xgb.DMatrix(points), pred_leaf=True).reshape(len(x), -1)[:, 0]
    mean = np.average(y, axis=0, weights=weight)
    assert len(np.unique(leaf)) > 4
    for node in np.unique(leaf):
        inside = leaf == node
        value = weight[inside] @ (y[inside] - mean) / (weight[inside].sum() + 1.0)
        assert np.allclose(model.predict(points[inside]) - mean, value, atol=1e-5)


def test_every_tree_draws_its_outputs_anew():
    x, y, _ = data(2000)
    y = y.copy()
    y[:, 1:] = np.sin(2 * x[:, 1:])  # output j depends on input j only
    model = fitted(x, y, split_outputs=1, n_estimators=40, max_depth=1)
    roots = {tree["split_indices"][0] for tree in trees_of(model.to_bytes())}
    assert roots == set(range(6))


@pytest.mark.parametrize("refresh", [0, 3])
def test_bytes_do_not_depend_on_threads(refresh):
    x, y, weight = data()
    changes = {"outputs_per_group": 3, "split_outputs": 2, "subsample": 0.7}
    one, two = (fitted(x, y, weight, refresh=refresh, threads=t, **changes) for t in (1, 2))
    assert one.to_bytes() == two.to_bytes()


@pytest.mark.parametrize("refresh", [0, 3])
def test_groups_are_boosters_of_their_own(refresh):
    """A group learns what a booster of its outputs alone would, also when noise is redrawn."""
    x, y, weight = data()
    whole = fitted(x, y, weight, refresh=refresh, outputs_per_group=2)

    class Part(Rows):
        def redrawn(self, draw):
            every = Rows(x, y, weight).redrawn(draw)
            return Part(every.x, every.y[:, :2], weight)

    alone = BoostedTrees(PARAMETERS)
    alone.fit(Part(x, y[:, :2], weight), None, seed=4, n_threads=1, refresh=refresh)
    points = x.astype("f4")
    assert np.array_equal(whole.predict(points)[:, :2], alone.predict(points))
    assert whole.summary["draws"] == alone.summary["draws"]


def test_groups_cover_all_outputs_once_in_near_equal_sizes():
    for n, width in [(368, 4), (7, 3), (5, 8), (1, 1), (6, 0)]:
        groups = ranges(n, width)
        assert [j for g in groups for j in range(g.start, g.stop)] == list(range(n))
        sizes = [g.stop - g.start for g in groups]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= (width or n)


def test_each_group_stops_at_its_own_best_round():
    x, y, _ = data()
    y = y.copy()
    y[:, :3] = np.random.default_rng(1).normal(size=(len(y), 3))  # nothing to learn
    held_x, held_y, _ = data(seed=1)
    held_y[:, :3] = np.random.default_rng(2).normal(size=(len(held_y), 3))
    changes = {"n_estimators": 60, "early_stopping_rounds": 5, "outputs_per_group": 3}
    model = fitted(x, y, valid=Rows(held_x, held_y), **changes)
    nothing, something = (b.num_boosted_rounds() for b in model._boosters)
    assert nothing < 10 < something
    residual = model.predict(held_x.astype("f4")) - held_y
    assert model.summary["valid_rmse"] == pytest.approx(np.sqrt(np.mean(residual**2)), rel=1e-5)
    assert model.summary["trees"] == nothing + something


def test_bytes_of_groups_restore_them_and_truncation_is_refused():
    x, y, _ = data()
    model = fitted(x, y, outputs_per_group=2)
    content, points = model.to_bytes(), x.astype("f4")
    again = BoostedTrees.from_bytes(content)
    assert np.array_equal(again.predict(points), model.predict(points))
    assert again.to_bytes() == content
    for cut in (1, 5, 12, len(content) // 2, len(content) - 1):
        with pytest.raises(FormatError):
            BoostedTrees.from_bytes(content[:cut])


@pytest.mark.parametrize("changes", [{"split_outputs": -1}, {"outputs_per_group": 1.5}])
def test_bad_values_are_refused(changes):
    with pytest.raises(ConfigError, match=f"'{next(iter(changes))}' must be a whole number"):
        check_parameters({**PARAMETERS, **changes})


def test_trees_of_one_output_cannot_share_splits():
    with pytest.raises(ConfigError, match="multi_output_tree"):
        check_parameters({"multi_strategy": "one_output_per_tree", "split_outputs": 2})


def test_wide_tables_get_groups_unless_told_otherwise():
    wide = ModelConfig().resolved(5000, MANY_COLUMNS + 1).booster
    assert 0 < wide["outputs_per_group"] < 10
    assert 0 < wide["split_outputs"] < wide["outputs_per_group"]
    assert ModelConfig().resolved(5000, MANY_COLUMNS).booster["outputs_per_group"] == 0
    single = ModelConfig(booster={"multi_strategy": "one_output_per_tree"})
    assert single.resolved(5000, MANY_COLUMNS + 1).booster["split_outputs"] == 0
    mine = ModelConfig(booster={"split_outputs": 3}).resolved(5000, MANY_COLUMNS + 1)
    assert mine.booster["split_outputs"] == 3


@pytest.mark.parametrize("noise", ["repeats", "fresh"])
def test_resume_and_threads_end_in_the_same_bytes(tmp_path, noise):
    x = np.random.default_rng(0).normal(size=(300, 6))
    booster = {"n_estimators": 6, "max_depth": 2, "outputs_per_group": 2, "split_outputs": 1}
    config = ModelConfig(
        n_steps=2, noise={"name": noise, "refresh": 2, "n_repeats": 1}, booster=booster
    )
    inputs, run = Inputs(EventTable.of(x), config, 3), RunDirectory(tmp_path / "run")
    make_plan(inputs, run)
    run_task(run.path, 1, n_threads=2)
    before = run.read("steps/0001.ubj")
    run.file("steps/0001.ubj").write_bytes(before[:50])
    fit_run(inputs, run.path, resume=True)
    assert run.read("steps/0001.ubj") == before


@pytest.mark.demo
@pytest.mark.parametrize("script", ["high_dimension.py", "cost.py"])
def test_benchmarks_have_help(script, request):
    command = [sys.executable, str(request.config.rootpath / "benchmarks" / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout
