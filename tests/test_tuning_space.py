"""Parameters of a search: limits by the size of the table, the start, limits of the user."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from tuning_cases import BASE, table, tune

from flowbdt.config import RunConfig
from flowbdt.errors import ConfigError
from flowbdt.seeding import stream
from flowbdt.training.plan import check_config
from flowbdt.tuning import search_space
from flowbdt.tuning.trial import trial_config


@pytest.mark.parametrize(
    ("rows", "columns"), [(500, 3), (25_000, 12), (1_000_000, 12), (5_000, 99)]
)
def test_every_corner_of_a_space_is_a_valid_configuration(rows, columns):
    known = search_space.model_space(RunConfig(), rows, columns)
    rng = stream(0, "test-corners")
    for _ in range(20):
        params = {}
        for name, p in known.items():
            ends = list(p.options) if isinstance(p, search_space.Choice) else [p.low, p.high]
            params[name] = ends[int(rng.integers(len(ends)))]
        check_config(search_space.config_of(params, known, RunConfig(), rows, columns))


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_the_start_of_a_space_is_what_was_given(preset):
    base = RunConfig(preset=preset, booster={"subsample": 0.7})
    known = search_space.model_space(base, 25_000, 12)
    found = search_space.config_of(search_space.defaults(known), known, base, 25_000, 12)
    assert found.resolved(25_000, 12).digestible() == base.resolved(25_000, 12).digestible()


def test_what_a_space_does_not_know_stays_an_option():
    base = RunConfig(
        spacing=[0.0, 0.3, 1.0],
        transforms={"a": "log"},
        preconditioner={"name": "mixture", "n_components": 33},
    )
    known = search_space.model_space(base, 25_000, 12)
    found = search_space.config_of(search_space.defaults(known), known, base, 25_000, 12)
    assert (found.spacing, found.transforms) == (base.spacing, base.transforms)
    assert found.preconditioner == base.preconditioner
    assert "n_steps" not in known  # it belongs to the list of boundaries


def test_large_and_wide_tables_have_other_limits():
    small, large, wide = (
        search_space.model_space(RunConfig(), *size)
        for size in ((1_000, 5), (10**6, 5), (10**4, 200))
    )
    assert small["max_depth"].high < large["max_depth"].high
    assert small["n_estimators"].high < large["n_estimators"].high
    assert wide["max_depth"].high <= 4
    assert "outputs_per_group" in wide


def test_first_tries_begin_with_the_start_and_stay_within_the_space():
    known = search_space.model_space(RunConfig(), 25_000, 12)
    tries = search_space.first_tries(known)
    assert tries[0] == search_space.defaults(known)
    assert len(tries) >= 4
    for params in tries:
        for name, value in params.items():
            p = known[name]
            inside = (
                value in p.options
                if isinstance(p, search_space.Choice)
                else p.low <= value <= p.high
            )
            assert inside, (name, value)


def test_limits_narrow_the_space():
    known = search_space.model_space(RunConfig(), 25_000, 12)
    found = search_space.narrowed(known, {"max_depth": [2, 4], "n_steps": 8, "noise": "fresh"})
    assert (found["max_depth"].low, found["max_depth"].high) == (2, 4)
    assert (found["n_steps"].low, found["n_steps"].high) == (8, 8)
    assert list(found["noise"].options) == ["fresh"]
    with pytest.raises(ConfigError, match="max_depth"):
        search_space.narrowed(known, {"max_deep": 3})
    with pytest.raises(ConfigError, match="repeats"):
        search_space.narrowed(known, {"noise": "loud"})
    with pytest.raises(ConfigError, match=r"\[low, high\]"):
        search_space.narrowed(known, {"max_depth": "deep"})


@pytest.mark.parametrize(("limit", "message"), [
    ({"learning_rate": [0, 0.5]}, "above 0"),
    ({"reg_lambda": -1}, "above 0"),
    ({"max_depth": [2, 4.5]}, "whole"),
    ({"n_estimators": [0, 10]}, "at least 1"),
    ({"n_steps": {"low": 0, "high": 4}}, "at least 1"),
    ({"learning_rate": [0.1, float("inf")]}, "at most"),
    ({"noise": []}, "one or more"),
])  # fmt: skip
def test_limits_that_cannot_be_searched_leave_nothing_behind(tmp_path, limit, message):
    with pytest.raises(ConfigError, match=message):
        tune(table(), tmp_path / "s", base=BASE, n_trials=1, search=limit)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["reg_lambda", "learning_rate"])
def test_what_is_zero_at_the_start_stays_zero(name):
    """The first trial is the start, which no search by factors holds."""
    base = RunConfig(booster={name: 0.0})
    known = search_space.model_space(base, 25_000, 12)
    assert name not in known
    assert (
        search_space.config_of(search_space.defaults(known), known, base, 25_000, 12).booster[name]
        == 0.0
    )
    with pytest.raises(ConfigError, match="not searched from this start"):
        search_space.narrowed(known, {name: [0.1, 0.2]})


def test_spaces_survive_json():
    known = search_space.model_space(RunConfig(), 25_000, 12)
    content = json.loads(json.dumps({name: asdict(p) for name, p in known.items()}))
    assert search_space.from_json(content) == known


def test_gaussians_that_were_chosen_grow_with_the_events_of_a_refit():
    """As a number chosen by held-out likelihood does; one that the user gave stays."""
    start = RunConfig(preset="fast")
    known = search_space.model_space(start, 10_000, 4, 0)
    setup = {
        "base": asdict(start),
        "space": {name: asdict(parameter) for name, parameter in known.items()},
        "table": {"names": list("abcd")},
        "n_fit": 10_000,
    }

    def gaussians(params, n_rows):
        chosen = trial_config(setup, params, n_rows).preconditioner
        return chosen["n_components"] if isinstance(chosen, dict) else chosen

    params = {**search_space.defaults(known), "closed_form": "mixture of 40"}
    assert gaussians(params, 10_000) == 40
    assert gaussians(params, 16_700) == 67
    assert gaussians({**params, "closed_form": "mixture"}, 16_700) == "mixture"
    setup["base"] = asdict(replace(start, preconditioner={"name": "mixture", "n_components": 30}))
    setup["space"].pop("closed_form")
    del params["closed_form"]
    assert gaussians(params, 16_700) == 30
