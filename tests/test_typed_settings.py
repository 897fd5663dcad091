"""Settings are checked against types, and errors say what was expected and what came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest

from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError
from flowbdt.training.executors import EXECUTORS, Joblib
from flowbdt.training.expected_cost import estimate
from flowbdt.training.plan import check_config
from flowbdt.trees.boosted_trees import check_parameters
from flowbdt.trees.share_distribution import DistributionSettings
from flowbdt.typed_settings import AtLeastOne, check_settings, check_value


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("many", AtLeastOne | None, "a whole number or null, got 'many'"),
        (0, AtLeastOne | None, "a whole number of at least 1, got 0"),
        (True, int, "a whole number, got True"),
        (2.5, int, "a whole number, got 2.5"),
        ("1", float, "a number, got '1'"),
        (0.0, Annotated[float, msgspec.Meta(gt=0)], "a number above 0.0, got 0.0"),
        (["a", 3], list[str], r"text at \[1\], got \['a', 3\]"),
        (3, str | dict[str, Any] | list[float], "text or a mapping or a list, got 3"),
        ("frsh", Literal["repeats", "fresh"], "Did you mean 'fresh'.*Known: fresh, repeats"),
    ],
)
def test_errors_say_what_was_expected_and_what_came(value, kind, message):
    with pytest.raises(ConfigError, match=f"setting 'x'.*{message}"):
        check_value(value, kind, "setting 'x'")


def test_a_whole_number_may_become_a_float_and_nothing_else_changes():
    assert repr(check_value(2, float, "x")) == "2.0"
    assert check_value(None, AtLeastOne | None, "x") is None
    assert check_value({"name": "a", "b": [1]}, str | dict[str, Any], "x") == {
        "name": "a",
        "b": [1],
    }


def test_unknown_names_come_with_the_nearest_known_one():
    @dataclass
    class Owner:
        depth: int = 3

    assert check_settings({"depth": 4}, Owner) == {"depth": 4}
    with pytest.raises(ConfigError, match=r"unknown setting 'dept'\. Did you mean 'depth'"):
        check_settings({"dept": 4}, Owner)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: EXECUTORS.build({"name": "serial", "n_threads": "two"}),
            "'n_threads'.*whole number",
        ),
        (
            lambda: Joblib(n_jobs=0),
            "executor setting 'n_jobs' must be a whole number of at least 1",
        ),
        (lambda: check_parameters({"n_estimators": -1}), "'n_estimators' must be a whole number"),
        (
            lambda: DistributionSettings.of({"knots": 1}),
            "'knots' must be a whole number of at least 2",
        ),
        (lambda: DistributionSettings.of({"knot": 9}), "Did you mean 'knots'"),
    ],
)
def test_settings_of_every_kind_are_checked_alike(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"learning_rate": float("nan")}, "'learning_rate' must be a number.*got nan"),
        ({"learning_rate": 0}, "'learning_rate' must be a number.*got 0"),
        ({"learning_rate": 2.5}, "'learning_rate' must be a number below 2"),
        ({"learning_rate": "0.1"}, "'learning_rate' must be a number, got '0.1'"),
        ({"max_leaves": None}, "'max_leaves' must be a whole number, got None"),
        ({"max_depth": True}, "'max_depth' must be a whole number, got True"),
        ({"max_depth": 10**400}, "'max_depth' must be"),
        ({"subsample": 0.0}, "'subsample' must be a number above 0"),
        ({"reg_lambda": 1e39}, "'reg_lambda' must be a number of at most"),
        ({"base_score": [0.1, 0.2]}, "'base_score' must be a number"),
        ({"grow_policy": "deepwise"}, "Did you mean 'depthwise'"),
        ({"multi_strategy": "one_output_per_leaf"}, "Did you mean 'one_output_per_tree'"),
        ({"booster": "gblinear"}, "Known: dart, gbtree"),
        ({"monotone_constraints": (1, 0)}, "'monotone_constraints' out: trees see points"),
        ({"monotone_constraints": "(1,0)"}, "'monotone_constraints' out"),
        ({"interaction_constraints": [["a", "b"]]}, "'interaction_constraints' out"),
        ({"objective": "reg:gamma"}, "'objective' is fixed to 'reg:squarederror'"),
        ({"n_jobs": 2}, "'n_jobs' out: the executor decides"),
        ({"max_deph": 3}, "unknown booster parameter 'max_deph'. Did you mean 'max_depth'"),
        ({"missing": 0}, "unknown booster parameter 'missing'"),
        ({"rate_drop": 0.1}, "XGBoost does not use 'rate_drop'"),
        (
            {"booster": "dart", "multi_strategy": "multi_output_tree"},
            "refuses these booster parameters together.*dart support",
        ),
    ],
)
def test_booster_parameters_are_checked_before_any_work(parameters, message):
    with pytest.raises(ConfigError, match=message):
        check_config(ModelConfig(booster=parameters))
    if "multi_strategy" not in parameters:
        with pytest.raises(ConfigError, match=message):
            check_parameters(parameters)


def test_good_booster_parameters_of_every_kind_pass():
    check_parameters({"learning_rate": 1, "max_depth": np.int64(0), "grow_policy": "lossguide"})
    single = {"multi_strategy": "one_output_per_tree"}
    check_parameters({**single, "booster": "dart", "rate_drop": 0.1, "one_drop": True})
    check_parameters({**single, "subsample": 0.5, "num_parallel_tree": 2, "base_score": 0.5})


def test_unlimited_depth_costs_as_much_as_its_leaves():
    booster = {"n_estimators": 10, "multi_strategy": "multi_output_tree", "max_bin": 64}
    cost = {k: estimate({**booster, **more}, 1000, 5, 5).cpu_seconds for k, more in DEPTHS.items()}
    assert cost["shallow"] < cost["leaves"] < cost["none"]
    assert cost["none"] == pytest.approx(cost["deep"], rel=0.1)


DEPTHS = {
    "shallow": {"max_depth": 3},
    "leaves": {"max_depth": 0, "max_leaves": 64, "grow_policy": "lossguide"},
    "none": {"max_depth": 0},
    "deep": {"max_depth": 10},
}
