"""Settings are checked against types, and errors say what was expected and what came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import pytest

from flowbdt.errors import ConfigError
from flowbdt.training.executors import EXECUTORS, Joblib
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
        (lambda: check_parameters({"n_estimators": 0}), "'n_estimators' must be a whole number"),
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
