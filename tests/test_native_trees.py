"""Trees in the compiled core: each sum has the bits of XGBoost."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost as xgb

from flowbdt.errors import ConfigError, FormatError, InputError
from flowbdt.generation.native.engine import native_trees
from flowbdt.trees import ubjson
from flowbdt.trees.density_ratio import DensityRatio
from flowbdt.trees.tree_arrays import DEEPEST, forests


def made_up(n=1500, missing=0.1, n_columns=5, n_outputs=3, seed=0):
    """Inputs, some of them missing or infinite, and targets."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, n_columns)).astype(np.float32)
    y = x @ rng.normal(size=(n_columns, n_outputs)) + 1.5 + rng.normal(size=(n, n_outputs))
    x[rng.random(x.shape) < missing] = np.nan
    x[0, 0], x[1, 0] = np.inf, -np.inf
    return x, y


def boosted(x, y, rounds=10, **settings):
    settings = {"tree_method": "hist", "learning_rate": 0.3, **settings}
    finite = np.where(np.isinf(x), 0.0, x)
    data = xgb.QuantileDMatrix(finite, y, max_bin=settings.get("max_bin", 256))
    return xgb.train(settings, data, rounds)


def compiled_trees(booster):
    return native_trees(*forests(bytes(booster.save_raw("ubj"))))


@pytest.mark.parametrize("strategy", ["multi_output_tree", "one_output_per_tree"])
@pytest.mark.parametrize("depth", [1, 2, 3, 5, 6, 7, 8, 10])
def test_sums_have_the_bits_of_xgboost(strategy, depth):
    x, y = made_up()
    booster = boosted(x, y, multi_strategy=strategy, max_depth=depth)
    assert np.array_equal(compiled_trees(booster).predict(x), booster.inplace_predict(x))


@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("n_outputs", [4, 5, 12, 16, 17, 28])
def test_leaves_of_any_width_are_added_as_by_xgboost(n_outputs, missing):
    x, y = made_up(600, missing, n_outputs=n_outputs)
    trees = boosted(x, y, rounds=5, multi_strategy="multi_output_tree", max_depth=4)
    single = boosted(x, y[:, :3], rounds=5, max_depth=4)
    ours = [compiled_trees(booster).predict(x) for booster in (trees, single)]
    assert np.array_equal(ours[0], trees.inplace_predict(x))
    assert np.array_equal(ours[1], single.inplace_predict(x))


@pytest.mark.parametrize("n", [0, 1, 5, 6, 63, 64, 65, 200])
def test_a_row_has_the_same_bits_among_however_many(n):
    x, y = made_up()
    trees = compiled_trees(boosted(x, y, rounds=7, multi_strategy="multi_output_tree"))
    assert np.array_equal(trees.predict(x[:n]), trees.predict(x)[:n])


@pytest.mark.parametrize(
    ("n_columns", "bins", "depth", "rounds"),
    [(2, 2048, 5, 30), (1, 2048, 10, 2), (40, 64, 5, 9), (150, 16, 4, 9)],
)
def test_thresholds_and_inputs_of_any_number(n_columns, bins, depth, rounds):
    x, y = made_up(1500, n_columns=max(n_columns, 2))
    x = np.ascontiguousarray(x[:, :n_columns])
    settings = {"max_bin": bins, "max_depth": depth}
    booster = boosted(x, y, rounds, multi_strategy="multi_output_tree", **settings)
    trees, expected = compiled_trees(booster), booster.inplace_predict(x)
    assert np.array_equal(trees.predict(x), expected)
    assert np.array_equal(trees.predict(x[:5]), expected[:5])


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_few_trees_and_cut_boosters_are_those_of_xgboost(rounds):
    x, y = made_up()
    booster = boosted(x, y, multi_strategy="multi_output_tree", min_child_weight=300)[:rounds]
    assert np.array_equal(compiled_trees(booster).predict(x), booster.inplace_predict(x))


def test_a_tree_without_a_split_is_a_constant():
    x, y = made_up()
    booster = boosted(x, y, multi_strategy="multi_output_tree", gamma=1e9)
    assert np.array_equal(compiled_trees(booster).predict(x), booster.inplace_predict(x))


@pytest.mark.parametrize("base", [None, 0.3])
def test_margins_of_a_classifier_are_those_of_xgboost(base):
    x, y = made_up()
    more = {} if base is None else {"base_score": base}
    booster = boosted(
        x, y[:, 0] > 1, objective="binary:logistic", num_parallel_tree=4, subsample=0.7, **more
    )
    expected = booster.inplace_predict(x, predict_type="margin")
    assert np.array_equal(compiled_trees(booster).predict(x)[:, 0], expected)


def test_groups_of_outputs_stand_side_by_side():
    x, y = made_up()
    boosters = [boosted(x, y[:, part], max_depth=3) for part in (slice(0, 2), slice(2, 3))]
    content = ubjson.packed([bytes(b.save_raw("ubj")) for b in boosters])
    parts = [b.inplace_predict(x).reshape(len(x), -1) for b in boosters]
    assert np.array_equal(native_trees(*forests(content)).predict(x), np.hstack(parts))


def test_trees_that_are_too_deep_or_of_another_kind_are_named():
    x, y = made_up()
    deep = boosted(x, y[:, 0], rounds=1, max_depth=DEEPEST + 2, min_child_weight=0, reg_lambda=0)
    with pytest.raises(ConfigError, match=f"more than {DEEPEST} decisions"):
        forests(bytes(deep.save_raw("ubj")))
    dart = boosted(x, y[:, 0], rounds=2, booster="dart")
    with pytest.raises(ConfigError, match="gbtree"):
        forests(bytes(dart.save_raw("ubj")))
    counts = boosted(x, np.ones(len(x)), rounds=1, objective="count:poisson")
    with pytest.raises(FormatError, match="objective"):
        forests(bytes(counts.save_raw("ubj")))


@pytest.mark.parametrize("damage", [lambda b: b[:500], lambda b: b"[$", lambda b: b"{i\x01aQ}"])
def test_a_damaged_booster_is_no_forest(damage):
    x, y = made_up(200)
    content = bytes(boosted(x, y, rounds=1).save_raw("ubj"))
    with pytest.raises(FormatError):
        forests(damage(content))


def test_inputs_of_another_width_are_refused():
    x, y = made_up(200)
    with pytest.raises(InputError, match="5 inputs"):
        compiled_trees(boosted(x, y, rounds=1)).predict(x[:, :4])


def test_rejection_decides_as_by_xgboost():
    rng = np.random.default_rng(0)
    real, generated = rng.normal(0.5, 1.0, (3000, 2)), rng.normal(0.0, 1.0, (9000, 2))
    ratio = DensityRatio.fit(real, generated, None, seed=1, n_threads=1)
    x, u = rng.normal(size=(2000, 2)), rng.random(2000)
    expected = ratio.keeps(x, u)
    ratio = ratio.with_trees(native_trees(*forests(ratio.to_bytes())).predict)
    assert np.array_equal(ratio.keeps(x, u), expected)
