"""The configuration is strict: names, types and overrides are checked."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import yaml

from flowbdt.config import BOOSTER_DEFAULTS, PRESETS, ModelConfig, RunConfig, present_settings
from flowbdt.errors import ConfigError
from flowbdt.model import FlowBDT


def test_estimator_parameters_are_the_model_configuration():
    fields = [f.name for f in dataclasses.fields(ModelConfig) if f.name != "card"]  # of fit
    parameters = list(inspect.signature(FlowBDT.__init__).parameters)[1:]
    assert sorted(parameters) == sorted([*fields, "density"])  # learned beside the run


def test_estimator_defaults_are_the_configuration_defaults():
    model, config = FlowBDT().get_params(), dataclasses.asdict(ModelConfig())
    del config["card"]
    for name, value in config.items():
        given = list(model[name]) if isinstance(model[name], tuple) else model[name]
        assert given == value or not (given or value), name


def test_unknown_setting_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'n_step'.*n_steps"):
        RunConfig.from_mapping({"n_step": 3})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_steps", "many"),
        ("n_steps", 2.5),
        ("n_steps", True),
        ("relations", "a = b"),
        ("booster", 3),
    ],
)
def test_wrong_type_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        RunConfig.from_mapping({name: value})


def test_overrides_reach_nested_settings():
    config = RunConfig().with_overrides(
        ["n_steps=8", "booster.max_depth=3", "path.sigma=0.1", "relations=['a = b / c']"]
    )
    assert config.n_steps == 8
    assert config.booster == {"max_depth": 3}
    assert config.path == {"name": "linear", "sigma": 0.1}
    assert config.relations == ["a = b / c"]


def test_exponents_without_a_point_are_numbers():
    assert RunConfig().with_overrides(["validation_fraction=2e-1"]).validation_fraction == 0.2


@pytest.mark.parametrize("text", ["n_steps", "=3", "nsteps=3", "n_steps.a=3"])
def test_bad_overrides_are_refused(text):
    with pytest.raises(ConfigError):
        RunConfig().with_overrides([text])


def test_yaml_round_trip_is_complete(tmp_path):
    config = RunConfig(n_steps=5, booster={"max_depth": 3}, conditions=["pt"], random_state=4)
    file = tmp_path / "c.yaml"
    file.write_text(config.to_yaml())
    written = yaml.safe_load(file.read_text())
    assert set(written) == {f.name for f in dataclasses.fields(RunConfig)} | {"format"}
    again = RunConfig.from_yaml(file)
    assert again == config


def test_broken_yaml_names_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("a: [")
    with pytest.raises(ConfigError, match="c.yaml"):
        RunConfig.from_yaml(file)


def test_aliases_replace_defaults_instead_of_standing_beside_them():
    parameters = ModelConfig(booster={"eta": 0.3, "lambda": 2}).resolved().booster
    assert parameters["learning_rate"] == 0.3
    assert parameters["reg_lambda"] == 2
    assert set(parameters) == set(BOOSTER_DEFAULTS)


def test_two_names_for_one_parameter_are_refused():
    with pytest.raises(ConfigError, match="two names"):
        ModelConfig(booster={"eta": 0.3, "learning_rate": 0.2}).resolved()


def test_what_is_given_wins_over_the_preset():
    fast = ModelConfig(preset="fast").resolved()
    assert (fast.n_steps, fast.noise["name"]) == (8, "fresh")
    mine = ModelConfig(preset="fast", n_steps=5, booster={"max_depth": 3}).resolved()
    assert (mine.n_steps, mine.noise["name"]) == (5, "fresh")
    assert mine.booster["max_depth"] == 3
    assert mine.booster["n_estimators"] == fast.booster["n_estimators"]


def test_many_rows_have_deeper_trees_split_on_some_outputs_and_rarer_noise():
    few, many = (ModelConfig().resolved(n, 12) for n in (25_000, 10**6))
    assert few.booster["split_outputs"] == 0
    assert 0 < many.booster["split_outputs"] < 12
    assert few.booster["max_depth"] < many.booster["max_depth"]
    assert few.noise["refresh"] < many.noise["refresh"]
    own = {"max_depth": 3, "split_outputs": 2}
    mine = ModelConfig(booster=own, noise={"name": "fresh", "refresh": 5}).resolved(10**6, 12)
    assert {name: mine.booster[name] for name in own} == own
    assert mine.noise["refresh"] == 5


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("size", [(1_000, 2), (25_000, 12), (1_000_000, 600)])
def test_presets_leave_nothing_open_at_any_size(preset, size):
    config = ModelConfig(preset=preset, particles={}).resolved(*size)
    open_fields = [k for k, v in dataclasses.asdict(config).items() if v is None]
    assert open_fields == ["random_state"]
    assert config.resolved(*size) == config
    assert config.booster["max_bin"] <= 32


def test_unknown_preset_lists_the_known():
    with pytest.raises(ConfigError, match="balanced, fast"):
        ModelConfig(preset="quick").resolved()


def test_digest_ignores_executor_and_column_choice():
    plain = ModelConfig(executor="serial", preset="fast").digestible()
    assert plain == RunConfig(executor="joblib", columns=["a"]).digestible()
    assert plain != ModelConfig(n_steps=3).digestible()


OLD = {"n_repeats": 3, "noise": "fresh", "refresh": 4, "candidates": 0, "target": "mean"}
NEW = {"name": "fresh", "n_repeats": 3, "refresh": 4, "candidates": 0, "target": "mean"}


def test_stored_settings_of_older_formats_come_under_their_present_names():
    stored = {"preset": "best", "n_steps": 5, **OLD}
    assert present_settings(stored) == {"preset": "balanced", "n_steps": 5, "noise": NEW}
    assert present_settings({"n_steps": 5, "noise": NEW}) == {"n_steps": 5, "noise": NEW}


def test_a_file_of_format_1_may_have_the_older_settings(tmp_path):
    text = yaml.safe_dump({"n_steps": 5, **OLD})
    (tmp_path / "old.yaml").write_text(f"format: 1\n{text}")
    assert RunConfig.from_yaml(tmp_path / "old.yaml") == RunConfig(n_steps=5, noise=NEW)
    (tmp_path / "new.yaml").write_text(text)
    with pytest.raises(ConfigError, match="unknown setting 'candidates'"):
        RunConfig.from_yaml(tmp_path / "new.yaml")


def test_a_name_is_enough_for_the_noise():
    assert ModelConfig(noise="fresh") == ModelConfig(noise={"name": "fresh"})
    settled = RunConfig().with_overrides(["preset=fast", "noise.n_repeats=3"]).resolved()
    assert settled.noise["name"] == "fresh"
    assert settled.noise["n_repeats"] == 3


def test_the_removed_preset_names_what_does_as_well():
    with pytest.raises(ConfigError, match=r"'balanced' does as well.*balanced, fast"):
        ModelConfig(preset="best").resolved()


def test_times_by_themselves_say_how_many_steps_there_are():
    assert ModelConfig(spacing=[0.0, 0.3, 1.0]).resolved().n_steps is None
